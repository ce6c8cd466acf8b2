"""Attack a model on the evaluation questions and score the text it generates from the stored 8-bit images.

Goes on after a kill with the batch that it was at. A batch that runs out of memory is halved; a question whose loss,
gradient or logits are not numbers is stored as "failed", which no table counts as an answer.
"""

import logging
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from safemed import gradient_free, run
from safemed.attacks import Attacked, Plan, l2_levels
from safemed.data import load_questions, subset
from safemed.evaluation import Exam, SmoothedExam
from safemed.prompts import FAILED, parse
from safemed.shards import Shards
from safemed.vlm import VLM

log = logging.getLogger(__name__)

KINDS = {
    "pgd": Exam.attack,
    "apgd": Exam.attack,
    "cw": Exam.attack,
    "noise": gradient_free.noise,
    "square": gradient_free.square,
}
NOT_EVALUATED = (FloatingPointError, torch.OutOfMemoryError, MemoryError)


def main() -> None:
    """Write a folder with rows.parquet (one row a question and eps), images.npz (clean, eps1, ...) and cost.json."""
    parser = run.evaluation_parser(__doc__)
    parser.add_argument("--attack", required=True, help="clean, or the name of the settings' attack")
    parser.add_argument("--eps", type=float, nargs="+", required=True, help="radii: 8-bit levels, or L2; 0 for clean")
    parser.add_argument("--before", type=Path, nargs="*", default=[], help="attacks whose survivors alone are attacked")
    args = parser.parse_args()
    run.start_logging()
    if any((args.attack == "clean") != (eps == 0) for eps in args.eps):
        parser.error(f"attack {args.attack} with eps {args.eps}: clean has eps 0, an attack has eps > 0")
    clock = run.Stopwatch("attack", args.model)
    vlm = VLM.load(args.weights)
    questions = subset(load_questions(args.data, "test"), args.settings["questions"], args.seed)
    exam = exam_of(vlm, questions, args)
    with run.atomic_folder(args.out, resume=True) as folder:
        told = {"attack": args.attack, "eps": args.eps, "before": [str(path) for path in args.before]}
        identity = run.identity(args, __file__, args.weights / "cost.json", args.data / "splits.csv") | told
        shards = Shards(folder / "shards", identity, clock, vlm.passes)
        rows, images = evaluate(exam, args, shards)
        rows.to_parquet(folder / "rows.parquet", index=False)
        np.savez_compressed(folder / "images.npz", clean=exam.images.numpy(), **images)
        clock.write(folder / "cost.json", vlm.passes, attack=args.attack)
        shards.remove()


def exam_of(vlm: VLM, questions, args) -> Exam:
    """The model itself, or where the attack's settings name a sigma, the smoothed model."""
    longest = args.settings["max_new_tokens"][args.variant]
    plan = args.settings.get(args.attack) or {}
    if "sigma" in plan:
        return SmoothedExam(vlm, questions, args.variant, longest, plan["sigma"], plan["draws"], plan["votes"])
    return Exam(vlm, questions, args.variant, longest)


def evaluate(exam: Exam, args, shards: Shards) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Rows of all questions and radii, and for each radius the stored images, uint8 [N, H, W, 3]."""
    earlier = Earlier(exam, args.before, args.eps)
    batches = exam.batches(torch.arange(len(exam)), args.settings["batch_size"])
    for done, rows in enumerate(tqdm(batches, desc=args.attack, disable=not run.watched()), 1):
        if shards.has(done):
            continue
        parts = list(halving(rows, lambda part: attacked_part(exam, part, args, earlier), args, exam))
        table = pd.concat([table for table, _ in parts], ignore_index=True)
        shards.write(done, table, np.concatenate([images for _, images in parts], 1))
        right = table.groupby("eps").outcome.agg(lambda outcomes: (outcomes == "right").mean())
        log.info("%d/%d batches, right in this one %s", done, len(batches), right.round(3).to_dict())
    table, images = shards.read()
    order = torch.cat(batches).argsort()  # back to the order of the questions
    table = table.sort_values(["eps", "row"], ignore_index=True).drop(columns="row")
    names = [f"eps{eps:g}" for eps in sorted(args.eps)]
    return table, dict(zip(names, images[:, order.numpy()], strict=True))


def attacked_part(exam: Exam, rows: torch.Tensor, args, earlier: "Earlier") -> tuple[pd.DataFrame, np.ndarray]:
    """The scored rows of some questions at all radii, and their stored images [radii, b, H, W, 3]."""
    tables, images = [], []
    for eps, stored, steps, tried, texts in sweep(exam, rows, args, earlier):
        tables.append(score(exam, rows, stored, steps, tried, texts, eps, args))
        images.append(stored.numpy())
    return pd.concat(tables, ignore_index=True), np.stack(images)


def halving(rows: torch.Tensor, work, args, exam: Exam) -> Iterator[tuple[pd.DataFrame, np.ndarray]]:
    """`work` on the rows, in halves where it runs out of memory or meets what is not a number; one row alone that does
    is told as failed: nothing was measured.
    """
    try:
        yield work(rows)
        return
    except NOT_EVALUATED as error:
        why = f"{type(error).__name__}: {error}"
    log.warning("%d questions not evaluated: %s", len(rows), why)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if len(rows) == 1:
        yield failure(exam, rows, args, why)
        return
    for half in rows.split((len(rows) + 1) // 2):
        yield from halving(half, work, args, exam)


def failure(exam: Exam, rows: torch.Tensor, args, why: str) -> tuple[pd.DataFrame, np.ndarray]:
    """The rows of a question that could not be evaluated, with its clean image at every radius."""
    clean, nothing = exam.images[rows], torch.zeros(len(rows), dtype=torch.long)
    tables = [score(exam, rows, clean, nothing, nothing.bool(), [""], eps, args) for eps in sorted(args.eps)]
    told = {"outcome": FAILED, "answer": "", "text": why}
    return pd.concat(tables, ignore_index=True).assign(**told), np.stack([clean.numpy()] * len(args.eps))


class Earlier:
    """What cheaper attacks have broken: for each question the image that did it, or the clean one."""

    def __init__(self, exam: Exam, folders: list[Path], radii: list[float]):
        if folders and len(radii) != 1:
            raise ValueError(f"--before needs one radius, got {radii}")
        self.images = exam.images.clone()
        broken = torch.zeros(len(exam), dtype=torch.bool)
        for folder in folders:
            rows = pd.read_parquet(folder / "rows.parquet")
            rows = rows[rows.eps == radii[0]]
            if rows.question_id.tolist() != [row["question_id"] for row in exam.rows]:
                raise ValueError(f"{folder}: other questions, or none at eps {radii[0]:g}; re-run that attack")
            fell = torch.tensor(rows.outcome.isin(["wrong", "unparsable"]).to_numpy()) & ~broken
            with np.load(folder / "images.npz") as archive:
                self.images[fell] = torch.from_numpy(archive[f"eps{radii[0]:g}"])[fell]
            broken |= fell


def sweep(exam: Exam, rows: torch.Tensor, args, earlier: Earlier) -> Iterator[tuple]:
    """For each radius, ascending: eps, stored images uint8 [b, H, W, 3], the gradient steps [b] it took, whether it was
    attacked at all [b], and the texts generated from the stored images.

    A question that is wrong on its clean image stays as it is. One whose text is not right keeps the image that it is
    scored on, which is within every larger radius too: only survivors are attacked on.
    """
    words = exam.answers(exam.images[rows], rows)
    stored, texts = earlier.images[rows].clone(), words
    nothing = torch.zeros(len(rows), dtype=torch.long)
    if args.attack == "clean":
        yield 0.0, stored, nothing, nothing.bool(), texts
        return
    if args.before:
        texts = exam.answers(stored, rows)
    right_before = exam.right(words, rows)
    for eps in sorted(args.eps):
        live, steps = exam.right(texts, rows) & right_before, nothing.clone()
        if live.any():
            kept = [text for text, alive in zip(words, live, strict=True) if alive]
            found = attacked(exam, kept, rows[live], eps, args)
            stored, texts = stored.clone(), list(texts)
            stored[live], steps[live] = found.images, found.steps
            for i, text in zip(live.nonzero()[:, 0].tolist(), exam.answers(found.images, rows[live]), strict=True):
                texts[i] = text
        yield eps, stored, steps, live, texts


def attacked(exam: Exam, words: list[str], rows: torch.Tensor, eps: float, args) -> Attacked:
    """The attack that the settings name, on questions whose right clean texts are `words`."""
    settings = args.settings[args.attack]
    known = {field.name for field in fields(Plan)}
    given = {key: value for key, value in settings.items() if key in known and key != "targets"}
    targets = tuple((settings.get("targets") or {}).get(args.variant, ()))
    plan = Plan(**given, targets=targets, amp=args.settings["amp"])
    return KINDS[plan.kind](exam, words, rows, plan, eps, args.seed)


def score(exam: Exam, rows: torch.Tensor, stored, steps, tried, texts, eps: float, args) -> pd.DataFrame:
    """One row a question: the outcome of the text generated from its stored image, whose distance is checked."""
    clean, norm = exam.images[rows], (args.settings.get(args.attack) or {}).get("norm", "linf")
    linf = (stored.int() - clean.int()).abs().flatten(1).amax(1)  # [b], 8-bit levels
    l2 = l2_levels(stored, clean)
    if (far := (linf if norm == "linf" else l2).max().item()) > eps:
        raise RuntimeError(f"a stored image is {far:g} away from its clean one in {norm}, eps is {eps:g}")
    table = pd.DataFrame([exam.about(i, args) for i in rows.tolist()])
    table["row"], table["attack"], table["norm"], table["eps"] = rows.numpy(), args.attack, norm, float(eps)
    table["outcome"] = [exam.outcome(text, int(i)) for text, i in zip(texts, rows, strict=True)]
    table["answer"] = [parse(t, n).answer or "" for t, n in zip(texts, table["n_options"], strict=True)]
    table["text"], table["linf"], table["l2"] = texts, linf.numpy(), l2.numpy()
    table["steps"], table["attacked"] = steps.numpy(), tried.numpy()
    return table


if __name__ == "__main__":
    main()
