"""The losses that attacks ascend, and their gradients at images."""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from safemed.models.vlm import VLM, Encoded, LetterPlaces
from safemed.utils.noise import gaussian

# Images [b, 3, H, W] in [0, 1] and their rows [b] -> the loss [b] to ascend, and whether each row looks broken [b].
AttackLoss = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def loss_and_gradient(
    attack_loss: AttackLoss, images: Tensor, rows: Tensor, amp: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss [b], looks-broken [b] and the loss's gradient [b, 3, H, W] at the images.

    Raises FloatingPointError where loss or gradient is not finite.
    """
    images = images.detach().requires_grad_(True)
    with torch.enable_grad(), torch.autocast(images.device.type, torch.bfloat16, enabled=amp):
        loss, broken = attack_loss(images, rows)
        (gradient,) = torch.autograd.grad(loss.sum(), images)
    finite = loss.isfinite() & gradient.flatten(1).isfinite().all(1)
    if not finite.all():
        raise FloatingPointError(f"the attacked loss or its gradient is not finite for rows {rows[~finite].tolist()}")
    return loss.detach().float(), broken, gradient


def loss_only(attack_loss: AttackLoss, images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """As `loss_and_gradient`, without the gradient: loss [b] and looks-broken [b]. Raises FloatingPointError alike."""
    with torch.no_grad():
        loss, broken = attack_loss(images, rows)
    if not loss.isfinite().all():
        raise FloatingPointError(f"the attacked loss is not finite for rows {rows[~loss.isfinite()].tolist()}")
    return loss.float(), broken


def words_away(vlm: VLM, completions: Encoded) -> AttackLoss:
    """Loss of the whole completion (sum of token cross entropies): pushes thought and answer away from it.

    A row looks broken when the greedy choice at any token differs from the completion.
    """

    def attack_loss(images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        loss, kept = _sequence(vlm, images, completions[rows])
        return loss, ~kept

    return attack_loss


def words_towards(vlm: VLM, completions: Encoded) -> AttackLoss:
    """Minus the loss of a whole completion that the model shall write instead of its own.

    A row looks broken when the greedy choice at every token is the completion's.
    """

    def attack_loss(images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        loss, kept = _sequence(vlm, images, completions[rows])
        return -loss, kept

    return attack_loss


def _sequence(vlm: VLM, images: Tensor, encoded: Encoded) -> tuple[Tensor, Tensor]:
    """Sum of the completion's token cross entropies [b], and whether each token is the greedy choice [b]."""
    ids, mask = encoded.completion_ids, encoded.completion_mask.bool()
    logits = vlm.completion_logits(images, encoded)[:, :-1].float()  # [b, C, V]; sums need fp32
    loss = F.cross_entropy(logits.transpose(1, 2), ids, reduction="none")  # [b, C]
    return (loss * mask).sum(1), ((logits.argmax(-1) == ids) | ~mask).all(1)


def letter_logits(vlm: VLM, images: Tensor, places: LetterPlaces, n_options: Tensor) -> Tensor:
    """Logits [b, 8] of the option letters where the letter comes next, -inf for those not offered; n_options [b].

    Only the last position is computed.
    """
    logits = vlm.completion_logits(images, places.prompts)[:, -1].gather(1, places.tokens).float()
    return logits.masked_fill(_letters(logits) >= n_options[:, None], -torch.inf)


def letter_margin(vlm: VLM, places: LetterPlaces, gold: Tensor, n_options: Tensor) -> AttackLoss:
    """Margin of the best wrong letter over the gold one where the letter comes next.

    gold [B]: index of the gold option. n_options [B]. The margin (Carlini & Wagner 2017) keeps a gradient where a
    confident model's cross entropy has none left.
    """

    def attack_loss(images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        found = margin(letter_logits(vlm, images, places[rows], n_options[rows]), gold[rows])
        return found, found > 0

    return attack_loss


def margin(logits: Tensor, gold: Tensor) -> Tensor:
    """The best wrong choice's logit minus the gold one's, [b]; logits [b, K], gold [b]."""
    wrong = logits.masked_fill(_letters(logits) == gold[:, None], -torch.inf).amax(1)
    return wrong - logits.gather(1, gold[:, None])[:, 0]


def letter_cross_entropy(vlm: VLM, places: LetterPlaces, gold: Tensor, n_options: Tensor) -> AttackLoss:
    """Cross entropy of the gold letter among those offered; the arguments are those of `letter_margin`."""

    def attack_loss(images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        logits = letter_logits(vlm, images, places[rows], n_options[rows])
        return F.cross_entropy(logits, gold[rows], reduction="none"), logits.argmax(1) != gold[rows]

    return attack_loss


def letter_towards(vlm: VLM, places: LetterPlaces, gold: Tensor, n_options: Tensor, place: int) -> AttackLoss:
    """Margin of ONE wrong letter over the gold one: the `place`-th after gold, counted round the options offered.

    The places 0 .. n_options - 2 are all wrong letters; larger ones begin again. Otherwise as `letter_margin`.
    """
    target = (gold + 1 + place % (n_options - 1)) % n_options

    def attack_loss(images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        logits = letter_logits(vlm, images, places[rows], n_options[rows])
        right, wanted = (logits.gather(1, index[rows, None])[:, 0] for index in (gold, target))
        return wanted - right, logits.argmax(1) != gold[rows]

    return attack_loss


def expectation(attack_losses: list[AttackLoss]) -> AttackLoss:
    """Mean loss over several attack_losses; a row looks broken when it does in more than half of them."""

    def attack_loss(images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        losses, broken = zip(*(each(images, rows) for each in attack_losses), strict=True)
        return torch.stack(losses).mean(0), torch.stack(broken).float().mean(0) > 0.5

    return attack_loss


def under_noise(attack_loss: AttackLoss, sigma: float, draws: int, names: list[str]) -> AttackLoss:
    """Mean loss over fresh Gaussian noise on the images: the gradient of the smoothed model (Salman et al. 2019).

    sigma in [0, 1] pixel units; names: seed the rows' noise, beside the number of the call and of the draw. A row looks
    broken when it does in more than half of the draws.
    """
    calls = itertools.count()

    def noisy(images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        call = next(calls)
        seeds = [f"{names[row]}:{call}:{draw}" for draw in range(draws) for row in rows.tolist()]
        several = images.repeat(draws, 1, 1, 1) + sigma * gaussian(images.shape[1:], seeds).to(images)
        loss, broken = attack_loss(several, rows.repeat(draws))
        return loss.view(draws, -1).mean(0), broken.view(draws, -1).float().mean(0) > 0.5

    return noisy


def features_away(vlm: VLM, reference: Tensor) -> AttackLoss:
    """Relative squared distance of the vision tower's features to the reference's, which is never broken.

    reference: features [B, L, n, D] of the clean images.
    """

    def attack_loss(images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        distance = feature_distance(vlm.features(images), reference[rows])
        return distance, torch.zeros_like(distance, dtype=torch.bool)

    return attack_loss


def feature_distance(features: Tensor, reference: Tensor) -> Tensor:
    """Squared distance over the reference's squared norm, [B], the mean over layers; features, reference: [B, L, n, D].

    Each layer counts alike: deepstack's norms differ by orders of magnitude, and the largest would decide alone.
    """
    features, reference = features.float().flatten(2), reference.float().flatten(2)  # a long sum needs fp32
    return ((features - reference).square().sum(2) / reference.square().sum(2)).mean(1)


def _letters(logits: Tensor) -> Tensor:
    return torch.arange(logits.shape[1], device=logits.device)
