"""The rules between config keys that a schema cannot state. Each fault is one line with the whole path of its key.

`safemed.workflow.faults` has a module for each part of the config that has such rules.
"""

import sys

from safemed.workflow import schema
from safemed.workflow.faults import attacks, certificates, data, methods, model, retrieval, reveal, trainings, words

PARTS = (
    data,
    model,
    attacks,
    certificates,
    trainings,
    words,
    reveal,
    retrieval,
    methods,
)  # in the order of their lines


def faults(config: dict) -> list[str]:
    """All that is wrong with a merged config, a line each; empty for one that can be run.

    Rules between keys are looked at once the schema accepts the config, and those between attacks once each attack is
    sound in itself.
    """
    return schema.faults(config) or [f"config: {fault}" for part in PARTS for fault in part.faults(config)]


def refuse(faults: list[str]) -> None:
    """End the program with these lines, if there are any, and nothing else."""
    if faults:
        sys.exit("\n".join(faults))
