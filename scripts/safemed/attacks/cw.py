"""The smallest L2 perturbation that breaks a question (Carlini & Wagner 2017)."""

import torch
from torch import Tensor

from safemed.attacks.engine import AttackConfig, Attacked, IsRight
from safemed.attacks.losses import AttackLoss, loss_and_gradient
from safemed.attacks.threat_model import l2_levels, shrunk
from safemed.models.geometry import to_float, to_uint8


def carlini_wagner(
    attack_loss: AttackLoss, is_right: IsRight, clean8: Tensor, config: AttackConfig, device, searches: int = 4
) -> Attacked:
    """The smallest L2 perturbation that breaks each question: |delta|^2 + c max(-margin, 0) (Carlini & Wagner 2017).

    The loss of `attack_loss` is taken as the margin. c is searched: ten times larger until a question breaks, with
    steps four times longer, then the geometric middle; config.steps of Adam for each of `searches` values, whose first
    steps are about 0.25 long. Images stay in [0, 1] by projection: the paper's change of variables has no gradient
    where a pixel is exactly 0 or 1, as CT and MR backgrounds are. What broke is then drawn back towards the clean image
    as long as it stays broken. Stored images are the nearest that broke; clean ones where none did.
    """
    found, n = Attacked.untouched(clean8), len(clean8)
    nearest = _Nearest(found, is_right, clean8)
    clean = to_float(clean8, device)
    low, high, c = torch.zeros(n), torch.full((n,), torch.inf), torch.ones(n)
    length = torch.full((n,), 0.25)
    for _ in range(searches):
        broke = _carlini_wagner_search(nearest, attack_loss, clean, c.to(device), length.to(device), config.steps)
        length = torch.where(found.broken, length, 4 * length)
        low, high = torch.where(broke, low, c), torch.where(broke, c, high)
        c = torch.where(high.isinf(), c * 10, torch.where(low > 0, (low * high).sqrt(), high / 10))
    nearest.draw_back(clean)
    found.steps[:] = searches * config.steps
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
            broke = self.ask(rows, shrunk(far, clean[rows.to(clean.device)], middle)).to(clean.device)
            low, high = torch.where(broke, low, middle), torch.where(broke, middle, high)


def _carlini_wagner_search(
    nearest: _Nearest, attack_loss: AttackLoss, clean: Tensor, c: Tensor, length: Tensor, steps: int
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
        margin, broken, gradient = loss_and_gradient(attack_loss, images, everything.to(clean.device))
        stored = to_uint8(images)
        nearer = l2_levels(stored, nearest.clean8) < nearest.distance
        ask = torch.nonzero(broken.cpu() & (nearer | ~broke))[:, 0]
        broke[ask] |= nearest.ask(ask, stored[ask])
        slope = 2 * delta - (c * (margin < 0))[:, None, None, None] * gradient
        mean, square = 0.9 * mean + 0.1 * slope, 0.999 * square + 0.001 * slope**2
        delta = delta - rate * (mean / (1 - 0.9**step)) / ((square / (1 - 0.999**step)).sqrt() + 1e-8)
        delta = (clean + delta).clamp(0, 1) - clean
    return broke
