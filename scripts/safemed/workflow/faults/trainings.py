"""What is wrong with seeds, with how trainings are watched, and with how a model is shared among their processes."""

from collections.abc import Iterator

from safemed.workflow.faults.variants import of_variants


def faults(config: dict) -> Iterator[str]:
    """Each fault of seeds, monitoring and resources, beginning with its whole key."""
    if config["seed"] in config["further_seeds"]:
        yield f"further_seeds: {config['seed']} is the study's own seed already; name others"
    yield from _monitoring(config)
    yield from _sharding(config["resources"])


def _monitoring(config: dict) -> Iterator[str]:
    for fault in of_variants("restarts", config["monitoring"]["probe"]["restarts"], config["variants"]):
        yield f"monitoring.probe.{fault}"


def _sharding(resources: dict) -> Iterator[str]:
    alone = resources["train_nodes"] * resources["train_processes"] == 1
    if resources["shard_training"] and (alone or not resources["gpus"]):
        yield "resources.shard_training: only for several processes, each with a GPU"
