"""The chain of evidence: an image's questions in the order of the clinical workflow, and how errors run along it.

Each image is asked what a reader settles step by step, from the image's quality to the diagnosis (Med-R2 Bench). A
model that names the diagnosis but misses the lesion was right without the evidence.
"""

import pandas as pd

from safemed.data.clinical_stages import LESION_STAGES, STAGE_OF, STAGES
from safemed.data.prompts import FAILED
from safemed.report.tables.rows import COMPLETE, refuse
from safemed.report.tables.stress_rows import check_stress_rows
from safemed.utils.stats import clustered_wilson

CHAIN = [
    "model", "condition", "stage", "n", "accuracy", "ci_low", "ci_high", "reached", "given_reached", "images",
    "right_so_far", "status",
]  # fmt: skip
CHAIN_SUMMARY = [
    "model", "condition", "n", "joint", "ci_low", "ci_high", "product", "diagnosis_when_seen", "diagnosis_when_missed",
    "n_seen", "n_missed", "ungrounded", "status",
]  # fmt: skip


def chain(stress: pd.DataFrame) -> pd.DataFrame:
    """How far each model gets along the chain under each condition: one row of CHAIN for each stage that images have.

    stress: STRESS_ROWS, of which those of kind chain are counted.

    Columns:
    model: which model.
    condition: plain, or the polarity of the hint before each question: negative, which misleads, or neutral, which
        claims nothing: what any words do to the model.
    stage: of the clinical workflow, in its order.
    n: the images that have a question of this stage.
    accuracy: the share of these n whose answer to it is right, an unparsable one not being right.
    ci_low, ci_high: 95 % Wilson interval clustered by image.
    reached: the share of these n that is right at this and at all earlier stages that the image has.
    given_reached: accuracy among those right at all earlier ones, missing where there are none.
    images: all images of the condition.
    right_so_far: the share of ALL these images without an answer that is not right at this or an earlier stage; a stage
        that an image lacks does not count against it. It never rises along the chain, and ends at joint of
        `chain_summary`.
    status: complete, or "incomplete: k of n images not evaluated up to here"; then there is no number, and right_so_far
        is also missing where any other image was not evaluated up to here.

    Raises ValueError if `check_chain_rows` does.
    """
    records = [
        {"model": model, "condition": condition, "stage": stage} | _stage(outcomes, stage)
        for (model, condition), outcomes in _outcomes(stress).items()
        for stage in outcomes.columns
    ]
    return pd.DataFrame(records, columns=CHAIN)


def chain_summary(stress: pd.DataFrame) -> pd.DataFrame:
    """Each model's whole chains under each condition, and whether its diagnoses rest on them: one row of CHAIN_SUMMARY
    each.

    stress: STRESS_ROWS, of which those of kind chain are counted.

    Columns:
    model, condition: as in `chain`.
    n: the images.
    joint: the share that is right at all stages that the image has.
    ci_low, ci_high: its 95 % Wilson interval clustered by image.
    product: what joint would be were the errors of different stages independent: the mean over images of the product of
        the accuracies of the image's stages.
    n_seen: images with a diagnosis and a lesion stage that are right at all their lesion stages (presence, place and
        size; without a lesion that is its absence).
    n_missed: those that are not.
    diagnosis_when_seen, diagnosis_when_missed: accuracy of the diagnosis of each.
    ungrounded: the share of right diagnoses that are of images missed. Each is missing where there is nothing to divide
        by.
    status: complete, or "incomplete: k of n images not evaluated"; then there is no number but n.

    Raises ValueError if `check_chain_rows` does.
    """
    records = [
        {"model": model, "condition": condition} | _whole(outcomes)
        for (model, condition), outcomes in _outcomes(stress).items()
    ]
    return pd.DataFrame(records, columns=CHAIN_SUMMARY)


def check_chain_rows(rows: pd.DataFrame) -> None:
    """Refuse rows that are no chains, or cannot be counted.

    Raises ValueError, naming model and condition and the way out, if `check_stress_rows` does, a question type is no
    stage, or a stage of an image has two questions. Empty rows pass.
    """
    check_stress_rows(rows)
    where = ["model", "polarity"]
    stages = rows["question_type"].map(STAGE_OF)
    refuse(rows, stages.isna(), where, "a question type is no stage of the chain")
    twice = rows.assign(stage=stages).duplicated([*where, "image_path", "stage"])
    refuse(rows, twice, where, "a stage of an image has two questions")


def _outcomes(stress: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    """A model and condition -> the outcomes [image_path, stage], missing where an image has not the stage."""
    rows = stress[stress["kind"] == "chain"]
    check_chain_rows(rows)
    condition = rows["polarity"].where(rows["polarity"] != "", "plain")
    staged = rows.assign(condition=condition, stage=rows["question_type"].map(STAGE_OF))
    wide = {
        key: group.pivot(index="image_path", columns="stage", values="outcome")
        for key, group in staged.groupby(["model", "condition"])
    }
    return {key: outcomes[[stage for stage in STAGES if stage in outcomes]] for key, outcomes in wide.items()}


def _stage(outcomes: pd.DataFrame, stage: str) -> dict:
    """The row of `chain` for one stage, without its keys."""
    until = outcomes.loc[outcomes[stage].notna(), :stage]
    record = {"n": len(until), "images": len(outcomes)} | _so_far(outcomes.loc[:, :stage])
    if failed := int((until == FAILED).any(axis=1).sum()):
        return record | {"status": f"incomplete: {failed} of {len(until)} images not evaluated up to here"}
    right, before = until[stage] == "right", _all_right(until.drop(columns=stage))
    low, high = clustered_wilson(right, until.index)
    return record | {
        "accuracy": right.mean(), "ci_low": low, "ci_high": high, "reached": (right & before).mean(),
        "given_reached": right[before].mean(), "status": COMPLETE,
    }  # fmt: skip


def _so_far(until: pd.DataFrame) -> dict:
    """The share of all images right up to here, of outcomes [image, stage]; nothing where one was not evaluated."""
    return {} if (until == FAILED).any(axis=None) else {"right_so_far": _all_right(until).mean()}


def _whole(outcomes: pd.DataFrame) -> dict:
    """The row of `chain_summary`, without its keys."""
    n, failed = len(outcomes), int((outcomes == FAILED).any(axis=1).sum())
    if failed:
        return {"n": n, "status": f"incomplete: {failed} of {n} images not evaluated"}
    joint = _all_right(outcomes)
    low, high = clustered_wilson(joint, outcomes.index)
    accuracy = (outcomes == "right").sum() / outcomes.notna().sum()  # [stage]
    product = (outcomes.notna() * accuracy).where(outcomes.notna(), 1.0).prod(axis=1).mean()
    record = {"n": n, "joint": joint.mean(), "ci_low": low, "ci_high": high, "product": product, "status": COMPLETE}
    return record | _grounding(outcomes.reindex(columns=[*LESION_STAGES, "diagnosis"]))


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
