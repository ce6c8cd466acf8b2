"""Trainings of the tower alone: who sees which pixels, what is trained, and that features hold under attack."""

import pandas as pd
import pytest
import torch
from datasets import concatenate_datasets
from safetensors.torch import load_file
from transformers import AutoConfig, Qwen3VLForConditionalGeneration, TrainingArguments

from safemed.attacks.losses import feature_distance, features_away
from safemed.attacks.pgd import pgd
from safemed.attacks.threat_model import Ball, random_start
from safemed.data.dataset import as_arrays
from safemed.models.geometry import patchify, to_float
from safemed.models.processor import load_processor
from safemed.models.vlm import VLM, load_weights, save_model
from safemed.training import common
from safemed.training.augmentation import Augmentation
from safemed.training.objectives import OBJECTIVES
from safemed.training.tower import TowerTrainer, one_row_an_image
from safemed.training.views import view
from support.commands import here
from support.settings import ADVERSARIAL, FARE, LORA
from support.trainings import changed_tensors, plain_rows, trainer_arguments, training_arguments


def tower_trainer(start, questions, folder, augmentation: Augmentation, peft=None, **changes) -> TowerTrainer:
    """A trainer on some questions' images, or on the questions where the objective asks them."""
    settings = {**FARE, **changes}
    asks = settings["objective"] == "tecoa"
    return TowerTrainer(
        load_weights(start),
        TrainingArguments(**trainer_arguments(folder, settings)),
        train_dataset=plain_rows(questions, "instruct") if asks else one_row_an_image(questions),
        processing_class=load_processor(start),
        objective=settings["objective"],
        vision_optimizer=FARE["vision_optimizer"],
        peft_config=common.adapter(peft),
        augmentation=augmentation,
    )


def images_of(questions) -> torch.Tensor:
    """Float images [B, 3, H, W] of some questions."""
    return to_float(as_arrays(questions["image"]), "cpu")


def moved_by_attack(vlm: VLM, reference: VLM, clean: torch.Tensor) -> float:
    """Mean relative distance of attacked features to the reference's clean ones, PGD-10 within 8/255."""
    names = [str(i) for i in range(len(clean))]
    with torch.no_grad():
        wanted = reference.features(clean)
    start = random_start(clean, 8 / 255, names)
    seen, _ = pgd(features_away(vlm, wanted), clean, Ball("linf", 8 / 255), 10, start, 2 / 255)
    assert (seen - clean).abs().max() <= 8 / 255 + 1e-6
    with torch.no_grad():
        return feature_distance(vlm.features(seen), wanted).mean().item()


def test_every_image_is_trained_on_once_however_many_questions_ask_about_it(train_questions):
    twice = concatenate_datasets([train_questions, train_questions])
    rows = one_row_an_image(twice)
    asked = dict(zip(train_questions["question_id"], train_questions["image_path"], strict=True))
    assert sorted(asked[name] for name in rows["question_id"]) == sorted(set(train_questions["image_path"]))


def test_features_are_what_the_language_model_is_given(untrained, shown):
    """The tower's features at the image tokens are the embeddings that reach the first layer of the language model."""
    clean, given = images_of(shown.select(range(2))), []
    handle = untrained.backbone.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: given.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    encoded = untrained.encode([[{"role": "user", "content": [{"type": "image"}]}]] * 2, ["", ""], clean.shape[-1])
    with torch.no_grad():
        untrained.completion_logits(clean, encoded)
        features = untrained.features(clean)  # [B, 1, n, D]: the tiny model has no deepstack
    handle.remove()
    at_image = given[0][encoded.prompt_ids == untrained.image_token_id].view(2, -1, features.shape[-1])
    assert torch.allclose(features[:, 0], at_image, atol=1e-5)


def test_features_take_in_the_deepstack_of_a_real_qwen(tiny_model, shown):
    """A tower that feeds the language model at two depths: both are features, in the order in which they are given."""
    config = AutoConfig.from_pretrained(tiny_model)
    config.vision_config.deepstack_visual_indexes = [0]
    vlm, given = VLM(Qwen3VLForConditionalGeneration(config).eval(), load_processor(tiny_model)), []
    vlm.backbone.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: given.append(kwargs["deepstack_visual_embeds"]), with_kwargs=True
    )
    clean = images_of(shown.select(range(2)))
    encoded = vlm.encode([[{"role": "user", "content": [{"type": "image"}]}]] * 2, ["", ""], clean.shape[-1])
    with torch.no_grad():
        vlm.completion_logits(clean, encoded)
        features = vlm.features(clean)
    assert features.shape[1] == 2 and torch.allclose(features[:, 1].flatten(0, 1), given[0][0], atol=1e-5)
    assert not torch.allclose(features[:, 0], features[:, 1])


def test_no_layer_decides_the_distance_by_its_norm():
    wanted = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    seen = wanted.clone()
    seen[:, 2] *= 1.1
    loud = torch.tensor([1000.0, 1.0, 0.01])[:, None, None]
    found, scaled = feature_distance(seen, wanted), feature_distance(seen * loud, wanted * loud)
    assert torch.allclose(found, torch.full((2,), 0.01 / 3)) and torch.allclose(found, scaled)


@pytest.mark.parametrize("kind", ["noisy", "adversarial"])
def test_the_tower_sees_the_view_and_its_reference_the_clean_image(kind, tiny_model, shown, tmp_path):
    questions = shown.select(range(8))
    augmentation = Augmentation(**ADVERSARIAL) if kind == "adversarial" else Augmentation("noisy", sigma=0.1)
    trainer = tower_trainer(tiny_model, questions, tmp_path, augmentation, steps=2, batch_size=8)
    clean, _ = patchify(images_of(questions), trainer.vlm.geometry)
    clean = clean.view(8, -1)
    distances = {"reference": [], "trained": []}

    def watch(who):
        def hook(module, args, kwargs):
            if who == "reference" or module.training:  # the attack runs in eval mode
                seen = args[0].detach().view(8, -1)  # the order of the batch is not that of the questions
                distances[who].append((seen[:, None] - clean[None]).abs().amax(-1).amin(1).max() / 2 * 255)

        return hook

    trainer.reference.register_forward_pre_hook(watch("reference"), with_kwargs=True)
    trainer.vlm.visual.register_forward_pre_hook(watch("trained"), with_kwargs=True)
    trainer.train()
    assert len(distances["reference"]) == len(distances["trained"]) == 2
    assert max(distances["reference"]) < 0.01 and min(distances["trained"]) > 1
    if kind == "adversarial":
        assert max(distances["trained"]) < 8.01


def test_tecoa_sees_clean_images_in_the_rows_that_its_share_leaves(tiny_model, shown, tmp_path):
    questions, seen = shown.select(range(8)), []
    augmentation = Augmentation(**ADVERSARIAL, share=0.75)
    trainer = tower_trainer(tiny_model, questions, tmp_path, augmentation, steps=2, batch_size=8, objective="tecoa")
    clean = patchify(images_of(questions), trainer.vlm.geometry)[0].view(8, -1)

    def watch(module, args, kwargs):
        if module.training:  # the attack runs in eval mode
            seen.append((args[0].detach().view(8, 1, -1) - clean).abs().amax(-1).amin(1) / 2 * 255)

    trainer.vlm.visual.register_forward_pre_hook(watch, with_kwargs=True)
    trainer.train()
    for moved in seen:
        assert (moved[:6] > 1).all() and (moved < 8.01).all() and (moved[6:] < 0.01).all()
    assert len(seen) == 2


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_features_hold_under_attack_afterwards_and_nothing_else_is_trained(objective, shown, skilled, tmp_path):
    """Relative to the features that the trained tower has of the clean image; FARE's, to those of its start as well."""
    start = skilled.model.name_or_path
    trainer = tower_trainer(
        start, shown, tmp_path, Augmentation(**ADVERSARIAL), steps=40, batch_size=12, objective=objective
    )
    before = {name: value.clone() for name, value in trainer.vlm.model.state_dict().items()}
    clean = images_of(shown)
    trainer.train()
    changed = {name for name, value in trainer.vlm.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(".visual." in name for name in changed)
    assert all(
        torch.equal(value, before[f"model.visual.{name}"]) for name, value in trainer.reference.state_dict().items()
    )
    trainer.vlm.model.eval().requires_grad_(False)
    moved = moved_by_attack(skilled, skilled, clean)
    assert moved_by_attack(trainer.vlm, trainer.vlm, clean) < 0.9 * moved
    if "fare" in objective:
        assert moved_by_attack(trainer.vlm, skilled, clean) < 0.6 * moved


@pytest.mark.parametrize("objective", ["tecoa", "acl", "hsat", "fare-hsat"])
def test_the_script_trains_towards_every_objective_and_keeps_the_language_model(
    objective, study_data, tiny_model, tmp_path
):
    settings = {**FARE, "steps": 2, "objective": objective}
    here("train_tower.py", *training_arguments(study_data, tiny_model, tmp_path), settings=settings)
    changed = changed_tensors(tmp_path / "model", tiny_model)
    assert changed and all(".visual." in name for name in changed)
    curves = pd.read_csv(tmp_path / "model" / "curves.csv")
    assert (curves.eps == ADVERSARIAL["eps"]).all() and curves.loss.notna().all()


def test_the_frozen_language_model_reads_features_as_it_reads_the_image(untrained, shown):
    rows = list(plain_rows(shown.select(range(3)), "instruct"))
    clean = to_float(as_arrays(row["image"] for row in rows), "cpu")
    encoded = untrained.encode([row["prompt"] for row in rows], [row["target"] for row in rows], clean.shape[-1])
    with torch.no_grad():
        given = untrained.logits_given(untrained.features(clean), encoded)
        assert torch.allclose(given, untrained.completion_logits(clean, encoded), atol=1e-5)


def test_an_attack_of_smaller_steps_stays_nearer(untrained, shown):
    clean, moved = images_of(shown.select(range(2))), {}
    with torch.no_grad():
        own = untrained.features(clean)
    for alpha in (0.0, 1.0, 20.0):
        augmentation = Augmentation("adversarial", eps=8, steps=1, alpha=alpha)
        seen, _ = augmentation.apply(untrained.model, features_away(untrained, own), clean, ["a", "b"], 1.0)
        moved[alpha] = (seen - clean).abs().max().item() * 255
    start = (random_start(clean, 8 / 255, ["a", "b"]) - clean).abs().max().item() * 255
    assert moved[0.0] == pytest.approx(8, abs=1e-3) == moved[20.0] and moved[1.0] <= start + 1.001


def test_views_are_near_the_image_and_drawn_by_their_names(shown):
    clean = images_of(shown.select(range(3)))
    names = ["a", "b", "c"]
    first = view(clean, names)
    assert first.shape == clean.shape and first.min() >= 0 and first.max() <= 1
    assert torch.equal(first, view(clean, names)) and not torch.equal(first, view(clean, ["d", "e", "f"]))
    assert torch.allclose(first[1:2], view(clean[1:2], ["b"]))
    side = clean.shape[-1]
    centre = torch.zeros(1, 3, side, side)
    centre[..., side // 2 - 1 : side // 2 + 2, side // 2 - 1 : side // 2 + 2] = 1
    weight = view(centre, ["a"]).mean(1)[0]
    weight = weight * (weight > 0.2)
    places = torch.arange(side, dtype=torch.float)
    for axis in (0, 1):
        middle = (weight.sum(1 - axis) * places).sum() / weight.sum()
        assert abs(middle - side // 2) <= max(1, side / 32) + 0.2  # a side stays a side, and a place a place


def test_the_saved_model_has_another_tower_and_the_same_language_model(study_data, tiny_model, tmp_path):
    here("train_tower.py", *training_arguments(study_data, tiny_model, tmp_path), settings={**FARE, "steps": 2})
    start, end = (load_file(folder / "model.safetensors") for folder in (tiny_model, tmp_path / "model"))
    changed = {name for name in start if not torch.equal(start[name], end[name])}
    assert changed and all(".visual." in name for name in changed)
    curves = pd.read_csv(tmp_path / "model" / "curves.csv")
    assert (curves.eps == ADVERSARIAL["eps"]).all() and (curves.attack_loss > 0).all()


def test_adapters_are_drawn_from_the_trainings_seed(tiny_model, train_questions, tmp_path):
    drawn = []
    for state in range(2):
        torch.manual_seed(state)
        trainer = tower_trainer(tiny_model, train_questions, tmp_path, Augmentation(**ADVERSARIAL), peft=LORA)
        drawn.append({name: p for name, p in trainer.model.named_parameters() if "lora_A" in name})
    assert drawn[0] and all(torch.equal(drawn[0][name], drawn[1][name]) for name in drawn[0])


def test_a_model_whose_weights_are_not_finite_is_refused_by_the_name_of_the_weights(tiny_model, tmp_path):
    model, folder = load_weights(tiny_model), tmp_path / "fare-think"
    save_model(model, load_processor(tiny_model), folder)
    name, parameter = next(iter(model.named_parameters()))
    parameter.data.view(-1)[0] = float("nan")
    with pytest.raises(FloatingPointError, match=f"fare-think: {name}"):
        save_model(model, load_processor(tiny_model), folder)
