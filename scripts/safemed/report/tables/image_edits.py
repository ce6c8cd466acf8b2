"""Images corrupted, marked, or with a part erased."""

import pandas as pd

from safemed.data.clinical_stages import about
from safemed.data.prompts import FAILED
from safemed.report.tables.rows import COMPLETE, accuracy, refuse
from safemed.report.tables.stress_rows import ALL, CONDITION, beside_plain, check_stress_rows, plain_accuracy
from safemed.utils.stats import clustered_wilson, paired_difference

IMAGE_EDITS = [
    "model", "kind", "name", "polarity", "severity", "about", "n", "ssim", "plain", "accuracy", "ci_low", "ci_high",
    "kept", "kept_low", "kept_high", "followed", "followed_low", "followed_high", "followed_silent",
    "beyond", "beyond_low", "beyond_high", "chance", "status",
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
        was one that is kept where an image of another modality takes the place of the question's own (mismatch),
        though it may happen to be right for that image, too.
    kept_low, kept_high: its interval.
    followed: the share that gives the option that a label claims, of those that did not without it.
    followed_low, followed_high: its 95 % Wilson interval clustered by image.
    followed_silent: of the same questions, the share that gives this option under a label that names none.
    beyond: followed less followed_silent: what the claim does, and not any label.
    beyond_low, beyond_high: its 95 % paired bootstrap over images, 2,000 draws.
    chance: mean of 1 / number of options.
    status: complete, or "incomplete: k of n not evaluated"; then there is no accuracy.

    Raises ValueError if `check_stress_rows` does, a question was not asked with the clean image, or a label was not put
    without its claim.
    """
    check_stress_rows(stress)
    edited = _beside_silent(beside_plain(stress[stress.kind.isin(["corruption", "mark", "erasure"])], stress))
    edited["about"] = edited.question_type.map(about)
    keys = ["model", "kind", "name", "polarity", "severity"]
    records = [
        dict(zip(keys, key, strict=True)) | {"about": topic, "ssim": part.ssim.mean()} | _edited(part)
        for key, group in edited.groupby(keys)
        for topic, part in [(ALL, group), *group.groupby("about")]
    ]
    return pd.DataFrame(records, columns=IMAGE_EDITS)


def _beside_silent(edited: pd.DataFrame) -> pd.DataFrame:
    """Edited images, with silent_answer of those whose label claims an option: to the same under a label without one.

    Such an answer counts as not evaluated where the silent one does.
    """
    claims, keys = edited.claimed != "", ["model", "seen", "question_id"]
    silent = edited[(edited.name == "label") & (edited.polarity == "neutral")]
    silent = silent[keys].assign(silent_answer=silent.answer, silent_outcome=silent.outcome)
    both = edited.merge(silent, on=keys, how="left", validate="many_to_one").set_axis(edited.index)
    refuse(both, claims & both.silent_outcome.isna(), ["model", *CONDITION], "a label was not put without its claim")
    return both.assign(outcome=both.outcome.mask(claims & (both.silent_outcome == FAILED), FAILED))


def _edited(part: pd.DataFrame) -> dict:
    """The numbers of `image_edits` for the rows of one edit and topic."""
    record = accuracy(part) | plain_accuracy(part)
    if record["status"] == COMPLETE:
        kept = (part.answer == part.plain_answer) & (part.answer != "")
        low, high = clustered_wilson(kept, part.image_path)
        record |= {"kept": kept.mean(), "kept_low": low, "kept_high": high}
        open_to = part[(part.claimed != "") & (part.plain_answer != part.claimed)]
        if len(open_to):
            followed = open_to.answer == open_to.claimed
            low, high = clustered_wilson(followed, open_to.image_path)
            record |= {"followed": followed.mean(), "followed_low": low, "followed_high": high}
            silently = open_to.silent_answer == open_to.claimed
            record |= {"followed_silent": silently.mean(), "beyond": followed.mean() - silently.mean()}
            record["beyond_low"], record["beyond_high"] = paired_difference(followed, silently, open_to.image_path)
    return record
