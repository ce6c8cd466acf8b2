"""What a training step sees instead of the clean image: nothing else, Gaussian noise, or an attack on the policy.

Hints, reports, second turns and erased images, which change the question too, are training.alterations'.
"""

from dataclasses import dataclass
from typing import Self

import torch
from accelerate.utils import reduce
from torch import Tensor
from torch.nn import Module

from safemed.attacks.losses import AttackLoss
from safemed.attacks.pgd import pgd
from safemed.attacks.threat_model import Ball, random_start
from safemed.models.vlm import frozen
from safemed.utils.noise import gaussian


@dataclass(frozen=True)
class Augmentation:
    """What a training step sees of an image. kind: clean | noisy | adversarial; the other fields as in the config.

    eps in levels of 1/255, reached linearly over the first `ramp` of the training; steps of PGD, each of size alpha, in
    the same levels, or 2.5 * eps / steps (Madry et al. 2018) where alpha is 0; sigma of the Gaussian noise in [0, 1]
    pixel units, which an adversarial augmentation has on top of the attack where sigma > 0. Noise is not clipped, as
    that of the certificates is not.
    share: of a batch's rows; the others see the clean image.
    """

    kind: str = "clean"
    eps: float = 0.0
    steps: int = 0
    ramp: float = 0.0
    sigma: float = 0.0
    share: float = 1.0
    alpha: float = 0.0

    @classmethod
    def read(cls, settings: dict) -> Self:
        """The augmentation of a method's settings; those that change the question are training.alterations'."""
        altered = ("hints", "told", "turns", "retrieved", "poisoned", "erased")
        return cls(**{key: value for key, value in settings.items() if key not in altered})

    def eps_at(self, progress: float) -> float:
        """The radius, in [0, 1] pixel units, at a training progress in [0, 1]."""
        share = min(1.0, progress / self.ramp) if self.ramp else 1.0
        return self.eps / 255 * share

    def apply(
        self, model: Module, attack_loss: AttackLoss, clean: Tensor, names: list[str], progress: float
    ) -> tuple[Tensor, Tensor]:
        """The images that the step trains on, [B, 3, H, W], and the attack's loss [B] at its last step.

        Within [0, 1] unless there is noise. model: what is frozen while it is attacked. attack_loss: what the attack
        climbs. clean: [B, 3, H, W]. names: what seeds each image's random start and noise; equal names and images
        give equal results, on any process.
        """
        seen, loss = clean, clean.new_zeros(len(clean))
        if self.kind == "adversarial":
            eps = self.eps_at(progress)
            start, size = random_start(clean, eps, names), self.alpha / 255 or 2.5 * eps / self.steps
            with frozen(model):
                seen, loss = pgd(attack_loss, clean, Ball("linf", eps), self.steps, start, size)
        if self.sigma:
            seen = seen + self.sigma * gaussian(clean.shape[1:], names).to(clean)
        return seen, loss


def augment_step(trainer, attack_loss: AttackLoss, clean: Tensor, question_ids: list[str]) -> Tensor:
    """What a trainer's current step sees of clean images [B, 3, H, W], of the same shape.

    trainer: has an `augmentation` and a `vlm` beside the Trainer's own args and state, and TRL's `_metrics`, where an
    attack's `eps` (in levels of 1/255) and `attack_loss` are left to be logged. Seeded by the training's seed, the step
    and the question, so that rows of one question see one image.
    """
    augmentation, step = trainer.augmentation, trainer.state.global_step
    progress = (step + 1) / trainer.state.max_steps
    names = [f"{trainer.args.seed}:{step}:{question_id}" for question_id in question_ids]
    n = round(augmentation.share * len(clean))  # the first: batches are in random order
    seen, loss = augmentation.apply(trainer.vlm.model, attack_loss, clean[:n], names[:n], progress)
    if augmentation.kind == "adversarial":
        trainer._metrics["train"]["eps"].append(augmentation.eps_at(progress) * 255)
        trainer._metrics["train"]["attack_loss"].append(reduce(loss.mean(), "mean").item())
    return torch.cat([seen, clean[n:]])
