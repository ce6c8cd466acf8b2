"""Pixels reach the model exactly as Hugging Face's processor would send them, and gradients come back."""

import copy
import json
import shutil

import numpy as np
import pytest
import torch
from peft import get_peft_model
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, Qwen2_5_VLConfig
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from safemed.data import prompts
from safemed.evaluation.evaluator import Evaluator
from safemed.models.geometry import Geometry, check_resize, patchify, to_float, to_uint8
from safemed.models.processor import load_processor
from safemed.models.vlm import VLM, frozen, load_weights
from safemed.training.common import adapter
from support.settings import LORA, SIDE


def random_images(n: int, height: int, width: int) -> np.ndarray:
    """8-bit noise [n, height, width, 3]."""
    return np.random.default_rng(height + width).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("patch, merge, temporal", [(8, 2, 1), (8, 2, 2), (4, 1, 1), (14, 2, 2), (16, 2, 2), (6, 3, 1)])
@pytest.mark.parametrize("high, wide", [(1, 1), (2, 3)])
def test_patchify_is_the_image_processor(patch, merge, temporal, high, wide):
    height, width = high * patch * merge, wide * patch * merge
    processor = Qwen2VLImageProcessorPil(
        patch_size=patch,
        merge_size=merge,
        temporal_patch_size=temporal,
        image_mean=[0.48, 0.45, 0.4],
        image_std=[0.26, 0.27, 0.28],
        size={"shortest_edge": height * width, "longest_edge": height * width},
    )
    images = random_images(3, height, width)
    expected = processor([Image.fromarray(image) for image in images], return_tensors="pt")
    pixel_values, grid = patchify(to_float(images, torch.device("cpu")), Geometry.of(processor))
    assert grid.tolist() == expected["image_grid_thw"].tolist()
    assert pixel_values.shape == expected["pixel_values"].shape
    assert torch.allclose(pixel_values, expected["pixel_values"].float(), atol=1e-5)


def test_the_processors_resize_does_nothing_to_prepared_images(untrained, train_questions):
    pictures = list(train_questions["image"][:4])
    expected = untrained.processor.image_processor(pictures, return_tensors="pt")
    evaluator = Evaluator(untrained, train_questions.select(range(4)), "instruct", 1)
    pixel_values, grid = patchify(to_float(evaluator.images, untrained.device), untrained.geometry)
    assert grid.tolist() == expected["image_grid_thw"].tolist()
    assert torch.allclose(pixel_values, expected["pixel_values"].float(), atol=1e-6)


def test_a_model_whose_processor_would_resize_prepared_images_is_refused(untrained):
    check_resize(untrained.processor, SIDE)
    shrinking = copy.deepcopy(untrained.processor)
    shrinking.image_processor.size = {"shortest_edge": 16 * 16, "longest_edge": SIDE * SIDE // 4}
    with pytest.raises(ValueError, match=r"data\.image_size"):
        check_resize(shrinking, SIDE)


@pytest.fixture
def copied(tiny_model, tmp_path):
    """A model folder that may be spoilt."""
    return shutil.copytree(tiny_model, tmp_path / "model")


LOADERS = pytest.mark.parametrize("load", [VLM.load, load_weights], ids=["scored", "trained"])


@LOADERS
def test_a_checkpoint_that_lacks_tensors_is_refused(copied, load):
    load(copied)
    weights = load_file(copied / "model.safetensors")
    del weights["model.visual.merger.norm.weight"], weights["model.language_model.norm.weight"]
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 2 .*, such as model\.language_model\.norm\.weight"):
        load(copied)


def test_a_template_that_stands_in_a_file_of_the_processors_is_read(copied):
    template = (copied / "chat_template.jinja").read_text()
    (copied / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match="model: no chat template"):
        load_processor(copied)
    (copied / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    assert load_processor(copied).chat_template == template


def test_words_are_the_logits_alone_whatever_a_checkpoint_asks_of_decoding(copied, evaluator):
    file = copied / "generation_config.json"
    wishes = {"repetition_penalty": 30.0, "top_k": 1, "temperature": 0.1, "no_repeat_ngram_size": 1}
    file.write_text(json.dumps(json.loads(file.read_text()) | wishes))
    images, wilful = to_float(evaluator.images, evaluator.vlm.device), VLM.load(copied)
    plain = evaluator.vlm.generate(images, evaluator.asked, 8)
    assert wilful.generate(images, evaluator.asked, 8) == plain
    adapted = VLM(get_peft_model(load_weights(copied), adapter(LORA)), wilful.processor)  # fresh: no logit changes
    assert adapted.generate(to_float(evaluator.images, wilful.device), evaluator.asked, 8) == plain
    assert wilful.model.generation_config.repetition_penalty == 30  # still there to be saved
    assert wilful.sample(images, evaluator.asked, 8, seed=0) == evaluator.vlm.sample(images, evaluator.asked, 8, seed=0)


@LOADERS
def test_a_model_of_another_kind_is_refused(copied, load):
    """Most of its tensors may have the names that ours has."""
    Qwen2_5_VLConfig().save_pretrained(copied)
    with pytest.raises(ValueError, match="a model of type qwen2_5_vl; only qwen3_vl is supported"):
        load(copied)


@pytest.mark.parametrize("height, width", [(24, 32), (32, 40), (33, 32), (8, 8)])
def test_sides_that_are_no_multiple_are_refused(untrained, height, width):
    with pytest.raises(ValueError, match=r"multiples of 16.*data\.image_size"):
        patchify(torch.zeros(1, 3, height, width), untrained.geometry)


def test_rounding_never_truncates():
    levels = torch.arange(256).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    for shift in (-0.4999, -0.0001, 0.0, 0.0001, 0.4999):
        assert (to_uint8((levels + shift) / 255)[0].permute(2, 0, 1) == levels[0]).all()
    assert (to_uint8(0.9999 * levels / 255).int() - levels[0].permute(1, 2, 0)).abs().max() == 0
    assert to_uint8(torch.tensor([-0.3, 1.2]).view(1, 1, 1, 2)).flatten().tolist() == [0, 255]
    images = torch.from_numpy(random_images(2, 16, 16))
    assert (to_uint8(to_float(images, torch.device("cpu"))) == images).all()


@pytest.fixture(scope="module")
def evaluator(untrained, train_questions) -> Evaluator:
    """Eight questions of different lengths."""
    long_first = sorted(range(40), key=lambda i: len(train_questions[i]["question"]) * (-1) ** i)
    return Evaluator(untrained, train_questions.select(long_first[:4] + long_first[-4:]), "think", 10)


def test_a_gradient_reaches_every_pixel(evaluator):
    encoded = evaluator._encoded(torch.arange(8), ["<think> a"] * 8)
    images = to_float(evaluator.images, evaluator.vlm.device).requires_grad_(True)
    evaluator.vlm.completion_logits(images, encoded)[:, -1, :50].square().sum().backward()
    assert images.grad.isfinite().all() and (images.grad.abs().amax(1) > 0).float().mean() > 0.99


def test_passes_are_the_images_that_went_through_the_vision_tower(untrained, evaluator):
    vlm, rows = untrained, torch.arange(8)
    images, encoded = to_float(evaluator.images, untrained.device), evaluator.asked

    def counted(work) -> tuple[int, int]:
        before = (vlm.passes.forward, vlm.passes.backward)
        work()
        return vlm.passes.forward - before[0], vlm.passes.backward - before[1]

    def climb(n: int, keep: int) -> None:
        pixels = images[:n].clone().requires_grad_(True)
        loss = vlm.completion_logits(pixels, encoded[rows[:n]])[:keep].sum()
        torch.autograd.grad(loss, pixels)

    assert counted(lambda: vlm.completion_logits(images[:3], encoded[rows[:3]])) == (3, 0)
    assert counted(lambda: climb(5, 5)) == (5, 5)
    assert counted(lambda: vlm.generate(images, encoded, 6)) == (8, 0)
    assert counted(lambda: [climb(1, 1), climb(2, 2), vlm.generate(images[:1], encoded[rows[:1]], 1)]) == (4, 3)


def test_a_batch_of_mixed_lengths_is_answered_as_one_by_one(skilled, evaluator):
    vlm = skilled
    asked = [prompts.conversation(row, "think") for row in evaluator.rows]
    lengths = vlm.encode(asked, [""] * 8, SIDE).prompt_mask.sum(1)
    assert lengths.min() < lengths.max()
    images = to_float(evaluator.images, vlm.device)
    together = vlm.generate(images, vlm.encode(asked, [""] * 8, SIDE), 10)
    for i, text in enumerate(together):
        assert vlm.generate(images[i : i + 1], vlm.encode(asked[i : i + 1], [""], SIDE), 10) == [text]
    assert len(set(together)) > 1


@pytest.mark.parametrize("variant", prompts.VARIANTS)
def test_teacher_forcing_predicts_what_greedy_generation_says(skilled_in_all, shown, variant):
    evaluator = Evaluator(skilled_in_all, shown, variant, 24)
    everything = torch.arange(len(evaluator))
    texts = [text + skilled_in_all.tokenizer.eos_token for text in evaluator.answers(evaluator.images, everything)]
    assert len(set(texts)) > 1
    encoded = evaluator._encoded(everything, texts)
    predicted = skilled_in_all.completion_logits(to_float(evaluator.images, skilled_in_all.device), encoded)[
        :, :-1
    ].argmax(-1)
    mask = encoded.completion_mask.bool()
    assert (predicted == encoded.completion_ids)[mask].all()


def test_rows_of_encoded_prompts_are_those_prompts_encoded_alone(evaluator):
    asked = [prompts.conversation(row, "think") for row in evaluator.rows]
    texts = ["<think> a b c", "", "x y", "<answer>", "a", "b c", "", "<think>"]
    encoded = evaluator.vlm.encode(asked, texts, SIDE)
    for rows in ([0], [5, 1], [6], [7, 0, 3], list(range(8))):
        part = encoded[torch.tensor(rows)]
        alone = evaluator.vlm.encode([asked[i] for i in rows], [texts[i] for i in rows], SIDE)
        for name in ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask"):
            assert getattr(part, name).tolist() == getattr(alone, name).tolist(), (rows, name)


def test_a_saved_folder_loads_with_transformers_own_class(tiny_model, evaluator):
    model = AutoModelForImageTextToText.from_pretrained(tiny_model).eval()
    theirs = VLM(model, evaluator.vlm.processor)
    images = to_float(evaluator.images, evaluator.vlm.device)
    with torch.no_grad():
        expected, found = (vlm.completion_logits(images, evaluator.asked) for vlm in (evaluator.vlm, theirs))
    assert torch.allclose(found, expected, atol=1e-5)
    again = VLM.load(tiny_model)
    assert again.chat.opened == evaluator.vlm.chat.opened and again.geometry == evaluator.vlm.geometry
    assert not again.model.training and not any(p.requires_grad for p in again.model.parameters())


def test_a_model_is_evaluated_in_the_precision_that_is_asked_for(tiny_model, evaluator):
    images, halved = to_float(evaluator.images, evaluator.vlm.device), VLM.load(tiny_model, "bf16")
    assert {p.dtype for p in halved.model.parameters()} == {torch.bfloat16}
    assert {buffer.dtype for buffer in halved.model.buffers()} == {torch.float32}  # rotary frequencies
    theirs = VLM(
        AutoModelForImageTextToText.from_pretrained(tiny_model, dtype=torch.bfloat16).eval(),
        evaluator.vlm.processor,
    )
    with torch.no_grad():
        wanted = theirs.completion_logits(images, evaluator.asked)
        assert torch.equal(halved.completion_logits(images, evaluator.asked), wanted)
    with torch.no_grad():
        whole, found = (vlm.completion_logits(images, evaluator.asked).float() for vlm in (evaluator.vlm, halved))
    assert not torch.equal(whole, found) and (whole - found).abs().max() < 0.1 * whole.abs().max()
    with pytest.raises(KeyError, match="fp8"):
        VLM.load(tiny_model, "fp8")


def test_frozen_gives_back_mode_and_gradients_even_after_an_error(tiny_model):
    model = VLM.load(tiny_model).model
    parameters = list(model.parameters())
    for parameter in parameters[::2]:
        parameter.requires_grad_(True)
    model.train()
    with pytest.raises(KeyError), frozen(model):
        assert not model.training and not any(p.requires_grad for p in parameters)
        raise KeyError
    assert model.training
    assert [p.requires_grad for p in parameters] == [i % 2 == 0 for i in range(len(parameters))]
