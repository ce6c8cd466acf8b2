"""Training on second turns: a question that was answered and pushed, and whose right answer is still the right one."""

from collections.abc import Callable
from functools import partial

from safemed.data import prompts
from safemed.stress.hints import Templates
from safemed.stress.pushes import KINDS, Push
from safemed.stress.second_turns import pushed
from safemed.utils.draws import RANKS, draw

Turn = Callable[[dict, str], dict]  # a row, and the purpose that its draws are for, such as a step -> the row


def turning(templates: Templates, share: float, seed: int) -> Turn:
    """What `turned` makes of a row, in the wordings of the templates that a training may draw."""
    wordings = {kind: templates.wordings(kind, train=True) for kind in KINDS}
    return partial(turned, wordings=wordings, share=share, seed=seed)


def turned(row: dict, purpose: str, wordings: dict[str, list[Push]], share: float, seed: int) -> dict:
    """A row of `training.training_rows`, which for a `share` of the questions is in a second turn; its target stays.

    The first answer is any of the options, in the variant's format, and so is what a claim claims, whatever is right:
    neither tells anything of the right answer, which is in the image alone. Nor does the thought, which names the
    option and neither modality nor finding. An answer of the model's own would
    have to be generated at every step, by weights that change, and be right too often to teach that it may be wrong.
    Which rows, answers and pushes are drawn by seed, question and purpose: the same for all rows of a question, in
    every process.
    """

    def drawn(what: str, n: int = RANKS) -> int:
        return draw(seed, row["question_id"], f"{what} {purpose}", n)

    if drawn("turn") >= round(share * RANKS):
        return row
    kind, n = KINDS[drawn("push", len(KINDS))], len(row["options"])
    wording = wordings[kind][drawn("wording", len(wordings[kind]))]
    answered = row | {"gold": prompts.LETTERS[drawn("first", n)], "modality": None, "finding": None}
    claim = prompts.LETTERS[drawn("claimed", n)] if kind == "claim" else ""
    asked = pushed(row, prompts.target(answered, row["variant"]), wording, claim, row["variant"])
    return asked | {"prompt": prompts.conversation(asked, row["variant"])}
