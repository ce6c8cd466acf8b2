"""Attack a model on the evaluation questions and score the text it generates from the stored 8-bit images."""

import logging

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
    """Write a folder with rows.parquet (one row a question), adversarial.npz (images, clean) and cost.json."""
    parser = run.evaluation_parser(__doc__)
    parser.add_argument("--attack", required=True, choices=("clean", "fgsm", "pgd"))
    parser.add_argument("--eps", type=int, required=True, help="radius in 8-bit levels; 0 for clean")
    args = parser.parse_args()
    run.start_logging()
    if (args.attack == "clean") != (args.eps == 0):
        parser.error(f"attack {args.attack} with eps {args.eps}: clean has eps 0, an attack has eps > 0")
    clock = run.Stopwatch("attack", args.model)
    settings = args.settings
    vlm = VLM.load(args.weights)
    questions = subset(load_questions(args.data, "test"), settings["questions"], args.seed)
    exam = Exam(vlm, questions, args.variant, settings["max_new_tokens"][args.variant])
    rows, images = evaluate(exam, args)
    with run.atomic_folder(args.out) as folder:
        rows.to_parquet(folder / "rows.parquet", index=False)
        np.savez_compressed(folder / "adversarial.npz", images=images, clean=exam.images.numpy())
        clock.write(folder / "cost.json", vlm.passes)


def evaluate(exam: Exam, args) -> tuple[pd.DataFrame, np.ndarray]:
    """Rows of all questions, batch by batch, and their stored images, uint8 [N, H, W, 3]."""
    batches = torch.arange(len(exam)).split(args.settings["batch_size"])
    tables, images = [], []
    for done, rows in enumerate(tqdm(batches, desc=f"{args.attack}-eps{args.eps}", disable=not run.watched()), 1):
        stored, steps = attack_batch(exam, rows, args)
        tables.append(score(exam, rows, stored, steps, args))
        images.append(stored)
        log.info("%d/%d batches, right %.3f", done, len(batches), (pd.concat(tables).outcome == "right").mean())
    return pd.concat(tables, ignore_index=True), torch.cat(images).numpy()


def attack_batch(exam: Exam, rows: torch.Tensor, args) -> tuple[torch.Tensor, torch.Tensor]:
    """Stored images uint8 [b, H, W, 3] and gradient steps [b]; a question wrong on its clean image stays as it is."""
    stored, steps = exam.images[rows].clone(), torch.zeros(len(rows), dtype=torch.long)
    if args.attack == "clean":
        return stored, steps
    words = exam.answers(stored, rows)
    right = torch.tensor([exam.outcome(t, int(r)) == "right" for t, r in zip(words, rows, strict=True)])
    if right.any():
        kept = [text for text, ok in zip(words, right, strict=True) if ok]
        plan = args.settings[args.attack]
        found = exam.attack(kept, rows[right], args.eps, plan["steps"], plan["restarts"], args.seed)
        stored[right], steps[right] = found.images, found.steps
    return stored, steps


def score(exam: Exam, rows: torch.Tensor, stored: torch.Tensor, steps: torch.Tensor, args) -> pd.DataFrame:
    """One row a question: the outcome of the text generated from its stored image, whose distance is checked."""
    texts = exam.answers(stored, rows)
    linf = (stored.int() - exam.images[rows].int()).abs().flatten(1).amax(1)  # [b], 8-bit levels
    if int(linf.max()) > args.eps:
        raise RuntimeError(f"a stored image is {int(linf.max())} levels away from its clean one, eps is {args.eps}")
    columns = ("question_id", "image_path", "modality", "question_type", "gold")
    asked = [exam.rows[i] for i in rows.tolist()]
    table = pd.DataFrame([{name: question[name] for name in columns} for question in asked])
    table["n_options"] = [len(question["options"]) for question in asked]
    table["model"], table["method"], table["variant"] = args.model, args.method, args.variant
    table["attack"], table["eps"] = args.attack, args.eps
    table["outcome"] = [exam.outcome(text, int(i)) for text, i in zip(texts, rows, strict=True)]
    table["answer"] = [parse(t, n).answer or "" for t, n in zip(texts, table["n_options"], strict=True)]
    table["text"], table["linf"], table["steps"] = texts, linf.numpy(), steps.numpy()
    assert table["outcome"].isin(OUTCOMES).all()
    return table


if __name__ == "__main__":
    main()
