"""The option to abstain: "the image does not show it", the last one."""

from safemed.data.prompts import LETTERS


def abstainable(question: dict, abstain: str) -> dict | None:
    """With the option to abstain at the end, where it moves no other; None where no letter is left for it."""
    if len(question["options"]) == len(LETTERS):
        return None
    return question | {"options": [*question["options"], abstain]}
