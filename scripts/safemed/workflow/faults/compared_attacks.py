"""What is wrong between attacks that are compared with each other, or with certificates."""

from collections.abc import Iterable, Iterator

from safemed.workflow.config import sweeps
from safemed.workflow.faults.named_attacks import KNOWING, shown

GRADIENTS = ("pgd", "apgd", "mi-fgsm")  # kinds of attacks that climb losses from images that they are given


def faults(config: dict) -> Iterator[str]:
    """Each fault between attacks that are sound in themselves, beginning with its whole key."""
    attack, made = config["attack"], config["evaluations"]
    swept = sweeps(attack)
    if "pgd" not in swept:
        yield "attack.attacks.pgd.survivors: figures show pgd at all eps: it must attack every question, in L_inf"
        return
    for key, (evaluation, name) in shown(config).items():
        if evaluation in made and name not in swept:
            yield f"{key}: {name!r} is not among the attacks of attack.suite at all eps: {', '.join(swept)}"
    if "certify" in made:
        yield from _smoothed_attacks(config["certify"], attack["attacks"])
        smoothed = [name for name in config["certify"]["attacks"] if attack["attacks"][name].get("norm") != "l2"]
        if smoothed and (many := config["certify"]["questions"]) > attack["questions"]:
            compared = f"{smoothed[0]} on smoothed models is compared with pgd on the models, question by question"
            yield f"certify.questions: {many} is more than attack.questions = {attack['questions']}: {compared}"
    for kind, own in ((kind, config[kind]) for kind in KNOWING if kind in made):
        if own["adaptive"]:
            yield from _adaptive_attack(kind, own, attack["attacks"])
    for kind in (*KNOWING, "defend"):
        if kind in made and (many := config[kind]["questions"]) > attack["questions"]:
            yield f"{kind}.questions: {many} is more than attack.questions = {attack['questions']}"
    if "defend" in made:
        yield from _through_defences(config["defend"]["attack"], attack["attacks"])


def _smoothed_attacks(certify: dict, attacks: dict) -> Iterator[str]:
    """Whether the attacks on smoothed models can be compared with certificates, and with pgd on the models."""
    seen: dict[tuple, str] = {}
    for name in certify["attacks"]:
        attack = attacks[name]
        where, l2 = f"attack.attacks.{name}", attack.get("norm") == "l2"
        if attack["sigma"] not in certify["sigma"]:
            yield f"{where}.sigma: {attack['sigma']} is not in certify.sigma {certify['sigma']}"
        if attack["function"] not in certify["functions"]:
            yield f"{where}.function: {attack['function']} is not in certify.functions {certify['functions']}"
        if (other := seen.setdefault((l2, attack["sigma"], attack["function"]), name)) != name:
            yield f"{where}: a smoothed model is attacked once in a norm, and {other} does that already"
        given = attack.get("eps", [])
        if l2 and not set(given if isinstance(given, list) else [given]) <= set(certify["radii"]):
            yield f"{where}.eps: {given} is not all in certify.radii {certify['radii']}"
        if not l2:
            yield from _unlike(attacks, name, "pgd", ("kind", "steps", "restarts", "losses"), "smoothing")


def _adaptive_attack(kind: str, own: dict, attacks: dict) -> Iterator[str]:
    """Whether the attack that knows a hint or a turn is, but for that, the one whose images it is combined with."""
    name, other = own["adaptive"], own["attack"]
    keys = sorted((attacks[name].keys() | attacks[other].keys()) - {KNOWING[kind]})
    yield from _unlike(attacks, name, other, keys, f"knowing the {KNOWING[kind]}")


def _through_defences(name: str, attacks: dict) -> Iterator[str]:
    """Whether an attack can go through defences: what they make of an image is differentiated."""
    own = attacks[name]
    if (kind := own["kind"]) not in GRADIENTS:
        yield f"defend.attack: {name!r} is of kind {kind}; one of {', '.join(GRADIENTS)} goes through defences"
    elif own["steps"] == 1:
        yield f"defend.attack: {name!r} has one step, of which there are no restarts; take one with more"
    elif own.get("patience"):
        yield f"defend.attack: {name!r} has patience, which the mean over many askings tries too soon; take one without"


def _unlike(attacks: dict, name: str, other: str, keys: Iterable[str], what: str) -> Iterator[str]:
    """The keys in which an attack differs from the one that it is compared with to see what something changes."""
    for key in keys:
        if attacks[name].get(key) != attacks[other].get(key):
            compared = f"it is compared with attack.attacks.{other} to see what {what} changes"
            yield f"attack.attacks.{name}.{key}: {compared}: give both the same {key}"
