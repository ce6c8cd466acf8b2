"""What a killed job may go on from: checkpoints of the same settings, code and inputs. Others are kept apart."""

import argparse
import json
import logging
import shutil

import pytest

from safemed.utils import dependencies, resume
from support.paths import SCRIPTS

ARGS = argparse.Namespace(settings={"steps": 3}, seed=0)


def test_checkpoints_of_the_same_identity_stay(tmp_path, caplog):
    folder = resume.checkpoints(tmp_path / "checkpoint", {"a": 1, "b": 2})
    (folder / "checkpoint-4").mkdir()
    with caplog.at_level(logging.WARNING):
        assert (resume.checkpoints(folder, {"b": 2, "a": 1}) / "checkpoint-4").is_dir()
    assert not caplog.records


def test_checkpoints_of_another_identity_are_set_aside_and_none_is_deleted(tmp_path, caplog):
    folder = tmp_path / "checkpoint"
    for number in range(3):
        with caplog.at_level(logging.WARNING):
            resume.checkpoints(folder, {"a": number})
        assert not (folder / "checkpoint-4").exists()
        (folder / "checkpoint-4").mkdir()
        (folder / "checkpoint-4" / "weights").write_text(str(number))
    assert caplog.text.count("other settings or code") == 2 and "checkpoint.old-2" in caplog.text
    kept = {path.name: (path / "checkpoint-4" / "weights").read_text() for path in tmp_path.iterdir()}
    assert kept == {"checkpoint.old-1": "0", "checkpoint.old-2": "1", "checkpoint": "2"}


def test_checkpoints_of_which_nothing_is_known_are_set_aside(tmp_path):
    folder = resume.checkpoints(tmp_path / "checkpoint", {"a": 1})
    (folder / "checkpoint-4").mkdir()
    (folder / resume.MARK).unlink()
    assert not (resume.checkpoints(folder, {"a": 1}) / "checkpoint-4").exists()
    assert (tmp_path / "checkpoint.old-1" / "checkpoint-4").is_dir()


def test_an_identity_holds_settings_seed_code_and_inputs(tmp_path):
    file = tmp_path / "splits.csv"
    file.write_text("q1,train")
    first = resume.identity(ARGS, "certify.py", file)
    assert json.loads(json.dumps(first)) == first
    others = [
        resume.identity(argparse.Namespace(settings={"steps": 4}, seed=0), "certify.py", file),
        resume.identity(argparse.Namespace(settings={"steps": 3}, seed=1), "certify.py", file),
        resume.identity(ARGS, "attack.py", file),
        resume.identity(ARGS, "certify.py"),
    ]
    file.write_text("q1,test")
    others.append(resume.identity(ARGS, "certify.py", file))
    assert first not in others and len({json.dumps(other, sort_keys=True) for other in others}) == len(others)


def test_all_files_of_one_name_count(tmp_path):
    files = [tmp_path / name / "cost.json" for name in "ab"]
    for file in files:
        file.parent.mkdir()
        file.write_text(file.parent.name)
    before = resume.identity(ARGS, "split.py", *files)
    assert before != resume.identity(ARGS, "split.py", files[1]) and before == resume.identity(ARGS, "split.py", *files)
    files[0].write_text("another model")
    assert resume.identity(ARGS, "split.py", *files) != before


@pytest.mark.parametrize("edit, resumable", [("# a remark", True), ("EDITED = 1", False)])
def test_a_comment_in_the_code_leaves_checkpoints_resumable(edit, resumable, tmp_path, monkeypatch):
    scripts = shutil.copytree(SCRIPTS, tmp_path / "scripts")
    monkeypatch.setattr(dependencies, "SCRIPTS", scripts)
    folder = tmp_path / "checkpoint"
    (resume.checkpoints(folder, resume.identity(ARGS, "train_sft.py")) / "checkpoint-4").mkdir()
    path = scripts / "safemed" / "training" / "common.py"
    path.write_text(f"{path.read_text()}\n{edit}\n")
    resume.checkpoints(folder, resume.identity(ARGS, "train_sft.py"))
    assert (folder / "checkpoint-4").exists() == resumable
    assert (tmp_path / "checkpoint.old-1" / "checkpoint-4").exists() != resumable
