"""Config files: the default study's, studies laid over it, and faults that Snakemake would pass over, or not locate."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import yaml
from snakemake.utils import update_config

from safemed.workflow.config import ROOT

FILES = (ROOT / "workflow" / "defaults.yaml", ROOT / "config.yaml")  # the default study
TAG = "tag:yaml.org,2002:"
KEYS, NUMBERS = (f"{TAG}str", f"{TAG}merge"), (f"{TAG}int", f"{TAG}float")
OTHER_BASE = re.compile(r"[-+]?0[0-7_]+$|.*:")  # octal, and to base sixty


def read(*studies: Path) -> dict:
    """The config of the default study, with studies' files laid over it in turn, as Snakemake merges them."""
    config: dict = {}
    for path in (*FILES, *studies):
        update_config(config, yaml.load(path.read_text(), Loader=yaml.CSafeLoader))
    return config


def faults(path: Path) -> list[str]:
    """What is wrong with a config file, a line each: keys that stand twice in a section, of which YAML would take the
    last without a word; keys and numbers that YAML reads as something else than they look; or a text that is neither
    YAML nor JSON, or holds no keys. A missing file is left to Snakemake.
    """
    if not path.exists():
        return []
    text, shown = path.read_text(), os.path.relpath(path)
    try:
        root = yaml.compose(text, Loader=yaml.CSafeLoader)
    except yaml.MarkedYAMLError as error:
        if _is_json(text):  # indented by tabs
            return []
        return [f"config: {shown}, line {error.problem_mark.line + 1}: not YAML: {error.problem}"]
    if root and not isinstance(root, yaml.MappingNode):
        return [f"config: {shown} holds no keys: write key: value, a line each"]
    twice = [f"config: {fault}; {shown} must have it once" for fault in _duplicates(root)]
    return twice + [f"config: {shown}, {fault}" for fault in _misread(root)]


def _duplicates(root: yaml.Node | None) -> Iterator[str]:
    for path, section in _sections(root):
        lines: dict[str, int] = {}
        for key, _ in section.value:
            name, line = f"{path}{key.value}", key.start_mark.line + 1
            if name in lines:
                yield f"{name}: stands in lines {lines[name]} and {line}"
            lines[name] = line


def _misread(root: yaml.Node | None) -> Iterator[str]:
    """Keys that are no text, such as `no`, and numbers that are not to base ten, such as 010 and 1:30."""
    for path, section in _sections(root):
        for key, value in section.value:
            line = f"line {key.start_mark.line + 1}: {path}{key.value}"
            if key.tag not in KEYS:
                yield f'{line}: the key {key.value} is not text to YAML; write "{key.value}", in quotes'
            for own in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if own.tag in NUMBERS and OTHER_BASE.match(own.value):
                    yield f"{line}: YAML reads {own.value} as {yaml.safe_load(own.value)}; write it to base ten"


def _sections(node: yaml.Node | None, path: str = "") -> Iterator[tuple[str, yaml.MappingNode]]:
    """Each section with what its keys' paths begin with: this one, and all below it."""
    if isinstance(node, yaml.SequenceNode):
        for own in node.value:
            yield from _sections(own, path)
    if isinstance(node, yaml.MappingNode):
        yield path, node
        for key, value in node.value:
            yield from _sections(value, f"{path}{key.value}.")


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
