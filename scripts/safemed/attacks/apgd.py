"""Auto-PGD (Croce & Hein 2020)."""

import torch
from torch import Tensor

from safemed.attacks.threat_model import Ball


class Apgd:
    """Auto-PGD (Croce & Hein 2020, Algorithm 1): momentum, and each question's step size halves when it stalls."""

    MOMENTUM, RHO = 0.75, 0.75

    def __init__(self, ball: Ball, clean: Tensor, steps: int):
        self.ball, self.clean, self.steps = ball, clean, steps
        self.checkpoints = apgd_checkpoints(steps)
        b = len(clean)
        self.state = {
            "eta": clean.new_full((b,), 2 * ball.eps),
            "before": clean.clone(),  # the iterate before this one
            "best": clean.clone(),
            "best_gradient": torch.zeros_like(clean),
            "highest": clean.new_full((b,), -torch.inf),
            "loss": clean.new_full((b,), torch.inf),  # at the iterate before this one
            "rises": clean.new_zeros(b),  # steps that raised the loss since the last checkpoint
            "highest_then": clean.new_full((b,), -torch.inf),  # at the last checkpoint
            "eta_fresh": clean.new_zeros(b),  # 1: the step size was halved at the last checkpoint
        }

    def step(self, images: Tensor, loss: Tensor, gradient: Tensor, step: int) -> Tensor:
        """The next iterate, from the loss and its gradient at this one."""
        s = self.state
        s["rises"] += (loss > s["loss"]).float()
        higher = loss > s["highest"]
        s["best"][higher], s["best_gradient"][higher] = images[higher], gradient[higher]
        s["highest"] = torch.maximum(s["highest"], loss)
        s["loss"] = loss.clone()
        if step in self.checkpoints:
            images, gradient = self._checkpoint(images, gradient, step - self.checkpoints[step])
        eta = s["eta"][:, None, None, None]
        ahead = self.ball.project(images + eta * self.ball.direction(gradient), self.clean)
        if step:
            ahead = images + self.MOMENTUM * (ahead - images) + (1 - self.MOMENTUM) * (images - s["before"])
        s["before"] = images.clone()
        return self.ball.project(ahead, self.clean)

    def _checkpoint(self, images: Tensor, gradient: Tensor, passed: int) -> tuple[Tensor, Tensor]:
        """Halve the step size of the questions that stalled, and put them back to their best iterate."""
        s = self.state
        stalled = (s["rises"] < self.RHO * passed) | ((s["eta_fresh"] == 0) & (s["highest"] <= s["highest_then"]))
        s["eta"] = torch.where(stalled, s["eta"] / 2, s["eta"])
        s["eta_fresh"], s["highest_then"] = stalled.float(), s["highest"].clone()
        s["rises"] = torch.zeros_like(s["rises"])
        there = stalled[:, None, None, None]
        return torch.where(there, s["best"], images), torch.where(there, s["best_gradient"], gradient)

    def keep(self, here: Tensor) -> None:
        """Forget all questions but those `here` [b] bool."""
        self.clean = self.clean[here]
        self.state = {name: tensor[here] for name, tensor in self.state.items()}


def apgd_checkpoints(steps: int) -> dict[int, int]:
    """The steps at which step sizes are reviewed, each with the checkpoint before it (Croce & Hein 2020, sec. 3.1)."""
    found, before, share, gap = {}, 0, 0.22, 0.22
    while (step := max(before + 1, round(share * steps))) < steps:
        found[step], before = before, step
        gap = max(gap - 0.03, 0.06)
        share += gap
    return found
