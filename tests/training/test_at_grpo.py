"""On the real trainers: which pixels each pass saw, what the anchor is, and that adapters train and merge."""

import contextlib
from collections import defaultdict

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from trl import GRPOConfig, SFTConfig

from safemed.attacks.losses import words_away
from safemed.data.dataset import as_array, as_arrays
from safemed.evaluation.evaluator import Evaluator
from safemed.models.geometry import patchify, to_float
from safemed.models.processor import load_processor, placeholder_ids
from safemed.models.vlm import VLM
from safemed.training import common, rewards
from safemed.training.at_grpo import ATGRPOTrainer, forward_kl
from safemed.training.augmentation import Augmentation
from safemed.training.sft import AugmentedSFTTrainer, AugmentingCollator
from support.commands import here, refused
from support.settings import ADVERSARIAL, FARE, GRPO, LORA, TRAINING
from support.trainings import training_arguments

EPS = 8


@pytest.fixture(scope="module")
def questions(train_questions) -> Dataset:
    return on_eight_images(train_questions)


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
        trainer = grpo_trainer(tiny_model, questions, tmp_path / str(beta), Augmentation(**ADVERSARIAL), beta, **config)
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
        grpo_trainer(tiny_model, questions, tmp_path, Augmentation(), trl={"beta": 0.1})


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


@pytest.fixture(scope="module")
def asked(skilled, shown):
    """A model, images in [0, 1] and the attack_loss on the gold targets of 24 questions."""
    evaluator = Evaluator(skilled, shown, "instruct", 8)
    rows = common.training_rows(shown, "instruct")
    targets = evaluator._encoded(torch.arange(24), list(rows["target"]))
    return skilled.model, to_float(evaluator.images, skilled.device), words_away(skilled, targets)


NAMES = [str(i) for i in range(24)]


def test_a_clean_view_is_the_image_itself(asked):
    model, images, attack_loss = asked
    assert torch.equal(Augmentation().apply(model, attack_loss, images, NAMES, 0.5)[0], images)


def test_a_noisy_view_has_its_sigma_and_its_names_noise(asked):
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


def test_an_adversarial_view_with_a_sigma_is_the_attack_and_noise_on_top_of_it(asked):
    model, images, attack_loss = asked
    plain, noisy = (Augmentation("adversarial", eps=8, steps=2, sigma=sigma) for sigma in (0.0, 0.2))
    (attacked, loss), (seen, again) = (
        augmentation.apply(model, attack_loss, images, NAMES, 1.0) for augmentation in (plain, noisy)
    )
    noise, _ = Augmentation("noisy", sigma=0.2).apply(model, attack_loss, torch.zeros_like(images), NAMES, 1.0)
    assert torch.allclose(seen - attacked, noise, atol=1e-5) and torch.allclose(loss, again)
    assert 0 < (attacked - images).abs().max() <= 8 / 255 + 1e-6 and seen.min() < 0


def test_an_adversarial_view_raises_the_loss_within_eps_that_ramps_up(asked):
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


@pytest.mark.parametrize("kind", ["clean", "noisy", "adversarial"])
def test_sfts_loss_pass_sees_the_view(tiny_model, questions, tmp_path, kind):
    augmentation = {
        "clean": Augmentation(),
        "noisy": Augmentation("noisy", sigma=0.1),
        "adversarial": Augmentation(**ADVERSARIAL),
    }[kind]
    processor = load_processor(tiny_model)
    settings = {**TRAINING, "steps": 2, "batch_size": 4, "save_steps": 100}
    trainer = AugmentedSFTTrainer(
        model=common.load_policy(tiny_model, None),
        args=SFTConfig(**common.shared_arguments(settings, tmp_path, 0), max_length=None),
        train_dataset=common.training_rows(questions, "think"),
        processing_class=processor,
        data_collator=AugmentingCollator(processor),
        augmentation=augmentation,
    )
    recorder = Recorder()
    recorder.watch(trainer.vlm.visual, trainer.vlm, "policy")
    trainer.train()
    passes = recorder.seen["policy",]
    trained = torch.cat([images for images, training, _ in passes if training])
    assert len(trained) == 2 * 4
    _, distance = nearest(trained, questions, trainer.vlm)
    if kind == "clean":
        assert len(passes) == 2 and distance.max() < 0.01
    else:
        assert distance.min() > 0.5
    if kind == "adversarial":
        assert distance.max() < EPS + 0.01 and len(passes) == 2 * (1 + ADVERSARIAL["steps"])
    assert trainer.model.training and all(p.requires_grad for p in trainer.model.parameters())


def test_sfts_loss_is_on_the_completion_alone(tiny_model, questions):
    rows = common.training_rows(questions, "instruct")
    processor = load_processor(tiny_model)
    batch = AugmentingCollator(processor)([rows[i] for i in range(4)])
    for labels, row in zip(batch["labels"], rows, strict=False):
        text = processor.tokenizer.decode(labels[labels != -100])
        assert text.strip().removesuffix("<|im_end|>") == row["target"]


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


@pytest.mark.parametrize(
    "script, settings", [("train_sft.py", TRAINING), ("train_fare.py", FARE), ("train_grpo.py", GRPO)]
)
def test_adapters_train_and_are_saved_merged(script, settings, study_data, tiny_model, tmp_path):
    settings = {**settings, "peft": LORA, "steps": 2, "batch_size": 4}
    here(script, *training_arguments(study_data, tiny_model, tmp_path), settings=settings)
    files = {path.name for path in (tmp_path / "model").iterdir()}
    assert "model.safetensors" in files and not any("adapter" in name for name in files)
    start, end = (load_file(folder / "model.safetensors") for folder in (tiny_model, tmp_path / "model"))
    assert start.keys() == end.keys()
    changed = {name for name in start if not torch.equal(start[name], end[name])}
    towers = {tower for tower in ("visual", "language_model") if any(tower in name for name in changed)}
    assert towers == ({"visual"} if script == "train_fare.py" else {"visual", "language_model"})
    assert not VLM.load(tmp_path / "model").model.training


def test_vllm_is_asked_for_by_config_and_refused_where_it_is_not_installed(study_data, tiny_model, tmp_path):
    said = refused("train_grpo.py", study_data, tiny_model, tmp_path, settings={**GRPO, "vllm": True})
    assert "vLLM is not available" in said


def test_curves_are_not_sent_where_the_package_is_missing(study_data, tiny_model, tmp_path):
    said = refused("train_sft.py", study_data, tiny_model, tmp_path, "--report-to", "wandb", settings=TRAINING)
    assert "requires wandb to be installed" in said
