"""What is wrong with the wordings that models are told, and with the red team that draws from them."""

from collections.abc import Iterator
from pathlib import Path

import yaml

from safemed.stress.hints import Templates


def faults(config: dict) -> Iterator[str]:
    """Each fault of templates and redteam, beginning with its whole key."""
    yield from _templates(Path(config["templates"]))
    yield from _red_team(config["redteam"])


def _templates(path: Path) -> Iterator[str]:
    if not path.is_file():
        yield f"templates: there is no file {path}"
        return
    try:
        Templates.read(path)
    except (ValueError, yaml.YAMLError) as error:
        yield f"templates: {' '.join(str(error).split())}"


def _red_team(redteam: dict) -> Iterator[str]:
    budget, rounds = redteam["budget"], redteam["rounds"]
    if budget < rounds:
        yield f"redteam.budget: {budget} queries are not one for each of redteam.rounds = {rounds}"
