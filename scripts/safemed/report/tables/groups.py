"""How equally a model does by groups of questions: the worst group, the gap, and whether chance explains it."""

from collections.abc import Iterator, Sequence

import pandas as pd

from safemed.data.prompts import FAILED, gold_text
from safemed.report.tables.certified import check_certificate_rows
from safemed.report.tables.pairing import holm
from safemed.report.tables.rows import CLEAN, check_attack_rows, refuse, require_columns, seed_of
from safemed.utils.stats import clustered_wilson, gap_by_chance

GROUPS = [
    "model", "condition", "function", "sigma", "strength", "kind", "n", "groups", "least", "accuracy", "worst",
    "worst_accuracy", "worst_low", "worst_high", "best", "best_accuracy", "gap", "p", "p_holm", "status",
]  # fmt: skip
KINDS = {  # what divides the questions -> its name
    "modality": "modality",
    "question_type": "question type",
    "finding": "finding",
    "size": "size of the lesion",
    "dataset": "dataset",
}
TEXTS = ["question_id", "dataset", "finding", "image_path", "question_type", "options", "gold"]
SIZED = "Lesion Grading"  # the question type whose right answer is a lesion's size
CERTIFIED = "certified"


def groups(
    sweeps: pd.DataFrame, texts: pd.DataFrame, eps: float, radii: Sequence[float], seed: int,
    certificates: pd.DataFrame | None = None,
) -> pd.DataFrame:  # fmt: skip
    """The gap between the groups of questions that a model is best and worst on: one row of GROUPS for each division.

    The accuracy gap is what CARES (arXiv 2406.06007) asks of age, gender and race; the records that are read here
    name no patient, so groups are of images and questions. sweeps: ATTACK_ROWS of the clean images and of the attacks;
    texts: the prepared questions; eps: the attacks' radius, in 1/255; certificates: CERTIFICATE_ROWS, of radii in
    [0, 1] pixel units; seed: of the permutations.

    Columns:
    model: which model.
    condition: clean, the attack's name, or certified.
    function, sigma: of a smoothed model: what is smoothed, and the noise's standard deviation; generate and 0 of the
        model itself.
    strength: the attack's radius in 1/255, or the certified radius in [0, 1] pixel units; 0 for clean images.
    kind: what divides the questions: modality, question_type, finding (as the record has it), size (the right answer
        to the image's question about its lesion's size, in OmniMedVQA its stage or grade) or dataset.
    n: the questions that the records put in a group.
    groups: how many groups.
    least: the questions of the smallest group.
    accuracy: the share of the n questions that is right; certified: with a certified right answer at that radius.
    worst: the group with the least accuracy, the first by name of several.
    worst_accuracy, worst_low, worst_high: its accuracy with its 95 % Wilson interval clustered by image, as if it had
        been chosen beforehand: the worst of several looks worse than it is.
    best: the group with the greatest accuracy.
    best_accuracy: its accuracy.
    gap: best_accuracy minus worst_accuracy. Small groups have a large one by chance.
    p: of 4,999 random divisions into groups of as many images, and this one, the share in which some two groups differ
        as much, for their sizes, as the two that do most here: never 0. All questions of an image that are in one
        group go to one group together. Where an image has questions of several groups, as of question types, they are
        drawn apart, which overstates p where answers to an image agree. Not corrected for the number of rows.
    p_holm: p adjusted by Holm's (1979) method over the rows of the same condition, strength and seed.
    status: complete, or "incomplete: k of n not evaluated"; then there is no number.

    Raises ValueError if `check_attack_rows` or `check_certificate_rows` does, or a question is not in the texts.
    """
    check_attack_rows(sweeps)
    require_columns(texts, TEXTS, "the prepared questions")
    known = _divisions(texts)
    records = []
    for condition, rows in _conditions(sweeps, certificates, eps, radii):
        rows = rows.merge(known, on="question_id", how="left", validate="one_to_one")
        refuse(rows, rows.dataset.isna(), ["model"], "the prepared questions have no such question")
        records += [condition | {"kind": kind} | _divided(rows[rows[kind] != ""], kind, seed) for kind in KINDS]
    table = pd.DataFrame(records, columns=GROUPS)
    table["p_holm"] = table.groupby(["condition", "strength", seed_of(table.model)]).p.transform(holm)
    return table


def _divisions(texts: pd.DataFrame) -> pd.DataFrame:
    """question_id -> its dataset, finding and size, "" where there is none."""
    sized = texts[texts.question_type == SIZED].sort_values("question_id").drop_duplicates("image_path")
    sizes = {row["image_path"]: gold_text(row) for row in sized.to_dict("records")}
    own = texts[["question_id", "dataset", "finding"]].fillna("")
    return own.assign(size=[sizes.get(path, "") for path in texts.image_path])


def _conditions(
    sweeps: pd.DataFrame, certificates: pd.DataFrame | None, eps: float, radii: Sequence[float]
) -> Iterator[tuple[dict, pd.DataFrame]]:
    """Each model and condition, and its answers: with `right`, and `failed` where it was not evaluated."""
    shown = sweeps[(sweeps.attack == CLEAN) | (sweeps.eps == eps)]
    shown = shown.assign(right=shown.outcome == "right", failed=shown.outcome == FAILED)
    for (model, attack, function, sigma, strength), rows in shown.groupby(
        ["model", "attack", "function", "sigma", "eps"]
    ):
        yield _condition(model, attack, function, sigma, strength), rows
    if certificates is None:
        return
    check_certificate_rows(certificates)
    for (model, function, sigma), rows in certificates.groupby(["model", "function", "sigma"]):
        for radius in sorted(radii):
            right = rows.certified & (rows.radius >= radius)
            held = rows.assign(right=right, failed=rows.stopped == FAILED)
            yield _condition(model, CERTIFIED, function, sigma, radius), held


def _condition(model: str, condition: str, function: str, sigma: float, strength: float) -> dict:
    return {"model": model, "condition": condition, "function": function, "sigma": sigma, "strength": strength}


def _divided(rows: pd.DataFrame, kind: str, seed: int) -> dict:
    """The numbers of `groups` for the answers that the records put in a group of a kind."""
    sizes, failed = rows.groupby(kind).size(), int(rows.failed.sum())
    record = {"n": len(rows), "groups": len(sizes), "status": "complete"}
    if failed:
        return record | {"status": f"incomplete: {failed} of {len(rows)} not evaluated"}
    if rows.empty:
        return record
    shares = rows.groupby(kind).right.mean()
    worst, best = shares.idxmin(), shares.idxmax()
    least = rows[rows[kind] == worst]
    low, high = clustered_wilson(least.right, least.image_path)
    record |= {
        "least": int(sizes.min()), "accuracy": rows.right.mean(), "worst": worst, "worst_accuracy": shares[worst],
        "worst_low": low, "worst_high": high, "best": best, "best_accuracy": shares[best],
    }  # fmt: skip
    if len(sizes) > 1:
        together = [f"{path}\n{group}" for path, group in zip(rows.image_path, rows[kind], strict=True)]
        record["gap"], record["p"] = gap_by_chance(rows.right, rows[kind], together, seed=seed)
    return record
