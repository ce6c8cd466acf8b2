"""Training to abstain: every question offers it as its last option, and of some the image lacks what they ask for."""

from PIL import Image

from safemed.data import prompts
from safemed.data.dataset import as_array
from safemed.stress.abstention import abstainable
from safemed.stress.erasure import unseen
from safemed.utils.draws import RANKS, draw


def offered(row: dict, abstain: str, share: float, seed: int, purpose: str) -> dict:
    """A row of `training.training_rows` with abstention offered.

    That is right for a `share` of the questions, whose images are robbed of what is asked for: of the lesion alone,
    where its place is known, or of everything. Which, is drawn by seed, question and purpose: the same for all rows of
    a question, in every process. A question that has no letter left stays as it is.
    """
    asked = abstainable(row, abstain)
    if asked is None:
        return row
    if draw(seed, row["question_id"], f"erased {purpose}") >= round(share * RANKS):
        return {**asked, **prompts.posed(asked, row["variant"], row["target"])}
    whole = bool(draw(seed, row["question_id"], f"whole {purpose}", 2))
    asked["gold"] = prompts.LETTERS[len(row["options"])]
    asked["image"] = Image.fromarray(unseen(row, as_array(row["image"]), whole))
    return {**asked, **prompts.posed(asked, row["variant"], prompts.target(asked, row["variant"], earlier=()))}
