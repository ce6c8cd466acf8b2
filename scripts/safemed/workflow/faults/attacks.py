"""What is wrong with the attacks: their names, each by itself, and what holds between them."""

from collections.abc import Iterator

from safemed.workflow.faults import compared_attacks, named_attacks, one_attack
from safemed.workflow.faults.variants import of_variants


def faults(config: dict) -> Iterator[str]:
    """Each fault of the attacks, beginning with its whole key.

    Names first, then each attack by itself, then what holds between attacks: a stage with faults is the last.
    """
    attack = config["attack"]
    if attack["headline_eps"] not in attack["eps"]:
        yield f"attack.headline_eps: {attack['headline_eps']} is not in attack.eps {attack['eps']}"
    if attack["amp"] and config["evaluation_precision"] == "bf16":
        yield "attack.amp: true is for models in fp32, and evaluation_precision is bf16; write amp: false"
    for fault in _sanity(attack["sanity"], config["variants"]):
        yield f"attack.sanity.{fault}"
    for stage in (named_attacks.faults, _each_attack, compared_attacks.faults):
        found = [*stage(config)]
        yield from found
        if found:
            return


def _sanity(sanity: dict, variants: list[str]) -> Iterator[str]:
    for key in ("radii", "steps"):
        if sanity[key] != sorted(set(sanity[key])):
            yield f"{key}: {sanity[key]} is not ascending"
    restarts = sanity["restarts"]
    yield from of_variants("restarts", restarts, variants)
    if "instruct" in variants and (restarts if isinstance(restarts, int) else restarts.get("instruct")) == 1:
        yield "restarts: 1; at least 2 for instruct: its attack on one loss is compared with one start"


def _each_attack(config: dict) -> Iterator[str]:
    for name in dict.fromkeys(name for names in named_attacks.named(config).values() for name in names):
        for fault in one_attack.faults(config["attack"]["attacks"][name], config["variants"]):
            yield f"attack.attacks.{name}.{fault}"
