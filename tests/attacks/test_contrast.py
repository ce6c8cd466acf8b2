"""Contrastive losses and votes against their definitions, and the attacks that climb them."""

import math

import pytest
import torch
from torch.nn import functional as F

from safemed.attacks.contrast import contrast_away, nt_xent, pooled, supervised_contrast, votes, votes_away
from safemed.attacks.pgd import pgd
from safemed.attacks.threat_model import Ball
from safemed.data.dataset import as_arrays
from safemed.models.geometry import to_float

PAIRS = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])


@pytest.fixture(scope="module")
def vectors() -> torch.Tensor:
    return F.normalize(torch.randn(8, 5, generator=torch.Generator().manual_seed(0)), dim=1)


def simclr(vectors: torch.Tensor, tau: float) -> torch.Tensor:
    """NT-Xent as SimCLR's paper writes it, a view at a time."""
    n, found = len(vectors) // 2, []
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        others = sum(math.exp(vectors[i] @ vectors[k] / tau) for k in range(2 * n) if k != i)
        found.append(-math.log(math.exp(vectors[i] @ vectors[j] / tau) / others))
    return torch.tensor(found)


@pytest.mark.parametrize("tau", [0.07, 0.5])
def test_one_level_of_images_is_nt_xent(vectors, tau):
    assert torch.allclose(nt_xent(vectors, PAIRS, tau), simclr(vectors, tau), atol=1e-5)
    assert torch.equal(supervised_contrast(vectors, PAIRS[None], tau), nt_xent(vectors, PAIRS, tau))


def test_levels_are_summed_and_positives_averaged(vectors):
    kinds, tau = torch.tensor([0, 0, 1, 1, 0, 0, 1, 1]), 0.1
    levels = torch.stack([PAIRS, kinds])
    one = supervised_contrast(vectors, kinds[None], tau)
    assert torch.allclose(supervised_contrast(vectors, levels, tau), nt_xent(vectors, PAIRS, tau) + one)
    similar = vectors @ vectors.T / tau
    denominator = torch.cat([similar[0, 1:]]).logsumexp(0)
    assert one[0].item() == pytest.approx(-(similar[0, [1, 4, 5]] - denominator).mean().item(), rel=1e-5)


def test_a_view_that_is_like_no_other_adds_nothing_and_leaves_a_gradient(vectors):
    labels = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 6]])
    given = vectors.clone().requires_grad_(True)
    loss = supervised_contrast(given, labels, 0.07)
    assert (loss[:6] == 0).all() and (loss[6:] > 0).all()
    (gradient,) = torch.autograd.grad(loss.sum(), given)
    assert gradient.isfinite().all() and gradient.abs().sum() > 0


def test_pooled_features_are_of_unit_length_and_no_layer_counts_more():
    features = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    loud = features * torch.tensor([100.0, 1.0, 0.01])[:, None, None]
    assert torch.allclose(pooled(features).norm(dim=1), torch.ones(2))
    assert torch.allclose(pooled(loud), pooled(features), atol=1e-6)


def test_votes_weigh_by_similarity_and_are_of_the_nearest_alone():
    bank = F.normalize(torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [-1.0, 0.0]]), dim=1)
    labels, asked = torch.tensor([0, 1, 1, 1]), torch.tensor([[1.0, 0.0]])
    two = votes(asked, bank, labels, 2, 2, 0.07)
    assert two.argmax(1).item() == 0 and two.sum().item() == pytest.approx(1)
    assert votes(asked, bank, labels, 2, 1, 0.07).tolist() == [[1.0, 0.0]]
    assert votes(asked, bank, labels, 2, 9, 100.0).argmax(1).item() == 1  # all of them, of equal weight


def climbed(vlm, attack_loss, clean: torch.Tensor) -> tuple[float, float]:
    """The mean loss before and after ten steps within 8/255."""
    rows = torch.arange(len(clean))
    seen, _ = pgd(attack_loss, clean, Ball("linf", 8 / 255), 10, clean, 2 / 255)
    assert (seen - clean).abs().max() <= 8 / 255 + 1e-6
    with torch.no_grad():
        return attack_loss(clean, rows)[0].mean().item(), attack_loss(seen, rows)[0].mean().item()


def test_attacks_raise_their_losses(skilled, shown):
    clean = to_float(as_arrays(shown.select(range(6))["image"]), "cpu")
    pairs, kinds = clean.repeat(2, 1, 1, 1), torch.tensor([0, 0, 0, 1, 1, 1])
    levels = torch.stack([torch.arange(6), kinds])
    with torch.no_grad():
        own = pooled(skilled.features(clean))
    for attack_loss, images in (
        (contrast_away(skilled, levels.repeat(1, 2), 0.07), pairs),
        (contrast_away(skilled, levels, 0.07, others=own), clean),
        (votes_away(skilled, own, kinds, 2, kinds, 3, 0.07), clean),
    ):
        before, after = climbed(skilled, attack_loss, images)
        assert after > before + 0.1
