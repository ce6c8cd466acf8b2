"""What is wrong with how evidence is revealed."""

from collections.abc import Iterator


def faults(config: dict) -> Iterator[str]:
    """Each fault of reveal, beginning with its whole key; none where the study reveals nothing."""
    if "reveal" not in config["evaluations"]:
        return
    reveal, side, most = config["reveal"], config["data"]["image_size"], config["attack"]["questions"]
    if reveal["questions"] > most:
        yield f"reveal.questions: {reveal['questions']} is more than attack.questions = {most}"
    if side % reveal["cells"]:
        yield f"reveal.cells: {reveal['cells']} a side do not divide data.image_size = {side}"
    shares = reveal["shares"]
    if shares != sorted(shares) or shares[-1] != 1:
        yield f"reveal.shares: {shares} do not ascend to 1, the whole image"
    shown = [round(share * reveal["cells"] ** 2) for share in shares]
    if 0 in shown or len(set(shown)) < len(shown):
        yield f"reveal.shares: {shares} of {reveal['cells'] ** 2} cells are {shown} cells; each must show more of them"
