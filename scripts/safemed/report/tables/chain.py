"""The chain of evidence: an image's questions in the order of the clinical workflow, and how errors run along it.

Each image is asked what a reader settles step by step, from the image's quality to the diagnosis (Med-R2 Bench). A
model that names the diagnosis but misses the lesion was right without the evidence.
"""

import pandas as pd

from safemed.data.clinical_stages import LESION_STAGES, STAGE_OF, STAGES
from safemed.data.prompts import FAILED
from safemed.report.tables.rows import check_answers, refuse
from safemed.utils.stats import clustered_wilson

CHAIN_ROWS = [
    "question_id", "image_path", "question_type", "n_options", "gold", "model", "method", "variant", "condition",
    "outcome", "answer",
]  # fmt: skip
CHAIN = [
    "model", "condition", "stage", "n", "accuracy", "ci_low", "ci_high", "reached", "given_reached", "status",
]  # fmt: skip
CHAIN_SUMMARY = [
    "model", "condition", "n", "joint", "ci_low", "ci_high", "product", "diagnosis_when_seen", "diagnosis_when_missed",
    "n_seen", "n_missed", "ungrounded", "status",
]  # fmt: skip


def chain_table(rows: pd.DataFrame) -> pd.DataFrame:
    """How far each model gets along the chain under each condition: one row of CHAIN for each stage that images have.

    rows: CHAIN_ROWS, one a question. n: images that have the stage; accuracy: the share of ALL of them whose answer at
    it is right ("unparsable" is not), with its 95 % Wilson interval clustered by image; reached: the share right at
    this and all earlier stages that the image has; given_reached: accuracy among those right at all earlier ones,
    missing where there are none. Where a question of this or an earlier stage of these images was not evaluated,
    status says "incomplete: k of n images not evaluated up to here", and no number is told.

    Raises ValueError if `check_chain_rows` does.
    """
    check_chain_rows(rows)
    records = [
        {"model": model, "condition": condition, "stage": stage} | _stage(outcomes, stage)
        for (model, condition), outcomes in _outcomes(rows).items()
        for stage in outcomes.columns
    ]
    return pd.DataFrame(records, columns=CHAIN)


def chain_summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Each model's whole chains under each condition, and whether its diagnoses rest on them: one row of CHAIN_SUMMARY.

    rows: CHAIN_ROWS. n: images; joint: the share right at all stages that the image has, ci_low, ci_high its 95 %
    Wilson interval clustered by image; product: what joint would be were the errors of different stages independent,
    the mean over images of the product of the accuracies of the image's stages.

    Of the images with a diagnosis and a lesion stage (LESION_STAGES; without a lesion that is its absence), n_seen are
    right at all their lesion stages and n_missed are not: diagnosis_when_seen and diagnosis_when_missed are the
    accuracies of their diagnoses, ungrounded is the share of right diagnoses that are of images missed. Each is missing
    where there is nothing to divide by. Where a question was not evaluated, status says "incomplete: k of n images not
    evaluated", and no number but n is told.

    Raises ValueError if `check_chain_rows` does.
    """
    check_chain_rows(rows)
    records = [
        {"model": model, "condition": condition} | _whole(outcomes)
        for (model, condition), outcomes in _outcomes(rows).items()
    ]
    return pd.DataFrame(records, columns=CHAIN_SUMMARY)


def check_chain_rows(rows: pd.DataFrame) -> None:
    """Refuse rows that are no chains, or cannot be counted.

    Raises ValueError, naming model and condition and the way out, if `check_answers` does, a question type is no stage,
    or a stage of an image has two questions. Empty rows pass.
    """
    if rows.empty:
        return
    where = ["model", "condition"]
    check_answers(rows, CHAIN_ROWS, ["condition"], "chain rows")
    stages = rows["question_type"].map(STAGE_OF)
    refuse(rows, stages.isna(), where, "a question type is no stage of the chain")
    twice = rows.assign(stage=stages).duplicated([*where, "image_path", "stage"])
    refuse(rows, twice, where, "a stage of an image has two questions")


def _outcomes(rows: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    """A model and condition -> the outcomes [image_path, stage], missing where an image has not the stage."""
    if rows.empty:  # a frame without rows may have no columns either
        return {}
    staged = rows.assign(stage=rows["question_type"].map(STAGE_OF))
    wide = {
        key: group.pivot(index="image_path", columns="stage", values="outcome")
        for key, group in staged.groupby(["model", "condition"])
    }
    return {key: outcomes[[stage for stage in STAGES if stage in outcomes]] for key, outcomes in wide.items()}


def _stage(outcomes: pd.DataFrame, stage: str) -> dict:
    """The row of `chain_table` for one stage, without its keys."""
    until = outcomes.loc[outcomes[stage].notna(), :stage]
    failed = int((until == FAILED).any(axis=1).sum())
    if failed:
        return {"n": len(until), "status": f"incomplete: {failed} of {len(until)} images not evaluated up to here"}
    right, before = until[stage] == "right", _all_right(until.drop(columns=stage))
    low, high = clustered_wilson(right, until.index)
    return {
        "n": len(until), "accuracy": right.mean(), "ci_low": low, "ci_high": high, "reached": (right & before).mean(),
        "given_reached": right[before].mean(), "status": "complete",
    }  # fmt: skip


def _whole(outcomes: pd.DataFrame) -> dict:
    """The row of `chain_summary`, without its keys."""
    n, failed = len(outcomes), int((outcomes == FAILED).any(axis=1).sum())
    if failed:
        return {"n": n, "status": f"incomplete: {failed} of {n} images not evaluated"}
    joint = _all_right(outcomes)
    low, high = clustered_wilson(joint, outcomes.index)
    accuracy = (outcomes == "right").sum() / outcomes.notna().sum()  # [stage]
    product = (outcomes.notna() * accuracy).where(outcomes.notna(), 1.0).prod(axis=1).mean()
    told = {"n": n, "joint": joint.mean(), "ci_low": low, "ci_high": high, "product": product, "status": "complete"}
    return told | _grounding(outcomes.reindex(columns=[*LESION_STAGES, "diagnosis"]))


def _grounding(outcomes: pd.DataFrame) -> dict:
    """How right the diagnoses are with and without the evidence, of outcomes [image, lesion stages and diagnosis]."""
    lesion = outcomes[list(LESION_STAGES)]
    both = outcomes["diagnosis"].notna() & lesion.notna().any(axis=1)
    right, seen = outcomes.loc[both, "diagnosis"] == "right", _all_right(lesion[both])
    return {
        "diagnosis_when_seen": right[seen].mean(), "diagnosis_when_missed": right[~seen].mean(),
        "n_seen": int(seen.sum()), "n_missed": int((~seen).sum()), "ungrounded": (~seen)[right].mean(),
    }  # fmt: skip


def _all_right(outcomes: pd.DataFrame) -> pd.Series:
    """Whether each image is right at all the stages that it has, bool [image]; true of one without any."""
    return (outcomes.isna() | (outcomes == "right")).all(axis=1)
