"""What is wrong with the retrieval of reports."""

from collections.abc import Iterator

from safemed.workflow import schema
from safemed.workflow.config import BASE


def faults(config: dict) -> Iterator[str]:
    """Each fault of retrieve, beginning with its whole key."""
    retrieve, attack = config["retrieve"], config["attack"]
    known = ["own", BASE, *config["methods"]]
    for name in retrieve["retrievers"]:
        if name not in known:
            yield f"retrieve.retrievers: unknown method {name!r}{schema.did_you_mean(name, known)}"
    if "retrieve" not in config["evaluations"]:
        return
    if retrieve["questions"] > attack["questions"]:
        yield f"retrieve.questions: {retrieve['questions']} is more than attack.questions = {attack['questions']}"
