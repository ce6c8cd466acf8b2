"""Any attack of torchattacks that `torchattacks_names` declares, on questions that each have a prompt of their own."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torchattacks
from torch import Tensor, nn

from safemed.attacks import losses
from safemed.attacks.engine import AttackConfig, Attacked
from safemed.attacks.threat_model import Ball, l2_levels, l2_norm
from safemed.evaluation.evaluator import Evaluator
from safemed.evaluation.followed_rows import Followed, rows_of
from safemed.evaluation.torchattacks_names import NAMES
from safemed.models.geometry import to_float, to_uint8

ON_THE_EDGE = 1e-4  # of a radius: what floats of its very edge may lie outside an l2 ball


def attack(
    evaluator: Evaluator, words: list[str], rows: Tensor, config: AttackConfig, eps: float, seed: int
) -> Attacked:
    """config.attack on the logits of the letters after the right clean `words` of the questions `rows` [b].

    Questions of one number of options go together. The image kept is the one with the smallest margin of all those in
    the ball that the attack has shown to its model, whatever it returns itself; the verdict is that of the text
    generated from it. `steps` counts the images shown of a question. Random numbers are drawn a batch: the seed and the
    batch decide them, and the global generators go on as if none had been drawn. eps in 8-bit levels for linf, in
    [0, 1] pixel units for l2; l0 has none.

    Raises LookupError where it is not known to which question an image belongs, and FloatingPointError where an image
    or logit is not finite: no verdict is made of it.
    """
    found = Attacked.untouched(evaluator.images[rows])
    n_options = evaluator.n_options[rows].cpu()
    for k in n_options.unique().tolist():
        same = torch.nonzero(n_options == k)[:, 0]
        shown = ShownRows(evaluator, [words[i] for i in same], rows[same], k, config.norm, eps)
        with seeded(seed), torch.set_grad_enabled(NAMES[config.attack].gradients > 0):
            returned = build(shown, config, eps, seed)(shown.start, shown.gold)
            with torch.no_grad():
                shown(returned)
        found.images[same], found.steps[same] = shown.best, shown.queries
        found.settle(lambda images, part: evaluator.is_right(images, rows[part]), same, shown.best)
    return found


def build(model: nn.Module, config: AttackConfig, eps: float, seed: int) -> torchattacks.attack.Attack:
    """The attack that a config names, on a classifier of images in [0, 1]."""
    radius = eps / 255 if config.norm == "linf" else eps
    arguments = NAMES[config.attack].arguments(config.norm, radius, config.steps, config.restarts, seed)
    return getattr(torchattacks, config.attack)(model, **arguments)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch and NumPy draw from a seed, and go on afterwards as if nothing had been drawn."""
    state = np.random.get_state()
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)
            yield
    finally:
        np.random.set_state(state)


class ShownRows(nn.Module):
    """Questions as torchattacks wants a classifier: images in, the logits [b, K] of their letters out.

    torchattacks calls its model on whichever images it is not done with, in any order, and on several of one question;
    each question has its own prompt. So the images are `Followed`. What is answered is the image rounded to 8 bits,
    which the gradient passes as if it were the image itself. `start` [B, 3, H, W]: the clean images. `queries` [B]
    counts the images shown of each question; `best`, uint8 [B, H, W, 3]: that with the smallest margin of the gold
    letter among those that lie in the ball and are not clean; the clean one where there is none.
    """

    def __init__(self, evaluator: Evaluator, words: list[str], rows: Tensor, k: int, norm: str, eps: float):
        super().__init__()
        self.model = evaluator.vlm.model  # torchattacks asks a model's parameters for the device
        self.evaluator, self.k, self.norm, self.eps = evaluator, k, norm, eps
        self.letters, self.n_options = evaluator.letter_places(words, rows), evaluator.n_options[rows]
        images = to_float(evaluator.images[rows], evaluator.vlm.device).contiguous()  # FAB fails on other layouts
        self.start = Followed.of(images, torch.arange(len(rows), device=images.device))
        self.queries = torch.zeros(len(rows), dtype=torch.long)
        self.gold, self.clean, self.best = evaluator.gold[rows], evaluator.images[rows], evaluator.images[rows].clone()
        self.smallest = torch.full((len(rows),), torch.inf)
        self.eval()  # torchattacks puts a model back into the mode that it found

    def forward(self, images: Tensor) -> Tensor:
        rows = rows_of(images)
        images = images.as_subclass(Tensor)
        if not images.isfinite().all():
            raise FloatingPointError("an attacked image is not finite")
        stored = self._stored(images.detach(), rows.cpu())
        answered = images + (to_float(stored, images.device) - images).detach()
        offered = losses.letter_logits(self.evaluator.vlm, answered, self.letters[rows], self.n_options[rows])
        logits = offered[:, : self.k]
        if not logits.isfinite().all():
            raise FloatingPointError("the model's logits are not finite")
        self._remember(rows.cpu(), stored, losses.margin(logits, self.gold[rows]).detach().cpu())
        return logits

    def _stored(self, images: Tensor, rows: Tensor) -> Tensor:
        """The 8-bit images; those of an l2 ball lie in it after rounding, too."""
        stored = to_uint8(images)
        if self.norm == "l2":
            clean8 = self.clean[rows]
            far = l2_norm(images - to_float(clean8, images.device)).flatten()
            inside = far <= self.eps * (1 + ON_THE_EDGE)
            stored[inside.cpu()] = Ball("l2", self.eps).store(images[inside], clean8[inside.cpu()])
        return stored

    def _remember(self, rows: Tensor, stored: Tensor, margin: Tensor) -> None:
        """Count the images shown, and keep those that come nearest to a wrong answer; the last of equals."""
        self.queries += torch.bincount(rows, minlength=len(self.queries))
        offered = self._inside(stored, self.clean[rows]) & (stored != self.clean[rows]).flatten(1).any(1)
        for i in torch.nonzero(offered)[:, 0].tolist():  # one by one: a question may be shown several times at once
            if -margin[i] <= self.smallest[rows[i]]:
                self.best[rows[i]], self.smallest[rows[i]] = stored[i], -margin[i]

    def _inside(self, stored: Tensor, clean: Tensor) -> Tensor:
        """Whether 8-bit images lie in the ball, [b]; neighbours that an attack only looks at may not."""
        if self.norm == "linf":
            return (stored.int() - clean.int()).abs().flatten(1).amax(1) <= self.eps
        return l2_levels(stored, clean) <= self.eps if self.norm == "l2" else torch.ones(len(stored), dtype=torch.bool)
