"""The control without a model: random noise."""

import torch

from safemed.attacks.engine import AttackConfig
from safemed.evaluation import black_box
from safemed.evaluation.evaluator import Evaluator


def test_noise_stays_in_the_ball_and_claims_what_the_stored_image_shows(skilled, shown):
    evaluator, everything = Evaluator(skilled, shown, "instruct", 24), torch.arange(24)
    words = evaluator.answers(evaluator.images, everything)
    for eps in (8, 200):
        found = black_box.noise(evaluator, words, everything, AttackConfig(steps=5), eps, seed=0)
        far = (found.images.int() - evaluator.images.int()).abs().flatten(1).amax(1)
        assert far.max() <= eps and (far > 0).all()
        assert (~found.broken).tolist() == evaluator.is_right(found.images, everything).tolist()
        evaluator.vlm.passes.backward = 0
        again = black_box.noise(evaluator, words, everything, AttackConfig(steps=5), eps, seed=0)
        assert evaluator.vlm.passes.backward == 0 and torch.equal(again.images, found.images)
