"""The rules between config keys that a schema cannot say, and the settings a model is trained with."""

from collections.abc import Iterator

from safemed import smoothing

BASE = "base"
GRPO_KEYS = ("num_generations", "temperature", "rewards", "scale_rewards", "beta")


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
    if config["attack"]["headline_eps"] not in config["attack"]["eps"]:
        yield f"attack.headline_eps: {config['attack']['headline_eps']} is not in attack.eps {config['attack']['eps']}"
    for name, budget in config["attack"]["suite"].items():
        if (name == "fgsm") != (budget["steps"] == 1):
            yield f"attack.suite.{name}.steps: {budget['steps']}; FGSM is the attack of one step, and it alone"
    budgets = {"probe": config["probe"]} | {f"attack.suite.{k}": v for k, v in config["attack"]["suite"].items()}
    for name, budget in budgets.items():
        if budget["restarts"] < 3 and "think" in config["variants"]:
            yield f"{name}.restarts: {budget['restarts']}; at least 3, one for each target of a thinking model"
    try:
        for sigma in config["certify"]["sigma"]:
            smoothing.check(sigma, config["certify"]["alpha"], config["certify"]["n"])
    except ValueError as error:
        yield str(error)
    for key in ("study_methods", "ablation_methods"):
        for name in config[key]:
            if name not in config["methods"]:
                yield f"{key}: unknown method {name!r}; methods has {', '.join(config['methods'])}"
    for name in config["methods"]:
        yield from _method_problems(config, name)


def _grid_problems(config: dict) -> Iterator[str]:
    tiny, side = config["model"]["tiny"], config["data"]["image_size"]
    grid = tiny["patch"] * tiny["merge"]
    if config["model"]["name"] == "tiny" and side % grid:
        yield f"data.image_size: {side} is no multiple of model.tiny.patch * model.tiny.merge = {grid}"


def _method_problems(config: dict, name: str) -> Iterator[str]:
    method = config["methods"][name]
    if method["start"] != BASE and method["start"] not in config["methods"]:
        yield f"methods.{name}.start: unknown method {method['start']!r}; base or one of {', '.join(config['methods'])}"
        return
    if _goes_in_circles(config, name):
        yield f"methods.{name}.start: the starts lead back to {name!r}"
        return
    settings = training_settings(config, name)
    view = settings["view"]
    if view["kind"] == "adversarial" and not (view.get("eps") and view.get("steps")):
        yield f"methods.{name}.view: an adversarial view needs eps > 0 and steps > 0"
    if method["trainer"] == "fare" and view["kind"] == "clean":
        yield f"methods.{name}.view: FARE on clean images has nothing to learn; noisy or adversarial"
    if view["kind"] == "noisy" and not view.get("sigma"):
        yield f"methods.{name}.view: a noisy view needs sigma > 0"
    for key in GRPO_KEYS:
        if method["trainer"] != "grpo" and key in settings:
            yield f"methods.{name}.{key}: the trainer is {method['trainer']}, which does not read it"
        if method["trainer"] == "grpo" and key not in settings:
            yield f"methods.{name}.{key}: missing, and training.grpo does not set it either"
            return
    if method["trainer"] == "grpo":
        batch = settings["batch_size"] * settings["gradient_accumulation"]
        if batch % settings["num_generations"]:
            yield (
                f"methods.{name}: num_generations = {settings['num_generations']} does not divide "
                f"batch_size * gradient_accumulation = {batch}"
            )


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
    """What a method's training script is given: the trainer's defaults, overridden by the method's own keys."""
    method = config["methods"][name]
    own = {key: value for key, value in method.items() if key not in ("trainer", "start")}
    longest = {"max_new_tokens": config["max_new_tokens"]}
    shared = {"peft": config["peft"], "probe": {**config["probe"], **longest}, **longest}
    return {**shared, **config["training"][method["trainer"]], **own}


def methods_of(config: dict, trainer: str) -> list[str]:
    """The methods that a trainer (sft, fare or grpo) serves."""
    return [name for name, method in config["methods"].items() if method["trainer"] == trainer]


def parts(config: dict) -> dict[str, dict]:
    """What the methods to be trained learn from, for those that train on a part of the training split."""
    trained = lineage(config, [*config["study_methods"], *config["ablation_methods"]])
    methods = {name: config["methods"][name] for name in trained}
    return {name: method["train_on"] for name, method in methods.items() if "train_on" in method}


def lineage(config: dict, methods: list[str]) -> list[str]:
    """The methods and all that they start from, each once, starts first; the base is no method."""
    found: list[str] = []
    for name in methods:
        found += [method for method in reversed(_chain(config, name)) if method not in found]
    return found


def models(config: dict, methods: list[str]) -> list[str]:
    """The names of the trained models of some methods, {method}-{variant}."""
    return [f"{method}-{variant}" for method in dict.fromkeys(methods) for variant in config["variants"]]
