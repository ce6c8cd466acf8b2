"""The rules between config keys that a schema cannot say, and the settings a model is trained with."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml
from snakemake.utils import update_config

from safemed.certificates import smoothing
from safemed.stress.hints import Templates

ROOT = Path(__file__).resolve().parents[3]
FILES = (ROOT / "workflow" / "defaults.yaml", ROOT / "config.yaml")  # the default study
BASE = "base"
MARGINS = {"answer", "empty", "other", "sampled"}  # targets whose loss is above 0 where the answer is broken
SMOOTHING_KEYS = {"sigma", "draws", "votes", "function"}  # keys of an attack on a smoothed model
OWN_KEYS = {  # settings that one trainer alone reads
    "sft": ("targets",),
    "grpo": ("num_generations", "temperature", "rewards", "scale_rewards", "beta", "vllm"),
}


def read(*studies: Path) -> dict:
    """The config of the default study, with studies' files laid over it in turn, as Snakemake merges them."""
    config: dict = {}
    for path in (*FILES, *studies):
        update_config(config, yaml.safe_load(path.read_text()))
    return config


def check(config: dict) -> None:
    """Refuse a config whose parts contradict each other; the message names the keys and what would do.

    The schema has already refused unknown keys and values out of their own range. Raises ValueError.
    """
    for problem in _problems(config):
        raise ValueError(f"config: {problem}")


def _problems(config: dict) -> Iterator[str]:
    split = config["data"]["split"]
    total = sum(split[name] for name in ("train", "val", "test"))
    if abs(total - 1) > 1e-9:
        yield f"data.split: the shares sum to {total:g}, not 1"
    if split["scheme"] == "med-r1" and not split["published"]:
        yield "data.split.published: the scheme med-r1 needs the folder of Med-R1's train/*.json and test/*.json"
    yield from _grid_problems(config)
    name, revision = config["model"]["name"], config["model"]["revision"]
    if name != "tiny" and not revision and not Path(name).is_dir():
        yield f"model.revision: {name} is no local folder; a model of the hub needs the commit it is pinned to"
    yield from _attack_problems(config)
    restarts = config["monitoring"]["probe"]["restarts"]
    if restarts < 3 and "think" in config["variants"]:
        yield f"monitoring.probe.restarts: {restarts}; at least 3, one for each target of a thinking model"
    yield from _certify_problems(config["certify"], config["attack"]["attacks"])
    if config["stress"]["questions"] > config["attack"]["questions"]:
        yield "stress.questions: more than attack.questions, whose images they are shown with"
    yield from _adaptive_problems(config["stress"], config["attack"]["attacks"])
    asked = config["resources"]
    if asked["shard_training"] and (asked["train_nodes"] * asked["train_processes"] == 1 or not asked["gpus"]):
        yield "resources.shard_training: only for several processes, each with a GPU"
    named = {"study_methods": config["study_methods"], "certify.methods": config["certify"]["methods"] or []}
    for key, names in named.items():
        for name in names:
            if name not in config["methods"]:
                yield f"{key}: unknown method {name!r}; methods has {', '.join(config['methods'])}"
    for name in config["methods"]:
        yield from _method_problems(config, name)


def _certify_problems(certify: dict, attacks: dict) -> Iterator[str]:
    yield from _smoothed_problems(certify, attacks)
    if any(round(radius, smoothing.RADIUS_DIGITS) != radius for radius in certify["radii"]):
        yield f"certify.radii: {certify['radii']}; radii are certified to {smoothing.RADIUS_DIGITS} decimals"
    if certify["shards"] > certify["questions"]:
        yield f"certify.shards: {certify['shards']} jobs cannot share {certify['questions']} questions"
    try:
        for sigma in certify["sigma"]:
            smoothing.check(sigma, certify["alpha"], certify["n"], certify["mode"])
    except ValueError as error:
        yield str(error)


def _smoothed_problems(certify: dict, attacks: dict) -> Iterator[str]:
    """Whether the attacks on smoothed models can be held against certificates, and against pgd on the models."""
    plans = {name: attacks[name] for name in certify["attacks"] if attacks.get(name, {}).keys() >= SMOOTHING_KEYS}
    seen: dict[tuple, str] = {}
    for name, plan in plans.items():
        where, l2 = f"attack.attacks.{name}", plan.get("norm") == "l2"
        if plan["sigma"] not in certify["sigma"]:
            yield f"{where}.sigma: {plan['sigma']} is not in certify.sigma {certify['sigma']}"
        if plan["function"] not in certify["functions"]:
            yield f"{where}.function: {plan['function']} is not in certify.functions {certify['functions']}"
        if (other := seen.setdefault((l2, plan["sigma"], plan["function"]), name)) != name:
            yield f"{where}: a smoothed model is attacked once in a norm, and {other} does that already"
        given = plan.get("eps", [])
        if l2 and not set(given if isinstance(given, list) else [given]) <= set(certify["radii"]):
            yield f"{where}.eps: {given} are not all in certify.radii {certify['radii']}"
        if not l2:
            yield from _unlike(attacks, name, "pgd", ("kind", "steps", "restarts", "targets"), "smoothing")


def _adaptive_problems(mislead: dict, attacks: dict) -> Iterator[str]:
    """Whether the attack that knows a hint is, but for that, the one whose images hints are shown with."""
    name, other = mislead["adaptive"], mislead["attack"]
    keys = sorted((attacks[name].keys() | attacks[other].keys()) - {"hint"})
    yield from _unlike(attacks, name, other, keys, "knowing the hint")


def _unlike(attacks: dict, name: str, other: str, keys: Iterable[str], what: str) -> Iterator[str]:
    """The keys in which an attack differs from the one that it is held against, to tell what something adds."""
    for key in keys:
        if attacks[name].get(key) != attacks[other].get(key):
            beside = f"what {what} adds is told beside attack.attacks.{other}"
            yield f"attack.attacks.{name}.{key}: {beside}: give both the same {key}"


def _grid_problems(config: dict) -> Iterator[str]:
    tiny, side = config["model"]["tiny"], config["data"]["image_size"]
    grid = tiny["patch"] * tiny["merge"]
    if config["model"]["name"] == "tiny" and side % grid:
        yield f"data.image_size: {side} is no multiple of model.tiny.patch * model.tiny.merge = {grid}"


def _attack_problems(config: dict) -> Iterator[str]:
    attack, certify, adaptive = config["attack"], config["certify"], [config["stress"]["adaptive"]]
    if attack["headline_eps"] not in attack["eps"]:
        yield f"attack.headline_eps: {attack['headline_eps']} is not in attack.eps {attack['eps']}"
    named = {"attack.suite": attack["suite"], "certify.attacks": certify["attacks"], "stress.adaptive": adaptive}
    for key, names in named.items():
        if unknown := [name for name in names if name not in attack["attacks"]]:
            yield f"{key}: unknown {unknown[0]!r}; attack.attacks has {', '.join(attack['attacks'])}"
            return
        for name in names:
            if key != _place(attack["attacks"][name]):
                yield (
                    f"{key}: {name!r}; attacks on smoothed models (with sigma) go to certify.attacks, one that knows a "
                    "hint (with hint) to stress.adaptive, others to attack.suite"
                )
    if "pgd" not in sweeps(attack):
        yield "attack.attacks.pgd: figures show it at all eps: it must be a linf attack of every question"
    for key, name in (("attack.transfer", attack["transfer"]), ("stress.attack", config["stress"]["attack"])):
        if name not in sweeps(attack):
            yield f"{key}: {name!r} is none of the suite's sweeps, {', '.join(sweeps(attack))}"
    for key in ("radii", "steps"):
        if attack["sanity"][key] != sorted(set(attack["sanity"][key])):
            yield f"attack.sanity.{key}: {attack['sanity'][key]} is not ascending"
    for name in (*attack["suite"], *certify["attacks"]):
        for problem in _plan_problems(attack["attacks"][name], config["variants"]):
            yield f"attack.attacks.{name}.{problem}"


def _place(plan: dict) -> str:
    """The key that an attack is to be named under."""
    return "stress.adaptive" if "hint" in plan else "certify.attacks" if "sigma" in plan else "attack.suite"


def _plan_problems(plan: dict, variants: list[str]) -> Iterator[str]:
    """What is wrong with one attack's settings, each problem beginning with its key."""
    kind, l2, restarts = plan["kind"], plan.get("norm") == "l2", plan.get("restarts", 1)
    if l2 and plan.get("survivors"):
        yield "survivors: what linf attacks left says nothing of an l2 ball"
    if l2 != ("eps" in plan or kind == "cw"):
        yield "eps: an l2 attack has an eps of its own (cw has none), a linf attack those of attack.eps"
    if l2 and kind not in ("pgd", "apgd", "cw"):
        yield f"norm: {kind} has no l2"
    if kind == "cw" and not l2:
        yield "norm: cw seeks the smallest l2 perturbation; say norm: l2"
    climbed = {target for targets in plan.get("targets", {}).values() for target in targets}
    if "patience" in plan and not (climbed and climbed <= MARGINS):
        yield f"patience: only for targets whose loss is a margin, {', '.join(sorted(MARGINS))}; name them"
    if len(SMOOTHING_KEYS & plan.keys()) not in (0, len(SMOOTHING_KEYS)):
        yield f"sigma: a smoothed model needs {', '.join(sorted(SMOOTHING_KEYS))}"
    if "sigma" in plan and (kind not in ("pgd", "apgd") or plan.get("survivors")):
        yield f"kind: {kind}; a smoothed model is attacked by pgd or apgd, on every question"
    if kind == "pgd" and plan["steps"] > 1 and "targets" not in plan and restarts < 3 and "think" in variants:
        yield f"restarts: {restarts}; at least 3, one for each target of a thinking model"


def sweeps(attack: dict, variant: str | None = None) -> list[str]:
    """The attacks of a suite that attack every question at all eps; of all variants, or those of one.

    attack: that section of the config.
    """
    names = attack["suite"] if variant is None else suite(attack, variant)
    plans = {name: attack["attacks"][name] for name in names}
    return [name for name, plan in plans.items() if plan.get("norm") != "l2" and not plan.get("survivors")]


def suite(attack: dict, variant: str) -> list[str]:
    """The attacks of a suite that a variant is put to: those with targets for it, or for no variant in particular."""
    return [name for name in attack["suite"] if variant in attack["attacks"][name].get("targets", {variant: None})]


def before(attack: dict, variant: str, name: str) -> list[str]:
    """The attacks whose survivors alone `name` attacks: all linf attacks that stand before it in the suite."""
    if not attack["attacks"].get(name, {}).get("survivors"):
        return []
    names = suite(attack, variant)
    return [other for other in names[: names.index(name)] if attack["attacks"][other].get("norm") != "l2"]


def radii(attack: dict, name: str) -> list[float]:
    """The radii of an attack, ascending: for linf in 1/255, for l2 in [0, 1] pixel units.

    cw has no bound: its radius is infinite. A smoothed model, and one under a hint, is also asked without an attack,
    at 0.
    """
    plan = attack["attacks"].get(name, {})
    if name == "clean":
        return [0]
    apart = "sigma" in plan or "hint" in plan  # the clean images of the suite say nothing of it
    unattacked = [0] if apart else []
    if plan.get("norm") == "l2":
        own = plan.get("eps", math.inf)
        return [*unattacked, *sorted(own if isinstance(own, list) else [own])]
    if plan.get("survivors") or apart:
        return [*unattacked, attack["headline_eps"]]
    return sorted(attack["eps"])


def smoothed_attacks(config: dict, variant: str, norm: str | None = None) -> list[str]:
    """The attacks of certify.attacks that a variant's smoothed models are put to: all, or those in a norm, linf or l2."""
    plans = config["attack"]["attacks"]
    names = [name for name in config["certify"]["attacks"] if variant in plans[name].get("targets", {variant: None})]
    return [name for name in names if norm in (None, plans[name].get("norm", "linf"))]


def _method_problems(config: dict, name: str) -> Iterator[str]:
    method = config["methods"][name]
    if method["start"] != BASE and method["start"] not in config["methods"]:
        yield f"methods.{name}.start: unknown method {method['start']!r}; base or one of {', '.join(config['methods'])}"
        return
    if _goes_in_circles(config, name):
        yield f"methods.{name}.start: the starts lead back to {name!r}"
        return
    if problem := _budget_problem(config, name):
        yield f"methods.{name}.budget_of: {problem}"
        return
    settings = training_settings(config, name)
    augmentation = settings["augmentation"]
    if augmentation["kind"] == "adversarial" and not (augmentation.get("eps") and augmentation.get("steps")):
        yield f"methods.{name}.augmentation: an adversarial augmentation needs eps > 0 and steps > 0"
    if method["trainer"] == "fare" and augmentation["kind"] == "clean":
        yield f"methods.{name}.augmentation: FARE on clean images has nothing to learn; noisy or adversarial"
    if augmentation["kind"] == "clean" and augmentation.get("sigma"):
        yield f"methods.{name}.augmentation: a clean augmentation has no sigma; say kind: noisy"
    if augmentation["kind"] == "noisy" and not augmentation.get("sigma"):
        yield f"methods.{name}.augmentation: a noisy augmentation needs sigma > 0"
    if augmentation.get("hints"):
        yield from _hint_problems(config, name, augmentation["hints"])
    if augmentation.get("erased"):
        yield from _erased_problems(config, name, settings)
    for trainer, key in [(trainer, key) for trainer, keys in OWN_KEYS.items() for key in keys]:
        if method["trainer"] != trainer and key in settings:
            yield f"methods.{name}.{key}: the trainer is {method['trainer']}, which does not read it"
        if method["trainer"] == trainer and key not in settings:
            yield f"methods.{name}.{key}: missing, and training.{trainer} does not set it either"
            return
    if settings.get("targets") == "stepwise" and "instruct" in config["variants"]:
        yield f"methods.{name}.targets: stepwise targets are thoughts, and the variant instruct has none"
    size, shared = settings["batch_size"], config["resources"]
    if size % (shared["train_nodes"] * shared["train_processes"]):
        yield f"methods.{name}.batch_size: {size} cannot be shared by resources.train_nodes * train_processes"
    if settings.get("vllm") and not config["resources"]["gpus"]:
        yield f"methods.{name}.vllm: vLLM needs a GPU, and resources.gpus is 0"
    if method["trainer"] == "grpo":
        batch = settings["batch_size"] * settings["gradient_accumulation"]
        if batch % settings["num_generations"]:
            yield (
                f"methods.{name}: num_generations = {settings['num_generations']} does not divide "
                f"batch_size * gradient_accumulation = {batch}"
            )


def _budget_problem(config: dict, name: str) -> str | None:
    methods, method = config["methods"], config["methods"][name]
    if (other := method.get("budget_of")) is None:
        return None
    if other not in methods:
        return f"unknown method {other!r}; methods has {', '.join(methods)}"
    if "budget_of" in methods[other]:
        return f"{other} has no budget of its own"
    if given := [key for key in ("steps", "learning_rate") if key in method]:
        return f"{' and '.join(given)} follow from it: leave them out"
    if "fare" in (method["trainer"], methods[other]["trainer"]):
        return "only between methods of sft and grpo: FARE's passes are of the vision tower alone"
    return None


def _hint_problems(config: dict, name: str, drawn: int) -> Iterator[str]:
    trainer, templates = config["methods"][name]["trainer"], config["templates"]
    if trainer != "grpo":
        yield f"methods.{name}.augmentation.hints: the trainer is {trainer}, which does not draw any"
    known = len(Templates.read(Path(templates)).taught())
    if drawn > known:
        yield f"methods.{name}.augmentation.hints: {drawn}; {templates} has {known} to train on"


def _erased_problems(config: dict, name: str, settings: dict) -> Iterator[str]:
    trainer, before = config["methods"][name]["trainer"], _chain(config, name)[1:]
    if trainer == "fare":
        yield f"methods.{name}.augmentation.erased: the trainer is fare, whose training asks no question"
    taught = any(training_settings(config, start)["augmentation"].get("erased") for start in before)
    if settings.get("beta") and not taught:
        anchored = "with beta > 0 it is anchored to its start, which never learned to abstain"
        yield f"methods.{name}.augmentation.erased: {anchored}"


def _goes_in_circles(config: dict, name: str) -> bool:
    chain = _chain(config, name)
    return len(set(chain)) < len(chain)


def _chain(config: dict, name: str) -> list[str]:
    """A method and what it starts from, in turn, down to the base; ends with the first name to come again, if any."""
    chain = [name]
    while (start := config["methods"].get(chain[-1], {"start": BASE})["start"]) != BASE:
        chain.append(start)
        if chain.count(start) > 1:
            break
    return chain


def training_settings(config: dict, name: str) -> dict:
    """What a method's training script is given: the trainer's defaults, overridden by the method's own keys.

    A method with `budget_of` gets the other method's learning rate, and as many steps as make the same number of passes.
    """
    method = config["methods"][name]
    own = {key: value for key, value in method.items() if key not in ("trainer", "start", "budget_of")}
    shared = {"peft": config["peft"], "max_new_tokens": config["max_new_tokens"]}
    # FARE trains the vision tower alone, which fits on any GPU.
    shared |= {"sharded": config["resources"]["shard_training"] and method["trainer"] != "fare"}
    settings = {**shared, **config["training"][method["trainer"]], **own}
    if "budget_of" not in method:
        return settings
    other = training_settings(config, method["budget_of"])
    steps = round(other["steps"] * passes_a_step(other) / passes_a_step(settings))
    return {**settings, "steps": steps, "learning_rate": other["learning_rate"]}


def passes_a_step(settings: dict) -> int:
    """The images that go forward or backward in a training step: those of its attack and those of its update.

    settings: a training's, of SFT or GRPO. GRPO attacks each prompt once for all its rollouts.
    """
    rows = settings["batch_size"] * settings["gradient_accumulation"]
    attacked = rows // settings.get("num_generations", 1)
    update = 4 if "num_generations" in settings else 2  # GRPO: rollout, reference, policy, and the policy backward
    return 2 * settings["augmentation"].get("steps", 0) * attacked + update * rows


def methods_of(config: dict, trainer: str) -> list[str]:
    """The methods that a trainer (sft, fare or grpo) serves."""
    return [name for name, method in config["methods"].items() if method["trainer"] == trainer]


def parts(config: dict) -> dict[str, dict]:
    """What the methods to be trained learn from, for those that train on a part of the training split."""
    methods = {name: config["methods"][name] for name in lineage(config, studied(config))}
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
        found += [method for method in reversed(_chain(config, name)) if method not in found]
    return found


def models(config: dict, methods: list[str]) -> list[str]:
    """The names of the trained models of some methods, {method}-{variant}."""
    return [f"{method}-{variant}" for method in dict.fromkeys(methods) for variant in config["variants"]]
