"""White-box attacks that climb several losses, with restarts, and stop at each question that is broken.

A question counts as broken only when the text generated from the ROUNDED image is not right: an early stop never claims
what the stored image does not show.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from safemed.attacks.apgd import Apgd
from safemed.attacks.losses import AttackLoss, loss_and_gradient, loss_only
from safemed.attacks.mi_fgsm import MiFgsm
from safemed.attacks.pgd import Pgd
from safemed.attacks.threat_model import Ball
from safemed.models.geometry import to_float

ASK_EVERY = 2  # steps: asking costs a forward pass, of a smoothed model one for each vote

IsRight = Callable[[Tensor, Tensor], Tensor]  # 8-bit images [b, H, W, 3] and their rows [b] -> [b] bool


@dataclass(frozen=True)
class AttackConfig:
    """The budget of an attack. kind: pgd, apgd, mi-fgsm, cw, noise or torchattacks; norm: linf, l2 or l0.

    name: seeds the random starts, together with the question. losses: those that gradients ascend, by their names in
    `Evaluator.attack_loss`; none for noise and torchattacks. restarts: starts PER LOSS. steps: gradient steps of each
    start; draws of noise; steps of an attack of torchattacks as that counts them. attack: its name there. amp: all
    starts run in bfloat16 first, and then again in fp32 on the questions that survived. patience: a start is given up
    for a question whose highest margin, rising on as over the last `patience` steps, would still be below 0 after the
    last step; only for losses that are margins (positive: broken). None: never given up.
    """

    kind: str = "pgd"
    name: str = "pgd"
    norm: str = "linf"
    steps: int = 20
    losses: tuple[str, ...] = ()
    restarts: int = 1
    amp: bool = False
    patience: int | None = None
    attack: str | None = None

    def climbs(self) -> list[tuple[str, int]]:
        """The gradient ascents of the attack in order, each as its loss and the number of its restart, from 0.

        Every loss is climbed once before any is climbed again. A single step (FGSM) is taken from the clean image, so
        that a restart would repeat it: each loss is climbed once.
        """
        restarts = 1 if self.steps == 1 else self.restarts
        return [(loss, restart) for restart in range(restarts) for loss in self.losses]


@dataclass
class Attacked:
    """Outcome of an attack on B questions.

    images: uint8 [B, H, W, 3], in the ball. steps [B]: gradient steps (draws; images that
    torchattacks showed) spent on each.
    broken [B]: the text generated from the stored image is not right.
    """

    images: Tensor
    steps: Tensor
    broken: Tensor

    @classmethod
    def untouched(cls, clean8: Tensor) -> "Attacked":
        """Before the first step."""
        n = len(clean8)
        return cls(clean8.clone(), torch.zeros(n, dtype=torch.long), torch.zeros(n, dtype=torch.bool))

    def settle(self, is_right: IsRight, live: Tensor, stored: Tensor) -> Tensor:
        """Ask about 8-bit images of the questions `live`, and store those that break them. Returns which do, [b]."""
        broke = ~is_right(stored, live) if len(live) else torch.zeros(0, dtype=torch.bool)
        self.images[live[broke]] = stored[broke]
        self.broken[live[broke]] = True
        return broke


def attack(
    attack_losses: list[AttackLoss],
    is_right: IsRight,
    clean8: Tensor,
    names: list[str],
    eps: float,
    config: AttackConfig,
    device,
    starts: Sequence[Tensor | None] | None = None,
) -> Attacked:
    """Climb one loss after the other, each on the questions that no climb before it has broken.

    A question breaks where is_right says so of the text generated from its rounded image, and is then attacked no more.
    Every ASK_EVERY steps, and after the last one, is_right is asked about the iterates that look broken under the loss;
    at the end of each climb about its best iterate. clean8: uint8 [B, H, W, 3]. names [B]: seeds of the random starts.
    eps: in 8-bit levels for linf, in [0, 1] pixel units for l2. A single step is FGSM: eps at once, from the clean one.
    starts: for each loss the 8-bit images [B, H, W, 3] of the ball that its climb starts from, or None for the start
    that is described here; starts says so of every loss where it is given.

    Raises ValueError for eps < 0, and FloatingPointError where a gradient or loss is not finite: no verdict is made of
    it.
    """
    if eps < 0:
        raise ValueError(f"eps must be >= 0, got {eps}")
    ball = Ball(config.norm, eps / 255 if config.norm == "linf" else eps)
    found = Attacked.untouched(clean8)
    for amp in (True, False) if config.amp else (False,):
        for number, attack_loss in enumerate(attack_losses):
            live = torch.nonzero(~found.broken)[:, 0]
            if not len(live):
                return found
            clean = to_float(clean8[live], device)
            still = config.steps == 1 or (config.kind in ("apgd", "mi-fgsm") and number == 0)
            start = clean if still else ball.start(clean, [f"{names[i]}:{number}" for i in live.tolist()])
            if starts and (given := starts[number]) is not None:
                start = to_float(given[live], device)
            rule = RULES[config.kind](ball, clean, config.steps)
            _Climb(found, is_right, clean8, live, start, rule, config.patience).run(attack_loss, amp)
    return found


class _Climb:
    """The ascent of one loss on the questions `live` [b], whose outcome goes into `found`.

    A question leaves when it is broken, when it is given up (see `AttackConfig.patience`), or after the last step. Of
    one that is not broken, the image of the highest loss is kept. All tensors have one entry for each live question.
    """

    def __init__(self, found: Attacked, is_right: IsRight, clean8: Tensor, live: Tensor, start: Tensor, rule, patience):
        self.found, self.is_right, self.clean8, self.rule, self.patience = found, is_right, clean8, rule, patience
        self.live, self.images, self.best, self.left = live, start, start.clone(), rule.steps
        self.highest = torch.full((len(live),), -torch.inf, device=start.device)
        self.history: list[Tensor] = []  # the highest loss after each of the last steps

    def run(self, attack_loss: AttackLoss, amp: bool) -> None:
        """Climb until no question is left."""
        for step in range(self.rule.steps):
            loss, looks_broken, gradient = loss_and_gradient(attack_loss, self.images, self._rows(), amp)
            kept = self._judge(loss, looks_broken & (step % ASK_EVERY == 0))
            if not len(self.live):
                return
            self.images = self.rule.step(self.images, loss[kept], gradient[kept], step).detach()
            self.found.steps[self.live] += 1
            self.left -= 1
        self._judge(*loss_only(attack_loss, self.images, self._rows()))
        self._end(torch.ones(len(self.live), dtype=torch.bool))

    def _rows(self) -> Tensor:
        """The live questions, on the iterates' device."""
        return self.live.to(self.images.device)

    def _judge(self, loss: Tensor, suspects: Tensor) -> Tensor:
        """Note the iterates' losses, ask about the suspects [b] bool, and let go of the broken and the hopeless.

        Returns which questions are still live, [b] bool on the iterates' device.
        """
        self._note(loss)
        broken = self._ask(suspects.cpu())
        hopeless = ~broken & self._hopeless()
        self._end(hopeless)
        return self._keep(~broken & ~hopeless)

    def _note(self, loss: Tensor) -> None:
        """Keep the iterates whose loss is the highest so far."""
        higher = loss >= self.highest
        self.best[higher], self.highest[higher] = self.images[higher], loss[higher]
        self.history = [*self.history, self.highest.clone()][-(self.patience or 0) - 1 :]

    def _ask(self, which: Tensor) -> Tensor:
        """Ask about the rounded iterates of some of the questions, [b] bool. Returns which of all are broken, [b]."""
        broken, places = torch.zeros_like(which), torch.nonzero(which)[:, 0]
        live = self.live[places]
        stored = self.rule.ball.store(self.images[places.to(self.images.device)], self.clean8[live])
        broken[places] = self.found.settle(self.is_right, live, stored)
        return broken

    def _hopeless(self) -> Tensor:
        """Whether the highest margin, rising on as in the last `patience` steps, stays below 0; [b] bool on the CPU."""
        if self.patience is None or len(self.history) <= self.patience:
            return torch.zeros(len(self.live), dtype=torch.bool)
        pace = (self.history[-1] - self.history[0]) / self.patience
        return (self.history[-1] + pace * self.left < 0).cpu()

    def _end(self, which: Tensor) -> None:
        """End the climb for some of the questions, [b] bool: store their best iterates, and ask about them."""
        live = self.live[which]
        self.found.images[live] = self.rule.ball.store(self.best[which.to(self.best.device)], self.clean8[live])
        self.found.settle(self.is_right, live, self.found.images[live])

    def _keep(self, keep: Tensor) -> Tensor:
        """Forget all questions but some, [b] bool; returns the same on the iterates' device."""
        here = keep.to(self.images.device)
        self.live = self.live[keep]
        self.images, self.best, self.highest = self.images[here], self.best[here], self.highest[here]
        self.history = [each[here] for each in self.history]
        self.rule.keep(here)
        return here


RULES = {"pgd": Pgd, "apgd": Apgd, "mi-fgsm": MiFgsm}
