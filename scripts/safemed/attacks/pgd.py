"""Projected gradient ascent (Madry et al. 2018)."""

import torch
from torch import Tensor

from safemed.attacks.losses import AttackLoss, loss_and_gradient
from safemed.attacks.threat_model import Ball


def pgd(
    attack_loss: AttackLoss, clean: Tensor, ball: Ball, steps: int, start: Tensor, alpha: float
) -> tuple[Tensor, Tensor]:
    """Projected gradient ascent of fixed length (Madry et al. 2018), for training.

    clean, start: [B, 3, H, W] in [0, 1]; alpha (step size) in [0, 1] units. The model must be frozen.
    Returns images of the ball, and the loss [B] where the last step was taken.
    """
    rows = torch.arange(len(clean), device=clean.device)
    images, loss = ball.project(start, clean), clean.new_zeros(len(clean))
    for _ in range(steps):
        loss, _, gradient = loss_and_gradient(attack_loss, images, rows)
        images = ball.project(images + alpha * ball.direction(gradient), clean)
    return images.detach(), loss


class Pgd:
    """Steps of 2.5 eps / steps (Madry et al. 2018)."""

    def __init__(self, ball: Ball, clean: Tensor, steps: int):
        self.ball, self.clean, self.steps = ball, clean, steps
        self.alpha = ball.eps if steps == 1 else 2.5 * ball.eps / steps

    def step(self, images: Tensor, loss: Tensor, gradient: Tensor, step: int) -> Tensor:
        """The next iterate, from the loss and its gradient at this one."""
        return self.ball.project(images + self.alpha * self.ball.direction(gradient), self.clean)

    def keep(self, here: Tensor) -> None:
        """Forget all questions but those `here` [b] bool."""
        self.clean = self.clean[here]
