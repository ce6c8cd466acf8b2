"""White-box attacks with restarts and per-question early exit.

A question counts as broken only when the text generated from the ROUNDED image is not right, so an early exit never
claims what the stored image does not show.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from safemed.attacks.apgd import Apgd
from safemed.attacks.losses import AttackLoss, loss_and_gradient, loss_only
from safemed.attacks.mi_fgsm import MiFgsm
from safemed.attacks.pgd import Pgd
from safemed.attacks.threat_model import Ball
from safemed.models.geometry import to_float

ASK_AGAIN = 5  # a thought may look broken, and be answered rightly, for many steps before the answer breaks

IsRight = Callable[[Tensor, Tensor], Tensor]  # 8-bit images [b, H, W, 3] and their rows [b] -> [b] bool


@dataclass(frozen=True)
class AttackConfig:
    """The budget of an attack. kind: pgd, apgd, mi-fgsm, cw, noise or square; norm: linf or l2.

    name: seeds the random starts, together with the question. losses: those that gradients ascend, by their names in
    `Evaluator.attack_loss`; none for noise and square. restarts: starts PER LOSS. steps: gradient steps of each start;
    draws of noise; queries of square. amp: all starts run in bfloat16 first, and then again in fp32 on the questions
    that survived. patience: a start is given up for a question whose highest margin, rising on as over the last
    `patience` steps, would still be below 0 after the last step; only for losses that are margins (positive: broken).
    None: never given up.
    """

    kind: str = "pgd"
    name: str = "pgd"
    norm: str = "linf"
    steps: int = 20
    losses: tuple[str, ...] = ()
    restarts: int = 1
    amp: bool = False
    patience: int | None = None

    def climbs(self) -> list[tuple[str, int]]:
        """The gradient ascents of the attack in order, each as its loss and the number of its restart, from 0.

        Every loss is climbed once before any is climbed again. A single step (FGSM) is taken from the clean image, so
        that a restart would repeat it: each loss is climbed once.
        """
        restarts = 1 if self.steps == 1 else self.restarts
        return [(loss, restart) for restart in range(restarts) for loss in self.losses]


def of_variant(setting: int | dict[str, int], variant: str) -> int:
    """A setting that is one number for all variants, or one for each."""
    return setting[variant] if isinstance(setting, dict) else setting


@dataclass
class Attacked:
    """Outcome of an attack on B questions.

    images: uint8 [B, H, W, 3], in the ball. steps [B]: gradient steps (draws, queries) spent on each.
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
        """Ask about 8-bit images of the questions `live`, and keep those that broke. Returns which of them did."""
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
    eager: bool = False,
) -> Attacked:
    """Attack every question until it breaks: one climb a loss, each of the questions that survived those before it.

    is_right is asked when a question starts to look broken, every ASK_AGAIN steps while it does, and about each
    climb's best iterate; it alone decides. eager: asking costs about a forward pass, so that it is worth asking about
    all of the first iterates. clean8: uint8 [B, H, W, 3]. names: seeds of the random starts. eps in 8-bit levels for
    linf, in [0, 1] pixel units for l2. A single step is FGSM: all of eps, from the clean image.

    Raises ValueError for eps < 0. A gradient or loss that is not finite raises FloatingPointError: no verdict is made
    of it.
    """
    if eps < 0:
        raise ValueError(f"eps must be >= 0, got {eps}")
    ball = Ball(config.norm, eps / 255 if config.norm == "linf" else eps)
    found = Attacked.untouched(clean8)
    for amp in (True, False) if config.amp else (False,):
        for climb_number, attack_loss in enumerate(attack_losses):
            live = torch.nonzero(~found.broken)[:, 0]
            if not len(live):
                return found
            clean = to_float(clean8[live], device)
            still = config.steps == 1 or (config.kind in ("apgd", "mi-fgsm") and climb_number == 0)
            start = clean if still else ball.start(clean, [f"{names[i]}:{climb_number}" for i in live.tolist()])
            rule = RULES[config.kind](ball, clean, config.steps)
            _Restart(found, is_right, clean8, live, start, rule, config.patience).run(attack_loss, amp, eager)
    return found


class _Restart:
    """One restart on the questions `live`, whose outcome goes into `found`; broken questions leave it at once."""

    def __init__(self, found: Attacked, is_right: IsRight, clean8: Tensor, live: Tensor, start: Tensor, rule, patience):
        self.found, self.is_right, self.clean8, self.rule, self.patience = found, is_right, clean8, rule, patience
        self.live, self.images, self.best, self.left = live, start, start.clone(), rule.steps
        self.highest = torch.full((len(live),), -torch.inf, device=start.device)
        self.before: list[Tensor] = []  # the highest losses after each step
        self.suspected = torch.zeros(len(live), dtype=torch.bool)  # looked broken at the last step, and was not

    def run(self, attack_loss: AttackLoss, amp: bool, eager: bool) -> None:
        """Climb until every question has broken, has been given up, or has had all its steps."""
        for step in range(self.rule.steps):
            asked = eager and step > 0
            if asked:
                eager = self._ask_all()
            if not len(self.live):
                return
            rows = self.live.to(self.images.device)
            loss, broken, gradient = loss_and_gradient(attack_loss, self.images, rows, amp)
            kept = self._judge(loss, broken.cpu(), step % ASK_AGAIN == 0, asked)
            if not len(self.live):
                return
            loss, gradient = loss[kept], gradient[kept]
            self.images = self.rule.step(self.images, loss, gradient, step).detach()
            self.found.steps[self.live] += 1
            self.left -= 1
        loss, broken = loss_only(attack_loss, self.images, self.live.to(self.images.device))
        self._judge(loss, broken.cpu(), again=True)
        self._close(self.live, self.best)

    def _ask_all(self) -> bool:
        """Ask about all iterates: a pass each, which saves two on each that breaks. Returns whether that paid."""
        broke = self._settle(torch.arange(len(self.live)))
        self._keep(~broke)
        return bool(broke.float().mean() > 1 / 3)

    def _judge(self, loss: Tensor, looks_broken: Tensor, again: bool, asked: bool = False) -> Tensor:
        """Note the iterates' losses, ask about those that look broken, and let go of the broken and the hopeless.

        again: ask about those, too, that looked broken before; asked: all have been asked about already. Returns which
        questions are still live, [b] bool on the iterates' device.
        """
        higher = loss >= self.highest
        self.best[higher], self.highest[higher] = self.images[higher], loss[higher]
        self.before = [*self.before, self.highest.clone()][-(self.patience or 0) - 1 :]
        ask = torch.nonzero(looks_broken & (~self.suspected | again) & (not asked))[:, 0]
        keep = torch.ones(len(self.live), dtype=torch.bool)
        keep[ask] = ~self._settle(ask)
        stalled = keep & self._hopeless()
        self._close(self.live[stalled], self.best[stalled.to(self.best.device)])
        self.suspected = looks_broken
        return self._keep(keep & ~stalled)

    def _settle(self, ask: Tensor) -> Tensor:
        """Ask about the iterates of some of the live questions; which of them broke."""
        live = self.live[ask]
        stored = self.rule.ball.store(self.images[ask.to(self.images.device)], self.clean8[live])
        return self.found.settle(self.is_right, live, stored)

    def _hopeless(self) -> Tensor:
        """Whether the highest margin [b], going on to rise as in the last `patience` steps, stays below 0; CPU bool."""
        gained = self.before[-1] - self.before[0]
        if self.patience is None or len(self.before) <= self.patience:
            return torch.zeros(len(gained), dtype=torch.bool)
        return (self.before[-1] + gained / self.patience * self.left < 0).cpu()

    def _keep(self, keep: Tensor) -> Tensor:
        """Forget all questions but those to `keep` [b] bool; returns the same on the iterates' device."""
        here = keep.to(self.images.device)
        self.live, self.suspected = self.live[keep], self.suspected[keep]
        self.images, self.best, self.highest = self.images[here], self.best[here], self.highest[here]
        self.before = [each[here] for each in self.before]
        self.rule.keep(here)
        return here

    def _close(self, survivors: Tensor, best: Tensor) -> None:
        """End the restart for some questions: keep their best iterates, and ask about them."""
        self.found.images[survivors] = self.rule.ball.store(best, self.clean8[survivors])
        self.found.settle(self.is_right, survivors, self.found.images[survivors])


RULES = {"pgd": Pgd, "apgd": Apgd, "mi-fgsm": MiFgsm}
