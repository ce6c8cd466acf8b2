"""What every script does around its work: arguments, logging, atomic outputs, the price of a stage."""

import argparse
import contextlib
import errno
import hashlib
import json
import logging
import os
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from safemed.dependencies import SCRIPTS, sources
from safemed.prompts import VARIANTS

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def parser(doc: str) -> argparse.ArgumentParser:
    """A parser described by the script's docstring, with the options that every stage has."""
    made = argparse.ArgumentParser(description=doc)
    made.add_argument("--settings", type=json.loads, default={}, help="the stage's section of the config, as JSON")
    made.add_argument("--seed", type=int, default=0, help="seed of everything random in this stage")
    return made


def evaluation_parser(doc: str) -> argparse.ArgumentParser:
    """The options of the scripts that evaluate a model."""
    made = parser(doc)
    made.add_argument("--data", type=Path, required=True, help="the study's data folder")
    made.add_argument("--weights", type=Path, required=True, help="model folder")
    made.add_argument("--model", required=True, help="the model's name, for the rows")
    made.add_argument("--method", required=True, help="the method's name, for the rows")
    made.add_argument("--variant", required=True, choices=VARIANTS)
    made.add_argument("--out", type=Path, required=True, help="folder to write")
    return made


def start_logging() -> None:
    """Log lines to standard error, progress bars only where somebody watches."""
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT, stream=sys.stderr, force=True)


def watched() -> bool:
    """Whether a person watches standard error (a progress bar makes sense) rather than a log file."""
    return sys.stderr.isatty()


@contextlib.contextmanager
def atomic_folder(path: Path, resume: bool = False) -> Iterator[Path]:
    """A sibling folder to fill; it becomes `path` when the block ends, and only then.

    resume: what a killed run left in it is still there, to go on from; otherwise it is empty.
    """
    partial = path.with_name(f".{path.name}.partial")
    if not resume:
        shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True, exist_ok=True)
    yield partial
    shutil.rmtree(path, ignore_errors=True)
    partial.rename(path)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A sibling file name to write to; it becomes `path` when the block ends, and only then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    yield partial
    os.replace(partial, path)


@contextlib.contextmanager
def telling_of_a_full_disk(path: Path) -> Iterator[None]:
    """Exit with one clear error where the block finds the disk full; `path` is what it writes."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        message = f"{path}: the disk is full ({error.strerror}). Make room and run again: what is done is kept."
        raise SystemExit(message) from error


class Stopwatch:
    """The price of a stage: seconds since its making, passes, and the process's peak memory.

    A training that resumes adds what it had spent when its checkpoint was written (`spent`, `resume`).
    """

    def __init__(self, stage: str, model: str):
        self.stage, self.model, self.started = stage, model, time.perf_counter()

    def spent(self, passes) -> dict:
        """Seconds and passes so far. passes: counts of images through the vision tower (safemed.vlm.Passes)."""
        return {
            "wall_s": round(time.perf_counter() - self.started, 2),
            "forward_passes": passes.forward,
            "backward_passes": passes.backward,
        }

    def resume(self, spent: dict, passes) -> None:
        """Count what an earlier leg had spent, too."""
        self.started -= spent["wall_s"]
        passes.forward += spent["forward_passes"]
        passes.backward += spent["backward_passes"]

    def write(self, path: Path, passes, **more) -> None:
        """Write cost.json."""
        peak = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        cost = {"stage": self.stage, "model": self.model, **self.spent(passes), "peak_rss_mb": peak, **more}
        path.write_text(json.dumps(cost, indent=1) + "\n")


def identity(args: argparse.Namespace, script: str, *files: Path) -> dict:
    """What checkpoints must agree on: settings, seed, the script's code, and the contents of those files that exist."""
    hashes = {path.name: content_hash(path) for path in files if path.exists()}
    return {"settings": args.settings, "seed": args.seed, "code": code_hash(script), **hashes}


def code_hash(script: str) -> str:
    """A hash of a script and of all that it imports from safemed."""
    return content_hash(*(SCRIPTS.parent / path for path in sources(Path(script).name)))


def content_hash(*paths: Path) -> str:
    """A hash of the contents of files, one after the other."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def checkpoints(folder: Path, settings: dict) -> Path:
    """The folder of a training's checkpoints; those of another identity are thrown away, so that none is resumed."""
    mark = folder / "settings.json"
    wanted = json.dumps(settings, sort_keys=True, indent=1)
    if folder.exists() and (not mark.exists() or mark.read_text() != wanted):
        logging.warning("%s: checkpoints of other settings, or of none that are known, starting anew", folder)
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    mark.write_text(wanted)
    return folder
