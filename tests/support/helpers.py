"""What several tests need: the commands, small settings, and a model that has learned a handful of questions."""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"
RULE_FILES = sorted((ROOT / "workflow" / "rules").glob("*.smk"))
COPIED = ("Snakefile", "config.yaml", "scripts", "workflow", "envs")
SMOKE = ROOT / "tests" / "support" / "smallest-study.yaml"  # the smallest whole study
sys.path.insert(0, str(SCRIPTS))


def smoke_config() -> dict:
    """The default config with the smallest study laid over it, as Snakemake merges them."""
    from safemed.workflow import config

    return config.read(SMOKE)


def training_settings(method: str, **changes) -> dict:
    """What the smallest study gives a method's training script, with some changes."""
    from safemed.workflow import config

    return {**config.training_settings(smoke_config(), method), **changes}


SIDE = smoke_config()["data"]["image_size"]
SPLIT = smoke_config()["data"]["split"]
TINY = {**smoke_config()["model"]["tiny"], "layers": 2}
BASE = smoke_config()["base"]
LORA = {"r": 4, "alpha": 8, "dropout": 0.0}
ADVERSARIAL = {"kind": "adversarial", "eps": 8, "steps": 2, "ramp": 0.0}
TRAINING = training_settings("sft", steps=6, batch_size=8, log_steps=1, learning_rate=1e-3)
FARE = training_settings("fare", steps=6, batch_size=8, log_steps=1, augmentation=ADVERSARIAL, learning_rate=1e-3)
GRPO = training_settings("at-grpo", steps=6, batch_size=8, log_steps=1, augmentation=ADVERSARIAL)


def command_line(script: str, *arguments, settings: dict | None = None) -> list[str]:
    """How a rule calls a script."""
    given = [] if settings is None else ["--settings", json.dumps(settings)]
    return [sys.executable, str(SCRIPTS / script), *map(str, arguments), *given]


def command(script: str, *arguments, settings: dict | None = None, fails: bool = False) -> str:
    """Run a script as a rule does; asserts that it succeeds, or `fails`, and returns what it wrote to stderr."""
    done = subprocess.run(command_line(script, *arguments, settings=settings), capture_output=True, text=True)
    assert bool(done.returncode) == fails, done.stderr[-3000:]
    return done.stderr


def evaluation_arguments(data: Path, weights: Path | str, out: Path) -> list:
    """What a rule gives every script that evaluates a model, of a thinking one."""
    told = ["--data", data, "--weights", weights, "--model", "sft-think", "--method", "sft", "--variant", "think"]
    return [*told, "--out", out]


def refused(script: str, data: Path, start: Path, folder: Path, *more, settings: dict) -> str:
    """Run a training script that must fail before it writes a model; returns what it wrote to stderr."""
    said = command(script, *training_arguments(data, start, folder), *more, settings=settings, fails=True)
    assert not (folder / "model").exists()
    return said


def kill_once(ready: Callable[[], object], line: list[str]) -> None:
    """Start a command, and kill all its processes without warning once something is there, long before its end."""
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not ready():
        assert process.poll() is None and time.monotonic() < deadline, "nothing to kill it at appeared"
        time.sleep(0.01)
    for one in (*psutil.Process(process.pid).children(recursive=True), process):  # torchrun's have their own sessions
        one.kill()
    process.wait()


def killed_after(least: int, line: list[str], shards: Path) -> list[Path]:
    """Start a job, kill it once it has written `least` shards, and return those it left."""
    kill_once(lambda: len(list(shards.glob("[0-9]*.json"))) >= least, line)
    return list(shards.glob("[0-9]*.json"))


def weights(folder: Path) -> bytes:
    """The trained weights, to the bit."""
    return (folder / "model" / "model.safetensors").read_bytes()


def update(model: Path, start: Path):
    """What a training has changed in all weights of a model folder, a tensor [D]."""
    import torch
    from safetensors.torch import load_file

    before, after = (load_file(folder / "model.safetensors") for folder in (start, model))
    return torch.cat([(after[name] - before[name]).double().flatten() for name in sorted(before)])


def complete_checkpoints(folder: Path) -> list[Path]:
    """What a killed run can go on from."""
    return [*folder.glob("checkpoint/checkpoint-*/trainer_state.json"), *folder.glob("checkpoint/base.pt")]


def kill_after_the_first_checkpoint(line: list[str], folder: Path) -> None:
    """Start a training, and kill it once it has a checkpoint."""
    kill_once(lambda: complete_checkpoints(folder), line)
    assert not (folder / "model").exists()


def here(script: str, *arguments, settings: dict | None = None) -> None:
    """Run a script in this process, which saves the seconds of its imports."""
    before = sys.argv
    sys.argv = command_line(script, *arguments, settings=settings)[1:]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        sys.argv = before


def training_arguments(data: Path, start: Path, folder: Path, variant: str = "instruct") -> list:
    """The arguments of a trainer's script, checkpoints and result below `folder`."""
    return [
        "--data", data, "--start", start, "--stage", "test", "--name", f"test-{variant}", "--variant", variant,
        "--checkpoint", folder / "checkpoint", "--out", folder / "model",
    ]  # fmt: skip


def snakemake(*arguments, cwd: Path) -> subprocess.CompletedProcess:
    """Run Snakemake with the commands of this interpreter's environment first on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    line = [sys.executable, "-m", "snakemake", *map(str, arguments)]
    return subprocess.run(line, cwd=cwd, capture_output=True, text=True, env={**os.environ, "PATH": path})


def checkout(folder: Path) -> Path:
    """A copy of what a study needs of the repository, to run and to edit in."""
    folder.mkdir(parents=True)
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    return folder


def rules() -> dict[str, str]:
    """Rule -> its text, of all rule files; after the text of the rule that it uses."""
    texts = "".join(path.read_text() for path in RULE_FILES)
    parts = re.split(r"^(?:use )?rule (?:(\w+) as )?(\w+)(?: with)?:\n", texts, flags=re.M)[1:]
    found: dict[str, str] = {}
    for base, name, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        found[name] = found.get(base, "") + text
    return found


def one_question_about_everything(questions, n: int):
    """n questions on different images of four modalities, with the same text and the same options, A to D."""
    from datasets import Dataset

    from safemed.data.dataset import FEATURES

    names = ["CT", "dermoscopy", "ultrasound", "microscopy"]
    rows, seen = [], set()
    for i, (modality, path) in enumerate(zip(questions["modality"], questions["image_path"], strict=True)):
        letter = "ABCD"[names.index(modality)] if modality in names else None
        if letter and path not in seen and sum(row["gold"] == letter for row in rows) < n // 4:
            seen.add(path)
            rows.append({**questions[i], "question": "What is it?", "options": names, "gold": letter})
    assert len(rows) == n
    return Dataset.from_list(rows, features=FEATURES)


def teach(start: Path, questions, out: Path, steps: int = 120) -> None:
    """Fit a saved model to all the questions in both variants at once, and save it."""
    import torch
    from torch.nn import functional as F

    from safemed.data import prompts
    from safemed.evaluation.evaluator import Evaluator
    from safemed.models.geometry import to_float
    from safemed.models.vlm import VLM, save_model

    vlm = VLM.load(start)
    vlm.model.requires_grad_(True).train()
    rows, images = list(questions), Evaluator(vlm, questions, "instruct", 1).images
    asked = [prompts.conversation(row, variant) for variant in prompts.VARIANTS for row in rows]
    targets = [prompts.target(row, v) + vlm.tokenizer.eos_token for v in prompts.VARIANTS for row in rows]
    encoded, pixels = vlm.encode(asked, targets, SIDE), to_float(images, vlm.device).repeat(2, 1, 1, 1)
    ids = encoded.completion_ids.masked_fill(encoded.completion_mask == 0, -100)
    optimiser = torch.optim.AdamW(vlm.model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        loss = F.cross_entropy(vlm.completion_logits(pixels, encoded)[:, :-1].flatten(0, 1), ids.flatten())
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vlm.model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    save_model(vlm.model, vlm.processor, out)
