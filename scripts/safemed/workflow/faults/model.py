"""What is wrong with the model that trainings start from, and with the one that attacks are replayed on."""

import re
from collections.abc import Iterator
from pathlib import Path

from safemed.models.model_type import lacking
from safemed.models.untrusted import check_folder
from safemed.workflow.config import base_model, bases
from safemed.workflow.faults.variants import of_variants

HUB_ID = re.compile(r"(?!.*(?:--|[.][.]))[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)  # owner/name


def faults(config: dict) -> Iterator[str]:
    """Each fault of the models that a study is given and makes, beginning with its whole key."""
    for key in ("name", "revision"):
        if absent := list(of_variants(key, config["model"][key], config["variants"])):
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
