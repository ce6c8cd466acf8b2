"""What the trainers share: adapters, monitoring, and what is refused before a model is written."""

import json

import pytest

from safemed.models.vlm import VLM
from safemed.training import common
from safemed.training.augmentation import Augmentation
from safemed.utils.cost import CostMeter
from support.commands import here
from support.grpo_trainers import grpo_trainer
from support.malice import set_trap
from support.settings import FARE, GRPO, LORA, MONITORING, TRAINING
from support.trainings import changed_tensors, parsed, refused, trainer_arguments, training_arguments, update


@pytest.mark.parametrize(
    "script, settings", [("train_sft.py", TRAINING), ("train_tower.py", FARE), ("train_grpo.py", GRPO)]
)
def test_adapters_train_and_are_saved_merged(script, settings, study_data, tiny_model, tmp_path):
    settings = {**settings, "peft": LORA, "steps": 2, "batch_size": 4}
    here(script, *training_arguments(study_data, tiny_model, tmp_path), settings=settings)
    files = {path.name for path in (tmp_path / "model").iterdir()}
    assert "model.safetensors" in files and not any("adapter" in name for name in files)
    changed = changed_tensors(tmp_path / "model", tiny_model)
    towers = {tower for tower in ("visual", "language_model") if any(tower in name for name in changed)}
    assert towers == ({"visual"} if script == "train_tower.py" else {"visual", "language_model"})
    assert not VLM.load(tmp_path / "model").model.training


def test_curves_are_not_sent_where_the_package_is_missing(study_data, tiny_model, tmp_path):
    monitoring = json.dumps({**MONITORING, "report_to": ["wandb"]})
    said = refused("train_sft.py", study_data, tiny_model, tmp_path, "--monitoring", monitoring, settings=TRAINING)
    assert "requires wandb to be installed" in said


def test_sharding_without_gpus_is_refused(study_data, tiny_model, tmp_path):
    said = refused("train_sft.py", study_data, tiny_model, tmp_path, settings={**TRAINING, "sharded": True})
    assert "sharding needs GPUs" in said


@pytest.mark.parametrize(
    "script, settings", [("train_sft.py", TRAINING), ("train_tower.py", FARE), ("train_grpo.py", GRPO)]
)
def test_a_training_of_one_step_trains(script, settings, study_data, tiny_model, tmp_path):
    settings = {**settings, "steps": 1, "batch_size": 4}
    here(script, *training_arguments(study_data, tiny_model, tmp_path), settings=settings)
    assert update(tmp_path / "model", tiny_model).abs().max() > 0.3 * settings["learning_rate"]


def test_a_warm_up_ends_before_the_training_and_is_a_twentieth_of_a_long_one(tmp_path):
    warmups = {
        steps: trainer_arguments(tmp_path, {**TRAINING, "steps": steps})["warmup_steps"] for steps in (1, 2, 39, 400)
    }
    assert warmups == {1: 0, 2: 1, 39: 1, 400: 20}


def test_a_checkpoint_that_would_run_code_is_refused_in_one_line(study_data, questions, tiny_model, tmp_path):
    given = training_arguments(study_data, tiny_model, tmp_path)
    often = {"save_steps": 1, "vision_optimizer": "adamw"}
    grpo_trainer(tiny_model, questions, tmp_path, Augmentation(), **often).train()
    (checkpoint,) = (tmp_path / "checkpoint").glob("checkpoint-*")
    pickles = [path for path in checkpoint.iterdir() if path.suffix in (".pt", ".pth", ".bin")]
    assert {"optimizer.pt", "scheduler.pt", "rng_state.pth"} <= {path.name for path in pickles}
    for path in pickles:
        set_trap(path, tmp_path / "sprung")
    trainer = grpo_trainer(tiny_model, questions, tmp_path, Augmentation(), steps=4, **often)
    with pytest.raises(SystemExit, match=r"checkpoint-2: no checkpoint of this training; delete") as error:
        common.train(trainer, parsed(given, GRPO), CostMeter("test", "test"), "train_grpo.py")
    assert "\n" not in str(error.value) and not (tmp_path / "sprung").exists() and not (tmp_path / "model").exists()
