"""The rewards of SafeMed-R1's GRPO: accuracy and format, both read by the one parser of prompts.py.

The signature is TRL's: a function of the completions of a batch and of the dataset's columns, repeated to one value a
completion.
"""

from safemed.data.prompts import parse, well_formed


def accuracy(completions: list, gold: list[str], n_options: list[int], **_) -> list[float]:
    """1.0 where the parsed answer is the gold letter, else 0.0 (an unparsable completion earns nothing)."""
    texts = [_text(completion) for completion in completions]
    return [float(parse(t, n).answer == g) for t, g, n in zip(texts, gold, n_options, strict=True)]


def format(completions: list, n_options: list[int], variant: list[str], **_) -> list[float]:
    """1.0 where the completion is exactly the variant's format, whatever letter it names, else 0.0."""
    texts = [_text(completion) for completion in completions]
    return [float(well_formed(parse(t, n), v)) for t, n, v in zip(texts, n_options, variant, strict=True)]


def _text(completion: str | list[dict]) -> str:
    """The text of a completion, plain or as chat messages."""
    return completion if isinstance(completion, str) else completion[0]["content"]
