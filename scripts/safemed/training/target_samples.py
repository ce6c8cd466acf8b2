"""The start model's own answers to the training questions: the right ones are what `targets: own` teaches.

Rejection sampling, as in STaR (Zelikman et al. 2022) and RAFT (Dong et al. 2023): completions are sampled at
temperature 1 until one is right and in the variant's format, or target_samples have been.
"""

import logging
from argparse import Namespace

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from safemed.data import prompts
from safemed.data.dataset import load_questions
from safemed.evaluation import results
from safemed.evaluation.arguments import asking, model_columns
from safemed.evaluation.batching import Failure, Halving, for_each
from safemed.evaluation.evaluator import Evaluator
from safemed.evaluation.partial_results import PartialResults
from safemed.models.geometry import to_float
from safemed.models.vlm import VLM
from safemed.utils import cli
from safemed.utils.draws import draw

log = logging.getLogger(__name__)


def run(args: Namespace, script: str) -> None:
    """Write the folder args.out: rows.parquet, one row a training question, cost.json, provenance.json."""
    results.write_parts(args, script, "targets", [], sample_all)


def sample_all(vlm: VLM, args: Namespace, parts: PartialResults) -> None:
    """Sample the answers to the training questions, batch by batch, that are not among the parts."""
    settings, halving = args.settings, Halving()
    questions, size = load_questions(args.data, "train", settings["train_on"]), settings["batch_size"]
    for start in tqdm(range(0, len(questions), size), desc="targets", disable=not cli.watched()):
        if not parts.has(start // size):
            batch = questions.select(range(start, min(start + size, len(questions))))
            rows = sampled(asking(vlm, batch, args), settings["target_samples"], args.seed, halving)
            parts.write(start // size, rows.assign(**model_columns(args)))
            log.info("%d of %d questions done", start + len(batch), len(questions))


def sampled(evaluator: Evaluator, samples: int, seed: int, halving: Halving | None = None) -> pd.DataFrame:
    """One row a question of the evaluator: the first of at most `samples` completions that may be taught.

    target: that completion, "" where there is none. samples: how many were drawn; cut: how many of them were as long
    as they may be; tokens: the target's length, 0 for none; why: the reason for which a question could not be asked.
    """
    nothing = {"target": "", "samples": 0, "cut": 0, "tokens": 0, "why": ""}
    rows = [evaluator.about(i) | nothing for i in range(len(evaluator))]
    for number in range(samples):
        wanted = torch.tensor([i for i, row in enumerate(rows) if not row["target"] and not row["why"]])
        if not len(wanted):
            break

        def texts(part: Tensor, number: int = number) -> list[str]:
            images = to_float(evaluator.images[part], evaluator.vlm.device)
            first = evaluator.rows[int(part[0])]["question_id"]
            drawn = draw(seed, f"{first}, sample {number}", "targets")
            return evaluator.vlm.sample(images, evaluator.asked[part], evaluator.max_new_tokens, drawn)

        for i, text in for_each([wanted], texts, halving).items():
            _note(rows[i], text, evaluator, i)
    return pd.DataFrame(rows)


def _note(row: dict, text: str | Failure, evaluator: Evaluator, i: int) -> None:
    """Count a question's next completion, and keep it if it may be taught."""
    if isinstance(text, Failure):
        row["why"] = text.why
        return
    row["samples"] += 1
    row["cut"] += evaluator.cut([text])[0]
    read = prompts.parse(text, len(evaluator.rows[i]["options"]), evaluator.variant)
    if read.answer == evaluator.rows[i]["gold"] and prompts.well_formed(read, evaluator.variant):
        row["target"], row["tokens"] = text, evaluator.length(text)
