"""Controls without gradients, and why torchattacks is used for no more than Square: its traps, each shown."""

import pytest
import torch
import torchattacks

from safemed.attacks.engine import AttackConfig
from safemed.evaluation import black_box
from safemed.evaluation.evaluator import Evaluator
from safemed.models.geometry import to_float, to_uint8

EVERYTHING = torch.arange(24)


@pytest.fixture(scope="module")
def evaluator(skilled, shown) -> Evaluator:
    """24 questions that the model answers rightly."""
    return Evaluator(skilled, shown, "instruct", 24)


@pytest.fixture(scope="module")
def words(evaluator) -> list[str]:
    return evaluator.answers(evaluator.images, EVERYTHING)


def distance(images: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    return (images.int() - clean.int()).abs().flatten(1).amax(1)


@pytest.mark.parametrize("attack", [black_box.noise, black_box.square])
def test_controls_stay_in_the_ball_and_claim_what_the_stored_image_shows(evaluator, words, attack):
    found = attack(evaluator, words, EVERYTHING, AttackConfig(steps=5), 8, seed=0)
    assert distance(found.images, evaluator.images).max() <= 8
    assert (distance(found.images, evaluator.images) > 0).all()
    assert (~found.broken).tolist() == evaluator.is_right(found.images, EVERYTHING).tolist()
    evaluator.vlm.passes.backward = 0
    again = attack(evaluator, words, EVERYTHING, AttackConfig(steps=5), 8, seed=0)
    assert evaluator.vlm.passes.backward == 0 and torch.equal(again.images, found.images)


def test_square_breaks_more_than_noise_at_the_same_queries(evaluator, words):
    budget = AttackConfig(steps=150)
    noise = black_box.noise(evaluator, words, EVERYTHING, budget, 64, seed=0).broken.sum()
    square = black_box.square(evaluator, words, EVERYTHING, budget, 64, seed=0).broken.sum()
    assert square > noise


def test_every_image_is_answered_with_the_prompt_of_its_own_row(evaluator, words):
    """torchattacks calls the model on subsets, in any order, and says not which rows they are."""
    shown = black_box.ShownRows(evaluator, words, EVERYTHING, 4)
    everything = shown(shown.start)
    for rows in (torch.tensor([5]), torch.tensor([20, 3, 11])):
        perturbed = shown.start[rows] + 0.4 * (2 * torch.rand_like(shown.start[rows]) - 1)
        perturbed[:, :3] = shown.start[rows, :3]
        assert torch.allclose(shown(perturbed.clamp(0, 1)), everything[rows], atol=1e-4)
    assert everything.argmax(1).tolist() == evaluator.gold.tolist()
    assert shown.queries[[3, 5, 11, 20]].tolist() == [2, 2, 2, 2] and shown.queries[0] == 1


def test_square_attacks_questions_with_two_and_three_options(skilled, train_questions):
    few = [i for i, options in enumerate(train_questions["options"]) if len(options) < 4][:8]
    evaluator = Evaluator(skilled, train_questions.select(few), "instruct", 8)
    words = [f"<answer> {row['gold']} </answer>" for row in evaluator.rows]
    found = black_box.square(evaluator, words, torch.arange(8), AttackConfig(steps=3), 8, seed=0)
    assert distance(found.images, evaluator.images).max() <= 8


class Linear(torch.nn.Module):
    """A classifier that any step breaks, with logits of a chosen sign; counts its calls."""

    def __init__(self, k: int, shift: float):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(k, 12, generator=torch.Generator().manual_seed(0)))
        self.shift, self.seen = shift, 0

    def forward(self, images):
        self.seen += len(images)
        return images.flatten(1) @ self.weight.T + self.shift


def classified(k: int, shift: float) -> tuple[Linear, torch.Tensor, torch.Tensor]:
    model = Linear(k, shift)
    images = torch.rand(16, 3, 2, 2, generator=torch.Generator().manual_seed(1)) * 0.8 + 0.1
    return model, images, model(images).argmax(1).detach()


def test_upstream_cw_returns_the_clean_image_where_logits_are_negative():
    broken = {}
    for shift in (50.0, -50.0):
        model, images, labels = classified(4, shift)
        adversarial = torchattacks.CW(model, c=10, steps=50, lr=0.05)(images, labels)
        broken[shift] = (model(adversarial).argmax(1) != labels).float().mean().item()
    assert broken[50.0] > 0.5 and broken[-50.0] == 0.0


def test_upstream_cw_never_moves_black_pixels():
    model, images, labels = classified(4, 50.0)
    images[:, 0] = 0.0
    labels = model(images).argmax(1).detach()
    adversarial = torchattacks.CW(model, c=10, steps=50, lr=0.05)(images, labels)
    assert not adversarial[:, 0].isfinite().all() or torch.equal(adversarial[:, 0], images[:, 0])


@pytest.mark.parametrize("k", [2, 3])
def test_upstream_autoattack_fails_with_two_or_three_options(k):
    model, images, labels = classified(k, 0.0)
    with pytest.raises((IndexError, RuntimeError)):
        torchattacks.AutoAttack(model, eps=1e-4, n_classes=k, seed=0)(images, labels)


def test_upstream_pgd_never_drops_a_broken_image():
    model, images, labels = classified(4, 0.0)
    model.seen = 0
    torchattacks.PGD(model, eps=0.5, alpha=0.5, steps=20)(images, labels)
    assert model.seen == 20 * len(images)


def test_the_labels_of_rows_survive_rounding_and_clamping(evaluator, words):
    shown = black_box.ShownRows(evaluator, words, EVERYTHING, 4)
    assert torch.equal(shown.images_of(shown.start), evaluator.images)
    assert torch.equal(to_uint8(to_float(evaluator.images, torch.device("cpu"))), evaluator.images)
