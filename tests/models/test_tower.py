"""The quick tower is the library's: the same features and the same gradients."""

import copy

import pytest
import torch
from transformers.models.qwen3_vl import modeling_qwen3_vl as qwen

from safemed.models.geometry import patchify
from safemed.models.tower import QUICK
from safemed.models.vlm import tower_features
from support.settings import SIDE


@pytest.fixture(scope="module")
def original(untrained):
    """The library's own tower, with the same weights."""
    tower = qwen.Qwen3VLVisionModel(copy.deepcopy(untrained.visual.config))
    tower.load_state_dict(untrained.visual.state_dict())
    assert not any(type(module) in QUICK.values() for module in tower.modules())
    return tower.eval()


def test_features_and_gradients_are_the_librarys(untrained, original):
    images = torch.rand(5, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    assert any(type(module) in QUICK.values() for module in untrained.visual.modules())

    def seen(tower):
        pixels = images.clone().requires_grad_(True)
        features = tower_features(tower, *patchify(pixels, untrained.geometry))
        (gradient,) = torch.autograd.grad((features * torch.linspace(-1, 1, features.shape[-1])).sum(), pixels)
        return features, gradient

    (ours, our_gradient), (theirs, their_gradient) = seen(untrained.visual), seen(original)
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert their_gradient.norm() > 0 and (our_gradient - their_gradient).norm() < 1e-5 * their_gradient.norm()


def test_images_of_different_sizes_are_refused(untrained):
    one, grid = patchify(torch.rand(1, 3, SIDE, SIDE), untrained.geometry)
    other, larger = patchify(torch.rand(1, 3, 2 * SIDE, SIDE), untrained.geometry)
    with pytest.raises(ValueError, match="one size"):
        untrained.visual(torch.cat([one, other]), grid_thw=torch.cat([grid, larger]))
