"""What a training step sees instead of the clean image: its noise, and an attack within its radius."""

import pytest
import torch

from safemed.attacks.losses import words_away
from safemed.evaluation.evaluator import Evaluator
from safemed.models.geometry import to_float
from safemed.training.augmentation import Augmentation
from support.trainings import plain_rows


@pytest.fixture(scope="module")
def asked(skilled, shown):
    """A model, images in [0, 1] and the attack_loss on the gold targets of 24 questions."""
    evaluator = Evaluator(skilled, shown, "instruct", 8)
    rows = plain_rows(shown, "instruct")
    targets = evaluator._encoded(torch.arange(24), [row["target"] for row in rows])
    return skilled.model, to_float(evaluator.images, skilled.device), words_away(skilled, targets)


NAMES = [str(i) for i in range(24)]


def test_a_clean_augmentation_is_the_image_itself(asked):
    model, images, attack_loss = asked
    assert torch.equal(Augmentation().apply(model, attack_loss, images, NAMES, 0.5)[0], images)


def test_a_noisy_augmentation_has_its_sigma_and_its_names_noise(asked):
    model, _, attack_loss = asked
    grey = torch.full((24, 3, 32, 32), 0.5)
    noise = Augmentation("noisy", sigma=0.1).apply(model, attack_loss, grey, NAMES, 0.5)[0] - grey
    assert noise.std().item() == pytest.approx(0.1, rel=0.02) and noise.mean().abs() < 0.002
    assert (noise.abs() > 0.2).float().mean().item() == pytest.approx(0.0455, abs=0.005)  # Gaussian, not uniform
    order = [5, 3, 3]
    again, _ = Augmentation("noisy", sigma=0.1).apply(model, attack_loss, grey[order], [NAMES[i] for i in order], 0.9)
    assert torch.equal(again - grey[order], noise[order]) and not torch.equal(noise[3], noise[5])
    strong, _ = Augmentation("noisy", sigma=3.0).apply(model, attack_loss, grey, NAMES, 0.5)
    assert (strong - grey).std().item() == pytest.approx(3.0, rel=0.02)  # not clipped: certificates' noise is not


def test_an_adversarial_augmentation_with_a_sigma_is_the_attack_and_noise_on_top_of_it(asked):
    model, images, attack_loss = asked
    plain, noisy = (Augmentation("adversarial", eps=8, steps=2, sigma=sigma) for sigma in (0.0, 0.2))
    (attacked, loss), (seen, again) = (
        augmentation.apply(model, attack_loss, images, NAMES, 1.0) for augmentation in (plain, noisy)
    )
    noise, _ = Augmentation("noisy", sigma=0.2).apply(model, attack_loss, torch.zeros_like(images), NAMES, 1.0)
    assert torch.allclose(seen - attacked, noise, atol=1e-5) and torch.allclose(loss, again)
    assert 0 < (attacked - images).abs().max() <= 8 / 255 + 1e-6 and seen.min() < 0


def test_an_adversarial_augmentation_raises_the_loss_within_eps_that_ramps_up(asked):
    model, images, attack_loss = asked
    augmentation = Augmentation("adversarial", eps=8, steps=3, ramp=0.5)
    loss = {}
    for progress in (0.0, 0.25, 0.5, 1.0):
        seen, reached = augmentation.apply(model, attack_loss, images, NAMES, progress)
        eps = 8 / 255 * min(1, progress / 0.5)
        assert augmentation.eps_at(progress) == pytest.approx(eps)
        assert (seen - images).abs().max() <= eps + 1e-6 and seen.min() >= 0 and seen.max() <= 1
        with torch.no_grad():
            clean_loss, _ = attack_loss(images, torch.arange(24))
            loss[progress] = attack_loss(seen, torch.arange(24))[0].mean().item()
        assert reached.shape == (24,) and reached.mean() >= clean_loss.mean() - 1e-3
        assert not seen.requires_grad
    assert loss[0.0] < loss[0.25] < loss[0.5] and loss[1.0] == pytest.approx(loss[0.5], rel=1e-4)
