"""What is wrong with the settings of one attack by itself."""

from collections.abc import Iterator
from difflib import get_close_matches

from safemed.evaluation.torchattacks_names import NAMES, REFUSED
from safemed.workflow.faults.variants import of_variants

MARGINS = {"answer", "empty", "other", "sampled"}  # losses that are above 0 where the answer is broken
# Losses on a thought before the letter: the variant after answers first.
THOUGHT_LOSSES = ("empty", "sampled", "thought", "stop")
LOSSLESS = ("noise", "torchattacks")  # kinds of attack that climb none of the losses that can be named
NORMS = {"pgd": ("linf", "l2"), "apgd": ("linf", "l2"), "cw": ("l2",)}  # of the kinds that have others than linf
NORM_NAMES = {"linf": "L_inf", "l2": "L2", "l0": "L0"}
SMOOTHING_KEYS = {"sigma", "draws", "votes", "function"}  # keys of an attack on a smoothed model


def faults(attack: dict, variants: list[str]) -> Iterator[str]:
    """What is wrong with one attack's settings, each fault beginning with its key."""
    kind, losses = attack["kind"], attack.get("losses", {})
    if kind in LOSSLESS:
        yield from _lossless(attack)
    elif not losses:
        yield f"losses: missing; {kind} climbs losses, such as losses: {{instruct: [answer], think: [answer]}}"
    if early := [loss for loss in losses.get("after", []) if loss in THOUGHT_LOSSES]:
        yield f"losses.after: {', '.join(early)}; that is on the thought before the letter, where after has none"
    attacked = [variant for variant in variants if variant in (losses or variants)]
    yield from of_variants("restarts", attack.get("restarts", 1), attacked)
    if kind != "torchattacks" and "attack" in attack:
        yield f"attack: the kind is {kind}, and only torchattacks has attacks to choose among"
    if kind == "torchattacks" and (found := [*_named_by_torchattacks(attack)]):
        yield from found
    else:
        yield from _bounds(attack)
    climbed = {loss for names in losses.values() for loss in names}
    if "patience" in attack and not (climbed and climbed <= MARGINS):
        yield f"patience: only for losses that are margins, {', '.join(sorted(MARGINS))}"
    if missing := SMOOTHING_KEYS & attack.keys() and SMOOTHING_KEYS - attack.keys():
        yield f"sigma: an attack on a smoothed model also needs {', '.join(sorted(missing))}"
    if {"hint", "turn"} <= attack.keys():
        yield "turn: an attack knows a hint or a second turn; leave one of them out"
    if "sigma" in attack and (kind not in ("pgd", "apgd") or attack.get("survivors")):
        yield f"kind: {kind}; a smoothed model is attacked by pgd or apgd, on every question"


def _lossless(attack: dict) -> Iterator[str]:
    """Keys that say nothing to an attack which climbs none of the losses that can be named."""
    kind = attack["kind"]
    if "losses" in attack:
        yield f"losses: {kind} climbs {'a loss of its own' if kind == 'torchattacks' else 'none'}"
    if kind == "noise" and "restarts" in attack:
        yield "restarts: noise has none; give more steps"


def _named_by_torchattacks(attack: dict) -> Iterator[str]:
    """What is wrong with the name of an attack of torchattacks, or with what that attack takes."""
    name = attack.get("attack")
    if name is None:
        yield "attack: missing; the kind torchattacks needs the name of an attack, such as Square"
    elif name in REFUSED:
        yield f"attack: {name} of torchattacks cannot be used: {REFUSED[name]}"
    elif name not in NAMES:
        known = {one.lower(): one for one in NAMES}
        near = get_close_matches(name.lower(), known, n=1)
        said = f"did you mean {known[near[0]]}?" if near else "docs/threat-model.md lists those that can be named"
        yield f"attack: unknown attack of torchattacks {name!r}; {said}"
    else:
        if "restarts" in attack and not NAMES[name].restarts:
            yield f"restarts: {name} has none"
        if attack["steps"] != 1 and not NAMES[name].steps:
            yield f"steps: {name} takes one; write steps: 1"


def _bounds(attack: dict) -> Iterator[str]:
    """Whether an attack has the norm that it names, and a radius where its norm wants one."""
    kind, norm = attack["kind"], attack.get("norm", "linf")
    name = attack["attack"] if kind == "torchattacks" else kind
    norms = NAMES[name].norms if kind == "torchattacks" else NORMS.get(kind, ("linf",))
    if norm != "linf" and attack.get("survivors"):
        yield f"survivors: what L_inf attacks left says nothing of an {NORM_NAMES[norm]} ball"
    if norm not in norms:
        yield f"norm: {name} has no {NORM_NAMES[norm]}; write norm: {' or '.join(norms)}"
    elif (norm == "l2" and kind != "cw") != ("eps" in attack):
        own = "an L2 attack has an eps of its own (cw has none)"
        yield f"eps: {own}, an L_inf attack those of attack.eps, an L0 attack none"
