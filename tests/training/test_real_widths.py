"""Qwen3-VL-4B's own widths, vocabulary and image size, with two layers of either kind: trainers, attacks, certificates.

A minute a script on two cores: slow.
"""

from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from safemed.attacks.losses import loss_and_gradient
from safemed.data import prompts
from safemed.data.dataset import load_questions
from safemed.evaluation.evaluator import Evaluator
from safemed.models.geometry import to_float
from safemed.models.processor import build_processor
from safemed.models.vlm import VLM, save_model
from support import qwen
from support.commands import command, here
from support.records import prepared
from support.settings import FARE, GRPO, SPLIT, TRAINING
from support.trainings import changed_tensors, training_arguments

pytestmark = pytest.mark.slow
SIDE = 384
LIMIT = {"instruct": 16, "think": 64}
LORA = {"r": 4, "alpha": 8, "dropout": 0.05}
SHORT = {"steps": 2, "batch_size": 2, "save_steps": 1, "peft": LORA, "max_new_tokens": LIMIT}
TRAINERS = {
    "train_sft.py": {**TRAINING, **SHORT},
    "train_tower.py": {**FARE, **SHORT, "vision_optimizer": "adamw"},
    "train_grpo.py": {**GRPO, **SHORT, "vision_optimizer": "adamw", "num_generations": 2},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Some phantoms of 384 x 384 pixels as a study's data folder."""
    folder = tmp_path_factory.mktemp("wide")
    command("make_phantoms.py", "--out", folder / "source", "--images", 80, "--side", SIDE)
    prepared(folder / "source", folder / "data", SIDE)
    command("split.py", "--questions", folder / "data/questions", "--out", folder / "data/splits.csv", settings=SPLIT)
    return folder / "data"


@pytest.fixture(scope="module")
def wide(vocabulary, tmp_path_factory) -> Path:
    """The checkpoint, of random weights."""
    tokenizer = qwen.tokenizer(vocabulary, qwen.THINKING)
    torch.manual_seed(0)
    shape = Qwen3VLConfig(**qwen.widths_of_4b(text_layers=2, vision_layers=2, deepstack=[0, 1]))
    images = Qwen2VLImageProcessorPil(patch_size=16, merge_size=2, temporal_patch_size=2)
    folder = tmp_path_factory.mktemp("wide-model")
    save_model(Qwen3VLForConditionalGeneration(shape), build_processor(images, tokenizer, qwen.THINKING), folder)
    return folder


@pytest.mark.parametrize("script", TRAINERS)
def test_two_steps_of_each_trainer_change_adapted_weights_alone(script, data, wide, tmp_path):
    here(script, *training_arguments(data, wide, tmp_path, "think"), settings=TRAINERS[script])
    changed = changed_tensors(tmp_path / "model", wide)
    assert changed and not any("embed_tokens" in name or "norm" in name for name in changed)
    assert all("visual" in name for name in changed) == (script == "train_tower.py")
    curves = pd.read_csv(tmp_path / "model" / "curves.csv")
    assert curves.loss.notna().all()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_attacks_raise_their_losses_and_certificates_are_made(precision, data, wide, tmp_path):
    """Random weights answer nothing: the attack is on the words that a right answer would have."""
    vlm, questions = VLM.load(wide, precision), load_questions(data, "test").select(range(2))
    evaluator, rows = Evaluator(vlm, questions, "think", LIMIT["think"]), torch.arange(2)
    words = [prompts.target(row, "think") for row in evaluator.rows]
    images = to_float(evaluator.images, vlm.device)
    for name in ("answer", "sequence", "empty"):
        climbed = evaluator.attack_loss(name, words, rows)
        before, _, gradient = loss_and_gradient(climbed, images, rows)
        after, _, _ = loss_and_gradient(climbed, (images + 4 / 255 * gradient.sign()).clamp(0, 1), rows)
        assert (after > before).all(), name
    settings = {
        "questions": 2, "mode": "fixed", "randomised": False, "n0": 2, "n": 8, "alpha": 0.1, "radii": [0.0],
        "batch_size": 4, "max_new_tokens": LIMIT, "precision": precision,
    }  # fmt: skip
    model = ["--weights", wide, "--model", "wide-think", "--method", "wide", "--variant", "think"]
    given = ["--data", data, *model, "--out", tmp_path / "certificates", "--sigma", 0.25, "--function", "choice"]
    here("certify.py", *given, settings=settings)
    found = pd.read_parquet(tmp_path / "certificates" / "rows.parquet")
    assert (found.samples == 10).all() and set(found.precision) == {precision} and (found.stopped != "failed").all()
