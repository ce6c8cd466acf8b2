"""What is wrong with the wordings that models are told, with the red team that draws from them, and with defences."""

from collections.abc import Iterator
from pathlib import Path

import yaml

from safemed.data.prompts import of_variant
from safemed.stress.hints import Templates
from safemed.workflow.faults.variants import of_variants

RESTARTS = 3  # at least, of the attack through a defence


def faults(config: dict) -> Iterator[str]:
    """Each fault of templates, redteam and defend, beginning with its whole key."""
    path = Path(config["templates"])
    found = [*_templates(path)]
    yield from found
    yield from _red_team(config["redteam"])
    yield from _defences(config["defend"], config, None if found else Templates.read(path))


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


def _defences(defend: dict, config: dict, templates: Templates | None) -> Iterator[str]:
    """templates: None where they have faults."""
    if templates and defend["vote"]["wordings"] > (most := 1 + len(templates.paraphrases)):
        yield f"defend.vote.wordings: {defend['vote']['wordings']}, and the templates have {most} with the plain one"
    if 3 * defend["blur"] >= (side := config["data"]["image_size"]):
        yield f"defend.blur: three times {defend['blur']:g} pixels is as wide as an image: data.image_size = {side}"
    if faults := [*of_variants("restarts", defend["restarts"], config["variants"])]:
        yield from (f"defend.{fault}" for fault in faults)
        return
    for variant in config["variants"]:
        if (restarts := of_variant(defend["restarts"], variant)) < RESTARTS:
            yield (
                f"defend.restarts: {restarts} for {variant}; at least {RESTARTS}: an attack through a defence starts "
                "from the stored image, from the clean one and from a random one"
            )
