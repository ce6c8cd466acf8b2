"""AT-GRPO on the real trainer: which pixels each pass saw, what the reference is, and what each term does."""

import contextlib

import pytest
import torch
from transformers import TrainerCallback

from safemed.attacks.losses import feature_distance
from safemed.data.dataset import as_array, as_arrays
from safemed.models.geometry import to_float
from safemed.models.vlm import load_weights
from safemed.training import rollouts
from safemed.training.augmentation import Augmentation
from safemed.training.token_losses import forward_kl
from support.grpo_trainers import Watched, grpo_trainer, nearest, trained
from support.settings import ADVERSARIAL, GRPO, LORA

EPS = 8
ATTACKED = Augmentation(**ADVERSARIAL)
NONE = {"rewards": {"accuracy": 0.0, "format": 0.0}, "anchor": 0.0, "features": 0.0}


@pytest.fixture(scope="module")
def adversarial(tiny_model, questions, tmp_path_factory) -> Watched:
    """AT-GRPO after its two steps."""
    return trained(grpo_trainer(tiny_model, questions, tmp_path_factory.mktemp("at"), ATTACKED))


def first_log(trainer: Watched) -> dict:
    return trained(trainer).state.log_history[0]


def test_rollouts_and_loss_see_adversarial_images_and_the_reference_clean_ones(adversarial, questions):
    recorder = adversarial.recorder
    for phase in ("rollout", "loss"):
        images = recorder.images("policy", phase)
        _, distance = nearest(images, questions, adversarial.vlm)
        assert len(images) == 2 * 4 and (distance > 0.5).all() and (distance < EPS + 0.01).all(), phase
        assert ((images * 255) - (images * 255).round()).abs().max() < 0.01, phase  # 8-bit images, as they are scored
    _, distance = nearest(recorder.images("reference", "loss"), questions, adversarial.vlm)
    assert len(distance) == 2 * 4 and distance.max() < 0.01


def test_rollouts_and_loss_see_the_same_perturbation_of_each_prompt(adversarial):
    rollout, loss = (adversarial.recorder.images("policy", phase) for phase in ("rollout", "loss"))
    assert torch.equal(rollout, loss)


def test_each_prompt_is_attacked_once_by_a_frozen_model_and_then_trained(adversarial):
    attacked = adversarial.recorder.seen["policy", "attack"]
    assert [len(images) for images, _, _ in attacked] == [4] * ADVERSARIAL["steps"] * 2
    assert not any(training for _, training, _ in attacked)
    assert not any(training or grad for _, training, grad in adversarial.recorder.seen["policy", "rollout"])
    assert all(training and grad for _, training, grad in adversarial.recorder.seen["policy", "loss"])
    assert not any(grad for _, _, grad in adversarial.recorder.seen["reference", "loss"])
    assert adversarial.model.training and all(p.requires_grad for p in adversarial.start_trainable)


def test_the_attack_does_not_change_the_callers_rows(adversarial, questions):
    clean = {row["question_id"]: as_array(row["image"]) for row in questions}
    assert all((as_array(row["image"]) == clean[row["question_id"]]).all() for row in adversarial.inputs)


def test_the_reference_stays_and_the_policy_moves(adversarial, tiny_model):
    start = load_weights(tiny_model).state_dict()
    assert all(torch.equal(value, start[name]) for name, value in adversarial.reference.model.state_dict().items())
    assert any(not torch.equal(value, start[name]) for name, value in adversarial.vlm.model.state_dict().items())


def test_clean_images_are_no_distance_from_the_reference_to_begin_with_and_attacked_ones_are(
    adversarial, tiny_model, questions, tmp_path
):
    clean = trained(grpo_trainer(tiny_model, questions, tmp_path, Augmentation()))
    for name in ("anchor_kl", "feature_distance"):
        found = [trainer.state.log_history[0][name] for trainer in (clean, adversarial)]
        assert abs(found[0]) < 1e-6 and found[1] > 1e-5, name
    for phase in ("rollout", "loss"):
        assert nearest(clean.recorder.images("policy", phase), questions, clean.vlm)[1].max() < 0.01


@pytest.mark.parametrize("term, logged", [("anchor", "anchor_kl"), ("features", "feature_distance")])
def test_each_term_is_in_the_loss_with_its_weight(term, logged, tiny_model, questions, tmp_path):
    logs = {}
    for weight in (0.0, 1.0, 3.0):
        settings = {**NONE, term: weight}
        logs[weight] = first_log(grpo_trainer(tiny_model, questions, tmp_path / str(weight), ATTACKED, **settings))
    assert logs[0.0]["loss"] == 0
    for weight in (1.0, 3.0):
        assert logs[weight]["loss"] == pytest.approx(weight * logs[weight][logged], rel=1e-3)
        assert logs[weight][logged] > 1e-4


def test_without_reference_terms_the_reference_is_not_run(tiny_model, questions, tmp_path):
    settings = {"anchor": 0.0, "features": 0.0}
    trainer = trained(grpo_trainer(tiny_model, questions, tmp_path, ATTACKED, **settings))
    assert ("reference", "loss") not in trainer.recorder.seen


def test_the_anchor_sums_the_kl_of_all_draws_and_features_are_the_towers(tiny_model, questions, tmp_path):
    """Both terms of the first step, computed anew from rollouts and images, each completion by itself."""
    trainer = trained(grpo_trainer(tiny_model, questions, tmp_path, ATTACKED, steps=1))
    vlm, found, log = trainer.reference, trainer.found, trainer.state.log_history[0]
    images = to_float(torch.from_numpy(as_arrays(row["image"] for row in trainer.inputs)), vlm.device)
    seen = unpatched(trainer.recorder.images("policy", "loss"), trainer)
    asked = vlm.encode([row["prompt"] for row in trainer.inputs], [""] * len(images), images.shape[-1])
    total = 0.0
    for row, words, count in zip(found.rows, found.completions, found.counts.tolist(), strict=True):
        encoded = vlm.encode_ids(asked[torch.tensor([row])], [words])
        clean, attacked = (
            vlm.completion_logits(shown[[row]], encoded)[0, :-1].log_softmax(-1) for shown in (images, seen)
        )
        total += count * forward_kl(clean, attacked).sum().item()
    assert log["anchor_kl"] == pytest.approx(total / found.total.numel(), rel=1e-3)
    wanted = feature_distance(vlm.features(seen), vlm.features(images)).mean().item()
    assert log["feature_distance"] == pytest.approx(wanted, rel=1e-3)


def test_features_need_no_anchor_and_no_reward(tiny_model, questions, tmp_path):
    settings = {"anchor": 0.0, "features": 1.0}
    trainer = trained(grpo_trainer(tiny_model, questions, tmp_path, ATTACKED, steps=1, **settings))
    log, vlm = trainer.state.log_history[0], trainer.reference
    assert log["frac_reward_zero_std"] == 1 and "anchor_kl" not in log
    clean = to_float(torch.from_numpy(as_arrays(row["image"] for row in trainer.inputs)), vlm.device)
    seen = unpatched(trainer.recorder.images("policy", "rollout"), trainer)
    wanted = feature_distance(vlm.features(seen), vlm.features(clean)).mean().item()
    assert log["feature_distance"] == pytest.approx(wanted, rel=1e-3) and log["loss"] == pytest.approx(wanted, rel=1e-3)


def test_targets_in_the_place_of_rollouts_make_it_supervised(tiny_model, questions, tmp_path):
    """The loss is then the mean over prompts of the targets' negative log-likelihood on the attacked images."""
    settings = {"completions": "targets", "anchor": 0.0, "features": 0.0}
    trainer = trained(grpo_trainer(tiny_model, questions, tmp_path, ATTACKED, steps=1, **settings))
    assert ("policy", "rollout") not in trainer.recorder.seen
    assert "frac_reward_zero_std" not in trainer.state.log_history[0]  # there are no groups
    vlm, rows = trainer.reference, trainer.inputs
    seen = unpatched(trainer.recorder.images("policy", "loss"), trainer)
    targets = [row["target"] + vlm.tokenizer.eos_token for row in rows]
    encoded = vlm.encode([row["prompt"] for row in rows], targets, seen.shape[-1])
    chances = vlm.completion_logits(seen, encoded)[:, :-1].log_softmax(-1)
    chosen = chances.gather(2, encoded.completion_ids[..., None])[..., 0] * encoded.completion_mask
    assert trainer.state.log_history[0]["loss"] == pytest.approx(-chosen.sum().item() / len(rows), rel=1e-3)


def unpatched(patches: torch.Tensor, trainer: Watched) -> torch.Tensor:
    """Images [B, 3, H, W] of recorded patches [B, D]."""
    g, n = trainer.vlm.geometry, trainer.inputs[0]["image"].width
    across = n // (g.patch * g.merge)
    x = patches.view(len(patches), across, across, g.merge, g.merge, 3, g.patch, g.patch)
    return x.permute(0, 5, 1, 3, 6, 2, 4, 7).reshape(len(patches), 3, n, n)


def test_the_policys_gradient_is_that_of_every_draw_by_itself(tiny_model, questions, tmp_path, monkeypatch):
    """GRPO's gradient over all P * G draws, each after its own prompt and image, against the compact loss.

    An untrained model earns nothing: the advantages are random numbers, but for one group, which has none.
    """
    random = torch.randn(4, GRPO["num_generations"], generator=torch.Generator().manual_seed(0))
    random[1] = 0
    monkeypatch.setattr("safemed.training.rollouts.group_advantages", lambda total, scale: random)
    settings = {"anchor": 0.0, "features": 0.0, "temperature": 0.5}
    trainer = grpo_trainer(tiny_model, questions, tmp_path, ATTACKED, steps=1, **settings)
    trainer.args.max_grad_norm = 0.0
    kept = {}
    trainer.add_callback(keeping_gradients(trainer, kept))
    trained(trainer)
    vlm, found = trainer.reference, trainer.found
    vlm.model.requires_grad_(True)
    seen = unpatched(trainer.recorder.images("policy", "rollout"), trainer)
    asked = vlm.encode([row["prompt"] for row in trainer.inputs], [""] * len(seen), seen.shape[-1])
    loss = 0.0
    for row, words, advantage in zip(found.rows, found.completions, found.advantages, strict=True):
        encoded = vlm.encode_ids(asked[torch.tensor([row])], [words])
        logits = (vlm.completion_logits(seen[[row]], encoded)[0, :-1] / 0.5).log_softmax(-1)
        loss = loss - advantage * logits.gather(1, torch.tensor(words)[:, None]).sum()
    (loss / found.total.numel()).backward()
    wanted = torch.cat([p.grad.flatten() for p in vlm.model.parameters() if p.grad is not None])
    assert wanted.norm() > 0 and (kept["gradient"] - wanted).norm() < 1e-5 * wanted.norm()


def keeping_gradients(trainer: Watched, kept: dict):
    """A callback that keeps the gradient of the step."""

    class Keep(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **kwargs):
            found = [p.grad.flatten() for p in trainer.vlm.model.parameters() if p.grad is not None]
            kept["gradient"] = torch.cat(found).clone()

    return Keep()


def test_half_batches_weigh_half(tiny_model, questions, tmp_path):
    """Accumulated over two half batches, the anchor's KL is the same mean."""
    settings = {**NONE, "anchor": 1.0, "batch_size": 2, "accumulate": 2}
    first = first_log(grpo_trainer(tiny_model, questions, tmp_path, ATTACKED, **settings))
    assert first["loss"] == pytest.approx(first["anchor_kl"], rel=1e-3)


def test_the_vision_tower_has_a_learning_rate_of_its_own(tiny_model, questions, tmp_path):
    trainer = grpo_trainer(tiny_model, questions, tmp_path, ATTACKED, learning_rate=1e-4, vision_learning_rate=3e-3)
    trainer.settings["vision_optimizer"] = "adamw"
    optimizer = trainer.create_optimizer()
    tower = {id(parameter) for parameter in trainer.vlm.visual.parameters()}
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates.keys() == {id(parameter) for parameter in trainer.vlm.model.parameters()}
    assert all(rate == (3e-3 if name in tower else 1e-4) for name, rate in rates.items())


@pytest.mark.parametrize("peft", [None, LORA], ids=["full", "lora"])
def test_the_reference_answers_as_the_model_that_training_started_from(tiny_model, questions, tmp_path, peft):
    """Fully trained or adapted, the reference's logits are the start model's, at every step."""
    trainer = grpo_trainer(tiny_model, questions, tmp_path, ATTACKED, peft=peft)
    calls, asked = [], trainer._reference

    def keeping(packed, images):
        calls.append((packed, images, asked(packed, images)))
        return calls[-1][-1]

    trainer._reference = keeping
    with torch.no_grad():  # change what the policy trains, as many steps would have done
        for parameter in trainer.start_trainable:
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    trained(trainer)
    start = type(trainer.vlm)(load_weights(tiny_model).eval(), trainer.processing_class)
    assert len(calls) == 2
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        for packed, images, ((head, found), features) in calls:
            trainer.reference, kept = start, trainer.reference
            (_, wanted), wanted_features = asked(packed, images)
            trainer.reference = kept
            assert torch.allclose(head(found), start.head(wanted), atol=1e-4)
            assert torch.allclose(features, wanted_features, atol=1e-4)
            assert not torch.allclose(trainer.vlm.features(images), features, atol=1e-2)  # another model by now


def test_a_share_of_the_prompts_is_attacked_and_the_others_are_shown_as_they_are(tiny_model, questions, tmp_path):
    half = Augmentation(**ADVERSARIAL, share=0.5)
    trainer = trained(grpo_trainer(tiny_model, questions, tmp_path, half, steps=1))
    assert [len(images) for images, _, _ in trainer.recorder.seen["policy", "attack"]] == [2] * ADVERSARIAL["steps"]
    for phase in ("rollout", "loss"):
        _, distance = nearest(trainer.recorder.images("policy", phase), questions, trainer.vlm)
        assert (distance > 0.5).tolist() == [True, True, False, False] and distance[2:].max() < 0.01


def test_rollouts_that_are_all_cut_end_the_training_where_they_are_to_be_rewarded(
    tiny_model, questions, tmp_path, monkeypatch
):
    monkeypatch.setattr(rollouts, "MOST_CUT", 32)
    with pytest.raises(SystemExit, match=r"max_new_tokens.instruct: 6; the first 32 rollouts .*raise it"):
        grpo_trainer(tiny_model, questions, tmp_path / "rewarded", Augmentation(), num_generations=4).train()
    unrewarded = {"rewards": {"accuracy": 0.0, "format": 0.0}, "num_generations": 4}
    grpo_trainer(tiny_model, questions, tmp_path / "unrewarded", Augmentation(), **unrewarded).train()
