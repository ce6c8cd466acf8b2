"""Which sets of operators a red team tries next on a question: the strategies that are compared.

DAS (arXiv 2508.00923) has a language model choose; here the margin of the right letter does, by a rule of our own. What
is kept of DAS: every set is applied to the original question, at most two operators in the first three rounds and more
later, no set twice, no sets that conflict.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from safemed.stress.operators import Operator, conflicting
from safemed.utils.draws import draw
from safemed.utils.noise import named_rng

Set = frozenset[Operator]
Prior = dict[Operator, float]  # an operator with its first claim -> by how much it lowers the margin alone, on average

FEW, MANY = 2, 4  # operators of a set in the first rounds, and later
FIRST_ROUNDS = 3
KEPT = 3  # sets of a question, of those that may grow, that further operators are added to
DRAWS = 50  # for a new set, before a random strategy gives up


@dataclass
class Tried:
    """What has been tried on a question: set of operators -> by how much the margin of the right letter fell.

    offered: its operators. name: of the question; with the seed, it decides what goes first where nothing else does.
    """

    name: str
    offered: list[Operator]
    seed: int
    falls: dict[Set, float] = field(default_factory=dict)

    def __post_init__(self):
        """Put the operators in random order, one of each kind in turn: kinds with many variants do not come first."""
        drawn = sorted(self.offered, key=lambda one: draw(self.seed, self.name, f"operator {one}"))
        kinds = [one.kind for one in drawn]
        turns = [kinds[:i].count(kind) for i, kind in enumerate(kinds)]
        self.offered = [drawn[i] for i in sorted(range(len(drawn)), key=turns.__getitem__)]

    def worth(self, operator: Operator, prior: Prior) -> float:
        """What an operator added to the fall where it was tried on this question, on average; else its prior."""
        known = self.falls | {frozenset(): 0.0}
        added = [
            fell - known[tried - {operator}]
            for tried, fell in self.falls.items()
            if operator in tried and tried - {operator} in known
        ]
        return sum(added) / len(added) if added else prior.get(operator.first(), 0.0)


def largest(round_: int) -> int:
    """How many operators a set may have in a round; rounds are counted from 1."""
    return FEW if round_ <= FIRST_ROUNDS else MANY


def adaptive(tried: Tried, prior: Prior, round_: int, n: int) -> list[Set]:
    """The next n sets by feedback: the sets that lowered the margin most, each with one operator more, and single ones.

    A set ranks by its parent's fall plus the worth of the operator that is added; of equals, the larger one first. As
    long as there are others, no two sets of a round add operators of one kind to the same parent. Fewer than n where no
    more can be made.
    """
    chosen: list[Set] = []
    others: list[Set] = []
    seen, branches = set(tried.falls), set()
    children = sorted(_children(tried, prior, largest(round_)), key=lambda one: (-one[0], -len(one[1])))
    for _, child, branch in children:
        if child not in seen:
            (others if branch in branches else chosen).append(child)
            branches.add(branch)
            seen.add(child)
    return [*chosen, *others][:n]


def _children(tried: Tried, prior: Prior, most: int) -> Iterator[tuple[float, Set, tuple[Set, str]]]:
    """Expected fall, set, and its branch (parent and kind added), of all sets one operator larger than a kept one."""
    worths = {one: tried.worth(one, prior) for one in tried.offered}
    smaller = [(one, fell) for one, fell in tried.falls.items() if len(one) < most]
    kept = sorted(smaller, key=lambda one: (-one[1], -len(one[0])))[:KEPT]
    for parent, fell in [(frozenset(), 0.0), *kept]:
        for operator, worth in worths.items():
            child = parent | {operator}
            if len(parent) < len(child) and not conflicting(child):
                yield fell + worth, child, (parent, operator.kind)


def random(tried: Tried, prior: Prior, round_: int, n: int) -> list[Set]:
    """n sets drawn without feedback or prior: their size, then kinds, then one operator of each, all uniformly."""
    rng, found = named_rng("random red team", f"{tried.seed}:{tried.name}:{round_}"), dict.fromkeys(tried.falls)
    kinds = sorted({one.kind for one in tried.offered})
    for _ in range(DRAWS * n):
        size = min(1 + int(rng.integers(largest(round_))), len(kinds))
        drawn = rng.choice(kinds, size, replace=False)
        pools = [sorted(one for one in tried.offered if one.kind == kind) for kind in drawn]
        made = frozenset(pool[int(rng.integers(len(pool)))] for pool in pools)
        if not conflicting(made):
            found[made] = None
        if len(found) == len(tried.falls) + n:
            break
    return list(found)[len(tried.falls) :]


def best_single(tried: Tried, prior: Prior, round_: int, n: int) -> list[Set]:
    """One operator at a time: all of the kind that has the best prior, the best first; then those of the next kind, so
    that as many questions are asked as by the others.
    """
    best: dict[str, float] = {}
    for one in tried.offered:
        best[one.kind] = max(best.get(one.kind, -float("inf")), prior.get(one.first(), 0.0))
    order = sorted(tried.offered, key=lambda one: (-best[one.kind], one.kind, -prior.get(one.first(), 0.0)))
    return [single for one in order if (single := frozenset([one])) not in tried.falls][:n]


# silent: the adaptive strategy on operators that claim nothing, which is what any changes do to a model.
STRATEGIES = {"adaptive": adaptive, "random": random, "best-single": best_single, "silent": adaptive}
SILENT = "silent"
