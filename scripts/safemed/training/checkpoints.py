"""The checkpoint that a killed training goes on from."""

import json
import logging
import shutil
import zipfile
from pathlib import Path

from accelerate import PartialState
from transformers.trainer_utils import get_last_checkpoint

log = logging.getLogger(__name__)


def last_whole_checkpoint(folder: Path) -> str | None:
    """The last checkpoint that was written to its end, or None; halves that a kill left behind are thrown away."""
    while (last := get_last_checkpoint(str(folder))) and not _whole(Path(last)):
        log.warning("%s is half written, going back one", last)
        shutil.rmtree(last)
    return last


def _whole(checkpoint: Path) -> bool:
    """Whether the Trainer's state, which its process writes last, and the random states of all processes are whole."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    random_states = list(checkpoint.glob("rng_state*.pth"))  # zip files, whose directory stands at the end
    return len(random_states) == PartialState().num_processes and all(map(zipfile.is_zipfile, random_states))
