"""What fine-tuning teaches a model to write: plain targets, stepwise ones, or the start model's own right answers."""

import logging
from collections import defaultdict
from pathlib import Path

import pandas as pd
from datasets import Dataset

from safemed.data import prompts
from safemed.data.clinical_stages import STAGE_OF, STAGES
from safemed.data.prompts import gold_text
from safemed.models.chat import Chat

log = logging.getLogger(__name__)

Targets = dict[str, str]  # question_id -> completion


def plain(questions: Dataset, variant: str) -> Targets:
    """Each question's target as `prompts.target` has it: a thought names modality and finding."""
    return {row["question_id"]: prompts.target(row, variant) for row in _texts(questions)}


def stepwise(questions: Dataset, everything: Dataset, variant: str) -> Targets:
    """Thoughts through the stages of the clinical workflow (Med-R2), as the questions of `everything` ask of them."""
    earlier = earlier_answers(everything)
    return {row["question_id"]: prompts.target(row, variant, earlier[row["question_id"]]) for row in _texts(questions)}


def own(questions: Dataset, folder: Path) -> Targets:
    """The start model's own right completions (rejection sampling), of the questions that have one.

    folder: what sample_targets.py wrote. Raises ValueError where it is of other questions, or no question has one.
    """
    rows = pd.read_parquet(folder / "rows.parquet").set_index("question_id")
    if list(rows.index) != list(questions["question_id"]):
        raise ValueError(f"{folder}: targets of other questions than the method trains on; re-run sample_targets")
    found = rows.target[rows.target != ""].to_dict()
    if not found:
        raise ValueError(
            f"{folder}: of no question the start model wrote a right answer in its format; raise target_samples or "
            "max_new_tokens, or teach plain targets"
        )
    log.info("%d of %d questions have a target of the start model's own", len(found), len(rows))
    return found


def earlier_answers(questions: Dataset) -> dict[str, list[str]]:
    """question_id -> the right answers, in the order of STAGES, of its image's questions at the stages before its own.

    What a stepwise target goes through (Med-R2). Of an image's questions at one stage the first by question_id counts,
    as in the chains that models are evaluated on. A question whose type is no stage has none before it.
    """
    texts = list(questions.select_columns(["question_id", "image_path", "question_type", "options", "gold"]))
    chains: dict[str, dict[str | None, str]] = defaultdict(dict)  # image_path -> stage -> right answer
    for row in sorted(texts, key=lambda row: row["question_id"]):
        chains[row["image_path"]].setdefault(STAGE_OF.get(row["question_type"]), gold_text(row))
    return {row["question_id"]: _before(row["question_type"], chains[row["image_path"]]) for row in texts}


def check_lengths(targets: Targets, chat: Chat, tokenizer, limit: int, key: str) -> None:
    """End with one line where the model could not write a target within `limit` tokens, the value of the config's key.

    It would learn to begin what it can never end, and be scored unparsable.
    """
    lengths = [len(ids) for ids in tokenizer([chat.written(text) for text in targets.values()])["input_ids"]]
    too_long = [name for name, length in zip(targets, lengths, strict=True) if length > limit]
    if too_long:
        raise SystemExit(
            f"config: {key}: {limit}; {len(too_long)} of {len(targets)} targets are longer, such as that of question "
            f"{too_long[0]}; raise it to {max(lengths)}"
        )


def _texts(questions: Dataset) -> Dataset:
    """The questions without their images, which need not be read."""
    return questions.remove_columns("image")


def _before(question_type: str, chain: dict[str | None, str]) -> list[str]:
    """A chain's answers at the stages before a question type's own."""
    if question_type not in STAGE_OF:
        return []
    return [chain[stage] for stage in STAGES[: STAGES.index(STAGE_OF[question_type])] if stage in chain]
