"""Questions in other words, and with other options.

An altered question is a row of the prepared questions with another `question`, `options` or `gold`.
"""

from collections.abc import Iterable

from safemed.data.hardening import overlap
from safemed.data.prompts import LETTERS
from safemed.utils.draws import draw


def paraphrased(question: dict, wording: str) -> dict:
    """The question in another wording; nothing else changes."""
    return question | {"question": wording.format(question=question["question"])}


def permuted(question: dict, seed: int) -> dict:
    """The same options in another order: each moves on by the same number of places, never by none."""
    return moved_on(question, 1 + draw(seed, question["question_id"], "permute", len(question["options"]) - 1))


def moved_on(question: dict, by: int) -> dict:
    """The same options, each moved on by so many places; the last ones come first."""
    n = len(question["options"])
    options = [question["options"][(i - by) % n] for i in range(n)]
    return question | {"options": options, "gold": LETTERS[(LETTERS.index(question["gold"]) + by) % n]}


def removed(question: dict, none_of_these: str) -> dict:
    """The right option replaced by `none_of_these`, which is right now."""
    place = LETTERS.index(question["gold"])
    return question | {"options": [*question["options"][:place], none_of_these, *question["options"][place + 1 :]]}


def distracted(question: dict, others: Iterable[str], truths: Iterable[str], seed: int) -> dict | None:
    """With one more wrong option, drawn from `others`, at the end; None where all of them are options already.

    others: options of questions of the same modality and type. truths: all that is right for the image. An option that
    shares all its words with one of them, or with one that is there, might be right, or be the same.
    """
    known = [*truths, *question["options"]]
    new = sorted(option for option in set(others) if not any(overlap(option, one) for one in known))
    if not new or len(question["options"]) == len(LETTERS):
        return None
    return question | {
        "options": [*question["options"], new[draw(seed, question["question_id"], "distract", len(new))]]
    }
