"""The rewards of SafeMed-R1's GRPO: accuracy and format, both read by the one parser of prompts.py."""

from safemed.data.prompts import parse, well_formed


def accuracy(text: str, row: dict) -> float:
    """1.0 where the parsed answer is the row's gold letter, else 0.0: an unparsable completion earns nothing."""
    return float(parse(text, row["n_options"], row["variant"]).answer == row["gold"])


def format(text: str, row: dict) -> float:
    """1.0 where the completion is exactly the variant's format, whatever letter it names, else 0.0."""
    return float(well_formed(parse(text, row["n_options"], row["variant"]), row["variant"]))


REWARDS = {"accuracy": accuracy, "format": format}
