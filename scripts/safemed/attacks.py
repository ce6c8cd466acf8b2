"""White-box attacks in pixel space, with per-question early exit.

Threat model: images are 8-bit; the attacker adds delta within a ball (|delta|_inf <= eps = k/255, or an L2 radius) and
the result is again an 8-bit image. Attacks climb on floats in [0, 1]; a question counts as broken only when the text
generated from the ROUNDED image is not right, so an early exit never claims what the stored image does not show.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from safemed.objectives import Objective
from safemed.vlm import to_float, to_uint8

ASK_AGAIN = 5  # a thought may look broken, and be answered rightly, for many steps before the answer breaks

IsRight = Callable[[Tensor, Tensor], Tensor]  # 8-bit images [b, H, W, 3] and their rows [b] -> [b] bool


@dataclass(frozen=True)
class Ball:
    """All images within eps of a clean one and within [0, 1]. norm: linf or l2; eps in [0, 1] pixel units."""

    norm: str
    eps: float

    def project(self, images: Tensor, clean: Tensor) -> Tensor:
        """Images in the ball: for linf the nearest ones."""
        delta = images - clean
        if self.norm == "linf":
            delta = delta.clamp(-self.eps, self.eps)
        else:
            delta = delta * (self.eps / l2_norm(delta).clamp_min(1e-12)).clamp_max(1)
        return (clean + delta).clamp(0, 1)

    def direction(self, gradient: Tensor) -> Tensor:
        """The steepest ascent of unit length in the ball's norm; zero where the gradient is zero."""
        if self.norm == "linf":
            return gradient.sign()
        return gradient / l2_norm(gradient).clamp_min(1e-12)

    def start(self, clean: Tensor, names: list[str]) -> Tensor:
        """Random images of the ball, drawn for each image from the seed that its name hashes to."""
        if self.norm == "linf":
            return self.project(random_start(clean, self.eps, names), clean)
        return self.project(clean + self.eps * self.direction(random_start(clean, 1.0, names) - clean), clean)

    def store(self, images: Tensor, clean8: Tensor) -> Tensor:
        """The 8-bit images [b, H, W, 3] nearest to floats of the ball, which are in the ball too.

        Rounding keeps to an linf ball of whole levels. It may leave an L2 ball: then delta shrinks until it does not.
        """
        stored = to_uint8(images)
        if self.norm == "linf":
            return stored
        clean = to_float(clean8, images.device)
        low, high = torch.zeros(len(images)).to(images), torch.ones(len(images)).to(images)
        for _ in range(8):
            outside = l2_levels(stored, clean8).to(images) > self.eps
            low, high = torch.where(outside, low, high), torch.where(outside, (low + high) / 2, high)
            stored = to_uint8(clean + high[:, None, None, None] * (images - clean))
        inside = l2_levels(stored, clean8) <= self.eps
        stored[~inside] = clean8[~inside]
        return stored


def l2_norm(delta: Tensor) -> Tensor:
    """L2 norm of each image, [B, 1, 1, 1]."""
    return delta.flatten(1).norm(dim=1)[:, None, None, None]


def l2_levels(images: Tensor, clean: Tensor) -> Tensor:
    """L2 distance [B], in [0, 1] pixel units, of 8-bit images."""
    return ((images.double() - clean.double()) / 255).flatten(1).norm(dim=1)


@dataclass(frozen=True)
class Plan:
    """The budget of an attack. kind: pgd, apgd, cw, noise or square; norm: linf or l2.

    steps: gradient steps, draws or queries of a restart. targets: what each restart climbs, in turn (those of
    safemed.evaluation). amp: the restarts run in bfloat16 first, and then again in fp32 on what survived. patience: a
    restart ends for a question whose highest margin, at the pace of that many steps, would still be below 0 after the
    last one; for targets whose loss is a margin (positive: broken). None: never.
    """

    kind: str = "pgd"
    norm: str = "linf"
    steps: int = 20
    restarts: int = 1
    targets: tuple[str, ...] = ()
    amp: bool = False
    patience: int | None = None


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


def climb(objective: Objective, images: Tensor, rows: Tensor, amp: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Loss [b], looks-broken [b] and the loss's gradient [b, 3, H, W] at the images.

    Raises FloatingPointError where loss or gradient is not finite.
    """
    images = images.detach().requires_grad_(True)
    with torch.enable_grad(), torch.autocast(images.device.type, torch.bfloat16, enabled=amp):
        loss, broken = objective(images, rows)
        (gradient,) = torch.autograd.grad(loss.sum(), images)
    finite = loss.isfinite() & gradient.flatten(1).isfinite().all(1)
    if not finite.all():
        raise FloatingPointError(f"the attacked loss or its gradient is not finite for rows {rows[~finite].tolist()}")
    return loss.detach().float(), broken, gradient


def look(objective: Objective, images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Loss [b] and looks-broken [b] at the images, without a gradient. Raises FloatingPointError as `climb` does."""
    with torch.no_grad():
        loss, broken = objective(images, rows)
    if not loss.isfinite().all():
        raise FloatingPointError(f"the attacked loss is not finite for rows {rows[~loss.isfinite()].tolist()}")
    return loss.float(), broken


def pgd(
    objective: Objective, clean: Tensor, ball: Ball, steps: int, start: Tensor, alpha: float
) -> tuple[Tensor, Tensor]:
    """Projected gradient ascent of fixed length (Madry et al. 2018), for training.

    clean, start: [B, 3, H, W] in [0, 1]; alpha (step size) in [0, 1] units. The model must be frozen.
    Returns images of the ball, and the loss [B] where the last step was taken.
    """
    rows = torch.arange(len(clean), device=clean.device)
    images, loss = ball.project(start, clean), clean.new_zeros(len(clean))
    for _ in range(steps):
        loss, _, gradient = climb(objective, images, rows)
        images = ball.project(images + alpha * ball.direction(gradient), clean)
    return images.detach(), loss


def random_start(clean: Tensor, eps: float, names: list[str]) -> Tensor:
    """Clean images plus uniform noise in [-eps, eps], drawn for each image from the seed that its name hashes to.

    The same name gives the same noise in any batch, on any process.
    """
    shape = clean.shape[1:]
    drawn = [torch.rand(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode()))) for name in names]
    return clean + eps * (2 * torch.stack(drawn).to(clean) - 1)


def normal_noise(images: Tensor, names: list[str]) -> Tensor:
    """Standard normal noise of the images' shape, seeded by their names as `random_start` is."""
    uniform = (random_start(torch.zeros_like(images), 1.0, names) + 1) / 2
    return torch.special.ndtri(uniform.clamp(1e-6, 1 - 1e-6))


def attack(
    objectives: list[Objective], is_right: IsRight, clean8: Tensor, names: list[str], eps: float, plan: Plan, device
) -> Attacked:
    """Attack every question until it breaks: one restart an objective, only the survivors are attacked on.

    is_right is asked when a question starts to look broken, every ASK_AGAIN steps while it does, and about each
    restart's best iterate; it alone decides. clean8: uint8 [B, H, W, 3]. names: seeds of the random starts. eps in
    8-bit levels for linf, in [0, 1] pixel units for l2. A single step is FGSM: all of eps, from the clean image.

    Raises ValueError for eps < 0. A gradient or loss that is not finite raises FloatingPointError: no verdict is made
    of it.
    """
    if eps < 0:
        raise ValueError(f"eps must be >= 0, got {eps}")
    ball = Ball(plan.norm, eps / 255 if plan.norm == "linf" else eps)
    found = Attacked.untouched(clean8)
    for amp in (True, False) if plan.amp else (False,):
        for restart, objective in enumerate(objectives):
            live = torch.nonzero(~found.broken)[:, 0]
            if not len(live):
                return found
            clean = to_float(clean8[live], device)
            still = plan.steps == 1 or (plan.kind == "apgd" and restart == 0)
            start = clean if still else ball.start(clean, [f"{names[i]}:{restart}" for i in live.tolist()])
            rule = (Apgd if plan.kind == "apgd" else Pgd)(ball, clean, plan.steps)
            _restart(found, objective, is_right, live, clean8, start, rule, amp, plan.patience)
    return found


def _restart(found, objective, is_right, live, clean8, start, rule, amp, patience) -> None:
    """One restart on the questions `live`; writes into `found`."""
    images = start
    best, highest = start.clone(), torch.full((len(live),), -torch.inf, device=start.device)
    before: list[Tensor] = []  # the highest losses after each step, of the questions that are live
    suspected = torch.zeros(len(live), dtype=torch.bool)  # looked broken at the last step, and was not
    for step in range(rule.steps + 1):
        last = step == rule.steps
        if last:  # nothing climbs on from here
            loss, broken = look(objective, images, live.to(images.device))
        else:
            loss, broken, gradient = climb(objective, images, live.to(images.device), amp)
        higher = loss >= highest
        best[higher], highest[higher] = images[higher], loss[higher]
        broken = broken.cpu()
        ask = torch.nonzero(broken & (~suspected | (step % ASK_AGAIN == 0) | last))[:, 0]
        stored = rule.ball.store(images[ask.to(images.device)], clean8[live[ask]])
        keep = torch.ones(len(live), dtype=torch.bool)
        keep[ask] = ~found.settle(is_right, live[ask], stored)
        if last:
            break
        before = [*before, highest.clone()][-(patience or 0) - 1 :]
        stalled = keep & _hopeless(before, patience, rule.steps - step)
        _close(found, is_right, live[stalled], best[stalled.to(best.device)], rule.ball, clean8)
        keep &= ~stalled
        live, suspected, here = live[keep], broken[keep], keep.to(images.device)
        images, best, highest, loss, gradient = (each[here] for each in (images, best, highest, loss, gradient))
        before = [each[here] for each in before]
        rule.keep(here)
        if not len(live):
            return
        images = rule.step(images, loss, gradient, step).detach()
        found.steps[live] += 1
    _close(found, is_right, live[keep], best[keep.to(best.device)], rule.ball, clean8)


def _hopeless(before: list[Tensor], patience: int | None, left: int) -> Tensor:
    """Whether the highest margin [b], going on to rise as in the last `patience` steps, stays below 0; CPU bool."""
    gained = before[-1] - before[0]
    if patience is None or len(before) <= patience:
        return torch.zeros(len(gained), dtype=torch.bool)
    return (before[-1] + gained / patience * left < 0).cpu()


def _close(found, is_right, survivors, best, ball, clean8) -> None:
    """End a restart: keep the survivors' best iterates, and ask about them."""
    found.images[survivors] = ball.store(best, clean8[survivors])
    found.settle(is_right, survivors, found.images[survivors])


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


def carlini_wagner(
    objective: Objective, is_right: IsRight, clean8: Tensor, plan: Plan, device, searches: int = 3
) -> Attacked:
    """The smallest L2 perturbation that breaks each question: |delta|^2 + c max(-margin, 0) (Carlini & Wagner 2017).

    The loss of `objective` is taken as the margin. c is searched: ten times larger until a question breaks, then the
    geometric middle; plan.steps of Adam for each of `searches` values. Images stay in [0, 1] by projection: the
    paper's change of variables has no gradient where a pixel is exactly 0 or 1, as CT and MR backgrounds are. Stored
    images are the nearest that broke; clean ones where none did.
    """
    found, n = Attacked.untouched(clean8), len(clean8)
    clean, rows = to_float(clean8, device), torch.arange(n)
    low, high, c = torch.zeros(n), torch.full((n,), torch.inf), torch.ones(n)
    nearest = torch.full((n,), torch.inf)
    for _ in range(searches):
        broke = _carlini_wagner_search(found, nearest, objective, is_right, clean8, clean, c.to(device), plan)
        low, high = torch.where(broke, low, c), torch.where(broke, c, high)
        c = torch.where(high.isinf(), c * 10, torch.where(low > 0, (low * high).sqrt(), high / 10))
    found.steps[rows] = searches * plan.steps
    return found


def _carlini_wagner_search(found, nearest, objective, is_right, clean8, clean, c, plan) -> Tensor:
    """One value of c [n]: Adam on delta; nearer images that break go into `found`. Returns which broke, [n] bool."""
    everything, broke = torch.arange(len(clean)), torch.zeros(len(clean), dtype=torch.bool)
    delta = torch.zeros_like(clean)
    mean, square = torch.zeros_like(clean), torch.zeros_like(clean)
    for step in range(1, plan.steps + 1):
        images = (clean + delta).clamp(0, 1)
        margin, broken, gradient = climb(objective, images, everything.to(clean.device))
        stored = to_uint8(images)
        distance = l2_levels(stored, clean8)
        ask = torch.nonzero(broken.cpu() & (distance < nearest))[:, 0]
        fell = ask[found.settle(is_right, ask, stored[ask])]
        nearest[fell], broke[fell] = distance[fell].float(), True
        slope = 2 * delta - (c * (margin < 0))[:, None, None, None] * gradient
        mean, square = 0.9 * mean + 0.1 * slope, 0.999 * square + 0.001 * slope**2
        delta = delta - 0.01 * (mean / (1 - 0.9**step)) / ((square / (1 - 0.999**step)).sqrt() + 1e-8)
        delta = (clean + delta).clamp(0, 1) - clean
    return broke
