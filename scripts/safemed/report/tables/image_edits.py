"""Images corrupted, marked, or with a part erased."""

import pandas as pd

from safemed.data.clinical_stages import about
from safemed.report.tables.rows import COMPLETE, accuracy, share
from safemed.report.tables.stress_rows import ALL, beside_plain, check_stress_rows, plain_accuracy

IMAGE_EDITS = [
    "model", "kind", "name", "polarity", "severity", "about", "n", "ssim", "plain", "accuracy", "ci_low", "ci_high",
    "kept", "followed", "chance", "status",
]  # fmt: skip


def image_edits(stress: pd.DataFrame) -> pd.DataFrame:
    """Accuracy on edited images beside that on the clean images: one row of IMAGE_EDITS for each edit and topic.

    stress: STRESS_ROWS.

    Columns:
    model: which model.
    kind: corruption, mark or erasure.
    name: which one.
    polarity: of a burnt-in label, whether it names the right option (positive), none or a wrong one (negative).
    severity: of a corruption.
    about: what the questions ask for: lesion, context, or all.
    n: the questions.
    ssim: mean structural similarity to the clean image.
    plain: accuracy of the same questions on the clean images.
    accuracy: on the edited ones, an unparsable answer not being right.
    ci_low, ci_high: 95 % Wilson interval clustered by image.
    kept: the share whose answer is the one on the clean image; after an erasure of the lesion or the organ such an
        answer was not read from its pixels, though what fills its place still shows where it was, and how large; nor
        was one that is kept where an image of another modality takes the place of the question's own (mismatch).
    followed: the share that gives the option that a label claims, of those that did not without it.
    chance: mean of 1 / number of options.
    status: complete, or "incomplete: k of n not evaluated"; then there is no accuracy.

    Raises ValueError if `check_stress_rows` does, or a question was not asked with the clean image.
    """
    check_stress_rows(stress)
    edited = beside_plain(stress[stress.kind.isin(["corruption", "mark", "erasure"])], stress)
    edited["about"] = edited.question_type.map(about)
    keys = ["model", "kind", "name", "polarity", "severity"]
    records = [
        dict(zip(keys, key, strict=True)) | {"about": topic, "ssim": part.ssim.mean()} | _edited(part)
        for key, group in edited.groupby(keys)
        for topic, part in [(ALL, group), *group.groupby("about")]
    ]
    return pd.DataFrame(records, columns=IMAGE_EDITS)


def _edited(part: pd.DataFrame) -> dict:
    """The numbers of `image_edits` for the rows of one edit and topic."""
    record = accuracy(part) | plain_accuracy(part)
    if record["status"] == COMPLETE:
        record["kept"] = ((part.answer == part.plain_answer) & (part.answer != "")).mean()
        claimed = (part.claimed != "") & (part.plain_answer != part.claimed)
        record["followed"] = share(part.answer == part.claimed, claimed)
    return record
