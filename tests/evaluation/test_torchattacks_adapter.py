"""Every attack of torchattacks that can be named holds what is claimed of it, and the others have the faults named."""

import inspect
from typing import ClassVar

import numpy as np
import pytest
import torch
import torchattacks
from torchattacks.attack import Attack

from safemed.attacks import losses
from safemed.attacks.engine import AttackConfig, Attacked
from safemed.attacks.threat_model import l2_levels
from safemed.evaluation import black_box, torchattacks_adapter
from safemed.evaluation.evaluator import Evaluator
from safemed.evaluation.torchattacks_adapter import ShownRows
from safemed.evaluation.torchattacks_names import NAMES, REFUSED
from safemed.models.geometry import to_float

EVERYTHING = torch.arange(24)
NAMED = [(name, norm) for name, named in NAMES.items() for norm in named.norms]
LARGE = {"linf": 64, "l2": 8.0, "l0": torch.inf}
SMALL = {"linf": 1, "l2": 0.01, "l0": torch.inf}
STEPS = {"Square": 60, "SPSA": 1, "OnePixel": 3}


@pytest.fixture(scope="module")
def evaluator(skilled, shown) -> Evaluator:
    """24 questions that the model answers rightly."""
    return Evaluator(skilled, shown, "instruct", 24)


@pytest.fixture(scope="module")
def words(evaluator) -> list[str]:
    return evaluator.answers(evaluator.images, EVERYTHING)


def budget(name: str, norm: str, steps: int = 5, restarts: int = 1) -> AttackConfig:
    taken = steps if NAMES[name].steps else 1
    return AttackConfig("torchattacks", name, norm, taken, restarts=restarts, attack=name)


def attacked(evaluator, words, name: str, norm: str, eps: float, rows=EVERYTHING, seed: int = 0, **spent) -> Attacked:
    return torchattacks_adapter.attack(evaluator, words, rows, budget(name, norm, **spent), eps, seed)


def linf(images: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    return (images.int() - clean.int()).abs().flatten(1).amax(1)


def margins(evaluator: Evaluator, words: list[str], images: torch.Tensor) -> torch.Tensor:
    """The margin of the best wrong letter, of each 8-bit image under the prompt of its own row."""
    found = evaluator.attack_loss("answer", words, EVERYTHING)(images.permute(0, 3, 1, 2).float() / 255, EVERYTHING)
    return found[0].detach()


@pytest.mark.parametrize("name, norm", NAMED)
def test_each_attack_keeps_to_its_ball_breaks_and_claims_only_what_the_stored_image_shows(evaluator, words, name, norm):
    before = (torch.get_rng_state(), np.random.get_state()[1].copy())
    spent = {"steps": STEPS.get(name, 5), "restarts": 12 if name == "Pixle" else 1}
    found = attacked(evaluator, words, name, norm, LARGE[norm], **spent)
    size = linf(found.images, evaluator.images) if norm == "linf" else l2_levels(found.images, evaluator.images)
    assert (size <= LARGE[norm]).all() and (size > 0).all()
    assert (~found.broken).tolist() == evaluator.is_right(found.images, EVERYTHING).tolist()
    after = margins(evaluator, words, found.images)
    assert after.mean() > margins(evaluator, words, evaluator.images).mean()
    assert torch.equal(after > 0, found.broken)  # words and letters agree: the margin is that of the row's own prompt
    if name == "OnePixel":
        assert ((found.images != evaluator.images).any(3).flatten(1).sum(1) == 1).all()
    else:
        assert found.broken.any()
    assert torch.equal(before[0], torch.get_rng_state()) and (before[1] == np.random.get_state()[1]).all()


@pytest.mark.parametrize("name, norm", NAMED)
def test_each_attack_spends_what_its_price_says_and_the_same_seed_gives_the_same_images(evaluator, words, name, norm):
    spent = {"steps": 1 if name == "SPSA" else 2, "restarts": 2 if NAMES[name].restarts else 1}
    evaluator.vlm.passes.backward = 0
    found = attacked(evaluator, words, name, norm, SMALL[norm], **spent)
    gradients, queries = NAMES[name].cost(budget(name, norm, **spent).steps, spent["restarts"])
    assert not found.broken.any() and evaluator.vlm.passes.backward == 24 * gradients
    of_an_image = 4 if name == "FAB" else 1  # FAB takes the gradient of each letter at an image
    assert (found.steps == gradients // of_an_image + queries).all()
    torch.rand(3), np.random.rand(3)  # the same again, whatever was drawn before
    again = attacked(evaluator, words, name, norm, SMALL[norm], **spent)
    assert torch.equal(again.images, found.images) and torch.equal(again.steps, found.steps)


@pytest.fixture(scope="module")
def mixed(skilled, train_questions) -> Evaluator:
    """Eight questions with two, three and four options, in turn, and as different words as the study has."""
    by_number = {}
    for i, options in enumerate(train_questions["options"]):
        by_number.setdefault(len(options), []).append(i)
    assert {2, 3, 4} <= by_number.keys()
    chosen = [by_number[number][place] for place in range(3) for number in (2, 4, 3)][:8]
    evaluator = Evaluator(skilled, train_questions.select(chosen), "instruct", 8)
    own = evaluator.choices(to_float(evaluator.images, skilled.device), torch.arange(8))
    rows = [row | {"gold": letter} for row, letter in zip(evaluator.rows, own, strict=True)]
    return evaluator.with_questions(rows, evaluator.images)  # what the model answers is right: it is attacked


class Watched(ShownRows):
    """Compares its answers with those to the same images alone, after the prompts of the rows that they belong to."""

    seen: ClassVar[list[int]] = []  # numbers of options

    def __init__(self, evaluator, words, rows, *more):
        super().__init__(evaluator, words, rows, *more)
        self.places = [evaluator.letter_places([text], rows[i : i + 1]) for i, text in enumerate(words)]
        Watched.seen.append(self.k)

    def forward(self, images):
        logits, plain = super().forward(images), images.detach().as_subclass(torch.Tensor)
        self.owned(images.each(), plain)
        for i, row in enumerate(images.each().tolist()[:3]):
            stored = (plain[i : i + 1] * 255).round().clamp(0, 255) / 255
            with torch.no_grad():
                own = losses.letter_logits(self.evaluator.vlm, stored, self.places[row], self.n_options[row : row + 1])
            assert torch.allclose(own[0, : self.k], logits[i].detach(), atol=1e-3)
        return logits

    def owned(self, rows, images):
        """Where the ball is small, an image tells itself whose it is: the nearest clean one's."""
        if self.eps == SMALL[self.norm] and images.amax() > 0.5:  # SINIFGSM also shows darkened ones
            clean = self.start.detach().as_subclass(torch.Tensor)
            nearest = torch.cdist(images.flatten(1), clean.flatten(1)).argmin(1)
            assert torch.equal(clean[nearest], clean[rows])  # two questions may show one image


@pytest.fixture
def watched(monkeypatch) -> type[Watched]:
    monkeypatch.setattr(torchattacks_adapter, "ShownRows", Watched)
    monkeypatch.setattr(Watched, "seen", [])
    return Watched


@pytest.mark.parametrize("name, norm", NAMED)
def test_each_attack_answers_every_image_after_the_prompt_of_its_own_row(mixed, watched, name, norm):
    """In a batch of questions with two, three and four options."""
    words = [f"<answer> {row['gold']} </answer>" for row in mixed.rows]
    found = attacked(mixed, words, name, norm, SMALL[norm], rows=torch.arange(8), steps=1)
    gradients, queries = NAMES[name].cost(1, 1)
    full = gradients // (4 if name == "FAB" else 1) + queries
    assert watched.seen == [2, 3, 4] and (found.steps == full).float().mean() > 0.5  # nothing is right before it began


@pytest.mark.parametrize("eps", [140, 200, 255])
@pytest.mark.parametrize("name", ["Square", "FAB", "VMIFGSM"])
def test_a_radius_of_more_than_half_the_range_answers_after_the_own_prompts_too(mixed, watched, name, eps):
    words = [f"<answer> {row['gold']} </answer>" for row in mixed.rows]
    found = attacked(mixed, words, name, "linf", eps, rows=torch.arange(8), steps=3)
    far = linf(found.images, mixed.images)
    assert watched.seen == [2, 3, 4] and far.max() <= eps and (name == "FAB" or far.max() > 127)


def test_rows_are_followed_in_subsets_of_any_order_and_a_lost_row_is_refused(evaluator, words):
    shown = ShownRows(evaluator, words, EVERYTHING, 4, "linf", 8)
    everything = shown(shown.start)
    assert everything.argmax(1).tolist() == evaluator.gold.tolist()
    for rows in ([5], [20, 3, 11], [7, 7]):
        part = torch.tensor(rows)
        assert torch.allclose(shown((shown.start[part] + 0.3 / 255).clamp(0, 1)), everything[part], atol=1e-4)
    assert shown.queries[[3, 5, 7, 20]].tolist() == [2, 2, 3, 2] and shown.queries[0] == 1
    for lost in (shown.start.flip(0), shown.start.as_subclass(torch.Tensor), shown.start[:2] + shown.start[2:4]):
        with pytest.raises(LookupError, match="not known to which questions they belong"):
            shown(lost)
    with pytest.raises(FloatingPointError, match="an attacked image is not finite"):
        shown(shown.start * float("nan"))


def test_the_best_image_shown_is_kept_and_one_beyond_the_ball_is_not(evaluator, words):
    shown = ShownRows(evaluator, words, EVERYTHING, 4, "linf", 8)
    far = (shown.start + torch.where(shown.start < 0.5, 9.0, -9.0) / 255).clamp(0, 1)
    shown(far)
    assert torch.equal(shown.best, evaluator.images) and shown.smallest.isinf().all()
    several = torch.tensor([0] * 6)
    tried = (
        shown.start[several] + torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0)).sign() * 8 / 255
    )
    logits = shown(tried.clamp(0, 1))
    gold = evaluator.gold[0]
    wrong = logits.clone()
    wrong[:, gold] = -torch.inf
    best = (wrong.amax(1) - logits[:, gold]).argmax()
    stored = (tried.clamp(0, 1)[best].detach().as_subclass(torch.Tensor) * 255).round().byte().permute(1, 2, 0)
    assert torch.equal(shown.best[0], stored) and torch.equal(shown.best[1:], evaluator.images[1:])


def test_square_breaks_more_than_noise_at_the_same_queries(evaluator, words):
    noise = black_box.noise(evaluator, words, EVERYTHING, AttackConfig(steps=150), 64, seed=0).broken.sum()
    assert attacked(evaluator, words, "Square", "linf", 64, steps=150).broken.sum() > noise


def test_restarts_and_seeds_are_passed_on(evaluator, words):
    once, other = (attacked(evaluator, words, "APGD", "linf", 8, steps=2, seed=seed) for seed in (0, 1))
    assert not torch.equal(once.images, other.images)
    twice = attacked(evaluator, words, "APGD", "linf", 1, steps=2, restarts=2)
    assert (twice.steps == 8).all()


# Those that cannot be named.


def test_every_attack_of_torchattacks_can_be_named_or_has_a_reason_why_not():
    classes = {name for name, kind in vars(torchattacks).items() if inspect.isclass(kind) and issubclass(kind, Attack)}
    assert classes == NAMES.keys() | REFUSED.keys() and not NAMES.keys() & REFUSED.keys()


class Linear(torch.nn.Module):
    """A classifier that any step breaks, with logits of a chosen sign; keeps what it is shown."""

    def __init__(self, k: int, shift: float):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(k, 12, generator=torch.Generator().manual_seed(0)))
        self.shift, self.seen = shift, []

    def forward(self, images):
        self.seen.append(images.detach())
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
@pytest.mark.parametrize("name", ["AutoAttack", "APGDT"])
def test_upstream_targeted_apgd_fails_with_two_or_three_options(name, k):
    model, images, labels = classified(k, 0.0)
    with pytest.raises((IndexError, RuntimeError)):
        getattr(torchattacks, name)(model, eps=1e-4, n_classes=k, seed=0)(images, labels)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_upstream_jsma_aims_at_classes_that_a_question_does_not_have(k):
    model, images, labels = classified(k, 0.0)
    with pytest.raises(IndexError):
        torchattacks.JSMA(model)(images, labels)


@pytest.mark.parametrize("name", ["DeepFool", "SparseFool", "EADL1", "EADEN", "GN"])
def test_upstream_attacks_without_a_radius_go_as_far_as_they_must(name):
    assert "eps" not in inspect.signature(getattr(torchattacks, name)).parameters
    model, images, labels = classified(4, 0.0)
    assert (getattr(torchattacks, name)(model)(images, labels) - images).abs().max() > 16 / 255


@pytest.mark.parametrize("name, eps", [("PGDRS", 8 / 255), ("PGDRSL2", 0.5)])
def test_upstream_attacks_on_smoothed_models_show_noise_alone(name, eps):
    model, images, labels = classified(4, 0.0)
    model.seen.clear()
    getattr(torchattacks, name)(model, eps=eps, steps=2)(images, labels)
    nearest = [(shown[:, None] - images).flatten(2).abs().amax(2).min() for shown in model.seen]
    assert nearest and min(nearest) > 8 / 255


def test_upstream_vanila_attacks_nothing():
    model, images, labels = classified(4, 0.0)
    assert torch.equal(torchattacks.VANILA(model)(images, labels), images)


@pytest.mark.parametrize("name", ["LGV", "MultiAttack"])
def test_upstream_composites_need_more_than_a_model(name):
    with pytest.raises(TypeError):
        getattr(torchattacks, name)(Linear(4, 0.0))


def test_upstream_pgd_never_drops_a_broken_image():
    model, images, labels = classified(4, 0.0)
    model.seen.clear()
    torchattacks.PGD(model, eps=0.5, alpha=0.5, steps=20)(images, labels)
    assert sum(map(len, model.seen)) == 20 * len(images)
