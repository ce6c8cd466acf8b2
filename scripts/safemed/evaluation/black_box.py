"""Controls that see no gradient: random noise, and Square from torchattacks. A white-box attack that loses to them is
broken (Carlini et al. 2019, "On evaluating adversarial robustness").
"""

import math

import torch
import torchattacks
from torch import Tensor, nn

from safemed.attacks import losses
from safemed.attacks.engine import AttackConfig, Attacked
from safemed.attacks.threat_model import Ball, random_start
from safemed.evaluation.evaluator import Evaluator
from safemed.models.geometry import to_float, to_uint8


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


def square(
    evaluator: Evaluator, words: list[str], rows: Tensor, config: AttackConfig, eps: float, seed: int
) -> Attacked:
    """Square (Andriushchenko et al. 2020) with config.steps queries, on the letter after the model's own clean words.

    torchattacks' own, for questions of one number of options at a time. It returns the clean image of what it did not
    break; the image kept here is the one of all its queries with the smallest margin, and the verdict is that of the
    text generated from it. Its random numbers are drawn a batch: the seed and the batch decide them.
    """
    found = Attacked.untouched(evaluator.images[rows])
    n_options = evaluator.n_options[rows].cpu()
    for k in n_options.unique().tolist():
        same = torch.nonzero(n_options == k)[:, 0]
        shown = ShownRows(evaluator, [words[i] for i in same], rows[same], k)
        attack = torchattacks.Square(shown, eps=eps / 255, n_queries=config.steps, n_restarts=1, seed=seed)
        attack.set_device(evaluator.vlm.device)
        with torch.random.fork_rng(), torch.no_grad():
            attack(shown.start, evaluator.gold[rows[same]])
        found.images[same], found.steps[same] = shown.best, shown.queries
        found.settle(lambda images, part: evaluator.is_right(images, rows[part]), same, shown.best)
    return found


class ShownRows(nn.Module):
    """Questions as torchattacks wants a classifier: images in, choice logits [b, K] out.

    torchattacks calls its model on whichever images it is not done with, and does not say which; each has its own
    prompt. So a fourth channel carries the row's number, a bit a pixel: 0.0 or 1.0, which no eps < 0.5 can flip.
    What is answered is the image rounded to 8 bits, unless `rounded` is false: rounding has no gradient. `queries` [B]
    counts the calls for each row; `best`, uint8 [B, H, W, 3]: the images with the smallest margin of the gold letter
    among all that were shown and not clean.
    """

    def __init__(self, evaluator: Evaluator, words: list[str], rows: Tensor, k: int, rounded: bool = True):
        super().__init__()
        self.model = evaluator.vlm.model  # torchattacks asks a model's parameters for the device
        self.evaluator, self.k, self.rounded = evaluator, k, rounded
        self.letters, self.n_options = evaluator.letter_places(words, rows), evaluator.n_options[rows]
        images = to_float(evaluator.images[rows], evaluator.vlm.device)
        self.bits = max(1, math.ceil(math.log2(len(rows))))
        if self.bits > images[0, 0].numel():
            raise ValueError(f"{len(rows)} questions are too many for images of {images[0, 0].numel()} pixels")
        label = torch.zeros_like(images[:, :1])
        number = torch.arange(len(rows), device=images.device)
        label.flatten(1)[:, : self.bits] = (number[:, None] >> torch.arange(self.bits, device=images.device)) & 1
        self.start = torch.cat([images, label], 1).contiguous()  # [B, 4, H, W]; FAB fails on other memory layouts
        self.queries = torch.zeros(len(rows), dtype=torch.long)
        self.gold, self.clean, self.best = evaluator.gold[rows], evaluator.images[rows], evaluator.images[rows].clone()
        self.smallest = torch.full((len(rows),), torch.inf)
        self.eval()  # torchattacks puts a model back into the mode that it found

    def forward(self, labelled: Tensor) -> Tensor:
        places = torch.arange(self.bits, device=labelled.device)
        rows = ((labelled[:, 3].flatten(1)[:, : self.bits] > 0.5).long() << places).sum(1)
        stored = self.images_of(labelled)
        images = to_float(stored, labelled.device) if self.rounded else labelled[:, :3]
        offered = losses.letter_logits(self.evaluator.vlm, images, self.letters[rows], self.n_options[rows])
        logits = offered[:, : self.k]
        self._remember(rows.cpu(), stored, losses.margin(logits, self.gold[rows]).detach().cpu())
        return logits

    def _remember(self, rows: Tensor, stored: Tensor, margin: Tensor) -> None:
        """Count the queries, and keep the images that come nearest to a wrong answer; the clean ones come first."""
        self.queries[rows] += 1
        changed = (stored != self.clean[rows]).flatten(1).any(1)
        nearer = changed & (-margin <= self.smallest[rows])
        self.best[rows[nearer]], self.smallest[rows[nearer]] = stored[nearer], -margin[nearer]

    @staticmethod
    def images_of(labelled: Tensor) -> Tensor:
        """The 8-bit images [b, H, W, 3] that go with the labels."""
        return to_uint8(labelled[:, :3])
