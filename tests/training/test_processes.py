"""Several processes that share a training do what one does: on the real trainers, started by torchrun, over gloo."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from safemed.training import common
from support.commands import command_line, here, refused
from support.paths import ROOT
from support.settings import ADVERSARIAL, FARE, GRPO, TRAINING
from support.trainings import complete_checkpoints, kill_after_the_first_checkpoint, training_arguments, update, weights

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--"]
SFT = {**TRAINING, "steps": 4, "augmentation": ADVERSARIAL, "save_steps": 2}
TOWER = {**FARE, "steps": 4, "save_steps": 2}
# At a temperature of next to nothing the processes, which draw rollouts each for itself, draw the same as one.
CERTAIN = {**GRPO, "steps": 3, "save_steps": 1, "temperature": 1e-4}


def shared(line: list[str]) -> list[str]:
    """The command line of a script, by two processes."""
    return [*TORCHRUN, *line[1:]]


def finish(line: list[str], fails: bool = False) -> str:
    """Run a command line to its end; returns what it wrote to stderr."""
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT)
    assert bool(done.returncode) == fails, done.stderr[-3000:]
    return done.stderr


@pytest.mark.parametrize(
    "script, settings", [("train_sft.py", SFT), ("train_fare.py", TOWER), ("train_grpo.py", CERTAIN)]
)
def test_two_processes_take_the_steps_of_one(script, settings, study_data, tiny_model, tmp_path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    here(script, *training_arguments(study_data, tiny_model, alone), settings=settings)
    line = command_line(script, *training_arguments(study_data, tiny_model, together), settings=settings)
    finish(shared(line))
    one, two = (update(folder / "model", tiny_model) for folder in (alone, together))
    assert one.norm() > 0 and (one - two).norm() < 0.02 * one.norm()
    assert not (together / "checkpoint").exists()


def augmentations(folder: Path, process: int = 0) -> dict[str, np.ndarray]:
    """What record_views wrote of one process."""
    return dict(np.load(folder / f"augmentations-{process}.npz"))


def test_each_question_has_one_view_in_all_processes_and_the_rows_are_those_of_one(study_data, tiny_model, tmp_path):
    """Three groups of eight rollouts, twelve rollouts a process: the group in the middle is parted."""
    settings = {**GRPO, "steps": 2, "num_generations": 8, "batch_size": 24}
    folders = {name: tmp_path / name for name in ("alone", "together")}
    for name, folder in folders.items():
        folder.mkdir()
        told = training_arguments(study_data, tiny_model, folder)
        line = command_line("train_grpo.py", *told, settings=settings)
        line[1:2] = [str(ROOT / "tests" / "support" / "record_augmentations.py"), str(folder)]
        finish(shared(line) if name == "together" else line)
    alone, halves = augmentations(folders["alone"]), [augmentations(folders["together"], process) for process in (0, 1)]
    ids = [half["ids-0"].tolist() for half in halves]
    assert set(ids[0]) & set(ids[1]) and ids[0] + ids[1] == alone["ids-0"].tolist()
    both = np.concatenate([half["images-0"] for half in halves]).astype(int)
    for name in set(ids[0] + ids[1]):
        of_one_question = both[np.array(ids[0] + ids[1]) == name]
        assert (of_one_question == of_one_question[0]).all()
    away = np.abs(both - alone["images-0"])
    assert away.mean() < 0.01  # sums over other batches round differently
    assert not np.array_equal(alone["images-0"], alone["images-1"])


def test_a_killed_shared_training_ends_as_an_undisturbed_one_and_another_number_starts_anew(
    study_data, tiny_model, tmp_path
):
    settings = {**GRPO, "steps": 8, "save_steps": 2}
    undisturbed, killed, other = (tmp_path / name for name in ("undisturbed", "killed", "other"))
    lines = {
        folder: command_line("train_grpo.py", *training_arguments(study_data, tiny_model, folder), settings=settings)
        for folder in (undisturbed, killed, other)
    }
    finish(shared(lines[undisturbed]))
    kill_after_the_first_checkpoint(shared(lines[killed]), killed)
    assert complete_checkpoints(killed)
    assert "starting anew" not in finish(shared(lines[killed]))
    assert weights(killed) == weights(undisturbed)
    kill_after_the_first_checkpoint(shared(lines[other]), other)
    assert "starting anew" in finish(lines[other])


def test_a_sharded_model_is_attacked_and_taught_as_a_whole_one_and_saved_whole(study_data, tiny_model, tmp_path):
    """FSDP2 itself, without accelerate, which would leave it out on CPUs."""
    finish(
        [*TORCHRUN, str(ROOT / "tests" / "support" / "shard_model.py"), *map(str, (tiny_model, study_data, tmp_path))]
    )
    for process in (0, 1):
        told = json.loads((tmp_path / f"{process}.json").read_text())
        assert (
            told["moved"] > 7.9 / 255
            and told["augmentations"] < 1e-5
            and told["loss"] < 1e-4
            and told["gradients"] < 1e-4
        )
    saved, wanted, start = (load_file(path / "model.safetensors") for path in (
        tmp_path / "model", tmp_path / "wanted", tiny_model,
    ))  # fmt: skip
    assert saved.keys() == wanted.keys() and any(not torch.equal(saved[name], start[name]) for name in start)
    assert all(torch.allclose(saved[name], wanted[name], atol=1e-6) for name in wanted)


def test_sharding_without_gpus_is_refused(study_data, tiny_model, tmp_path):
    said = refused("train_sft.py", study_data, tiny_model, tmp_path, settings={**SFT, "sharded": True})
    assert "sharding needs GPUs" in said


def test_a_batch_that_the_processes_cannot_share_is_refused(study_data, tiny_model, tmp_path):
    told = training_arguments(study_data, tiny_model, tmp_path)
    said = finish(shared(command_line("train_sft.py", *told, settings={**SFT, "batch_size": 7})), fails=True)
    assert "batch_size 7 cannot be shared by 2 processes" in said and not (tmp_path / "model").exists()


def test_processes_that_would_train_each_for_itself_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")  # while this one has joined nobody
    with pytest.raises(RuntimeError, match="2 processes were started, and 1 would share"):
        common.joined()
