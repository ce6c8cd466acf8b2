"""What the trainers share: adapters, monitoring, and what is refused before a model is written."""

import json

import pytest

from safemed.models.vlm import VLM
from support.commands import here
from support.settings import FARE, GRPO, LORA, MONITORING, TRAINING
from support.trainings import changed_tensors, refused, training_arguments


@pytest.mark.parametrize(
    "script, settings", [("train_sft.py", TRAINING), ("train_fare.py", FARE), ("train_grpo.py", GRPO)]
)
def test_adapters_train_and_are_saved_merged(script, settings, study_data, tiny_model, tmp_path):
    settings = {**settings, "peft": LORA, "steps": 2, "batch_size": 4}
    here(script, *training_arguments(study_data, tiny_model, tmp_path), settings=settings)
    files = {path.name for path in (tmp_path / "model").iterdir()}
    assert "model.safetensors" in files and not any("adapter" in name for name in files)
    changed = changed_tensors(tmp_path / "model", tiny_model)
    towers = {tower for tower in ("visual", "language_model") if any(tower in name for name in changed)}
    assert towers == ({"visual"} if script == "train_fare.py" else {"visual", "language_model"})
    assert not VLM.load(tmp_path / "model").model.training


def test_curves_are_not_sent_where_the_package_is_missing(study_data, tiny_model, tmp_path):
    monitoring = json.dumps({**MONITORING, "report_to": ["wandb"]})
    said = refused("train_sft.py", study_data, tiny_model, tmp_path, "--monitoring", monitoring, settings=TRAINING)
    assert "requires wandb to be installed" in said


def test_sharding_without_gpus_is_refused(study_data, tiny_model, tmp_path):
    said = refused("train_sft.py", study_data, tiny_model, tmp_path, settings={**TRAINING, "sharded": True})
    assert "sharding needs GPUs" in said
