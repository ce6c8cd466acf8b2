"""A training that is killed ends with the weights of one that is not, and never goes on from other settings."""

import argparse
import json
import logging
import time
from pathlib import Path

import pytest

from safemed.training import common
from safemed.utils import resume
from support.commands import command_line, here
from support.settings import ADVERSARIAL, BASE, FARE, GRPO, SIDE, TINY, TRAINING
from support.trainings import complete_checkpoints, kill_after_the_first_checkpoint, training_arguments, weights

SFT = {**TRAINING, "steps": 30, "save_steps": 3, "augmentation": ADVERSARIAL}
ROBUST_TOWER = {**FARE, "steps": 30, "save_steps": 3}
AT_GRPO = {**GRPO, "steps": 20, "save_steps": 3}
MAKE_BASE = {
    "model": {"name": "tiny", "tiny": TINY},
    "base": {**BASE, "steps": 60, "save_steps": 4},
    "image_size": SIDE,
}


def arguments(script: str, data: Path, start: Path, folder: Path) -> list:
    """The script's arguments, its checkpoints and its result below `folder`."""
    if script == "make_base.py":
        return ["--data", data, "--checkpoint", folder / "checkpoint", "--out", folder / "model"]
    return training_arguments(data, start, folder)


TRAININGS = [
    ("make_base.py", MAKE_BASE),
    ("train_sft.py", SFT),
    ("train_fare.py", ROBUST_TOWER),
    ("train_grpo.py", AT_GRPO),
]


@pytest.mark.parametrize("script, settings", TRAININGS)
def test_a_killed_training_ends_as_an_undisturbed_one(script, settings, study_data, tiny_model, tmp_path):
    undisturbed, killed, other = tmp_path / "undisturbed", tmp_path / "killed", tmp_path / "other"
    here(script, *arguments(script, study_data, tiny_model, undisturbed), settings=settings)
    given = arguments(script, study_data, tiny_model, killed)
    kill_after_the_first_checkpoint(command_line(script, *given, settings=settings), killed)
    kept = {path.parent.name for path in complete_checkpoints(killed)}
    began = time.time()
    here(script, *given, settings=settings)
    assert kept and weights(killed) == weights(undisturbed)
    curves = [(folder / "model" / "curves.csv").read_text() for folder in (killed, undisturbed)]
    assert curves[0] == curves[1] and time.time() > began
    costs = [json.loads((folder / "model" / "cost.json").read_text()) for folder in (killed, undisturbed)]
    assert all(costs[0][key] == costs[1][key] > 0 for key in ("forward_passes", "backward_passes"))
    here(script, *arguments(script, study_data, tiny_model, other), "--seed", 1, settings=settings)
    assert weights(other) != weights(undisturbed)


@pytest.mark.parametrize("written", [["config.json"], ["config.json", "rng_state.pth", "trainer_state.json"]])
def test_a_half_written_checkpoint_does_not_stop_the_training(study_data, tiny_model, tmp_path, written):
    """A kill may fall into the writing of a checkpoint: the last whole one counts."""
    settings = {**TRAINING, "steps": 4}
    here("train_sft.py", *training_arguments(study_data, tiny_model, tmp_path / "whole"), settings=settings)
    given = training_arguments(study_data, tiny_model, tmp_path / "half")
    half = tmp_path / "half" / "checkpoint" / "checkpoint-2"
    given_start = argparse.Namespace(settings=settings, seed=0, variant="instruct", start=tiny_model, data=study_data)
    resume.checkpoints(half.parent, common.identity(given_start, "train_sft.py"))
    half.mkdir()
    for name in written:
        (half / name).write_text('{"global_step": ')
    here("train_sft.py", *given, settings=settings)
    assert weights(tmp_path / "half") == weights(tmp_path / "whole")


def test_checkpoints_of_other_settings_are_thrown_away_with_a_warning(tmp_path, caplog):
    folder = resume.checkpoints(tmp_path / "checkpoint", {"a": 1, "b": 2})
    (folder / "checkpoint-4").mkdir()
    with caplog.at_level(logging.WARNING):
        assert (resume.checkpoints(folder, {"b": 2, "a": 1}) / "checkpoint-4").is_dir()
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        assert not (resume.checkpoints(folder, {"a": 1, "b": 3}) / "checkpoint-4").exists()
    assert "other settings" in caplog.text
    (folder / "checkpoint-4").mkdir()
    (folder / "settings.json").unlink()  # a kill in the middle of a clean-up may leave parts of nobody knows what
    assert not (resume.checkpoints(folder, {"a": 1, "b": 3}) / "checkpoint-4").exists()


def test_a_training_with_changed_settings_starts_anew(study_data, tiny_model, tmp_path):
    """Killed under one learning rate and started with another, it ends as if the first had never been."""
    first, changed = {**TRAINING, "steps": 40}, {**TRAINING, "steps": 4, "learning_rate": 1e-4}
    given = training_arguments(study_data, tiny_model, tmp_path / "changed")
    kill_after_the_first_checkpoint(command_line("train_sft.py", *given, settings=first), tmp_path / "changed")
    here("train_sft.py", *given, settings=changed)
    here("train_sft.py", *training_arguments(study_data, tiny_model, tmp_path / "fresh"), settings=changed)
    assert weights(tmp_path / "changed") == weights(tmp_path / "fresh")


def test_a_training_from_another_start_does_not_resume(study_data, tiny_model, skilled, tmp_path):
    """The checkpoint folder belongs to the weights that the training started from, too."""
    other = Path(skilled.model.name_or_path)
    settings = {**TRAINING, "steps": 40}
    given = training_arguments(study_data, tiny_model, tmp_path / "changed")
    kill_after_the_first_checkpoint(command_line("train_sft.py", *given, settings=settings), tmp_path / "changed")
    given = training_arguments(study_data, other, tmp_path / "changed")
    here("train_sft.py", *given, settings=settings)
    here("train_sft.py", *training_arguments(study_data, other, tmp_path / "fresh"), settings=settings)
    assert weights(tmp_path / "changed") == weights(tmp_path / "fresh")


def test_a_base_with_another_seed_starts_anew(study_data, tmp_path):
    settings = {**MAKE_BASE, "base": {**BASE, "steps": 40, "save_steps": 4}}
    given = ["--data", study_data, "--checkpoint", tmp_path / "checkpoint", "--out", tmp_path / "model"]
    kill_after_the_first_checkpoint(command_line("make_base.py", *given, settings=settings), tmp_path)
    here("make_base.py", *given, "--seed", 1, settings=settings)
    fresh = arguments("make_base.py", study_data, tmp_path, tmp_path / "fresh")
    here("make_base.py", *fresh, "--seed", 1, settings=settings)
    assert weights(tmp_path) == weights(tmp_path / "fresh")
