"""Attacks stay within eps on the stored 8-bit image, break a model that answers rightly, and claim what they show."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from safemed.attacks import engine, losses
from safemed.attacks.engine import AttackConfig
from safemed.attacks.pgd import pgd
from safemed.attacks.threat_model import Ball, l2_levels, random_start
from safemed.data import prompts
from safemed.evaluation.evaluator import LOSSES, Evaluator
from safemed.models.geometry import to_float, to_uint8
from safemed.models.vlm import VLM, Encoded
from safemed.training.monitoring import probe
from support.commands import here

EVERYTHING = torch.arange(24)


@pytest.fixture(scope="module", params=prompts.VARIANTS)
def evaluator(shown, request) -> Evaluator:
    """24 questions that the model answers rightly, in any variant."""
    skilled = request.getfixturevalue("skilled_in_all" if request.param == "after" else "skilled")
    return Evaluator(skilled, shown, request.param, 24)


@pytest.fixture(scope="module")
def words(evaluator) -> list[str]:
    """Its right answers."""
    texts = evaluator.answers(evaluator.images, EVERYTHING)
    assert all(evaluator.outcome(text, i) == "right" for i, text in enumerate(texts)), texts
    return texts


def first_loss(evaluator: Evaluator, **budget) -> AttackConfig:
    """An attack on the first loss of the standard attack on a variant."""
    return AttackConfig(losses=LOSSES[evaluator.variant][:1], **budget)


def all_losses(evaluator: Evaluator, **budget) -> AttackConfig:
    """An attack on all losses of the standard attack on a variant."""
    return AttackConfig(losses=LOSSES[evaluator.variant], **budget)


def distance(images: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """Largest change of each 8-bit image, in levels [B]."""
    return (images.int() - clean.int()).abs().flatten(1).amax(1)


@pytest.mark.parametrize("eps", [1, 2, 8])
@pytest.mark.parametrize("steps", [1, 3])
def test_the_stored_image_is_within_eps_and_the_verdict_is_what_it_shows(evaluator, words, eps, steps):
    found = evaluator.attack(words, EVERYTHING, first_loss(evaluator, steps=steps, restarts=2), eps, seed=0)
    assert found.images.dtype == torch.uint8 and found.images.shape == evaluator.images.shape
    assert distance(found.images, evaluator.images).max() <= eps
    assert (distance(found.images, evaluator.images) > 0).all()
    assert (~found.broken).tolist() == evaluator.is_right(found.images, EVERYTHING).tolist()
    assert (found.steps <= 2 * steps).all()


@pytest.mark.parametrize("steps, at_most", [(1, 0.95), (10, 0.3)])
def test_a_large_eps_breaks_what_was_right(evaluator, words, steps, at_most):
    found = evaluator.attack(words, EVERYTHING, all_losses(evaluator, steps=steps), 32, seed=0)
    assert evaluator.is_right(evaluator.images, EVERYTHING).all()
    assert evaluator.is_right(found.images, EVERYTHING).float().mean() <= at_most


def test_the_gradient_breaks_more_than_noise_of_the_same_size(evaluator, words):
    eps = 16
    clean = to_float(evaluator.images, evaluator.vlm.device)
    signs = random_start(torch.zeros_like(clean), 1.0, [str(i) for i in range(24)]).sign()
    noisy = to_uint8(Ball("linf", eps / 255).project(clean + eps / 255 * signs, clean))
    found = evaluator.attack(words, EVERYTHING, first_loss(evaluator, steps=10), eps, seed=0)
    assert found.broken.float().mean() >= (~evaluator.is_right(noisy, EVERYTHING)).float().mean() + 0.2


def test_eps_zero_changes_nothing(evaluator, words):
    found = evaluator.attack(words, EVERYTHING, first_loss(evaluator, steps=3, restarts=2), 0, seed=0)
    assert torch.equal(found.images, evaluator.images) and not found.broken.any()


def test_a_negative_eps_is_refused(evaluator, words):
    with pytest.raises(ValueError, match="eps"):
        evaluator.attack(words, EVERYTHING, first_loss(evaluator, steps=3), -1, seed=0)


def test_the_same_seed_gives_the_same_images_and_another_seed_others(evaluator, words):
    first, again, other = (
        evaluator.attack(words, EVERYTHING, first_loss(evaluator, steps=3), 4, seed) for seed in (0, 0, 1)
    )
    assert torch.equal(first.images, again.images) and torch.equal(first.steps, again.steps)
    assert not torch.equal(first.images, other.images)


def test_a_question_is_attacked_alike_alone_and_in_any_batch(evaluator, words):
    together = evaluator.attack(words, EVERYTHING, first_loss(evaluator, steps=2), 4, seed=0)
    for rows in (torch.tensor([3]), torch.tensor([20, 3, 7])):
        alone = evaluator.attack([words[i] for i in rows], rows, first_loss(evaluator, steps=2), 4, seed=0)
        # Sums in another order may flip the sign of a gradient that is all but zero; more than that is a mix-up.
        same = (alone.images == together.images[rows]).float().mean()
        assert same > 0.98


def test_broken_questions_cost_no_further_steps(evaluator, words):
    found = evaluator.attack(words, EVERYTHING, first_loss(evaluator, steps=10, restarts=3), 64, seed=0)
    assert found.broken.any() and (found.steps[found.broken] < 30).all()
    evaluator.vlm.passes.backward = 0
    evaluator.attack(words, EVERYTHING, first_loss(evaluator, steps=10, restarts=3), 64, seed=0)
    assert evaluator.vlm.passes.backward < 24 * 30


def test_random_start_depends_on_the_name_alone_and_fills_the_ball():
    clean, names, eps = torch.full((4, 3, 16, 16), 0.5), ["a", "b", "c", "a"], 8 / 255
    start = random_start(clean, eps, names)
    assert (start - clean).abs().max() <= eps + 1e-7 and (start - clean).abs().max() > 0.98 * eps
    assert (start - clean).mean().abs() < eps / 20
    assert torch.equal(start[0], start[3]) and not torch.equal(start[0], start[1])
    order = torch.tensor([2, 0, 1])
    assert torch.equal(random_start(clean[:3], eps, [names[i] for i in order]), start[order])
    torch.manual_seed(1)
    assert torch.equal(random_start(clean[1:2], eps, ["b"])[0], start[1])


def test_project_is_the_nearest_point_of_ball_and_cube():
    clean, images = torch.rand(4, 3, 8, 8), torch.rand(4, 3, 8, 8) * 3 - 1
    eps = 0.1
    found = Ball("linf", eps).project(images, clean)
    low, high = (clean - eps).clamp(0, 1), (clean + eps).clamp(0, 1)
    assert torch.allclose(found, images.clamp(low, high), atol=1e-6)
    assert torch.allclose(Ball("linf", eps).project(found, clean), found, atol=1e-7)
    assert torch.equal(Ball("linf", 0.0).project(clean, clean), clean)


@pytest.mark.parametrize("eps", [0.05, 0.3, 2.0])
def test_an_l2_ball_is_kept_in_floats_and_after_rounding(eps):
    clean8 = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8))
    clean8[0] = 0  # a black background must be movable, too
    clean, ball = to_float(clean8, torch.device("cpu")), Ball("l2", eps)
    moved = ball.project(clean + torch.randn(clean.shape), clean)
    assert (moved - clean).flatten(1).norm(dim=1).max() <= eps + 1e-5 and moved.min() >= 0 and moved.max() <= 1
    stored = ball.store(moved, clean8)
    assert l2_levels(stored, clean8).max() <= eps
    if eps > 1:  # at a radius well above the rounding most of it is used
        assert l2_levels(stored, clean8).min() > 0.6 * eps


@pytest.mark.parametrize("eps", [0.2, 1.0])
def test_rounding_keeps_nearly_all_of_a_dense_l2_perturbation(eps):
    """Rounding to 8 bits makes most of these too long: what is stored is scaled back by no more than it must."""
    clean8 = torch.from_numpy(np.random.default_rng(0).integers(30, 226, (6, 64, 64, 3), dtype=np.uint8))
    clean = to_float(clean8, torch.device("cpu"))
    delta = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    moved = clean + eps * delta / delta.flatten(1).norm(dim=1)[:, None, None, None]
    assert (l2_levels(to_uint8(moved), clean8) > eps).all()
    reached = l2_levels(Ball("l2", eps).store(moved, clean8), clean8)
    assert (reached <= eps).all() and (reached >= 0.95 * eps).all()
    assert torch.equal(Ball("l2", 2 * eps).store(moved, clean8), to_uint8(moved))  # no more: it fits as it is


def test_more_steps_climb_higher_in_the_mean(evaluator, words):
    eps = 8 / 255
    clean = to_float(evaluator.images, evaluator.vlm.device)
    start = random_start(clean, eps, [str(i) for i in range(24)])
    for name in LOSSES[evaluator.variant]:
        attack_loss = evaluator.attack_loss(name, words, EVERYTHING)
        reached = [attack_loss(clean, EVERYTHING)[0].mean().item()]
        for steps in (1, 4, 16):
            images, _ = pgd(attack_loss, clean, Ball("linf", eps), steps, start, 2.5 * eps / steps)
            assert (images - clean).abs().max() <= eps + 1e-6 and images.min() >= 0 and images.max() <= 1
            reached.append(attack_loss(images, EVERYTHING)[0].mean().item())
        assert reached[0] < reached[1] and reached == sorted(reached), (name, reached)


def fixed(loss_of) -> losses.AttackLoss:
    """An attack_loss that never looks broken."""
    return lambda images, rows: (loss_of(images), torch.zeros(len(images), dtype=bool))


NOT_FINITE = {
    "loss": lambda images: images.sum((1, 2, 3)) * float("nan"),
    "infinite loss": lambda images: images.sum((1, 2, 3)) + float("inf"),
    "gradient": lambda images: (images.sum((1, 2, 3)) * 0).sqrt(),
}


@pytest.mark.parametrize("what", NOT_FINITE)
def test_no_verdict_is_made_of_a_loss_or_gradient_that_is_not_finite(evaluator, what):
    clean8, rows = evaluator.images[:2], EVERYTHING[:2]
    with pytest.raises(FloatingPointError):
        engine.attack(
            [fixed(NOT_FINITE[what])], lambda images, part: evaluator.is_right(images, rows[part]),
            clean8, ["a", "b"], 8, AttackConfig(steps=2), evaluator.vlm.device,
        )  # fmt: skip


def always_right(images: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """The verdict on a model that nothing breaks."""
    return torch.ones(len(rows), dtype=torch.bool)


def iterates(config: AttackConfig, eps: float) -> tuple[list[torch.Tensor], torch.Tensor]:
    """All images that an attack evaluates a wavy attack_loss at, and the clean ones."""
    clean8 = torch.from_numpy(np.random.default_rng(0).integers(40, 216, (3, 8, 8, 3), dtype=np.uint8))
    clean, seen = to_float(clean8, torch.device("cpu")), []
    slope = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))

    def wave(images, rows):
        seen.append(images.detach().clone())
        return torch.sin(40 * (images - clean[rows]) + slope[rows]).flatten(1).sum(1), torch.zeros(len(rows)).bool()

    engine.attack([wave], always_right, clean8, list("abc"), eps, config, torch.device("cpu"))
    return seen, clean


def test_every_iterate_of_mi_fgsm_is_a_corner_of_the_ball():
    (first, *others), clean = iterates(AttackConfig(kind="mi-fgsm", steps=6), 8)
    assert torch.equal(first, clean) and len(others) == 6
    for images in others:
        assert torch.allclose((images - clean).abs(), torch.tensor(8 / 255), atol=1e-6)
    assert not torch.equal(others[0], others[-1])
    seen, _ = iterates(AttackConfig(kind="pgd", steps=6), 8)
    assert ((seen[3] - clean).abs() < 7 / 255).any()  # of another rule that is not so


def test_mi_fgsm_goes_on_in_the_direction_of_all_gradients_so_far():
    """Their sizes are levelled: a small gradient turns the next corner as a large one does."""
    clean8 = torch.full((2, 8, 8, 3), 128, dtype=torch.uint8)
    seen = []

    def turning(images, rows):
        seen.append(images.detach().clone())
        weight = torch.tensor([[9.0, -1.0, 0.5], [1.0, 1.0, 1.0]])[:, min(len(seen), 3) - 1]
        return images.flatten(1).sum(1) * weight[rows], torch.zeros(len(rows)).bool()

    config = AttackConfig(kind="mi-fgsm", steps=3)
    engine.attack([turning], always_right, clean8, ["a", "b"], 8, config, torch.device("cpu"))
    up = [(images.flatten(1) > 128 / 255).all(1).tolist() for images in seen[1:]]
    assert up == [[True, True], [False, True], [True, True]]  # the signs of 1; 0.9 - 1; 0.9 (0.9 - 1) + 1


def test_mi_fgsm_breaks_in_few_steps_at_least_what_pgd_breaks(evaluator, words):
    broken = {}
    for kind in ("pgd", "mi-fgsm"):
        found = evaluator.attack(words, EVERYTHING, AttackConfig(kind=kind, steps=4, losses=("answer",)), 12, seed=0)
        assert distance(found.images, evaluator.images).max() <= 12
        assert (~found.broken).tolist() == evaluator.is_right(found.images, EVERYTHING).tolist()
        broken[kind] = found.broken.sum().item()
    assert broken["mi-fgsm"] >= broken["pgd"] and broken["mi-fgsm"] > 0


def test_attacks_of_different_names_start_differently_and_of_one_name_alike(evaluator, words):
    first, again, other = (
        evaluator.attack(words, EVERYTHING, first_loss(evaluator, name=name, steps=2), 4, seed=0).images
        for name in ("one", "one", "other")
    )
    assert torch.equal(first, again)
    assert ((first != other).flatten(1).any(1)).all()


@pytest.mark.parametrize("kind", ["mi-fgsm", "apgd"])
def test_every_kind_claims_what_its_images_show(evaluator, words, kind):
    found = evaluator.attack(words, EVERYTHING, AttackConfig(kind=kind, steps=6, losses=("answer",)), 24, seed=0)
    assert distance(found.images, evaluator.images).max() <= 24
    assert (~found.broken).tolist() == evaluator.is_right(found.images, EVERYTHING).tolist()
    assert found.broken.sum() >= 12


def test_iterates_that_look_broken_are_asked_about_every_second_step_and_then_the_best_one():
    """Iterates look broken as soon as they have moved: not the clean start, but those after two and four steps."""
    clean8 = torch.full((3, 8, 8, 3), 128, dtype=torch.uint8)
    clean, asked = to_float(clean8, torch.device("cpu")), []
    slope = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))

    def wave(images, rows):
        moved = images - clean[rows]
        return torch.sin(40 * moved + slope[rows]).flatten(1).sum(1), (moved != 0).flatten(1).any(1)

    def is_right(images, rows):
        asked.extend((row, image.numpy().tobytes()) for row, image in zip(rows.tolist(), images, strict=True))
        return always_right(images, rows)

    config = AttackConfig(kind="mi-fgsm", steps=4)
    found = engine.attack([wave], is_right, clean8, list("abc"), 16, config, torch.device("cpu"))
    iterates, best = asked[:-3], asked[-3:]
    assert [row for row, _ in iterates] == [0, 1, 2] * 2 and len(set(iterates)) == 6
    assert best == [(row, image.numpy().tobytes()) for row, image in enumerate(found.images)]


def test_three_restarts_of_a_loss_towards_a_wrong_option_reach_every_wrong_option(skilled, shown):
    evaluator = Evaluator(skilled, shown, "think", 24)
    climbs = AttackConfig(restarts=3, losses=("sampled", "thought", "stop")).climbs()
    assert climbs == [(loss, restart) for restart in range(3) for loss in ("sampled", "thought", "stop")]
    wrong = set("ABCD") - {evaluator.rows[0]["gold"]}
    for loss in ("thought", "stop"):
        said = {restart: completion_of(evaluator, loss, restart) for name, restart in climbs if name == loss}
        assert {prompts.parse(text, 4, "think").answer for text in said.values()} == wrong, said


def completion_of(evaluator: Evaluator, name: str, place: int) -> str:
    """What a loss makes question 0 say instead: of all well-formed completions, the one that the loss is about."""
    clean = to_float(evaluator.images[:1], evaluator.vlm.device)
    loss, _ = evaluator.attack_loss(name, ["<answer> A </answer>"], EVERYTHING[:1], place)(clean, EVERYTHING[:1])
    for letter in "ABCD":
        row = evaluator.rows[0] | {"gold": letter, "finding": None}
        text = prompts.target(row, "think" if name == "thought" else "instruct")
        encoded = evaluator._encoded(EVERYTHING[:1], [text + evaluator.vlm.tokenizer.eos_token])
        if torch.allclose(losses.words_towards(evaluator.vlm, encoded)(clean, EVERYTHING[:1])[0], loss, atol=1e-4):
            return text
    raise AssertionError(f"{name} {place} is about no option")


def test_restarts_are_per_loss_and_fgsm_climbs_each_loss_once():
    both = ("sequence", "answer")
    assert AttackConfig(steps=1, restarts=9, losses=both).climbs() == [("sequence", 0), ("answer", 0)]
    assert AttackConfig(steps=2, restarts=2, losses=both).climbs() == [(name, i) for i in (0, 1) for name in both]


def test_an_attack_without_a_loss_for_the_variant_is_refused(evaluator, words):
    with pytest.raises(ValueError, match="attack mine: names no losses"):
        evaluator.attack(words, EVERYTHING, AttackConfig(name="mine"), 4, seed=0)


def opened(evaluator: Evaluator, opening: str) -> Encoded:
    """All prompts, going on with an opening."""
    asked = [prompts.conversation(row, evaluator.variant) for row in evaluator.rows]
    return evaluator.vlm.encode(asked, [opening] * len(asked), evaluator.side).joined()


def letter_ids(vlm: VLM) -> list[int]:
    """The tokens of the letters after a blank."""
    return [vlm.tokenizer.encode(f" {letter}", add_special_tokens=False)[0] for letter in prompts.LETTERS]


def test_the_choice_is_the_likeliest_letter_offered_and_agrees_with_the_generated_answer(evaluator):
    clean = to_float(evaluator.images, evaluator.vlm.device)
    assert evaluator.choices(clean, EVERYTHING) == [row["gold"] for row in evaluator.rows]
    noisy = clean + 0.4 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    opening = "<think> </think><answer>" if evaluator.variant == "think" else "<answer>"
    logits = evaluator.vlm.completion_logits(noisy, opened(evaluator, opening))[:, -1, letter_ids(evaluator.vlm)]
    chosen = evaluator.choices(noisy, EVERYTHING)
    assert chosen == ["ABCD"[i] for i in logits[:, :4].argmax(1)] and len(set(chosen)) > 1
    assert chosen == evaluator.classes("choice", noisy, EVERYTHING)
    order = torch.tensor([7, 2, 2])
    assert evaluator.choices(noisy[order], order) == [chosen[i] for i in order]


def test_the_classes_of_the_generated_answer_are_what_the_parser_reads(skilled, untrained, shown):
    evaluator, lost = Evaluator(skilled, shown, "think", 24), Evaluator(untrained, shown, "think", 6)
    noisy = to_float(evaluator.images, evaluator.vlm.device) + 0.4
    texts = evaluator.answers_to(noisy, EVERYTHING)
    assert evaluator.classes("generate", noisy, EVERYTHING) == [
        prompts.parse(text, 4, "think").answer or "?" for text in texts
    ]
    assert lost.classes("generate", noisy, EVERYTHING) == ["?"] * 24  # which is no abstention


def test_a_choice_of_logits_that_are_not_finite_is_no_class(evaluator):
    blank = torch.full_like(to_float(evaluator.images, evaluator.vlm.device), float("nan"))
    for function in ("choice", "generate"):
        with pytest.raises(FloatingPointError):
            evaluator.classes(function, blank, EVERYTHING)


def test_fgsm_is_one_step_of_eps_from_the_clean_image(evaluator, words):
    attack_loss = evaluator.attack_loss(LOSSES[evaluator.variant][0], words, EVERYTHING)
    clean = to_float(evaluator.images, evaluator.vlm.device)
    _, _, gradient = losses.loss_and_gradient(attack_loss, clean, EVERYTHING)
    expected = to_uint8(Ball("linf", 4 / 255).project(clean + 4 / 255 * gradient.sign(), clean))
    found = evaluator.attack(words, EVERYTHING, first_loss(evaluator, steps=1), 4, seed=0)
    assert torch.equal(found.images, expected)


@pytest.mark.parametrize("n_options", [2, 3, 4])
def test_letters_that_are_not_offered_do_not_count_in_the_margin(evaluator, n_options):
    places = evaluator.letter_places(["<answer> A </answer>"] * 24, EVERYTHING)
    gold = EVERYTHING % n_options
    attack_loss = losses.letter_margin(evaluator.vlm, places, gold, torch.full((24,), n_options))
    clean = to_float(evaluator.images, evaluator.vlm.device)
    margin, broken = attack_loss(clean, EVERYTHING)
    logits = evaluator.vlm.completion_logits(clean, opened(evaluator, "<answer>"))[:, -1]
    logits = logits[:, letter_ids(evaluator.vlm)[:n_options]]  # [24, n]
    for i, g in enumerate(gold.tolist()):
        others = [logits[i, j].item() for j in range(n_options) if j != g]
        assert margin[i].item() == pytest.approx(max(others) - logits[i, g].item(), abs=1e-4)
    assert broken.tolist() == (margin > 0).tolist()
    assert margin.isfinite().all()
    part = torch.tensor([7, 2])
    assert torch.allclose(attack_loss(clean[part], part)[0], margin[part], atol=1e-4)


def test_the_sequence_loss_is_the_sum_over_the_completions_own_tokens(evaluator, words):
    ended = [text + evaluator.vlm.tokenizer.eos_token for text in words[:6]]
    ended[0] = "<answer>"  # short: the rest is padding
    encoded, rows = evaluator._encoded(EVERYTHING[:6], ended), EVERYTHING[:6]
    clean = to_float(evaluator.images[:6], evaluator.vlm.device)
    loss, broken = losses.words_away(evaluator.vlm, encoded)(clean, rows)
    for i in range(6):
        alone = evaluator._encoded(rows[i : i + 1], ended[i : i + 1])
        logits = evaluator.vlm.completion_logits(clean[i : i + 1], alone)[0, :-1].log_softmax(-1)
        by_hand = -logits.gather(1, alone.completion_ids[0][:, None]).sum()
        assert loss[i].item() == pytest.approx(by_hand.item(), rel=1e-3, abs=1e-4)
    assert not broken[1:].any()


def test_questions_with_two_and_three_options_are_attacked(skilled, train_questions):
    few = [i for i, options in enumerate(train_questions["options"]) if len(options) < 4][:12]
    evaluator = Evaluator(skilled, train_questions.select(few), "instruct", 8)
    words = [prompts.target(row, "instruct") for row in evaluator.rows]
    found = evaluator.attack(words, torch.arange(12), first_loss(evaluator, steps=2), 8, seed=0)
    assert distance(found.images, evaluator.images).max() <= 8
    assert (~found.broken).tolist() == evaluator.is_right(found.images, torch.arange(12)).tolist()


PROBE = {"restarts": 1, "batch_size": 24}


def test_the_probe_sees_a_skilled_model_break(skilled, shown):
    settings = PROBE | {"eps": 32, "steps": 5, "max_new_tokens": {"instruct": 24, "think": 24}}
    found = probe(skilled, shown, "instruct", settings, seed=0)
    assert found["clean_accuracy"] == 1.0 and found["robust_accuracy"] <= 0.5
    gentle = probe(skilled, shown, "instruct", {**settings, "eps": 0}, seed=0)
    assert gentle == {"clean_accuracy": 1.0, "robust_accuracy": 1.0}
    assert probe(skilled, shown, "instruct", {**settings, "batch_size": 7}, seed=0) == found


def test_the_probe_of_a_model_that_knows_nothing_is_zero(untrained, shown):
    settings = PROBE | {"eps": 8, "steps": 1, "max_new_tokens": {"instruct": 6, "think": 6}}
    assert probe(untrained, shown, "think", settings, seed=0) == {"clean_accuracy": 0.0, "robust_accuracy": 0.0}


@pytest.fixture(scope="module")
def swept(skilled, shown, tmp_path_factory) -> Path:
    """The folder that the script writes for a PGD sweep of the thinking variant, radii given out of order."""
    folder = tmp_path_factory.mktemp("sweep")
    shown.save_to_disk(folder / "questions")
    (folder / "questions" / "data-00000-of-00001.arrow").rename(folder / "questions" / "part-00000.arrow")
    splits = pd.DataFrame({"question_id": shown["question_id"], "split": "test"})
    splits.to_csv(folder / "splits.csv", index=False)
    given = ["--data", folder, "--weights", skilled.model.name_or_path, "--model", "sft-think", "--method", "sft"]
    settings = {
        "questions": 24,
        "batch_size": 16,
        "amp": False,
        "pgd": {"kind": "pgd", "steps": 5, "losses": LOSSES},
        "max_new_tokens": {"think": 24},
        "precision": "fp32",
    }
    wanted = ["--variant", "think", "--attack", "pgd", "--eps", 8, 2, 24, "--out", folder / "rows"]
    here("attack.py", *given, *wanted, settings=settings)
    return folder / "rows"


def test_a_sweep_scores_its_stored_images_and_only_survivors_are_attacked_on(swept, skilled, shown):
    rows, evaluator = pd.read_parquet(swept / "rows.parquet"), Evaluator(skilled, shown, "think", 24)
    images = {name: torch.from_numpy(stack) for name, stack in np.load(swept / "images.npz").items()}
    assert torch.equal(images["clean"], evaluator.images) and rows.eps.tolist() == [2] * 24 + [8] * 24 + [24] * 24
    right = {}
    for eps, part in rows.groupby("eps"):
        assert part.question_id.tolist() == shown["question_id"] and part.attacked.all()  # at it or a smaller radius
        assert (
            distance(images[f"eps{eps:g}"], evaluator.images).tolist() == part.linf.tolist()
            and (part.linf <= eps).all()
        )
        right[eps] = torch.tensor((part.outcome == "right").to_numpy())
        assert torch.equal(evaluator.is_right(images[f"eps{eps:g}"], EVERYTHING), right[eps])
    assert right[2].sum() > right[24].sum()
    for smaller, larger in ((2, 8), (8, 24)):
        broken, steps = ~right[smaller], torch.tensor(rows[rows.eps == larger].steps.to_numpy())
        assert not right[larger][broken].any() and (steps[broken] == 0).all() and (steps[~broken] > 0).any()
        assert torch.equal(images[f"eps{larger:g}"][broken], images[f"eps{smaller:g}"][broken])
