"""A training that is killed ends with the weights of one that is not, and never goes on from what is not its own."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from safemed.training import common
from safemed.utils import resume
from support.checkpoints import complete_checkpoints
from support.commands import command_line, here
from support.paths import SUPPORT
from support.settings import ADVERSARIAL, BASE, FARE, GRPO, SIDE, TINY, TRAINING
from support.trainings import parsed, training_arguments, weights

AT_GRPO = {**GRPO, "steps": 10, "save_steps": 2}
SETTINGS = {
    "base": {
        "model": {"name": "tiny", "tiny": TINY},
        "base": {**BASE, "steps": 32, "save_steps": 4},
        "image_size": SIDE,
        "variants": ["instruct", "think"],
    },
    "sft": {**TRAINING, "steps": 16, "save_steps": 2, "augmentation": ADVERSARIAL},
    "fare": {**FARE, "steps": 16, "save_steps": 2},
    "at-grpo": AT_GRPO,
    "at-grpo-hints": {**AT_GRPO, "augmentation": {**ADVERSARIAL, "hints": 3}},
}
SCRIPTS = {"base": "make_base.py", "sft": "train_sft.py", "fare": "train_tower.py"}


class Trainings:
    """Trainings by name; each folder holds a training's checkpoints and its model."""

    def __init__(self, data: Path, start: Path, folder: Path):
        self.data, self.start, self.folder = data, start, folder

    def arguments(self, name: str, folder: Path, start: Path | None = None) -> list:
        """What the script of a training is given beside its settings."""
        if name == "base":
            return [
                "--data",
                self.data,
                "--name",
                "base",
                "--checkpoint",
                folder / "checkpoint",
                "--out",
                folder / "model",
            ]
        return training_arguments(self.data, start or self.start, folder, altered=name == "at-grpo-hints")

    def run(self, name: str, folder: Path, *more, start: Path | None = None, settings: dict | None = None) -> Path:
        """Run a training, from what its folder holds, to its end; returns the folder."""
        given = [*self.arguments(name, folder, start), *more]
        here(SCRIPTS.get(name, "train_grpo.py"), *given, settings=settings or SETTINGS[name])
        return folder

    def kill(self) -> None:
        """Start every training, and kill each once it has a checkpoint."""
        jobs = []
        for name, settings in SETTINGS.items():
            folder = self.folder / "killed" / name
            script = SCRIPTS.get(name, "train_grpo.py")
            line = command_line(script, *self.arguments(name, folder), settings=settings)[1:]
            jobs.append({"line": line, "folder": str(folder)})
        (self.folder / "jobs.json").write_text(json.dumps(jobs))
        line = [sys.executable, str(SUPPORT / "killed_trainings.py"), str(self.folder / "jobs.json")]
        done = subprocess.run(line, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]

    def killed(self, name: str, folder: Path) -> Path:
        """A copy of what the killed training left."""
        shutil.copytree(self.folder / "killed" / name, folder)
        assert complete_checkpoints(folder) and not (folder / "model").exists()
        return folder

    def undisturbed(self, name: str) -> Path:
        """The folder of a training that nothing disturbed; trained once."""
        folder = self.folder / "undisturbed" / name
        return folder if folder.exists() else self.run(name, folder)


@pytest.fixture(scope="module")
def trainings(study_data, tiny_model, tmp_path_factory) -> Trainings:
    made = Trainings(study_data, tiny_model, tmp_path_factory.mktemp("trainings"))
    made.kill()
    return made


@pytest.mark.parametrize("name", SETTINGS)
def test_a_killed_training_goes_on_and_ends_as_an_undisturbed_one(name, trainings, tmp_path, capsys):
    undisturbed, killed = trainings.undisturbed(name), trainings.killed(name, tmp_path / "killed")
    capsys.readouterr()
    trainings.run(name, killed)
    said = capsys.readouterr()
    if name == "base":
        assert "resuming at step" in said.err
    else:
        assert 0 < said.out.count("'loss':") < SETTINGS[name]["steps"]  # a line a step that was still to be taken
    assert not list(killed.glob("checkpoint.old-*")) and weights(killed) == weights(undisturbed)
    curves = [(folder / "model" / "curves.csv").read_text() for folder in (killed, undisturbed)]
    assert curves[0] == curves[1]
    costs = [json.loads((folder / "model" / "cost.json").read_text()) for folder in (killed, undisturbed)]
    assert all(costs[0][key] == costs[1][key] > 0 for key in ("forward_passes", "backward_passes"))


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "at-grpo-hints"])
def test_another_seed_trains_another_model_and_resumes_nothing(name, trainings, tmp_path):
    """As if the killed one had never been; what it left is kept."""
    folder = trainings.run(name, trainings.killed(name, tmp_path / "killed"), "--seed", 1)
    assert weights(folder) != weights(trainings.undisturbed(name))
    assert complete_checkpoints_of_old(folder)
    if name == "base":
        assert weights(folder) == weights(trainings.run(name, tmp_path / "fresh", "--seed", 1))


def complete_checkpoints_of_old(folder: Path) -> bool:
    """Whether the checkpoints of another training were set aside whole."""
    (old,) = folder.glob("checkpoint.old-*")
    return bool([*old.glob("checkpoint-*/trainer_state.json"), *old.glob("base.pt")])


def test_a_training_with_changed_settings_starts_anew(trainings, tmp_path):
    """Killed under one learning rate and started with another, it ends as if the first had never been."""
    changed = {**SETTINGS["sft"], "steps": 4, "learning_rate": 1e-4}
    folder = trainings.run("sft", trainings.killed("sft", tmp_path / "killed"), settings=changed)
    assert complete_checkpoints_of_old(folder)
    assert weights(folder) == weights(trainings.run("sft", tmp_path / "fresh", settings=changed))


def test_a_training_from_another_start_starts_anew(trainings, skilled, tmp_path):
    """The checkpoint folder belongs to the weights that the training started from, too."""
    other = Path(skilled.model.name_or_path)
    folder = trainings.run("sft", trainings.killed("sft", tmp_path / "killed"), start=other)
    assert complete_checkpoints_of_old(folder)
    assert weights(folder) == weights(trainings.run("sft", tmp_path / "fresh", start=other))


def test_hints_change_what_is_trained_and_are_seen_in_the_curves(trainings):
    plain, hinted = (trainings.undisturbed(name) for name in ("at-grpo", "at-grpo-hints"))
    assert weights(plain) != weights(hinted)
    losses = pd.read_csv(hinted / "model" / "curves.csv").hint_loss.dropna()
    assert len(losses) and (losses > 0).all()


@pytest.mark.parametrize(
    "written",
    [{"config.json": "{"}, {"rng_state.pth": "PK", "trainer_state.json": '{"global_step": '},
     {"rng_state.pth": "PK", "trainer_state.json": '{"global_step": 2}'}],
)  # fmt: skip
def test_a_half_written_checkpoint_does_not_stop_the_training(written, trainings, tmp_path):
    """A kill may fall into the writing of a checkpoint: the last whole one counts."""
    args = parsed(trainings.arguments("sft", tmp_path), SETTINGS["sft"])
    half = resume.checkpoints(args.checkpoint, common.identity(args, "train_sft.py")) / "checkpoint-2"
    half.mkdir()
    for name, text in written.items():
        (half / name).write_text(text)
    trainings.run("sft", tmp_path)
    assert weights(tmp_path) == weights(trainings.undisturbed("sft"))
