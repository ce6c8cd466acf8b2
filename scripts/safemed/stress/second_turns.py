"""The second turn of a conversation: the question, the answer that it had, and what the user says to that answer."""

from collections.abc import Sequence

from safemed.data import prompts
from safemed.data.prompts import LETTERS
from safemed.stress.hints import claimed
from safemed.stress.pushes import PUSHES, Push
from safemed.utils.draws import draw


def claim_of(question: dict, push: str, seed: int) -> str:
    """The letter that a push of PUSHES claims, "" where it claims none.

    Seed and question alone decide which wrong one, and not the first answer: all models are told the same.
    """
    return claimed(question, PUSHES[push], seed)


def pushed(question: dict, first: str, wording: Push, letter: str, variant: str) -> dict:
    """The question in a second turn, after its `first` answer as it was written; letter: the claim's, or "".

    Raises ValueError as `prompts.second_turn` does.
    """
    option = question["options"][LETTERS.index(letter)] if letter else ""
    said = wording.text.format(option=option, letter=letter)
    return question | {"turns": prompts.second_turn(first, said, variant)}


def own_wording(question: dict, wordings: Sequence[Push], seed: int) -> Push:
    """One of the wordings, by question and seed alone."""
    return min(wordings, key=lambda one: draw(seed, question["question_id"], f"wording {one.name}"))
