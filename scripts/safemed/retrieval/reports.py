"""Reports of images: the right answers to the questions about an image, as text. They stand beside other questions.

OmniMedVQA has no reports that were written by anybody: these are its right answers, and nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from safemed.data import prompts
from safemed.data.records import normalise


@dataclass(frozen=True)
class Report:
    """What is said of an image: pairs of a question type and the answer to it, after some words that say nothing."""

    statements: tuple[tuple[str, str], ...]
    opening: str = ""

    @property
    def text(self) -> str:
        """The report as models and searches read it."""
        return " ".join([self.opening, *(f"{kind}: {answer}." for kind, answer in self.statements)]).strip()

    def says(self, question: dict) -> str:
        """The letter of the option that the report gives for a question's type, "" where that is none of them."""
        letters = dict(zip(map(normalise, question["options"]), prompts.LETTERS, strict=False))
        stated = [
            letters.get(normalise(answer), "") for kind, answer in self.statements if kind == question["question_type"]
        ]
        return next(filter(None, stated), "")

    def states(self, question: dict) -> bool:
        """Whether it gives the right answer for the question's type."""
        gold = normalise(prompts.gold_text(question))
        return (question["question_type"], gold) in {(kind, normalise(answer)) for kind, answer in self.statements}

    def claiming(self, question: dict, letter: str) -> Self:
        """The report with an option of the question as the one answer to its type."""
        claim = (question["question_type"], question["options"][prompts.LETTERS.index(letter)])
        kinds = [kind for kind, _ in self.statements]
        place = kinds.index(claim[0]) if claim[0] in kinds else len(kinds)
        before, after = (self._silent(part, claim[0]) for part in (self.statements[:place], self.statements[place:]))
        return replace(self, statements=(*before, claim, *after))

    def unclaimed(self, question: dict) -> Self:
        """The report with "not stated" in the place of what it says of the question's type: as long, and no claim."""
        kind = question["question_type"]
        told = tuple((one, "not stated") if one == kind else (one, answer) for one, answer in self.statements)
        return replace(self, statements=tuple(dict.fromkeys(told)))

    @staticmethod
    def _silent(statements: Sequence[tuple[str, str]], kind: str) -> tuple[tuple[str, str], ...]:
        return tuple(one for one in statements if one[0] != kind)


def beside(question: dict, reports: Sequence[Report], template: str) -> dict:
    """The question after reports, each in the words of a template, which names {report}; as it is where there are none.

    A report that says nothing is left out.
    """
    said = [template.format(report=report.text) for report in reports if report.text]
    return question | {"question": " ".join([*said, question["question"]])}
