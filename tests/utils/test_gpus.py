"""Each program of a machine takes a GPU of its own, without asking CUDA which there are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from safemed.utils import gpus
from support.paths import SCRIPTS
from support.programs import bare_path, nvidia_smi

TAKE = "import os, sys; from safemed.utils import gpus; gpus.take_one(); "
TELL = "print(os.environ.get('CUDA_VISIBLE_DEVICES'), flush=True); sys.stdin.read()"


@pytest.fixture
def machine(tmp_path, monkeypatch) -> Path:
    """The folder of this machine's programs, with three GPUs and nothing said of them; the locks lie beside it."""
    folder = bare_path(tmp_path / "bin")
    nvidia_smi(folder, 3)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(SCRIPTS))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    return folder


@pytest.mark.parametrize(
    "named, found",
    [
        (None, ["0", "1", "2"]),
        ("", []),
        ("-1", []),
        ("1", ["1"]),
        ("2, 0", ["2", "0"]),
        ("0,7,1", ["0"]),
        ("GPU-a,GPU-b", ["GPU-a", "GPU-b"]),
    ],
)
def test_the_gpus_that_cuda_would_show_are_named(named, found, machine, monkeypatch):
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert gpus.visible() == found
    (machine / "nvidia-smi").unlink()
    assert gpus.visible() == []


def started() -> subprocess.Popen:
    """A program that takes a GPU, tells which, and goes on until its input ends."""
    line = [sys.executable, "-c", TAKE + TELL]
    return subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ))


def test_programs_take_different_gpus_and_give_them_back_when_they_end(machine):
    programs = [started() for _ in range(3)]
    took = [program.stdout.readline().strip() for program in programs]
    assert sorted(took) == ["0", "1", "2"]
    programs[1].kill()
    programs[1].wait()
    programs[1] = started()
    assert programs[1].stdout.readline().strip() == took[1]
    for program in programs:
        program.communicate()


@pytest.mark.parametrize(
    "environment", [{"CUDA_VISIBLE_DEVICES": "2"}, {"CUDA_VISIBLE_DEVICES": ""}, {"LOCAL_RANK": "1"}]
)
def test_who_is_given_a_gpu_by_others_takes_none(environment, machine, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    program = started()
    assert program.communicate()[0].strip() == environment.get("CUDA_VISIBLE_DEVICES", "None")
