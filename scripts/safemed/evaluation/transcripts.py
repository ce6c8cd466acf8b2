"""Second turns about a model's own first answers, which were given to the clean images and stay as they were."""

from torch import Tensor

from safemed.evaluation.batching import Failure, for_each
from safemed.evaluation.evaluator import Evaluator
from safemed.stress.pushes import Push
from safemed.stress.second_turns import pushed

Heard = tuple[str, float]  # a generated text, and the probability of the letter that it answers


def heard(evaluator: Evaluator, batches: list[Tensor]) -> dict[int, Heard | Failure]:
    """What is answered to the questions of the batches about the evaluator's own images."""
    return for_each(batches, evaluator.heard)


def second_turn(evaluator: Evaluator, row: int, first: Heard | Failure, wording: Push, letter: str) -> dict | Failure:
    """Question `row` pushed after the first answer that was heard; a Failure where none can be shown."""
    if isinstance(first, Failure):
        return Failure(f"the first answer was not evaluated: {first.why}")
    try:
        return pushed(evaluator.rows[row], first[0], wording, letter, evaluator.variant)
    except ValueError as error:
        return Failure(str(error))
