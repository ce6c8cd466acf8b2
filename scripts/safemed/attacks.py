"""Projected attacks in pixel space, with per-question early exit, and the losses they climb.

Threat model: images are 8-bit; the attacker adds delta with |delta|_inf <= eps = k/255 and the result is again an 8-bit
image. Attacks climb on floats in [0, 1]; a question counts as broken only when the text generated from the ROUNDED
image is not right, so an early exit never claims what the stored image does not show.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from safemed.vlm import VLM, Encoded, to_float, to_uint8

ASK_AGAIN = 5  # a thought may look broken, and be answered rightly, for many steps before the answer breaks

# images [b, 3, H, W] and the rows [b] they belong to -> (loss [b] to climb, whether the model looks broken [b])
Objective = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def sequence_objective(vlm: VLM, completions: Encoded) -> Objective:
    """Loss of the whole completion (sum of token cross entropies): pushes thought and answer away from it.

    A row looks broken when the greedy choice at any token differs from the completion.
    """

    def objective(images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        encoded = completions[rows]
        ids, mask = encoded.completion_ids, encoded.completion_mask.bool()
        logits = vlm.completion_logits(images, encoded)[:, :-1]  # [b, C, V]
        loss = F.cross_entropy(logits.transpose(1, 2), ids, reduction="none")  # [b, C]
        moved = (logits.argmax(-1) != ids) & mask
        return (loss * mask).sum(1), moved.any(1)

    return objective


def answer_objective(vlm: VLM, prefixes: Encoded, gold: Tensor, n_options: Tensor) -> Objective:
    """Margin of the best wrong letter over the gold one where the letter comes next, after the given prefixes.

    prefixes: completions cut before the letter. gold [B]: index of the gold option. n_options [B].
    The margin (Carlini & Wagner 2017) keeps a gradient where a confident model's cross entropy has none left.
    """
    letters = torch.tensor(vlm.letter_ids, device=vlm.device)

    def objective(images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        encoded = prefixes[rows]
        last = encoded.completion_mask.sum(1)  # [b], the position that predicts the letter
        logits = vlm.completion_logits(images, encoded)[torch.arange(len(rows)), last][:, letters]  # [b, 8]
        choice = torch.arange(len(letters), device=vlm.device)  # [8]
        logits = logits.masked_fill(choice >= n_options[rows, None], -torch.inf)
        right = logits.gather(1, gold[rows, None])[:, 0]
        wrong = logits.masked_fill(choice == gold[rows, None], -torch.inf).amax(1)
        return wrong - right, wrong > right

    return objective


def feature_objective(vlm: VLM, reference: Tensor) -> Objective:
    """Relative squared distance of the vision tower's features to the reference's, which is never broken.

    reference: features [B, L, n, D] of the clean images.
    """

    def objective(images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        distance = feature_distance(vlm.features(images), reference[rows])
        return distance, torch.zeros_like(distance, dtype=torch.bool)

    return objective


def feature_distance(features: Tensor, reference: Tensor) -> Tensor:
    """Squared distance over the reference's squared norm, [B]; features, reference: [B, L, n, D]."""
    features, reference = features.float().flatten(1), reference.float().flatten(1)  # a long sum needs fp32
    return (features - reference).square().sum(1) / reference.square().sum(1)


def project(images: Tensor, clean: Tensor, eps: float) -> Tensor:
    """The nearest images within eps of the clean ones (L_inf) and within [0, 1]."""
    return (clean + (images - clean).clamp(-eps, eps)).clamp(0, 1)


def climb(objective: Objective, images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Loss [b], looks-broken [b] and the sign of the loss's gradient [b, 3, H, W] at the images.

    Raises FloatingPointError where loss or gradient is not finite.
    """
    images = images.detach().requires_grad_(True)
    with torch.enable_grad():
        loss, broken = objective(images, rows)
        (gradient,) = torch.autograd.grad(loss.sum(), images)
    finite = loss.isfinite() & gradient.flatten(1).isfinite().all(1)
    if not finite.all():
        raise FloatingPointError(f"the attacked loss or its gradient is not finite for rows {rows[~finite].tolist()}")
    return loss.detach(), broken, gradient.sign()


def pgd(
    objective: Objective, clean: Tensor, eps: float, steps: int, start: Tensor, alpha: float
) -> tuple[Tensor, Tensor]:
    """Projected gradient ascent of fixed length (Madry et al. 2018), for training.

    clean, start: [B, 3, H, W] in [0, 1]; eps, alpha (step size) in [0, 1] units. The model must be frozen.
    Returns images within eps of the clean ones and within [0, 1], and the loss [B] where the last step was taken.
    """
    rows = torch.arange(len(clean), device=clean.device)
    images, loss = project(start, clean, eps), clean.new_zeros(len(clean))
    for _ in range(steps):
        loss, _, direction = climb(objective, images, rows)
        images = project(images + alpha * direction, clean, eps)
    return images.detach(), loss


def random_start(clean: Tensor, eps: float, names: list[str]) -> Tensor:
    """Clean images plus uniform noise in [-eps, eps], drawn for each image from the seed that its name hashes to.

    The same name gives the same noise in any batch, on any process.
    """
    shape = clean.shape[1:]
    drawn = [torch.rand(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode()))) for name in names]
    return clean + eps * (2 * torch.stack(drawn).to(clean) - 1)


@dataclass
class Attacked:
    """Outcome of an attack on B questions.

    images: uint8 [B, H, W, 3], within eps of the clean ones. steps [B]: gradient steps spent on each.
    broken [B]: the text generated from the stored image is not right.
    """

    images: Tensor
    steps: Tensor
    broken: Tensor


def attack(
    objectives: list[Objective],
    is_right: Callable[[Tensor, Tensor], Tensor],
    clean8: Tensor,
    names: list[str],
    eps: int,
    steps: int,
    alpha: float,
    random: bool,
    device: torch.device,
) -> Attacked:
    """Attack every question until it breaks: one restart an objective, only the survivors are attacked on.

    is_right: 8-bit images [b, H, W, 3] and their rows -> whether the text generated from them is right [b]. It is asked
    when a question starts to look broken, every ASK_AGAIN steps while it does, and at each restart's last iterate, and
    it alone decides.
    clean8: uint8 [B, H, W, 3]. names: seeds of the random starts. eps in 8-bit levels. alpha: step size in levels.
    random: whether restarts begin at random in the ball (FGSM begins at the clean image).

    Raises ValueError for eps < 0. A gradient or loss that is not finite raises FloatingPointError: no verdict is made
    of it.
    """
    if eps < 0:
        raise ValueError(f"eps must be >= 0, got {eps}")
    found = Attacked(clean8.clone(), torch.zeros(len(clean8), dtype=torch.long), torch.zeros(len(clean8), dtype=bool))
    for restart, objective in enumerate(objectives):
        live = torch.nonzero(~found.broken)[:, 0]
        if not len(live):
            break
        clean = to_float(clean8[live], device)
        seeds = [f"{names[i]}:{restart}" for i in live.tolist()]
        start = random_start(clean, eps / 255, seeds) if random else clean
        _restart(found, objective, is_right, live, clean, start, eps, steps, alpha)
    return found


def _restart(found, objective, is_right, live, clean, start, eps, steps, alpha) -> None:
    """One restart on the questions `live`; writes into `found`."""
    images = project(start, clean, eps / 255)
    suspected = torch.zeros(len(live), dtype=bool)  # looked broken at the last step, and was not
    for step in range(steps):
        _, broken, direction = climb(objective, images, live.to(images.device))
        ask = broken.cpu() & (~suspected | (step % ASK_AGAIN == 0))
        gone = _settle(found, is_right, live, images, ask)
        suspected = broken.cpu()
        keep = ~gone
        live, suspected = live[keep], suspected[keep]
        images, clean, direction = images[keep], clean[keep], direction[keep]
        if not len(live):
            return
        images = project(images + alpha / 255 * direction, clean, eps / 255).detach()
        found.steps[live] += 1
    found.images[live] = to_uint8(images)
    _settle(found, is_right, live, images, torch.ones(len(live), dtype=bool))


def _settle(found: Attacked, is_right, live: Tensor, images: Tensor, ask: Tensor) -> Tensor:
    """Ask the model about the rounded images under `ask`; store those that broke. Returns which of `live` broke."""
    gone = torch.zeros(len(live), dtype=bool)
    if ask.any():
        rounded = to_uint8(images[ask.to(images.device)])
        broke = ~is_right(rounded, live[ask])
        gone[torch.nonzero(ask)[:, 0][broke]] = True
        found.images[live[gone]] = rounded[broke]
        found.broken[live[gone]] = True
    return gone
