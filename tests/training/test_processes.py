"""Several processes that share a training do what one does: on the real trainers, started by torchrun, over gloo."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from safemed.data import prompts
from safemed.data.dataset import load_questions
from safemed.training import alterations, common
from support.checkpoints import complete_checkpoints
from support.commands import TORCHRUN, command_line, finish, here
from support.in_turn import recorded
from support.paths import SUPPORT, TEMPLATES
from support.settings import ADVERSARIAL, FARE, GRPO, TRAINING
from support.trainings import kill_after_the_first_checkpoint, training_arguments, update, weights

# At a temperature of next to nothing the processes, which draw rollouts each for itself, draw the same as one.
# Muon orthogonalises in bfloat16, which makes more of what sums over other batches round differently.
CERTAIN = {**GRPO, "steps": 2, "temperature": 1e-4, "vision_optimizer": "adamw"}
SAME_STEPS = {
    "train_sft.py": {**TRAINING, "steps": 3, "augmentation": ADVERSARIAL},
    "train_tower.py": {**FARE, "steps": 3, "vision_optimizer": "adamw"},
    "train_grpo.py": CERTAIN,
}
K = 3
HINTED = {**GRPO, "steps": 2, "augmentation": {**ADVERSARIAL, "hints": K}}
KILLED = {**GRPO, "steps": 8, "save_steps": 2}
UNSHARABLE = {**TRAINING, "batch_size": 7}


@pytest.fixture(scope="module")
def together(study_data, tiny_model, tmp_path_factory) -> Path:
    """A folder for each training that two processes have shared: one is killed, and all then run in one start."""
    folder = tmp_path_factory.mktemp("together")

    def job(name: str, script: str, settings: dict, altered=False, record=False, error=False) -> dict:
        given = training_arguments(study_data, tiny_model, folder / name, altered=altered)
        line = command_line(script, *given, settings=settings)[1:]
        files = {"record": record and str(folder / name / "rows"), "error": error and str(folder / f"{name}.txt")}
        return {"line": line, **{key: value or None for key, value in files.items()}}

    resumed = job("killed", "train_grpo.py", KILLED, record=True)
    kill_after_the_first_checkpoint([*TORCHRUN, *resumed["line"]], folder / "killed", processes=2)
    shutil.copytree(folder / "killed", folder / "other")
    jobs = [
        *(job(script, script, settings) for script, settings in SAME_STEPS.items()),
        job("hinted", "train_grpo.py", HINTED, altered=True, record=True),
        resumed,
        job("undisturbed", "train_grpo.py", KILLED),
        {"line": [str(SUPPORT / "shard_model.py"), str(tiny_model), str(study_data), str(folder / "sharded")]},
        job("unsharable", "train_sft.py", UNSHARABLE, error=True),
    ]
    (folder / "jobs.json").write_text(json.dumps([{"record": None, "error": None, **each} for each in jobs]))
    said = finish([*TORCHRUN, str(SUPPORT / "in_turn.py"), str(folder / "jobs.json")])
    (folder / "stderr.txt").write_text(said)
    return folder


@pytest.mark.parametrize("script", SAME_STEPS)
def test_two_processes_take_the_steps_of_one(script, together, study_data, tiny_model, tmp_path):
    here(script, *training_arguments(study_data, tiny_model, tmp_path), settings=SAME_STEPS[script])
    one, two = (update(folder / "model", tiny_model) for folder in (tmp_path, together / script))
    assert one.norm() > 0 and (one - two).norm() < 0.02 * one.norm()
    assert json.loads((together / script / "model" / "cost.json").read_text())["processes"] == 2
    assert not (together / script / "checkpoint").exists()


def rows_of(folder: Path) -> SimpleNamespace:
    """What each process trained on at the first step, and all of them together: ids, prompts and images."""
    parts = [dict(np.load(path)) for path in sorted(folder.glob("*.npz"))]
    joined = {kind: np.concatenate([part[f"{kind}-0"] for part in parts]) for kind in ("ids", "prompts", "images")}
    return SimpleNamespace(parts=parts, **joined)


def test_processes_share_the_rows_of_one_with_their_images_and_hints(together, study_data, tiny_model, tmp_path):
    with recorded(tmp_path / "rows"):
        here("train_grpo.py", *training_arguments(study_data, tiny_model, tmp_path, altered=True), settings=HINTED)
    alone, both = rows_of(tmp_path / "rows"), rows_of(together / "hinted" / "rows")
    assert [len(part["ids-0"]) for part in both.parts] == [HINTED["batch_size"] // 2] * 2
    assert both.ids.tolist() == alone.ids.tolist() and both.prompts.tolist() == alone.prompts.tolist()
    assert np.abs(both.images.astype(int) - alone.images).mean() < 0.01  # sums over other batches round differently
    (steps,) = alone.parts
    assert not np.array_equal(steps["images-0"], steps["images-1"])


def test_two_processes_ask_a_question_under_a_hint(together, study_data):
    rows = rows_of(together / "hinted" / "rows")
    questions = {row["question_id"]: row for row in load_questions(study_data, "train").remove_columns("image")}
    alter = alterations.for_grpo({"hints": K}, TEMPLATES, seed=0)
    for name, said in zip(rows.ids, rows.prompts, strict=True):
        row = questions[name] | {"variant": "instruct"}
        assert said != prompts.render(row["question"], row["options"], "instruct")
        assert said in [prompt[0]["content"][1]["text"] for prompt in alter.wordings(row, step=0)]


def test_a_killed_shared_training_ends_as_an_undisturbed_one(together):
    assert complete_checkpoints(together / "other", processes=2)
    steps = {int(name.split("-")[1]) for name in np.load(together / "killed" / "rows" / "0.npz")}
    assert min(steps) >= KILLED["save_steps"] and max(steps) == KILLED["steps"] - 1
    assert weights(together / "killed") == weights(together / "undisturbed")


def test_another_number_of_processes_starts_anew(together, study_data, tiny_model, tmp_path):
    shutil.copytree(together / "other", tmp_path / "other")
    here("train_grpo.py", *training_arguments(study_data, tiny_model, tmp_path / "other"), settings=KILLED)
    assert list((tmp_path / "other").glob("checkpoint.old-1/checkpoint-*"))


def test_a_sharded_model_is_attacked_and_taught_as_a_whole_one_and_saved_whole(together, tiny_model):
    """FSDP2 itself, without accelerate, which would leave it out on CPUs."""
    folder = together / "sharded"
    for process in (0, 1):
        found = json.loads((folder / f"{process}.json").read_text())
        assert found["moved"] > 7.9 / 255 and found["images"] < 1e-5
        assert found["loss"] < 1e-4 and found["gradients"] < 1e-4
    places = (folder / "model", folder / "wanted", tiny_model)
    saved, wanted, start = (load_file(place / "model.safetensors") for place in places)
    assert saved.keys() == wanted.keys() and any(not torch.equal(saved[name], start[name]) for name in start)
    assert all(torch.allclose(saved[name], wanted[name], atol=1e-6) for name in wanted)


def test_a_batch_that_the_processes_cannot_share_is_refused(together):
    assert "batch_size 7 cannot be shared by 2 processes" in (together / "unsharable.txt").read_text()
    assert not (together / "unsharable" / "model").exists()


def test_processes_that_would_train_each_for_itself_are_refused(monkeypatch):
    common.joined()  # alone
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match="2 processes were started, and 1 would share"):
        common.joined()
