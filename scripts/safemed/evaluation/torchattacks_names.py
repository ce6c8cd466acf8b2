"""The attacks of torchattacks that a config can name, what each takes and costs, and why the others cannot be named.

Words and numbers alone: checks, prices and tables read them without torch. `torchattacks_adapter` runs the attacks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

OPTIONS = 4  # of most questions; FAB takes a gradient for each
PACE = 2.5  # steps * alpha / eps, as torchattacks has it by default: 10 steps of 2/255 for 8/255


@dataclass(frozen=True)
class Named:
    """An attack of torchattacks, of the version that envs/ pins.

    norms: those that it can be bounded in; l0 has no radius. eps, steps, restarts: its arguments for these; steps is
    None for an attack of one step, restarts for one that starts once. pace: steps * alpha / eps, where `alpha` is its
    argument for the length of a step; None without one. seeded: it seeds torch by an argument, `seed`. options: other
    arguments.

    What it spends on a question that does not break: gradients and queries (answers without a gradient) in each step;
    more_gradients and more_queries in each restart besides; first, queries before them all. at_once: how many images
    its model sees at a time, where it goes through the questions one by one; None for batches.
    """

    norms: tuple[str, ...] = ("linf",)
    eps: str = "eps"
    steps: str | None = "steps"
    restarts: str | None = None
    pace: float | None = None
    alpha: str = "alpha"
    seeded: bool = False
    options: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    gradients: int = 1
    queries: int = 0
    more_gradients: int = 0
    more_queries: int = 0
    first: int = 0
    at_once: int | None = None

    def arguments(self, norm: str, eps: float, steps: int, restarts: int, seed: int) -> dict:
        """The arguments of its class; eps in [0, 1] pixel units."""
        given = dict(self.options)
        given |= {} if norm == "l0" else {self.eps: eps}
        given |= {"norm": norm.capitalize()} if len(self.norms) > 1 else {}
        given |= {} if self.pace is None else {self.alpha: self.pace * eps / steps}
        given |= {self.steps: steps} if self.steps else {}
        given |= {self.restarts: restarts} if self.restarts else {}
        return given | ({"seed": seed} if self.seeded else {})

    def cost(self, steps: int, restarts: int) -> tuple[int, int]:
        """Gradients, and queries, that it spends on a question that does not break; one query is of what it returns."""
        gradients = restarts * (steps * self.gradients + self.more_gradients)
        return gradients, self.first + restarts * (steps * self.queries + self.more_queries) + 1


def _iterated(gradients: int = 1, **more) -> Named:
    """An attack with steps of a length of its own, and so many gradients in each."""
    return Named(pace=PACE, gradients=gradients, **more)


NAMES = {
    "FGSM": Named(steps=None),
    "FFGSM": Named(steps=None, pace=1.25),
    "BIM": _iterated(),
    "RFGSM": _iterated(),
    "PGD": _iterated(),
    "TPGD": _iterated(first=1),
    "UPGD": _iterated(),
    "EOTPGD": _iterated(gradients=2),
    "MIFGSM": _iterated(),
    "NIFGSM": _iterated(),
    "SINIFGSM": _iterated(gradients=5),
    "VMIFGSM": _iterated(gradients=6),
    "VNIFGSM": _iterated(gradients=6),
    "DIFGSM": _iterated(),
    "TIFGSM": _iterated(),
    "PIFGSM": Named(eps="max_epsilon", steps="num_iter_set"),
    "PIFGSMPP": Named(eps="max_epsilon", steps="num_iter_set"),
    "Jitter": _iterated(),
    "PGDL2": Named(("l2",), pace=2.0),
    "APGD": Named(("linf", "l2"), restarts="n_restarts", seeded=True, first=1, more_gradients=1),
    "FAB": Named(
        ("linf", "l2"), restarts="n_restarts", seeded=True, first=1, gradients=OPTIONS, queries=1, more_queries=2
    ),
    "Square": Named(
        ("linf", "l2"), steps="n_queries", restarts="n_restarts", seeded=True, first=1, gradients=0, queries=1,
        more_queries=2,
    ),
    "SPSA": _iterated(  # 128 directions; a batch of one looks at the questions once
        gradients=0, queries=256, steps="nb_iter", alpha="lr", options=MappingProxyType({"max_batch_size": 1})
    ),
    "Pixle": Named(
        ("l0",), steps="max_iterations", restarts="restarts", first=1, gradients=0, queries=2, at_once=1
    ),
    "OnePixel": Named(("l0",), first=10, gradients=0, queries=11, at_once=10),
}  # fmt: skip

_FEW = "it fails on questions with two or three options"
_UNBOUNDED = "it has no radius; the smallest perturbation is what `kind: cw` seeks"
_SMOOTHED = "it shows its model noise alone; smoothed models are attacked by certify.attacks"
REFUSED = {
    "APGDT": f"{_FEW}; `kind: apgd` with the loss `other` does not",
    "AutoAttack": f"{_FEW}; attack.suite does not",
    "CW": "it returns the clean image where logits are negative, and never moves black pixels; write kind: cw",
    "DeepFool": _UNBOUNDED,
    "SparseFool": _UNBOUNDED,
    "EADL1": _UNBOUNDED,
    "EADEN": _UNBOUNDED,
    "JSMA": "it aims at the next of ten classes, which a question does not have",
    "PGDRS": _SMOOTHED,
    "PGDRSL2": _SMOOTHED,
    "GN": "its noise has no radius; write kind: noise",
    "VANILA": "it returns the clean image",
    "LGV": "it trains models of its own on images that it is not given here",
    "MultiAttack": "it is a list of attacks, as attack.suite is",
}  # each reason is shown in tests/evaluation/test_torchattacks_adapter.py
