"""Operators of a red team (after DAS, arXiv 2508.00923): their kinds, their names, and which of them conflict."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Self

KINDS = ("hint", "paraphrase", "order", "added", "removed", "label", "corruption")
NOTHING = -1  # as a claim


@dataclass(frozen=True, order=True)
class Operator:
    """One way of changing a question: its kind, one of KINDS, and which of that kind.

    claim: which wrong option it claims, as a place in the question's own order of them, whose first is the one that the
    stress tests claim; NOTHING where it claims none.
    """

    kind: str
    variant: str = ""
    claim: int = NOTHING

    def __str__(self) -> str:
        claimed = f" {self.claim}" if self.claim != NOTHING else ""
        return f"{self.kind} {self.variant}".rstrip() + claimed

    def first(self) -> Self:
        """The same operator with the first claim, if it claims anything: claims differ from question to question."""
        return replace(self, claim=min(self.claim, 0))


def conflicting(operators: Collection[Operator]) -> bool:
    """Whether operators cannot stand in one set.

    No two of a kind; none of a removed right option and added ones (DAS); no two different claims.
    """
    kinds = [one.kind for one in operators]
    claims = {one.claim for one in operators if one.claim != NOTHING}
    return len(set(kinds)) < len(kinds) or {"added", "removed"} <= set(kinds) or len(claims) > 1


def named(operators: Collection[Operator]) -> str:
    """A set of operators as rows write it."""
    return " + ".join(map(str, sorted(operators)))
