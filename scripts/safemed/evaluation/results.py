"""The folder that an evaluation writes: rows.parquet, cost.json and provenance.json; and how a killed job resumes."""

import contextlib
import logging
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd

from safemed.evaluation.arguments import load
from safemed.evaluation.partial_results import PartialResults
from safemed.models.vlm import VLM
from safemed.utils import files, provenance, resume
from safemed.utils.cost import CostMeter

log = logging.getLogger(__name__)

Evaluate = Callable[[VLM, Namespace, PartialResults], None]


def write(rows: pd.DataFrame, args: Namespace, script: str, meter: CostMeter, vlm: VLM) -> None:
    """Write the folder args.out of a script's evaluation, whole or not at all."""
    with files.atomic_folder(args.out) as folder:
        rows.to_parquet(folder / "rows.parquet", index=False)
        meter.write(folder / "cost.json", vlm.passes)
        provenance.write(folder, args, script)


def tell_cut(rows: pd.DataFrame, variant: str, longest: int) -> None:
    """Warn where most of the answers in attack rows end at `longest` tokens and name no option: the limit is scored."""
    cut = int((rows.cut & (rows.outcome == "unparsable")).sum())
    if 2 * cut > len(rows):
        log.warning(
            "%d of %d answers are as long as max_new_tokens.%s: %d allows, and name no option: what is scored is that "
            "limit; raise it",
            cut, len(rows), variant, longest,
        )  # fmt: skip


def write_parts(args: Namespace, script: str, stage: str, inputs: list[Path], evaluate: Evaluate) -> None:
    """Write the folder args.out as `resumable` does; its rows are those of the parts that `evaluate` stores.

    evaluate: given the model, args and the parts; it makes those that are not there yet.
    """
    meter, vlm = CostMeter(stage, args.model), load(args)
    with resumable(args, script, meter, vlm, inputs, {}) as (folder, parts):
        evaluate(vlm, args, parts)
        parts.rows().to_parquet(folder / "rows.parquet", index=False)


@contextlib.contextmanager
def resumable(
    args: Namespace, script: str, meter: CostMeter, vlm: VLM, inputs: list[Path], identity: dict, **cost
) -> Iterator[tuple[Path, PartialResults]]:
    """The folder to fill with the rows, and the partial results that a killed job left in it.

    Those are kept only where they were made with the same settings, seed, code, model, splits, contents of the files
    `inputs`, and further `identity`. cost: what cost.json says besides the price. At the end of the block the folder
    becomes args.out, with its cost and provenance and without the parts.
    """
    with files.atomic_folder(args.out, resume=True) as folder:
        same = resume.identity(args, script, args.weights / "cost.json", args.data / "splits.csv", *inputs) | identity
        parts = PartialResults(folder / "shards", same, meter, vlm.passes)
        yield folder, parts
        meter.write(folder / "cost.json", vlm.passes, **cost)
        provenance.write(folder, args, script)
        parts.remove()
