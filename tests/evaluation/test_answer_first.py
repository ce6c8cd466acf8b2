"""The variant after answers before it thinks: what it thinks then changes neither its letter nor an attack on that."""

import pytest
import torch

from safemed.attacks.engine import AttackConfig
from safemed.data import prompts
from safemed.evaluation.evaluator import Evaluator

EVERYTHING = torch.arange(24)
THOUGHTS = ["<think> CT: CT </think>", "<think> not <answer> D </answer> </think>", ""]


def with_thought(letter: str, thought: str, variant: str) -> str:
    """A completion of a variant with this thought."""
    parts = [f"<answer> {letter} </answer>", thought]
    return "".join(parts if variant == "after" else reversed(parts))


def test_the_probability_of_the_letter_is_the_same_whatever_is_thought_after_it(skilled_in_all, shown):
    """It is that after the image and question alone; a thought before the letter changes it."""
    for variant in ("after", "think"):
        evaluator = Evaluator(skilled_in_all, shown, variant, 24)
        golds = [row["gold"] for row in evaluator.rows]
        found = [
            evaluator.confidences(
                evaluator.images, EVERYTHING, [with_thought(gold, thought, variant) for gold in golds]
            )
            for thought in THOUGHTS
        ]
        assert (found[0] == found[1] == found[2]) == (variant == "after")
        assert min(found[2]) > 0 and (found[0] != found[2]) == (variant == "think")


def test_a_taught_model_answers_first_and_thinks_then(skilled_in_all, shown):
    evaluator = Evaluator(skilled_in_all, shown, "after", 24)
    for row, text in enumerate(evaluator.answers(evaluator.images, EVERYTHING)):
        assert text.startswith("<answer>") and evaluator.outcome(text, row) == "right"
        assert prompts.well_formed(prompts.parse(text, 4, "after"), "after")
        for other in ("instruct", "think"):
            assert Evaluator(skilled_in_all, shown, other, 24).outcome(text, row) == "unparsable"


@pytest.mark.parametrize("variant", prompts.THINKING)
def test_the_attack_on_the_letter_is_that_of_a_model_which_says_no_more(skilled_in_all, shown, variant):
    """Of after, and of no variant that thinks first: the image that breaks the letter depends on no thought."""
    evaluator = Evaluator(skilled_in_all, shown, variant, 24)
    words = [[with_thought(row["gold"], thought, variant) for row in evaluator.rows] for thought in THOUGHTS[::2]]
    config = AttackConfig(steps=2, losses=("answer",))
    one, other = (evaluator.attack(said, EVERYTHING, config, 4, seed=0).images for said in words)
    assert torch.equal(one, other) == (variant == "after")
