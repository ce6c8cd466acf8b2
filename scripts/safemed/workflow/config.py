"""What follows from a study's config: the models it trains, their settings, and the attacks on each.

All functions take a config that `checks` has accepted. A model is named {method}-{variant}, and one that is trained
with a further seed {method}-{variant}-seed{N}; `seed` stands for that ending, "" for the study's own seed.
"""

import math
import re
from pathlib import Path

from safemed.data.prompts import VARIANTS, of_variant

ROOT = Path(__file__).resolve().parents[3]
BASE = "base"
PRETRAINED = ("instruct", "think")  # what every tiny base learns to answer as
OWN = "own"  # targets that the start model has written itself
OWN_TOWER = "own"  # of retrieve.retrievers: that of the model which reads the reports


def sweeps(attack: dict, variant: str | None = None) -> list[str]:
    """The attacks of a suite that attack every question at all eps; of all variants, or those of one.

    attack: that section of the config.
    """
    names = attack["suite"] if variant is None else suite(attack, variant)
    attacks = {name: attack["attacks"][name] for name in names}
    return [name for name, own in attacks.items() if _linf(own) and not own.get("survivors")]


def suite(attack: dict, variant: str) -> list[str]:
    """The attacks of a suite that a variant is put to: those with losses for it, and those that climb none."""
    return [name for name in attack["suite"] if variant in attack["attacks"][name].get("losses", {variant: None})]


def before(attack: dict, variant: str, name: str) -> list[str]:
    """The attacks whose survivors alone `name` attacks: all linf attacks that stand before it in the suite."""
    if not attack["attacks"].get(name, {}).get("survivors"):
        return []
    names = suite(attack, variant)
    return [other for other in names[: names.index(name)] if _linf(attack["attacks"][other])]


def _linf(settings: dict) -> bool:
    """Whether an attack keeps to an L_inf ball."""
    return settings.get("norm", "linf") == "linf"


def asked_by(settings: dict) -> str:
    """The section of the config whose questions an attack is on: attack, or one of those that have attacks apart."""
    apart = {"sigma": "certify", "hint": "stress", "turn": "turns"}
    return next((section for key, section in apart.items() if key in settings), "attack")


def radii(attack: dict, name: str) -> list[float]:
    """The radii of an attack, ascending: for linf in 1/255, for l2 in [0, 1] pixel units.

    cw and attacks in l0 have no bound: their radius is infinite. A smoothed model, and one under a hint or in a second
    turn, is also asked without an attack, at 0.
    """
    settings = attack["attacks"].get(name, {})
    if name == "clean":
        return [0]
    apart = asked_by(settings) != "attack"  # the clean images of the suite say nothing of it
    unattacked = [0] if apart else []
    if not _linf(settings):
        own = settings.get("eps", math.inf)
        return [*unattacked, *sorted(own if isinstance(own, list) else [own])]
    if settings.get("survivors") or apart:
        return [*unattacked, attack["headline_eps"]]
    return sorted(attack["eps"])


def smoothed_attacks(config: dict, variant: str, norm: str | None = None) -> list[str]:
    """The attacks of certify.attacks on a variant's smoothed models: all, or those in a norm, linf or l2."""
    attacks = config["attack"]["attacks"]
    names = [name for name in config["certify"]["attacks"] if variant in attacks[name].get("losses", {variant: None})]
    return [name for name in names if norm in (None, attacks[name].get("norm", "linf"))]


def training_settings(config: dict, name: str) -> dict:
    """What a method's training script is given: the trainer's defaults, overridden by the method's own keys."""
    method = config["methods"][name]
    own = {key: value for key, value in method.items() if key not in ("trainer", "start")}
    shared = {"peft": config["peft"], "max_new_tokens": config["max_new_tokens"]}
    # The trainer `tower` trains the vision tower alone, which fits on any GPU.
    shared |= {"sharded": config["resources"]["shard_training"] and method["trainer"] != "tower"}
    return {**shared, **config["training"][method["trainer"]], **own}


def chain(config: dict, name: str) -> list[str]:
    """A method and what it starts from, in turn, down to the base; ends with the first name to come again, if any."""
    names = [name]
    while (start := config["methods"].get(names[-1], {"start": BASE})["start"]) != BASE:
        names.append(start)
        if names.count(start) > 1:
            break
    return names


def seeds(config: dict) -> list[str]:
    """What the names of models end with: "" for the study's own seed, -seed{N} for each further one."""
    return ["", *(f"-seed{seed}" for seed in config["further_seeds"])]


def variant_of(model: str) -> str:
    """The variant of a trained model, from its name."""
    return re.sub(r"-seed\d+$", "", model).rpartition("-")[2]


def base_of(config: dict, variant: str) -> str:
    """The name of the base that a variant's trainings start from: its own, or the one of all variants."""
    return f"{BASE}-{variant}" if isinstance(config["model"]["name"], dict) else BASE


def trained_base(config: dict, variant: str, seed: str) -> str:
    """The name of that base for a seed: the tiny model is trained with each, a checkpoint is the same for all."""
    base = base_of(config, variant)
    return base + (seed if base_model(config, base)["name"] == "tiny" else "")


def trained_bases(config: dict) -> list[str]:
    """The names of the bases for all seeds, each once."""
    named = [trained_base(config, variant, seed) for seed in seeds(config) for variant in config["variants"]]
    return list(dict.fromkeys(named))


def bases(config: dict) -> dict[str, list[str]]:
    """The name of each base -> the variants that it serves."""
    served: dict[str, list[str]] = {}
    for variant in config["variants"]:
        served.setdefault(base_of(config, variant), []).append(variant)
    return served


def variants_of(config: dict, base: str) -> list[str]:
    """The variants as which one of `bases` is asked: those that it serves.

    The tiny model learns both of PRETRAINED in any case, so that studies of one and of both have the same base.
    """
    served = bases(config)[base]
    if base_model(config, base)["name"] != "tiny":
        return served
    return [variant for variant in VARIANTS if variant in (*PRETRAINED, *served)]


def base_model(config: dict, base: str) -> dict:
    """The `model` section of the config as it is for one of `bases`: one name, and one revision."""
    (variant, *_), model = bases(config)[base], config["model"]
    return model | {key: of_variant(model[key], variant) for key in ("name", "revision")}


def methods_of(config: dict, trainer: str) -> list[str]:
    """The methods that a trainer (sft, tower or grpo) serves."""
    return [name for name, method in config["methods"].items() if method["trainer"] == trainer]


def parts(config: dict) -> dict[str, dict]:
    """What the methods to be trained learn from, for those that train on a part of the training split."""
    methods = {name: config["methods"][name] for name in needed(config)}
    return {name: method["train_on"] for name, method in methods.items() if "train_on" in method}


def certified_methods(config: dict) -> list[str]:
    """The methods whose models are certified: certify.methods, or study_methods where that is null."""
    if "certify" not in config["evaluations"]:
        return []
    own = config["certify"]["methods"]
    return config["study_methods"] if own is None else own


def studied(config: dict) -> list[str]:
    """The methods that `all` evaluates, by attacks or by certificates, each once."""
    return list(dict.fromkeys([*config["study_methods"], *certified_methods(config)]))


def lineage(config: dict, methods: list[str]) -> list[str]:
    """The methods and all that they start from, each once, starts first; the base is no method."""
    found: list[str] = []
    for name in methods:
        found += [method for method in reversed(chain(config, name)) if method not in (BASE, *found)]
    return found


def own_targets(config: dict) -> list[str]:
    """The names of the trained models that are taught answers of their start model's own."""
    named = ((name, model) for name in needed(config) for model in models(config, [name]))
    return [model for name, model in named if teaches_own(config, name, variant_of(model))]


def teaches_own(config: dict, name: str, variant: str) -> bool:
    """Whether a method teaches a variant answers of its start model's own."""
    return of_variant(training_settings(config, name).get("targets"), variant) == OWN


def retrieves(config: dict, name: str) -> bool:
    """Whether a method is trained with retrieved reports."""
    return bool(training_settings(config, name)["augmentation"].get("retrieved"))


def teaching_towers(config: dict) -> set[str]:
    """The methods whose models' towers retrieve reports for trainings that start from these models."""
    return {method["start"] for name, method in config["methods"].items() if retrieves(config, name)}


def needed(config: dict) -> list[str]:
    """The methods that a study trains: those studied, those whose towers retrieve, and all that they start from."""
    retrieving = config["retrieve"]["retrievers"] if "retrieve" in config["evaluations"] else []
    return lineage(config, [*studied(config), *(name for name in retrieving if name not in (OWN_TOWER, BASE))])


def retrievers(config: dict, own: str, variant: str, seed: str) -> dict[str, str]:
    """The corpus -> the model of its tower, of each of retrieve.retrievers for one model of the method `own`."""
    names = [own if name == OWN_TOWER else name for name in config["retrieve"]["retrievers"]]
    towers = {f"{name}-{variant}{seed}": name for name in names}
    base = trained_base(config, variant, seed)
    return {model: base if name == BASE else model for model, name in towers.items()}


def corpora(config: dict) -> list[str]:
    """The corpora of the studied models' retrievers, and those that trainings read, each once."""
    asked = config["study_methods"] if "retrieve" in config["evaluations"] else []
    starts = [config["methods"][name]["start"] for name in needed(config) if retrieves(config, name)]
    every = [(name, variant, seed) for name in asked for variant in config["variants"] for seed in seeds(config)]
    names = [corpus for model in every for corpus in retrievers(config, *model)]
    return list(dict.fromkeys(names + models(config, starts)))


def models(config: dict, methods: list[str], only: str | None = None) -> list[str]:
    """The names of the models of some methods, those of the study's own seed first. only: the seed that is asked for.

    A base that is a checkpoint is one model, whatever the seeds.
    """
    return [
        f"{method}-{variant}{seed}"
        for seed in (seeds(config) if only is None else [only])
        for method in dict.fromkeys(methods)
        for variant in config["variants"]
        if method != BASE or trained_base(config, variant, seed).endswith(seed)
    ]
