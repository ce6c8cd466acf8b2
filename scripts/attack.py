"""Attack a model on the evaluation questions and score the text it generates from the stored 8-bit images."""

import logging
from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from safemed import run
from safemed.data import load_questions, subset
from safemed.evaluation import Exam
from safemed.prompts import OUTCOMES, parse
from safemed.vlm import VLM

log = logging.getLogger(__name__)


def main() -> None:
    """Write a folder with rows.parquet (one row a question and eps), images.npz (clean, eps1, ...) and cost.json."""
    parser = run.evaluation_parser(__doc__)
    parser.add_argument("--attack", required=True, choices=("clean", "fgsm", "pgd"))
    parser.add_argument("--eps", type=int, nargs="+", required=True, help="radii in 8-bit levels; 0 for clean")
    args = parser.parse_args()
    run.start_logging()
    if any((args.attack == "clean") != (eps == 0) for eps in args.eps):
        parser.error(f"attack {args.attack} with eps {args.eps}: clean has eps 0, an attack has eps > 0")
    clock = run.Stopwatch("attack", args.model)
    settings = args.settings
    vlm = VLM.load(args.weights)
    questions = subset(load_questions(args.data, "test"), settings["questions"], args.seed)
    exam = Exam(vlm, questions, args.variant, settings["max_new_tokens"][args.variant])
    rows, images = evaluate(exam, args)
    with run.atomic_folder(args.out) as folder:
        rows.to_parquet(folder / "rows.parquet", index=False)
        np.savez_compressed(folder / "images.npz", clean=exam.images.numpy(), **images)
        clock.write(folder / "cost.json", vlm.passes)


def evaluate(exam: Exam, args) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Rows of all questions and radii, and for each radius the stored images, uint8 [N, H, W, 3]."""
    batches = torch.arange(len(exam)).split(args.settings["batch_size"])
    tables, images = [], {f"eps{eps}": [] for eps in args.eps}
    for done, rows in enumerate(tqdm(batches, desc=args.attack, disable=not run.watched()), 1):
        for eps, stored, steps, texts in sweep(exam, rows, args):
            tables.append(score(exam, rows, stored, steps, texts, eps, args))
            images[f"eps{eps}"].append(stored)
        right = pd.concat(tables).groupby("eps").outcome.agg(lambda outcomes: (outcomes == "right").mean())
        log.info("%d/%d batches, right %s", done, len(batches), right.round(3).to_dict())
    rows = pd.concat(tables, ignore_index=True).sort_values("eps", kind="stable", ignore_index=True)
    return rows, {name: torch.cat(stacks).numpy() for name, stacks in images.items()}


def sweep(exam: Exam, rows: torch.Tensor, args) -> Iterator[tuple[int, torch.Tensor, torch.Tensor, list[str]]]:
    """For each radius, ascending: eps, stored images uint8 [b, H, W, 3], the gradient steps [b] it took, and the texts
    generated from the stored images.

    A question that is wrong on its clean image stays as it is. One whose text is not right keeps the image that it is
    scored on, which is within every larger radius too: only survivors are attacked on.
    """
    stored, steps = exam.images[rows].clone(), torch.zeros(len(rows), dtype=torch.long)
    words = texts = exam.answers(stored, rows)
    if args.attack == "clean":
        yield 0, stored, steps, texts
        return
    plan = args.settings[args.attack]
    for eps in sorted(args.eps):
        steps = torch.zeros_like(steps)
        live = exam.right(texts, rows)
        if live.any():
            kept = [text for text, alive in zip(words, live, strict=True) if alive]
            found = exam.attack(kept, rows[live], eps, plan["steps"], plan["restarts"], args.seed)
            stored = stored.clone()
            stored[live], steps[live] = found.images, found.steps
            texts = exam.answers(stored, rows)
        yield eps, stored, steps, texts


def score(exam: Exam, rows: torch.Tensor, stored: torch.Tensor, steps, texts, eps: int, args) -> pd.DataFrame:
    """One row a question: the outcome of the text generated from its stored image, whose distance is checked."""
    linf = (stored.int() - exam.images[rows].int()).abs().flatten(1).amax(1)  # [b], 8-bit levels
    if int(linf.max()) > eps:
        raise RuntimeError(f"a stored image is {int(linf.max())} levels away from its clean one, eps is {eps}")
    table = pd.DataFrame([exam.about(i, args) for i in rows.tolist()])
    table["attack"], table["eps"] = args.attack, eps
    table["outcome"] = [exam.outcome(text, int(i)) for text, i in zip(texts, rows, strict=True)]
    table["answer"] = [parse(t, n).answer or "" for t, n in zip(texts, table["n_options"], strict=True)]
    table["text"], table["linf"], table["steps"] = texts, linf.numpy(), steps.numpy()
    assert table["outcome"].isin(OUTCOMES).all()
    return table


if __name__ == "__main__":
    main()
