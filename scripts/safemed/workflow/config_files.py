"""Config files: the default study's, studies laid over it, and faults that Snakemake would pass over, or not locate."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import yaml
from snakemake.utils import update_config

from safemed.workflow.config import ROOT

FILES = (ROOT / "workflow" / "defaults.yaml", ROOT / "config.yaml")  # the default study


def read(*studies: Path) -> dict:
    """The config of the default study, with studies' files laid over it in turn, as Snakemake merges them."""
    config: dict = {}
    for path in (*FILES, *studies):
        update_config(config, yaml.safe_load(path.read_text()))
    return config


def faults(path: Path) -> list[str]:
    """What is wrong with a config file, a line each: keys that stand twice in a section, of which YAML would take the
    last without a word, or a text that is neither YAML nor JSON. A missing file is left to Snakemake.
    """
    if not path.exists():
        return []
    text, shown = path.read_text(), os.path.relpath(path)
    try:
        return [f"config: {fault}; {shown} must have it once" for fault in _duplicates(yaml.compose(text))]
    except yaml.MarkedYAMLError as error:
        if _is_json(text):  # indented by tabs
            return []
        return [f"config: {shown}, line {error.problem_mark.line + 1}: not YAML: {error.problem}"]


def _duplicates(node: yaml.Node | None, path: str = "") -> Iterator[str]:
    if isinstance(node, yaml.SequenceNode):
        for own in node.value:
            yield from _duplicates(own, path)
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[str, int] = {}
    for key, value in node.value:
        name, line = f"{path}{key.value}", key.start_mark.line + 1
        if name in lines:
            yield f"{name}: stands in lines {lines[name]} and {line}"
        lines[name] = line
        yield from _duplicates(value, f"{name}.")


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
