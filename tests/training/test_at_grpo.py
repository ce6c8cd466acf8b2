"""AT-GRPO on the real trainer: which pixels each pass saw, what the anchor is, and its weight in the loss."""

from collections import defaultdict

import pytest
import torch

from safemed.data.dataset import as_array
from safemed.training import common
from safemed.training.at_grpo import forward_kl
from safemed.training.augmentation import Augmentation
from support.grpo_trainers import Watched, grpo_trainer, nearest
from support.settings import ADVERSARIAL, LORA

EPS = 8
POLICY = [("policy", "make", "rollout"), ("policy", "make", "logps"), ("policy", "loss", "logps")]


@pytest.fixture(scope="module")
def adversarial(tiny_model, questions, tmp_path_factory) -> Watched:
    """AT-GRPO after its two steps."""
    trainer = grpo_trainer(tiny_model, questions, tmp_path_factory.mktemp("at"), Augmentation(**ADVERSARIAL))
    trainer.train()
    return trainer


def test_rollouts_old_logps_and_loss_see_adversarial_images_and_the_anchor_clean_ones(adversarial, questions):
    recorder = adversarial.recorder
    for key in POLICY:
        images = recorder.images(*key)
        _, distance = nearest(images, questions, adversarial.vlm)
        assert len(images) == 8 and (distance > 0.5).all() and (distance < EPS + 0.01).all(), key
        assert ((images * 255) - (images * 255).round()).abs().max() < 0.01, key  # 8-bit images, as they are scored
    _, distance = nearest(recorder.images("anchor", "loss"), questions, adversarial.vlm)
    assert len(distance) == 8 and distance.max() < 0.01


def test_rollouts_of_one_question_share_one_perturbation_in_every_pass(adversarial, questions):
    shown = defaultdict(list)
    for key in POLICY:
        images = adversarial.recorder.images(*key)
        for which, image in zip(nearest(images, questions, adversarial.vlm)[0].tolist(), images, strict=True):
            shown[which].append(image)
    assert len(shown) == 2  # prompts
    for images in shown.values():
        assert len(images) == 3 * 4
        assert all(torch.allclose(image, images[0], atol=1e-5) for image in images)


def test_each_unique_prompt_is_attacked_once(adversarial):
    attacked = adversarial.recorder.seen["policy", "make"]
    assert [len(images) for images, _, _ in attacked] == [2] * ADVERSARIAL["steps"]
    assert not any(training for _, training, _ in attacked)


def test_the_policy_trains_again_after_the_attack(adversarial):
    assert adversarial.state_at_rollout == (True, True)
    assert all(training and grad for _, training, grad in adversarial.recorder.seen["policy", "loss", "logps"])
    assert not any(grad for _, _, grad in adversarial.recorder.seen["anchor", "loss"])
    assert adversarial.model.training


def test_the_attack_does_not_change_the_callers_rows(adversarial, questions):
    clean = {row["question_id"]: as_array(row["image"]) for row in questions}
    assert all((as_array(row["image"]) == clean[row["question_id"]]).all() for row in adversarial.inputs)


def test_clean_images_have_no_kl_to_begin_with_and_attacked_ones_have(adversarial, tiny_model, questions, tmp_path):
    clean = grpo_trainer(tiny_model, questions, tmp_path, Augmentation(), steps_per_generation=1)
    clean.train()
    first = [trainer.state.log_history[0]["anchor_kl"] for trainer in (clean, adversarial)]
    assert abs(first[0]) < 1e-6 and first[1] > 1e-5
    for key in (("policy", "make", "rollout"), ("policy", "loss", "logps"), ("anchor", "loss")):
        assert nearest(clean.recorder.images(*key), questions, clean.vlm)[1].max() < 0.01


def test_the_anchor_stays_and_the_policy_moves(adversarial, tiny_model):
    start = common.load_policy(tiny_model, None).state_dict()
    assert all(torch.equal(value, start[name]) for name, value in adversarial.anchor.state_dict().items())
    assert any(not torch.equal(value, start[name]) for name, value in adversarial.vlm.model.state_dict().items())


def test_the_anchor_is_in_the_loss_with_the_weight_beta(tiny_model, questions, tmp_path):
    losses = {}
    for beta in (0.0, 1.0, 3.0):
        config = {"steps_per_generation": 1, "reward_weights": [0.0, 0.0]}  # no rewards: the anchor is all there is
        trainer = grpo_trainer(
            tiny_model, questions, tmp_path / str(beta), Augmentation(**ADVERSARIAL), anchor_beta=beta, **config
        )
        trainer.train()
        losses[beta] = trainer.state.log_history[0]
    assert losses[0.0]["loss"] == 0 and "anchor_kl" not in losses[0.0]
    for beta in (1.0, 3.0):
        assert losses[beta]["loss"] == pytest.approx(beta * losses[beta]["anchor_kl"], rel=1e-3)
    assert losses[3.0]["anchor_kl"] == pytest.approx(losses[1.0]["anchor_kl"], rel=1e-4)


def test_half_batches_weigh_half(tiny_model, questions, tmp_path):
    """With no rewards the loss is the anchor's mean KL alone: accumulated over two half batches it is the same mean."""
    config = {"steps_per_generation": 2, "gradient_accumulation_steps": 2, "reward_weights": [0.0, 0.0]}
    trainer = grpo_trainer(tiny_model, questions, tmp_path, Augmentation(**ADVERSARIAL), **config)
    trainer.train()
    first = trainer.state.log_history[0]
    assert first["loss"] == pytest.approx(first["anchor_kl"], rel=1e-3)


def test_trls_own_beta_is_refused(tiny_model, questions, tmp_path):
    with pytest.raises(ValueError, match="beta"):
        grpo_trainer(tiny_model, questions, tmp_path, Augmentation(), beta=0.1)


def test_forward_kl_is_torchs_and_pulls_the_policy_to_the_reference():
    torch.manual_seed(0)
    reference, policy = torch.randn(3, 5, 11), torch.randn(3, 5, 11)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]])
    assert forward_kl(reference, reference.clone(), mask).item() == 0
    assert forward_kl(reference, reference + 3.0, mask).abs() < 1e-6  # the same distribution
    tokens = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=reference), torch.distributions.Categorical(logits=policy)
    )
    by_hand = (tokens[0].mean() + tokens[1, :2].mean() + 0) / 3
    assert forward_kl(reference, policy, mask).item() == pytest.approx(by_hand.item(), rel=1e-5)
    assert forward_kl(reference, policy, mask).item() != pytest.approx(forward_kl(policy, reference, mask).item())
    moved = policy.clone().requires_grad_(True)
    forward_kl(reference, moved, mask).backward()
    assert (moved.grad[mask == 0] == 0).all() and (moved.grad[mask == 1] != 0).all()
    assert forward_kl(reference, policy - 0.5 * moved.grad, mask) < forward_kl(reference, policy, mask)


@pytest.mark.parametrize("peft", [None, LORA], ids=["full", "lora"])
def test_the_anchor_answers_as_the_model_that_training_started_from(tiny_model, questions, tmp_path, peft):
    """Fully trained or adapted, the reference's logits are the start model's, at every step, on clean images."""
    trainer = grpo_trainer(
        tiny_model, questions, tmp_path, Augmentation(**ADVERSARIAL), peft=peft, steps_per_generation=1
    )
    calls = []

    def hook(module, args, kwargs, output):
        if trainer.recorder.phase == ["loss"]:
            calls.append((kwargs, output.logits))

    trainer.anchor.register_forward_hook(hook, with_kwargs=True)
    move(trainer)
    trainer.train()
    start = common.load_policy(tiny_model, peft).eval()
    assert len(calls) == 2
    policy = trainer.vlm.model.eval()
    for kwargs, logits in calls:
        with torch.no_grad():
            assert torch.allclose(start(**kwargs).logits, logits, atol=1e-4)
            assert not torch.allclose(policy(**kwargs).logits, logits, atol=1e-2)  # another model by now
    _, distance = nearest(trainer.recorder.images("policy" if peft else "anchor", "loss"), questions, trainer.vlm)
    assert distance.max() < 0.01


def move(trainer: Watched) -> None:
    """Change what the policy trains, as many steps would have done."""
    with torch.no_grad():
        for parameter in trainer.start_trainable:
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
