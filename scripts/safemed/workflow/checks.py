"""The rules between config keys that a schema cannot state. Each fault is one line with the whole path of its key."""

import re
import sys
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path

import yaml

from safemed.certificates import smoothing
from safemed.data.records import json_files, known_modalities, record_files
from safemed.evaluation.torchattacks_names import NAMES, REFUSED
from safemed.models.model_type import lacking
from safemed.models.untrusted import check_folder
from safemed.stress.hints import Templates
from safemed.workflow import schema
from safemed.workflow.config import BASE, ROOT, base_model, bases, chain, sweeps, training_settings
from safemed.workflow.sources import RECORDS, Sources, is_archive

MARGINS = {"answer", "empty", "other", "sampled"}  # losses that are above 0 where the answer is broken
# Losses on a thought before the letter: the variant after answers first.
THOUGHT_LOSSES = ("empty", "sampled", "thought", "stop")
LOSSLESS = ("noise", "torchattacks")  # kinds of attack that climb none of the losses that can be named
NORMS = {"pgd": ("linf", "l2"), "apgd": ("linf", "l2"), "cw": ("l2",)}  # of the kinds that have others than linf
NORM_NAMES = {"linf": "L_inf", "l2": "L2", "l0": "L0"}
HUB_ID = re.compile(r"(?!.*(?:--|[.][.]))[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)  # owner/name
KNOWING = {"stress": "hint", "turns": "turn"}  # evaluations with an attack that knows the words, by the key that it has
SMOOTHING_KEYS = {"sigma", "draws", "votes", "function"}  # keys of an attack on a smoothed model
READERS = {  # settings that not all trainers read: the trainers that do
    "targets": ("sft",),
    "target_samples": ("sft",),
    "vision_optimizer": ("fare", "grpo"),
    **dict.fromkeys(
        (
            "completions",
            "num_generations",
            "temperature",
            "rewards",
            "scale_rewards",
            "anchor",
            "features",
            "vision_learning_rate",
        ),
        ("grpo",),
    ),
}


def faults(config: dict) -> list[str]:
    """All that is wrong with a merged config, a line each; empty for one that can be run.

    Rules between keys are looked at once the schema accepts the config, and those between attacks once each attack is
    sound in itself.
    """
    return schema.faults(config) or [f"config: {fault}" for fault in _rules(config)]


def refuse(faults: list[str]) -> None:
    """End the program with these lines, if there are any, and nothing else."""
    if faults:
        sys.exit("\n".join(faults))


def _rules(config: dict) -> Iterator[str]:
    yield from _data(config["data"])
    yield from _model(config)
    yield from _attacks(config)
    if "certify" in config["evaluations"]:
        yield from _certificates(config["certify"])
    yield from _monitoring(config)
    yield from _resources(config["resources"])
    yield from _templates(config)
    yield from _red_team(config["redteam"])
    yield from _named_methods(config)
    yield from _methods(config)


def _data(data: dict) -> Iterator[str]:
    split = data["split"]
    total = sum(split[name] for name in ("train", "val", "test"))
    if abs(total - 1) > 1e-9:
        yield f"data.split: train, val and test sum to {total:g}, not 1"
    if split["scheme"] == "med-r1":
        yield from _published(split["published"])
    yield from _source(data)


def _published(folder: str | None) -> Iterator[str]:
    wanted = "the scheme med-r1 needs the folder of Med-R1's train/*.json and test/*.json"
    if not folder:
        yield f"data.split.published: {wanted}"
    elif not all(json_files(Path(folder, kind)) for kind in ("train", "test")):
        yield f"data.split.published: {folder} does not hold them: {wanted}"


def _source(data: dict) -> Iterator[str]:
    """Whether the user's own folder or .zip is there; one that is unpacked is not needed any more."""
    source = data["source"]
    if source in (None, "hub"):
        return
    if is_archive(source):
        if not (Path(source).is_file() or Path(Sources({"data": data}, "").unpacked).is_dir()):
            yield f"data.source: there is no file {source}"
    elif Path(source).is_file():
        yield f"data.source: {source} is a file, and no .zip; give a folder or a .zip in OmniMedVQA's layout"
    elif not Path(source).is_dir():
        yield f"data.source: there is no folder {source}; null renders phantoms, hub downloads OmniMedVQA"
    elif not record_files(Path(source)):
        yield f"data.source: {source} holds no {RECORDS}; give the folder that holds Images/ and QA_information/"


def _model(config: dict) -> Iterator[str]:
    for key in ("name", "revision"):
        if absent := list(_of_variants(key, config["model"][key], config["variants"])):
            yield from (f"model.{fault}" for fault in absent)
            return
    if isinstance(config["model"]["revision"], dict) and not isinstance(config["model"]["name"], dict):
        yield "model.revision: one for each variant, but one model.name for all; give a name for each variant, too"
    for base in bases(config):
        yield from _one_model(config, base_model(config, base))
    yield from _pretraining(config["base"])
    if config["attack"]["replay_on"]:
        yield from _loadable("attack.replay_on", config["attack"]["replay_on"])


def _one_model(config: dict, model: dict) -> Iterator[str]:
    name, revision, tiny = (model[key] for key in ("name", "revision", "tiny"))
    side, grid = config["data"]["image_size"], tiny["patch"] * tiny["merge"]
    if name == "tiny" and side % grid:
        yield f"data.image_size: {side} is no multiple of model.tiny.patch * model.tiny.merge = {grid}"
    if name == "tiny":
        return
    if Path(name).is_dir():
        yield from _loadable("model.name", name)
    elif not HUB_ID.fullmatch(name):
        yield f"model.name: {name} is neither tiny, nor a local folder, nor the id of a model on the hub, owner/name"
    elif not revision:
        yield f"model.revision: {name} is no local folder; a model of the hub needs the commit that it is pinned to"


def _loadable(key: str, folder: str) -> Iterator[str]:
    """Whether a folder holds a whole Qwen3-VL, as far as its files' names tell, and nothing to mistrust."""
    if why := lacking(Path(folder)):
        yield f"{key}: {folder} {why}"
        return
    try:
        check_folder(Path(folder))
    except ValueError as error:
        yield f"{key}: {error}"


def _pretraining(base: dict) -> Iterator[str]:
    steps, binding, guessing = base["steps"], base["binding_steps"], base["guessing_steps"]
    if binding + guessing > steps:
        yield f"base.steps: {steps} steps have no room for {binding} binding_steps and {guessing} guessing_steps"


def _monitoring(config: dict) -> Iterator[str]:
    for fault in _of_variants("restarts", config["monitoring"]["probe"]["restarts"], config["variants"]):
        yield f"monitoring.probe.{fault}"


def _resources(resources: dict) -> Iterator[str]:
    alone = resources["train_nodes"] * resources["train_processes"] == 1
    if resources["shard_training"] and (alone or not resources["gpus"]):
        yield "resources.shard_training: only for several processes, each with a GPU"


# Attacks.


def _attacks(config: dict) -> Iterator[str]:
    """Names first, then each attack by itself, then what holds between attacks."""
    attack = config["attack"]
    if attack["headline_eps"] not in attack["eps"]:
        yield f"attack.headline_eps: {attack['headline_eps']} is not in attack.eps {attack['eps']}"
    if attack["amp"] and config["evaluation_precision"] == "bf16":
        yield "attack.amp: true is for models in fp32, and evaluation_precision is bf16; write amp: false"
    for fault in _sanity(attack["sanity"], config["variants"]):
        yield f"attack.sanity.{fault}"
    for stage in (_named_attacks, _each_attack, _between_attacks):
        found = [*stage(config)]
        yield from found
        if found:
            return


def _sanity(sanity: dict, variants: list[str]) -> Iterator[str]:
    for key in ("radii", "steps"):
        if sanity[key] != sorted(set(sanity[key])):
            yield f"{key}: {sanity[key]} is not ascending"
    restarts = sanity["restarts"]
    yield from _of_variants("restarts", restarts, variants)
    if "instruct" in variants and (restarts if isinstance(restarts, int) else restarts.get("instruct")) == 1:
        yield "restarts: 1; at least 2 for instruct: its attack on one loss is compared with one start"


def _of_variants(key: str, value: object, variants: list[str]) -> Iterator[str]:
    """The variants that are left out where a value is given for each."""
    for variant in variants:
        if isinstance(value, dict) and variant not in value:
            yield f"{key}.{variant}: missing; give one value for all variants, or one for each"


def _named_attacks(config: dict) -> Iterator[str]:
    """Whether the attacks that are named exist, and are named where attacks of their kind belong."""
    known = config["attack"]["attacks"]
    for key, names in _names(config).items():
        for name in names:
            if name not in known:
                yield f"{key}: unknown attack {name!r}{schema.did_you_mean(name, list(known))}"
            elif key != _place(known[name]):
                yield (
                    f"{key}: {name!r}; attacks on smoothed models (with sigma) go to certify.attacks, one that knows a "
                    "hint (with hint) to stress.adaptive, one that knows a second turn (with turn) to turns.adaptive, "
                    "others to attack.suite"
                )
    for key, (_, name) in _shown(config).items():
        if name not in known:
            yield f"{key}: unknown attack {name!r}{schema.did_you_mean(name, list(known))}"


def _names(config: dict) -> dict[str, list[str]]:
    """Key -> the attacks that it names."""
    knowing = {f"{kind}.adaptive": config[kind]["adaptive"] for kind in KNOWING}
    return {
        "attack.suite": config["attack"]["suite"],
        "certify.attacks": config["certify"]["attacks"],
        **{key: [name] if name else [] for key, name in knowing.items()},
    }


def _shown(config: dict) -> dict[str, tuple[str, str]]:
    """Key -> the evaluation that shows the stored images of an attack, and the attack."""
    shown = {f"{kind}.attack": (kind, config[kind]["attack"]) for kind in KNOWING}
    return {"attack.transfer": ("transfer", config["attack"]["transfer"]), **shown}


def _place(attack: dict) -> str:
    """The key that an attack is to be named under."""
    known = [f"{kind}.adaptive" for kind, key in KNOWING.items() if key in attack]
    return known[0] if known else "certify.attacks" if "sigma" in attack else "attack.suite"


def _each_attack(config: dict) -> Iterator[str]:
    for name in dict.fromkeys(name for names in _names(config).values() for name in names):
        for fault in _one_attack(config["attack"]["attacks"][name], config["variants"]):
            yield f"attack.attacks.{name}.{fault}"


def _one_attack(attack: dict, variants: list[str]) -> Iterator[str]:
    """What is wrong with one attack's settings, each fault beginning with its key."""
    kind, losses = attack["kind"], attack.get("losses", {})
    if kind in LOSSLESS:
        yield from _lossless(attack)
    elif not losses:
        yield f"losses: missing; {kind} climbs losses, such as losses: {{instruct: [answer], think: [answer]}}"
    if early := [loss for loss in losses.get("after", []) if loss in THOUGHT_LOSSES]:
        yield f"losses.after: {', '.join(early)}; that is on the thought before the letter, where after has none"
    attacked = [variant for variant in variants if variant in (losses or variants)]
    yield from _of_variants("restarts", attack.get("restarts", 1), attacked)
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


def _between_attacks(config: dict) -> Iterator[str]:
    attack, made = config["attack"], config["evaluations"]
    swept = sweeps(attack)
    if "pgd" not in swept:
        yield "attack.attacks.pgd.survivors: figures show pgd at all eps: it must attack every question, in L_inf"
        return
    for key, (evaluation, name) in _shown(config).items():
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
        if own["questions"] > attack["questions"]:
            yield f"{kind}.questions: {own['questions']} is more than attack.questions = {attack['questions']}"


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


def _unlike(attacks: dict, name: str, other: str, keys: Iterable[str], what: str) -> Iterator[str]:
    """The keys in which an attack differs from the one that it is compared with to see what something changes."""
    for key in keys:
        if attacks[name].get(key) != attacks[other].get(key):
            compared = f"it is compared with attack.attacks.{other} to see what {what} changes"
            yield f"attack.attacks.{name}.{key}: {compared}: give both the same {key}"


def _certificates(certify: dict) -> Iterator[str]:
    if any(round(radius, smoothing.RADIUS_DIGITS) != radius for radius in certify["radii"]):
        yield f"certify.radii: {certify['radii']}; radii are certified to {smoothing.RADIUS_DIGITS} decimals"
    if certify["shards"] > certify["questions"]:
        yield f"certify.shards: {certify['shards']} jobs cannot share {certify['questions']} questions"
    if certify["n"] < (needed := smoothing.votes_needed(certify["mode"], certify["alpha"])):
        given = f"alpha = {certify['alpha']} and mode = {certify['mode']}"
        yield f"certify.n: {certify['n']} draws certify nothing with {given}; at least {needed}"


# Methods.


def _named_methods(config: dict) -> Iterator[str]:
    """Whether the methods that are named exist."""
    for key, names in (("study_methods", config["study_methods"]), ("certify.methods", config["certify"]["methods"])):
        for name in names or []:
            if name not in (BASE, *config["methods"]):
                yield f"{key}: {_unknown_method(config, name)}"


def _unknown_method(config: dict, name: str) -> str:
    """That there is no method of a name, and where there is one or what was meant."""
    for path in sorted((ROOT / "workflow" / "studies").glob("*.yaml")):
        if name in (yaml.safe_load(path.read_text()).get("methods") or {}):
            return f"method {name!r} is defined in {path.relative_to(ROOT)}: add that file to --configfile"
    return f"unknown method {name!r}{schema.did_you_mean(name, list(config['methods']))}"


def _methods(config: dict) -> Iterator[str]:
    """What methods refer to, and then each method by itself."""
    found = list(_starts(config))
    yield from found
    if found:
        return
    for name in config["methods"]:
        for fault in _one_method(config, name):
            yield f"methods.{name}.{fault}"
    yield from _shared_batches(config)


def _starts(config: dict) -> Iterator[str]:
    """Whether each method's starts lead down to the base. A circle is reported once."""
    circles: set[str] = set()
    for name, method in config["methods"].items():
        if method["start"] not in (BASE, *config["methods"]):
            yield f"methods.{name}.start: {_unknown_method(config, method['start'])}"
        names = chain(config, name)
        if names.count(name) > 1 and name not in circles:
            circles |= set(names)
            yield f"methods.{name}.start: the starts lead back to {name!r}: {' <- '.join(names)}"


def _one_method(config: dict, name: str) -> Iterator[str]:
    """What is wrong with one method's settings, each fault beginning with its key."""
    yield from _part(config["methods"][name].get("train_on", {}), config["data"]["modalities"])
    settings, trainer = training_settings(config, name), config["methods"][name]["trainer"]
    augmentation = settings["augmentation"]
    yield from _augmentation(augmentation, trainer)
    if augmentation.get("hints"):
        yield from _hints(config, trainer, augmentation["hints"])
    if augmentation.get("told") and trainer != "sft":
        yield f"augmentation.told: the trainer is {trainer}, which teaches no thoughts; sft does"
    if augmentation.get("turns") and trainer == "fare":
        yield "augmentation.turns: the trainer is fare, whose training asks no question"
    if augmentation.get("erased"):
        yield from _erased(config, name, settings)
    yield from _own_keys(settings, trainer)
    yield from _nothing_to_learn(settings)
    yield from _of_variants("num_generations", settings.get("num_generations", 0), config["variants"])
    if settings.get("completions") == "targets" and settings["temperature"] != 1:
        yield "temperature: nothing is drawn where completions are targets; write 1"
    if settings.get("vision_optimizer") == "muon" and (settings["peft"] or settings["sharded"]):
        yield "vision_optimizer: muon is for whole matrices, and not for adapters (peft) or shards; write adamw"
    yield from _of_variants("targets", settings.get("targets"), config["variants"])
    if "instruct" in config["variants"] and _taught(settings, "instruct") == "stepwise":
        yield "targets: stepwise targets are thoughts, and the variant instruct has none"


def _part(train_on: dict, modalities: dict) -> Iterator[str]:
    """Whether the modality that a method learns from is one that questions can have."""
    known = list(dict.fromkeys(known_modalities(modalities).values()))
    if (wanted := train_on.get("modality", known[0])) not in known:
        yield f"train_on.modality: unknown modality {wanted!r}{schema.did_you_mean(wanted, known)}"


def _nothing_to_learn(settings: dict) -> Iterator[str]:
    """Whether what GRPO descends can differ from 0 where no completion is rewarded."""
    augmentation, rewards = settings["augmentation"], settings.get("rewards")
    if settings.get("completions") != "rollouts" or not rewards or any(rewards.values()):
        return
    if not (settings.get("anchor") or settings.get("features")):
        yield "rewards: all 0, and so are anchor and features: there is nothing to learn"
    elif augmentation["kind"] == "clean" and not (augmentation.get("hints") or augmentation.get("turns")):
        yield "rewards: all 0, and on clean images the model is its own reference: there is nothing to learn"


def _taught(settings: dict, variant: str) -> str | None:
    """The kind of targets that a variant is taught; None where there are none, or none for it."""
    targets = settings.get("targets")
    return targets.get(variant) if isinstance(targets, dict) else targets


def _augmentation(augmentation: dict, trainer: str) -> Iterator[str]:
    kind, sigma = augmentation["kind"], augmentation.get("sigma")
    if kind == "adversarial" and not (augmentation.get("eps") and augmentation.get("steps")):
        yield "augmentation: an adversarial augmentation needs eps > 0 and steps > 0"
    if kind == "clean" and trainer == "fare":
        yield "augmentation: FARE on clean images has nothing to learn; noisy or adversarial"
    if kind == "clean" and sigma:
        yield "augmentation.sigma: a clean augmentation has no noise; write kind: noisy"
    if kind == "noisy" and not sigma:
        yield "augmentation.sigma: missing; a noisy augmentation needs sigma > 0"


def _hints(config: dict, trainer: str, drawn: int) -> Iterator[str]:
    if trainer != "grpo":
        yield f"augmentation.hints: the trainer is {trainer}, which does not draw any"
    path = Path(config["templates"])
    if path.is_file() and drawn > (known := len(Templates.read(path).taught())):
        yield f"augmentation.hints: {drawn}; {path} has {known} to train on"


def _erased(config: dict, name: str, settings: dict) -> Iterator[str]:
    if config["methods"][name]["trainer"] == "fare":
        yield "augmentation.erased: the trainer is fare, whose training asks no question"
    starts = chain(config, name)[1:]
    taught = any(training_settings(config, start)["augmentation"].get("erased") for start in starts)
    if settings.get("anchor") and not taught:
        yield "augmentation.erased: anchor > 0 anchors it to its start, which never learned to abstain"


def _own_keys(settings: dict, trainer: str) -> Iterator[str]:
    """Whether what some trainers alone read is there for them, and for no other."""
    for key, readers in READERS.items():
        if trainer not in readers and key in settings:
            yield f"{key}: the trainer is {trainer}, which does not read it"
        if trainer in readers and key not in settings:
            yield f"{key}: missing, and training.{trainer} does not set it either"


def _shared_batches(config: dict) -> Iterator[str]:
    """Whether the processes of a training can share its batch evenly, and augment a part of it."""
    processes = config["resources"]["train_nodes"] * config["resources"]["train_processes"]
    sizes = {name: training_settings(config, name)["batch_size"] for name in config["methods"]}
    if uneven := [f"{name} ({size})" for name, size in sizes.items() if size % processes]:
        many = "resources.train_nodes * resources.train_processes"
        yield f"{many}: {processes} processes cannot share the batch_size of {', '.join(uneven)} evenly"
        return
    for name, size in sizes.items():
        share = training_settings(config, name)["augmentation"].get("share", 1)
        if not round(share * (size // processes)):
            yield (
                f"methods.{name}.augmentation.share: {share} of the {size // processes} rows that a process has of a "
                "batch are none: no image would be augmented; raise it or batch_size"
            )


def _red_team(redteam: dict) -> Iterator[str]:
    budget, rounds = redteam["budget"], redteam["rounds"]
    if budget < rounds:
        yield f"redteam.budget: {budget} queries are not one for each of redteam.rounds = {rounds}"


def _templates(config: dict) -> Iterator[str]:
    path = Path(config["templates"])
    if not path.is_file():
        yield f"templates: there is no file {path}"
        return
    try:
        Templates.read(path)
    except (ValueError, yaml.YAMLError) as error:
        yield f"templates: {' '.join(str(error).split())}"
