"""The control that needs nothing: random noise. An attack that loses to it is broken (Carlini et al. 2019, "On
evaluating adversarial robustness").
"""

import torch
from torch import Tensor

from safemed.attacks.engine import AttackConfig, Attacked
from safemed.attacks.threat_model import Ball, random_start
from safemed.evaluation.evaluator import Evaluator
from safemed.models.geometry import to_float


def noise(
    evaluator: Evaluator, words: list[str], rows: Tensor, config: AttackConfig, eps: float, seed: int
) -> Attacked:
    """config.steps random corners of the linf ball, each shown to the questions that none has broken so far.

    A question that survives keeps the last corner. eps in 8-bit levels.
    """
    clean8, device = evaluator.images[rows], evaluator.vlm.device
    found, clean, ball = Attacked.untouched(clean8), to_float(clean8, device), Ball("linf", eps / 255)
    for draw in range(config.steps):
        live = torch.nonzero(~found.broken)[:, 0]
        if not len(live):
            break
        names = [f"{seed}:{config.name}:{evaluator.rows[int(rows[i])]['question_id']}:{eps:g}:{draw}" for i in live]
        signs = random_start(torch.zeros_like(clean[live]), 1.0, names).sign()
        corners = ball.store(ball.project(clean[live] + ball.eps * signs, clean[live]), clean8[live])
        found.images[live], found.steps[live] = corners, draw + 1
        found.settle(lambda images, part: evaluator.is_right(images, rows[part]), live, corners)
    return found
