"""Whether a model that may abstain does so where the image lacks what is asked for."""

import pandas as pd

from safemed.data.clinical_stages import about, presupposes_lesion
from safemed.data.prompts import FAILED, LETTERS, OUTCOMES
from safemed.report.tables.rows import COMPLETE, refuse, status
from safemed.report.tables.stress_rows import CONDITION, check_stress_rows
from safemed.stress.erasure import SOUND
from safemed.utils.stats import clustered_wilson

ABSTENTION = [
    "model", "image", "about", "lacks", "n", "abstained", "abstained_low", "abstained_high", "sound", "right", "wrong",
    "unparsable", "status",
]  # fmt: skip


def abstention(stress: pd.DataFrame) -> pd.DataFrame:
    """How often each model abstains where the last option offers to, by image and topic: one row of ABSTENTION each.

    stress: STRESS_ROWS.

    Columns:
    model: which model.
    image: sound, as it is, or what is erased of it: the lesion, a place beside it (elsewhere), a place of an image
        without a lesion (normal), the organ, or everything (blank); or an image of another modality in its place
        (mismatch), which shows something else.
    about: what is asked for: lesion (its place or size, which presuppose one), finding (whether there is a lesion and
        which), or context.
    lacks: whether what is asked for is erased, so that to abstain is right: yes, no, or in part.
    n: the questions.
    abstained: the share that chooses the last option, which says that the image does not show it.
    abstained_low, abstained_high: 95 % Wilson interval clustered by image.
    sound: the share that abstains on the same questions where nothing is erased.
    right, wrong, unparsable: the shares of the other answers, as if nothing had been erased.
    status: complete, or "incomplete: k of n not evaluated"; then there is no number.

    Raises ValueError if `check_stress_rows` does, or a question was not asked with nothing erased.
    """
    check_stress_rows(stress)
    records = [
        {"model": model, "image": image, "about": topic, "lacks": _lacks(image, topic)} | _abstained(part)
        for (model, image, topic), part in _beside_sound(stress).groupby(["model", "name", "about"])
    ]
    return pd.DataFrame(records, columns=ABSTENTION)


def _beside_sound(stress: pd.DataFrame) -> pd.DataFrame:
    """The questions that offer to abstain: about and abstained, and what was answered with nothing erased (suffix
    _sound).
    """
    asked = stress[stress.kind == "abstention"]
    last = asked.n_options.map(lambda n: LETTERS[n - 1])
    asked = asked.assign(about=asked.question_type.map(_topic), abstained=asked.answer == last)
    sound = asked[asked.name == SOUND][["model", "question_id", "abstained", "outcome"]]
    both = asked.merge(sound, on=["model", "question_id"], how="left", suffixes=("", "_sound"), validate="many_to_one")
    refuse(both, both.outcome_sound.isna(), ["model", *CONDITION], "the question was not asked with nothing erased")
    return both


def _topic(question_type: str) -> str:
    """What is asked for: of a lesion that is presupposed, whether and which one there is (finding), or context."""
    if presupposes_lesion(question_type):
        return "lesion"
    return "finding" if about(question_type) == "lesion" else "context"


def _lacks(image: str, topic: str) -> str:
    """Whether an erasure takes away what a question about a topic asks for: yes, no, or in part.

    In part: without its lesion an image looks normal, which is an answer; round an organ, the modality can be seen;
    and an image of another modality may show what a question that does not name the modality asks for.
    """
    if image == "blank" or (image in ("lesion", "organ") and topic == "lesion"):
        return "yes"
    return "in part" if image in ("organ", "mismatch") or (image == "lesion" and topic == "finding") else "no"


def _abstained(part: pd.DataFrame) -> dict:
    """The numbers of `abstention` for the rows of one model, image and topic."""
    record = {"n": len(part), "status": status(part)}
    if record["status"] != COMPLETE:
        return record
    record["abstained"] = part.abstained.mean()
    record["abstained_low"], record["abstained_high"] = clustered_wilson(part.abstained, part.image_path)
    record |= {name: ((part.outcome == name) & ~part.abstained).mean() for name in OUTCOMES}
    if not (part.outcome_sound == FAILED).any():
        record["sound"] = part.abstained_sound.mean()
    return record
