"""What is wrong with the names of attacks: those that there are none of, or that belong under another key."""

from collections.abc import Iterator

from safemed.workflow import schema

KNOWING = {"stress": "hint", "turns": "turn"}  # evaluations with an attack that knows the words, by the key that it has


def faults(config: dict) -> Iterator[str]:
    """Whether the attacks that are named exist, and are named where attacks of their kind belong; a whole key first."""
    known = config["attack"]["attacks"]
    for key, names in named(config).items():
        for name in names:
            if name not in known:
                yield f"{key}: unknown attack {name!r}{schema.did_you_mean(name, list(known))}"
            elif key != _place(known[name]):
                yield (
                    f"{key}: {name!r}; attacks on smoothed models (with sigma) go to certify.attacks, one that knows a "
                    "hint (with hint) to stress.adaptive, one that knows a second turn (with turn) to turns.adaptive, "
                    "others to attack.suite"
                )
    for key, (_, name) in shown(config).items():
        if name not in known:
            yield f"{key}: unknown attack {name!r}{schema.did_you_mean(name, list(known))}"


def named(config: dict) -> dict[str, list[str]]:
    """Key -> the attacks that it names."""
    knowing = {f"{kind}.adaptive": config[kind]["adaptive"] for kind in KNOWING}
    return {
        "attack.suite": config["attack"]["suite"],
        "certify.attacks": config["certify"]["attacks"],
        **{key: [name] if name else [] for key, name in knowing.items()},
    }


def shown(config: dict) -> dict[str, tuple[str, str]]:
    """Key -> the evaluation that shows the stored images of an attack, and the attack."""
    knowing = {f"{kind}.attack": (kind, config[kind]["attack"]) for kind in KNOWING}
    knowing |= {f"{kind}.attack": (kind, config[kind]["attack"]) for kind in ("reveal", "retrieve", "defend")}
    return {"attack.transfer": ("transfer", config["attack"]["transfer"]), **knowing}


def _place(attack: dict) -> str:
    """The key that an attack is to be named under."""
    known = [f"{kind}.adaptive" for kind, key in KNOWING.items() if key in attack]
    return known[0] if known else "certify.attacks" if "sigma" in attack else "attack.suite"
