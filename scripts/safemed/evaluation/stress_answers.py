"""The answers of a model to all stress tests and to the chains of evidence: one row a question and stress test."""

import logging
from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from torch import Tensor
from tqdm import tqdm

from safemed.data.dataset import load_questions, subset
from safemed.data.prompts import FAILED, parse
from safemed.evaluation import results
from safemed.evaluation.arguments import asking, model_columns
from safemed.evaluation.batching import Failure, for_each
from safemed.evaluation.evaluator import Evaluator
from safemed.evaluation.partial_results import PartialResults
from safemed.models.vlm import VLM
from safemed.stress.chains import chains
from safemed.stress.hints import Hint, Templates, mentions
from safemed.stress.stress_tests import CLEAN, StressedQuestion, StressInputs, StressTest, stress_tests
from safemed.utils import cli

log = logging.getLogger(__name__)

Part = tuple[StressTest, Callable[[], list[StressedQuestion]]]  # a stress test, and what makes its questions


def run(args: Namespace, script: str) -> None:
    """Write the folder args.out: rows.parquet, one row a question and stress test, cost.json, provenance.json."""
    results.write_parts(args, script, "stress", [args.templates, args.attack / "rows.parquet"], ask_all)


def ask_all(vlm: VLM, args: Namespace, parts: PartialResults) -> None:
    """Ask every stress test that is not among the parts; one without a question has no part."""
    templates, test = Templates.read(args.templates), load_questions(args.data, "test")
    plain = asking(vlm, subset(test, args.settings["questions"], args.seed), args)
    planned = [*tests_of_questions(plain, test, templates, args), *tests_of_chains(vlm, test, templates, args)]
    for number, (stress_test, make) in enumerate(tqdm(planned, desc="stress tests", disable=not cli.watched())):
        if not parts.has(number) and (asked := make()):
            table = answered(plain, asked, stress_test, templates, args.settings["batch_size"], model_columns(args))
            parts.write(number, table)
            log.info("%s: right %.3f", stress_test, (table.outcome == "right").mean())


def tests_of_questions(plain: Evaluator, test: Dataset, templates: Templates, args: Namespace) -> Iterator[Part]:
    """All stress tests of the evaluation questions; distractors are drawn from the whole split `test`."""
    attacked, failed = stored_images(plain, args.attack, args.settings["eps"])
    images, everything = {CLEAN: plain.images, args.attack.name: attacked}, list(test.remove_columns("image"))
    inputs = StressInputs(plain.rows, images, failed, everything, templates, args.seed)
    settings = args.settings
    for one in stress_tests(templates, settings["severities"], args.attack.name, settings["published"]):
        yield one, partial(inputs.stressed, one)


def tests_of_chains(vlm: VLM, test: Dataset, templates: Templates, args: Namespace) -> Iterator[Part]:
    """The chains of evidence, asked plainly, and at every stage with a hint that misleads or claims nothing: the file's
    first hint that no training draws.
    """
    linked = chains(test, args.settings["chains"], args.seed)
    if not len(linked):
        log.warning("no image of the test split has questions of two stages: there is no chain of evidence to ask")
        return
    chained = asking(vlm, linked, args)
    inputs = StressInputs(chained.rows, {CLEAN: chained.images}, set(), [], templates, args.seed)
    new, *_ = templates.untaught()
    hinted = [StressTest("hint", new.name, polarity) for polarity in ("neutral", "negative")]
    for one in (StressTest("plain", "plain"), *hinted):
        yield StressTest("chain", one.name, one.polarity), partial(inputs.stressed, one)


def stored_images(evaluator: Evaluator, attack: Path, eps: int) -> tuple[Tensor, set[str]]:
    """The images [N, H, W, 3] uint8 that an attack stored for the evaluator's questions, and ids of those it failed on.

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


def answered(
    plain: Evaluator, asked: list[StressedQuestion], stress_test: StressTest, templates: Templates, batch_size: int,
    model: dict[str, str],
) -> pd.DataFrame:  # fmt: skip
    """The rows of one stress test, with the columns STRESS_ROWS of safemed.report.tables.stress_rows.

    plain: an evaluator of the same model. model: the columns that name the model.
    """
    images = torch.from_numpy(np.stack([one.image for one in asked]))
    evaluator = plain.with_questions([one.row for one in asked], images)
    sound = torch.tensor([i for i, one in enumerate(asked) if not one.failed], dtype=torch.long)
    found = for_each(evaluator.batches(sound, batch_size), evaluator.heard)
    hint, made = templates.all_hints.get(stress_test.name), []
    for i, one in enumerate(asked):
        of_test = _columns_of_test(stress_test, hint, templates.version) | {"ssim": one.ssim, "claimed": one.claimed}
        said = evaluator.about_answer(i, found.get(i, Failure("the attack failed")))
        thought = parse(said["text"], len(one.row["options"]), evaluator.variant).thought
        mentioned = {"mentions": bool(hint) and mentions(thought, hint, one.row["options"])}
        made.append(evaluator.about(i) | model | of_test | said | mentioned)
    return pd.DataFrame(made)


def _columns_of_test(test: StressTest, hint: Hint | None, version: int) -> dict:
    """What a row says of its stress test."""
    return {
        "kind": test.kind, "name": test.name, "polarity": test.polarity, "severity": test.severity, "seen": test.seen,
        "position": test.position, "target": test.target,
        "voice": hint.voice if hint else "", "taught": bool(hint and hint.train), "templates": version,
    }  # fmt: skip
