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

        Rounding keeps to an linf ball of whole levels. It may leave an L2 ball: then delta shrinks no more than it
        must.
        """
        stored = to_uint8(images)
        if self.norm == "linf":
            return stored
        clean = to_float(clean8, images.device)
        low, high = images.new_zeros(len(images)), images.new_ones(len(images))
        whole = self._holds(stored, clean8).to(images.device)
        for _ in range(10):  # the largest share of delta that is found to stay inside once it is rounded
            middle = (low + high) / 2
            inside = self._holds(_shrunk(images, clean, middle), clean8).to(images.device)
            low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
        return _shrunk(images, clean, torch.where(whole, 1.0, low))

    def _holds(self, stored: Tensor, clean8: Tensor) -> Tensor:
        """Whether 8-bit images are in the L2 ball, [b]."""
        return l2_levels(stored, clean8) <= self.eps


def _shrunk(images: Tensor, clean: Tensor, share: Tensor) -> Tensor:
    """The 8-bit images of clean + share * delta, share [b]."""
    return to_uint8(clean + share[:, None, None, None] * (images - clean))


def l2_norm(delta: Tensor) -> Tensor:
    """L2 norm of each image, [B, 1, 1, 1]."""
    return delta.flatten(1).norm(dim=1)[:, None, None, None]


def l2_levels(images: Tensor, clean: Tensor) -> Tensor:
    """L2 distance [B], in [0, 1] pixel units, of 8-bit images."""
    return ((images.double() - clean.double()) / 255).flatten(1).norm(dim=1)


@dataclass(frozen=True)
class Plan:
    """The budget of an attack. kind: pgd, apgd, mi-fgsm, cw, noise or square; norm: linf or l2.

    name: seeds the random starts, beside the question. steps: gradient steps, draws or queries of a restart. targets:
    what each restart climbs, in turn (those of safemed.evaluation). amp: the restarts run in bfloat16 first, and then
    again in fp32 on what survived. patience: a restart ends for a question whose highest margin, at the pace of that
    many steps, would still be below 0 after the last one; for targets whose loss is a margin (positive: broken). None:
    never.
    """

    kind: str = "pgd"
    name: str = "pgd"
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


def attack(
    objectives: list[Objective],
    is_right: IsRight,
    clean8: Tensor,
    names: list[str],
    eps: float,
    plan: Plan,
    device,
    eager: bool = False,
) -> Attacked:
    """Attack every question until it breaks: one restart an objective, only the survivors are attacked on.

    is_right is asked when a question starts to look broken, every ASK_AGAIN steps while it does, and about each
    restart's best iterate; it alone decides. eager: asking costs about a forward pass, so that it is worth asking about
    all of the first iterates. clean8: uint8 [B, H, W, 3]. names: seeds of the random starts. eps in 8-bit levels for
    linf, in [0, 1] pixel units for l2. A single step is FGSM: all of eps, from the clean image.

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
            still = plan.steps == 1 or (plan.kind in ("apgd", "mi-fgsm") and restart == 0)
            start = clean if still else ball.start(clean, [f"{names[i]}:{restart}" for i in live.tolist()])
            rule = RULES[plan.kind](ball, clean, plan.steps)
            _Restart(found, is_right, clean8, live, start, rule, plan.patience).run(objective, amp, eager)
    return found


class _Restart:
    """One restart on the questions `live`, whose outcome goes into `found`; broken questions leave it at once."""

    def __init__(self, found: Attacked, is_right: IsRight, clean8: Tensor, live: Tensor, start: Tensor, rule, patience):
        self.found, self.is_right, self.clean8, self.rule, self.patience = found, is_right, clean8, rule, patience
        self.live, self.images, self.best, self.left = live, start, start.clone(), rule.steps
        self.highest = torch.full((len(live),), -torch.inf, device=start.device)
        self.before: list[Tensor] = []  # the highest losses after each step
        self.suspected = torch.zeros(len(live), dtype=torch.bool)  # looked broken at the last step, and was not

    def run(self, objective: Objective, amp: bool, eager: bool) -> None:
        """Climb until every question has broken, has been given up, or has had all its steps."""
        for step in range(self.rule.steps):
            asked = eager and step > 0
            if asked:
                eager = self._ask_all()
            if not len(self.live):
                return
            rows = self.live.to(self.images.device)
            loss, broken, gradient = climb(objective, self.images, rows, amp)
            kept = self._judge(loss, broken.cpu(), step % ASK_AGAIN == 0, asked)
            if not len(self.live):
                return
            loss, gradient = loss[kept], gradient[kept]
            self.images = self.rule.step(self.images, loss, gradient, step).detach()
            self.found.steps[self.live] += 1
            self.left -= 1
        loss, broken = look(objective, self.images, self.live.to(self.images.device))
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


class MiFgsm:
    """The momentum method (Dong et al. 2018) with steps as long as the ball: each iterate is a corner of it, in the
    direction of all gradients so far. What is not defended breaks in fewer steps than under any other rule here.
    """

    DECAY = 0.9

    def __init__(self, ball: Ball, clean: Tensor, steps: int):
        self.ball, self.clean, self.steps = ball, clean, steps
        self.momentum = torch.zeros_like(clean)

    def step(self, images: Tensor, loss: Tensor, gradient: Tensor, step: int) -> Tensor:
        """The next iterate, from the gradient at this one."""
        size = gradient.abs().flatten(1).mean(1).clamp_min(1e-12)[:, None, None, None]
        self.momentum = self.DECAY * self.momentum + gradient / size
        return self.ball.project(self.clean + self.ball.eps * self.ball.direction(self.momentum), self.clean)

    def keep(self, here: Tensor) -> None:
        """Forget all questions but those `here` [b] bool."""
        self.clean, self.momentum = self.clean[here], self.momentum[here]


RULES = {"pgd": Pgd, "apgd": Apgd, "mi-fgsm": MiFgsm}


def apgd_checkpoints(steps: int) -> dict[int, int]:
    """The steps at which step sizes are reviewed, each with the checkpoint before it (Croce & Hein 2020, sec. 3.1)."""
    found, before, share, gap = {}, 0, 0.22, 0.22
    while (step := max(before + 1, round(share * steps))) < steps:
        found[step], before = before, step
        gap = max(gap - 0.03, 0.06)
        share += gap
    return found


def carlini_wagner(
    objective: Objective, is_right: IsRight, clean8: Tensor, plan: Plan, device, searches: int = 4
) -> Attacked:
    """The smallest L2 perturbation that breaks each question: |delta|^2 + c max(-margin, 0) (Carlini & Wagner 2017).

    The loss of `objective` is taken as the margin. c is searched: ten times larger until a question breaks, with steps
    four times longer, then the geometric middle; plan.steps of Adam for each of `searches` values, the first ones some
    0.25 long. Images stay in [0, 1] by projection: the paper's change of variables has no gradient where a pixel is
    exactly 0 or 1, as CT and MR backgrounds are. What broke is then drawn back towards the clean image as long as it
    stays broken. Stored images are the nearest that broke; clean ones where none did.
    """
    found, n = Attacked.untouched(clean8), len(clean8)
    nearest = _Nearest(found, is_right, clean8)
    clean = to_float(clean8, device)
    low, high, c = torch.zeros(n), torch.full((n,), torch.inf), torch.ones(n)
    length = torch.full((n,), 0.25)
    for _ in range(searches):
        broke = _carlini_wagner_search(nearest, objective, clean, c.to(device), length.to(device), plan.steps)
        length = torch.where(found.broken, length, 4 * length)
        low, high = torch.where(broke, low, c), torch.where(broke, c, high)
        c = torch.where(high.isinf(), c * 10, torch.where(low > 0, (low * high).sqrt(), high / 10))
    nearest.draw_back(clean)
    found.steps[:] = searches * plan.steps
    return found


class _Nearest:
    """The nearest images so far that broke each question, in `found`."""

    def __init__(self, found: Attacked, is_right: IsRight, clean8: Tensor):
        self.found, self.is_right, self.clean8 = found, is_right, clean8
        self.distance = torch.full((len(clean8),), torch.inf, dtype=torch.double)

    def ask(self, rows: Tensor, stored: Tensor) -> Tensor:
        """Which of the 8-bit images of the questions `rows` break them; the nearer ones of these are kept."""
        if not len(rows):
            return torch.zeros(0, dtype=torch.bool)
        broke, distance = ~self.is_right(stored, rows), l2_levels(stored, self.clean8[rows])
        nearer = broke & (distance < self.distance[rows])
        self.found.images[rows[nearer]], self.distance[rows[nearer]] = stored[nearer], distance[nearer]
        self.found.broken[rows[broke]] = True
        return broke

    def draw_back(self, clean: Tensor) -> None:
        """Bisect between each clean image and the one that broke it."""
        rows = torch.nonzero(self.found.broken)[:, 0]
        far = to_float(self.found.images[rows], clean.device)
        low, high = clean.new_zeros(len(rows)), clean.new_ones(len(rows))
        for _ in range(6):
            middle = (low + high) / 2
            broke = self.ask(rows, _shrunk(far, clean[rows.to(clean.device)], middle)).to(clean.device)
            low, high = torch.where(broke, low, middle), torch.where(broke, middle, high)


def _carlini_wagner_search(
    nearest: _Nearest, objective: Objective, clean: Tensor, c: Tensor, length: Tensor, steps: int
) -> Tensor:
    """One value of c [n]: Adam on delta, every image that breaks going to `nearest`. Returns which broke, [n] bool.

    length [n]: of the first steps, in [0, 1] pixel units: they move every pixel alike.
    """
    everything, broke = torch.arange(len(clean)), torch.zeros(len(clean), dtype=torch.bool)
    rate = length[:, None, None, None] / clean[0].numel() ** 0.5
    delta = torch.zeros_like(clean)
    mean, square = torch.zeros_like(clean), torch.zeros_like(clean)
    for step in range(1, steps + 1):
        images = (clean + delta).clamp(0, 1)
        margin, broken, gradient = climb(objective, images, everything.to(clean.device))
        stored = to_uint8(images)
        nearer = l2_levels(stored, nearest.clean8) < nearest.distance
        ask = torch.nonzero(broken.cpu() & (nearer | ~broke))[:, 0]
        broke[ask] |= nearest.ask(ask, stored[ask])
        slope = 2 * delta - (c * (margin < 0))[:, None, None, None] * gradient
        mean, square = 0.9 * mean + 0.1 * slope, 0.999 * square + 0.001 * slope**2
        delta = delta - rate * (mean / (1 - 0.9**step)) / ((square / (1 - 0.999**step)).sqrt() + 1e-8)
        delta = (clean + delta).clamp(0, 1) - clean
    return broke
