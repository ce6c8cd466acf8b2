"""Mislead a model by words and cues: ask the evaluation questions under every condition, and the chains of evidence.

Goes on after a kill with the condition that it was at. A question whose logits are not numbers, or that has no memory
alone, is stored as "failed", which no table counts as an answer.
"""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from tqdm import tqdm

from safemed.data.dataset import load_questions, subset
from safemed.data.prompts import FAILED, LETTERS, parse
from safemed.evaluation import arguments
from safemed.evaluation.batching import halving
from safemed.evaluation.evaluator import Evaluator
from safemed.evaluation.partial_results import PartialResults
from safemed.models.vlm import VLM
from safemed.stress.conditions import CLEAN, Altered, Condition, Material, chains, conditions
from safemed.stress.hints import Templates, mentions
from safemed.utils import cli, cost, files, provenance, resume

log = logging.getLogger(__name__)


def main() -> None:
    """Write a folder with rows.parquet (one row a question and condition) and cost.json."""
    parser = arguments.evaluation_parser(__doc__)
    parser.add_argument("--templates", type=Path, required=True, help="the file of templates")
    parser.add_argument("--attack", type=Path, required=True, help="folder of the attack whose images are shown, too")
    args = parser.parse_args()
    cli.start_logging()
    meter, vlm = cost.CostMeter("stress", args.model), VLM.load(args.weights)
    with files.atomic_folder(args.out, resume=True) as folder:
        inputs = (args.weights / "cost.json", args.data / "splits.csv", args.templates, args.attack / "rows.parquet")
        identity = resume.identity(args, __file__, *inputs)
        shards = PartialResults(folder / "shards", identity, meter, vlm.passes, kinds=("parquet", "json"))
        ask_all(vlm, args, shards)
        shards.rows().to_parquet(folder / "rows.parquet", index=False)
        meter.write(folder / "cost.json", vlm.passes)
        provenance.write(folder, args, __file__)
        shards.remove()


def ask_all(vlm: VLM, args, shards: PartialResults) -> None:
    """One part of rows a condition; those without a question that they can be put to have none."""
    templates = Templates.read(args.templates)
    test = load_questions(args.data, "test")
    plain = exam_of(vlm, subset(test, args.settings["questions"], args.seed), args)
    parts = list(puts(plain, test, templates, args))
    if len(linked := chains(test, args.settings["chains"], args.seed)):
        parts += chain_puts(exam_of(vlm, linked, args), templates, args)
    else:
        log.warning("no image of the test split has questions of two stages: there is no chain of evidence to ask")
    for number, (condition, make) in enumerate(tqdm(parts, desc="conditions", disable=not cli.watched())):
        if not shards.has(number) and (asked := make()):
            table = answered(plain, asked, condition, templates, args)
            shards.write(number, table)
            log.info("%s: right %.3f", condition, (table.outcome == "right").mean())


Put = tuple[Condition, Callable[[], list[Altered]]]


def puts(plain: Evaluator, test: Dataset, templates: Templates, args) -> Iterator[Put]:
    """Every condition, and what makes its questions of the evaluation's."""
    attacked, failed = stored(plain, args.attack, args.settings["eps"])
    images, everything = {CLEAN: plain.images, args.attack.name: attacked}, list(test.remove_columns("image"))
    material = Material(plain.rows, images, failed, everything, templates, args.seed)
    for condition in conditions(templates, args.settings["severities"], args.attack.name):
        yield condition, lambda condition=condition: material.altered(condition)


def chain_puts(chained: Evaluator, templates: Templates, args) -> Iterator[Put]:
    """The chains of evidence, asked plainly and under the file's first hint that is not trained on, misleading at every
    stage.
    """
    material = Material(chained.rows, {CLEAN: chained.images}, set(), [], templates, args.seed)
    new, *_ = templates.untaught()
    for condition in (Condition("plain", "plain"), Condition("hint", new.name, "negative")):
        told = Condition("chain", condition.name, condition.polarity)
        yield told, lambda condition=condition: material.altered(condition)


def exam_of(vlm: VLM, questions: Dataset, args) -> Evaluator:
    return Evaluator(vlm, questions, args.variant, args.settings["max_new_tokens"][args.variant])


def stored(evaluator: Evaluator, attack: Path, eps: int) -> tuple[torch.Tensor, set[str]]:
    """The images that an attack left of the evaluator's questions, uint8 [N, H, W, 3], and the ids of those it failed on.

    Raises ValueError where the attack was not on all of the questions at that radius.
    """
    rows = pd.read_parquet(attack / "rows.parquet")
    rows = rows[rows.eps == eps].reset_index(drop=True)
    places, asked = {name: i for i, name in enumerate(rows.question_id)}, [row["question_id"] for row in evaluator.rows]
    if not set(asked) <= places.keys():
        raise ValueError(f"{attack}: other questions than this study's, or none at eps {eps}; re-run that attack")
    with np.load(attack / "images.npz") as archive:
        images = torch.from_numpy(archive[f"eps{eps}"])[[places[name] for name in asked]]
    return images, set(rows.question_id[rows.outcome == FAILED])


def answered(plain: Evaluator, asked: list[Altered], condition: Condition, templates: Templates, args) -> pd.DataFrame:
    """The rows of one condition, with the columns of safemed.misled.MISLED_ROWS."""
    evaluator = plain.altered([one.row for one in asked], torch.from_numpy(np.stack([one.image for one in asked])))
    failed = [one.failed for one in asked]
    texts, confidences = ["the attack failed" if one.failed else "" for one in asked], [float("nan")] * len(evaluator)

    def hear(part: torch.Tensor) -> None:
        said = evaluator.answers(evaluator.images[part], part)
        sure = evaluator.confidences(evaluator.images[part], part, said)
        for i, text, confidence in zip(part.tolist(), said, sure, strict=True):
            texts[i], confidences[i] = text, confidence

    def fail(part: torch.Tensor, why: str) -> None:
        texts[int(part)], failed[int(part)] = why, True

    sound = torch.tensor([i for i, one in enumerate(asked) if not one.failed], dtype=torch.long)
    for batch in evaluator.batches(sound, args.settings["batch_size"]):
        list(halving(batch, hear, fail))
    rows = [
        told(evaluator, i, one, texts[i], failed[i], condition, templates, args) | {"confidence": confidences[i]}
        for i, one in enumerate(asked)
    ]
    return pd.DataFrame(rows)


def told(
    evaluator: Evaluator, i: int, one: Altered, text: str, failed: bool, condition: Condition, templates, args
) -> dict:
    """The row of one question, without the confidence."""
    answer = "" if failed else evaluator.answer(text, i)
    hint = templates.hints.get(condition.name)
    return evaluator.about(i, args) | {
        "kind": condition.kind, "name": condition.name, "polarity": condition.polarity,
        "severity": condition.severity, "seen": condition.seen, "voice": hint.voice if hint else "",
        "taught": bool(hint and hint.train), "templates": templates.version, "ssim": one.ssim, "claimed": one.claimed,
        "outcome": FAILED if failed else evaluator.outcome(text, i), "answer": answer, "text": text,
        "said": one.row["options"][LETTERS.index(answer)] if answer else "",
        "mentions": bool(hint) and mentions(parse(text, len(one.row["options"])).thought, hint),
    }  # fmt: skip


if __name__ == "__main__":
    main()
