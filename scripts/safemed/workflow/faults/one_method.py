"""What is wrong with the settings of one method by itself."""

from collections.abc import Iterator
from pathlib import Path

from safemed.data.records import known_modalities
from safemed.stress.hints import Templates
from safemed.workflow import schema
from safemed.workflow.config import chain, training_settings
from safemed.workflow.faults.variants import of_variants

READERS = {  # settings that not all trainers read: the trainers that do
    "targets": ("sft",),
    "target_samples": ("sft",),
    "vision_optimizer": ("tower", "grpo"),
    "objective": ("tower",),
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


def faults(config: dict, name: str) -> Iterator[str]:
    """What is wrong with one method's settings, each fault beginning with its key."""
    yield from _part(config["methods"][name].get("train_on", {}), config["data"]["modalities"])
    settings, trainer = training_settings(config, name), config["methods"][name]["trainer"]
    augmentation = settings["augmentation"]
    yield from _augmentation(augmentation)
    if trainer == "tower":
        yield from _objective(settings, config["resources"])
    if augmentation.get("hints"):
        yield from _hints(config, trainer, augmentation["hints"])
    if augmentation.get("told") and trainer != "sft":
        yield f"augmentation.told: the trainer is {trainer}, which teaches no thoughts; sft does"
    if augmentation.get("turns") and trainer == "tower":
        yield "augmentation.turns: the trainer is tower, which alters no question"
    if augmentation.get("retrieved") or augmentation.get("poisoned"):
        yield from _retrieved(augmentation, trainer)
    if augmentation.get("erased"):
        yield from _erased(config, name, settings)
    yield from _own_keys(settings, trainer)
    yield from _nothing_to_learn(settings)
    yield from of_variants("num_generations", settings.get("num_generations", 0), config["variants"])
    if settings.get("completions") == "targets" and settings["temperature"] != 1:
        yield "temperature: nothing is drawn where completions are targets; write 1"
    if settings.get("vision_optimizer") == "muon" and (settings["peft"] or settings["sharded"]):
        yield "vision_optimizer: muon is for whole matrices, and not for adapters (peft) or shards; write adamw"
    yield from of_variants("targets", settings.get("targets"), config["variants"])
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
    elif augmentation["kind"] == "clean" and not any(augmentation.get(key) for key in ("hints", "turns", "poisoned")):
        yield "rewards: all 0, and on clean images the model is its own reference: there is nothing to learn"


def _taught(settings: dict, variant: str) -> str | None:
    """The kind of targets that a variant is taught; None where there are none, or none for it."""
    targets = settings.get("targets")
    return targets.get(variant) if isinstance(targets, dict) else targets


def _augmentation(augmentation: dict) -> Iterator[str]:
    kind, sigma = augmentation["kind"], augmentation.get("sigma")
    if kind == "adversarial" and not (augmentation.get("eps") and augmentation.get("steps")):
        yield "augmentation: an adversarial augmentation needs eps > 0 and steps > 0"
    if kind == "clean" and sigma:
        yield "augmentation.sigma: a clean augmentation has no noise; write kind: noisy"
    if kind == "noisy" and not sigma:
        yield "augmentation.sigma: missing; a noisy augmentation needs sigma > 0"


def _objective(settings: dict, resources: dict) -> Iterator[str]:
    """Whether the trainer `tower` can descend its objective on what the augmentation shows it."""
    objective, augmentation = settings.get("objective"), settings["augmentation"]
    if objective == "fare" and augmentation["kind"] == "clean":
        yield "augmentation: FARE on clean images has nothing to learn; noisy or adversarial"
    if objective not in ("acl", "hsat", "fare-hsat"):
        return
    if augmentation["kind"] != "adversarial" or augmentation.get("share", 1.0) < 1:
        yield f"augmentation: {objective} contrasts the attacked images of a batch: all of them must be adversarial"
    if settings["batch_size"] < 2 * resources["train_nodes"] * resources["train_processes"]:
        yield f"batch_size: {objective} contrasts images with each other, so that a process needs two at least"


def _hints(config: dict, trainer: str, drawn: int) -> Iterator[str]:
    if trainer != "grpo":
        yield f"augmentation.hints: the trainer is {trainer}, which does not draw any"
    path = Path(config["templates"])
    if path.is_file() and drawn > (known := len(Templates.read(path).taught())):
        yield f"augmentation.hints: {drawn}; {path} has {known} to train on"


def _retrieved(augmentation: dict, trainer: str) -> Iterator[str]:
    if trainer == "tower":
        yield "augmentation.retrieved: the trainer is tower, which alters no question"
    if not augmentation.get("retrieved"):
        yield "augmentation.poisoned: no report is retrieved that could be; write retrieved: 2"
    if augmentation.get("retrieved") and augmentation.get("erased"):
        yield "augmentation.retrieved: reports would tell what is erased; leave one of retrieved and erased out"


def _erased(config: dict, name: str, settings: dict) -> Iterator[str]:
    if config["methods"][name]["trainer"] == "tower":
        yield "augmentation.erased: the trainer is tower, which alters no question"
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
