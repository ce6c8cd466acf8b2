"""What is wrong with the methods: those that are named, their starts, and then each by itself."""

from collections.abc import Iterator

import yaml

from safemed.workflow import schema
from safemed.workflow.config import BASE, ROOT, chain, training_settings
from safemed.workflow.faults import one_method


def faults(config: dict) -> Iterator[str]:
    """Each fault of methods and of what names them, beginning with its whole key."""
    yield from _named_methods(config)
    yield from _methods(config)


def _named_methods(config: dict) -> Iterator[str]:
    """Whether the methods that are named exist."""
    for key, names in (("study_methods", config["study_methods"]), ("certify.methods", config["certify"]["methods"])):
        for name in names or []:
            if name not in (BASE, *config["methods"]):
                yield f"{key}: {_unknown_method(config, name)}"


def _methods(config: dict) -> Iterator[str]:
    """What methods refer to, and then each method by itself."""
    found = list(_starts(config))
    yield from found
    if found:
        return
    for name in config["methods"]:
        for fault in one_method.faults(config, name):
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


def _unknown_method(config: dict, name: str) -> str:
    """That there is no method of a name, and where there is one or what was meant."""
    for path in sorted((ROOT / "workflow" / "studies").glob("*.yaml")):
        if name in (yaml.safe_load(path.read_text()).get("methods") or {}):
            return f"method {name!r} is defined in {path.relative_to(ROOT)}: add that file to --configfile"
    return f"unknown method {name!r}{schema.did_you_mean(name, list(config['methods']))}"
