"""Contrastive losses on the vision tower's features, and attacks that climb them.

Features are pooled, and no projection head stands between them and the loss: what is contrasted is what the language
model reads, and what a probe of the tower reads.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from safemed.attacks.losses import AttackLoss
from safemed.models.vlm import VLM


def pooled(features: Tensor) -> Tensor:
    """Unit vectors [B, L * D] of features [B, L, n, D]: the mean of each layer's tokens, all layers of one length."""
    means = F.normalize(features.float().mean(2), dim=-1)  # [B, L, D]; a long sum needs fp32
    return means.flatten(1) / means.shape[1] ** 0.5


def nt_xent(vectors: Tensor, images: Tensor, tau: float) -> Tensor:
    """NT-Xent (Chen et al. 2020, SimCLR) of each of N views, [N]: its image's other view against all other views.

    vectors: unit [N, D]; images [N]: the number of each view's image; tau: the temperature.
    """
    return supervised_contrast(vectors, images[None], tau)


def supervised_contrast(vectors: Tensor, labels: Tensor, tau: float) -> Tensor:
    """Supervised contrastive loss (Khosla et al. 2020, L_out) of each view, summed over the levels of a hierarchy, [N].

    vectors: unit [N, D]. labels [levels, N]: at each level, views of one label are each other's positives, and every
    other view is in the denominator. As in HiDisc (Jiang et al. 2023) and HSAT (arXiv 2503.10629) with weights of 1;
    one level whose labels are the images is NT-Xent. A view without a positive adds nothing at that level.
    """
    own = torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
    similar = (vectors @ vectors.T / tau).masked_fill(own, -torch.inf)
    log_share = (similar - similar.logsumexp(1, keepdim=True)).masked_fill(own, 0.0)  # [N, N]
    positive = (labels[:, :, None] == labels[:, None, :]) & ~own  # [levels, N, N]
    return -((log_share * positive).sum(2) / positive.sum(2).clamp_min(1)).sum(0)


def contrast_away(vlm: VLM, labels: Tensor, tau: float, others: Tensor | None = None) -> AttackLoss:
    """The contrastive loss of each image among those that are attacked with it, which is never broken.

    labels [levels, B]: of all images that are attacked together, and all are: the loss of one depends on the others.
    others: unit [B, D], views of the same images that are not attacked, which are contrasted with them.
    """

    def attack_loss(images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        vectors = pooled(vlm.features(images))
        known = labels[:, rows]
        if others is not None:
            vectors, known = torch.cat([vectors, others[rows]]), known.repeat(1, 2)
        loss = supervised_contrast(vectors, known, tau)[: len(images)]
        return loss, torch.zeros_like(loss, dtype=torch.bool)

    return attack_loss


def neighbours(vectors: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Cosine similarities and places [B, k] of the nearest of the unit vectors bank [M, D] to vectors [B, D]."""
    return (vectors @ bank.T).topk(min(k, len(bank)), dim=1)


def votes(vectors: Tensor, bank: Tensor, labels: Tensor, classes: int, k: int, tau: float) -> Tensor:
    """The share of the votes of the k nearest of the bank that each class has, [B, classes].

    labels [M] of the bank. A neighbour's vote weighs exp(similarity / tau) (Wu et al. 2018).
    """
    similarity, places = neighbours(vectors, bank, k)
    weights = (similarity / tau).softmax(1)
    return weights.new_zeros(len(vectors), classes).scatter_add(1, labels[places], weights)


def votes_away(vlm: VLM, bank: Tensor, labels: Tensor, classes: int, gold: Tensor, k: int, tau: float) -> AttackLoss:
    """What of all votes of the bank, each weighing exp(similarity / tau), the best wrong class has more than gold [B].

    All of the bank vote, in log weights, so that there is a gradient where no near neighbour is of another class. A row
    looks broken where the vote of the k nearest goes to another class than gold. The bank has two classes at least:
    with one none is wrong, and the loss is -inf.
    """
    members = F.one_hot(labels, classes).bool().T  # [classes, M]

    def attack_loss(images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        vectors = pooled(vlm.features(images))
        similar = (vectors @ bank.T / tau)[:, None].masked_fill(~members, -torch.inf)  # [B, classes, M]
        logits = similar.logsumexp(2)
        own = F.one_hot(gold[rows], classes).bool()
        margin = logits.masked_fill(own, -torch.inf).amax(1) - logits[own]
        with torch.no_grad():
            broken = votes(vectors, bank, labels, classes, k, tau).argmax(1) != gold[rows]
        return margin, broken

    return attack_loss
