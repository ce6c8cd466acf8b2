"""What a killed training leaves."""

import zipfile
from pathlib import Path


def complete_checkpoints(folder: Path, processes: int = 1) -> list[Path]:
    """What a killed run of so many processes can go on from; the checkpoints lie below `folder`."""
    states = folder.glob("checkpoint/checkpoint-*/trainer_state.json")
    return [*(state for state in states if _drawn(state.parent) == processes), *folder.glob("checkpoint/base.pt")]


def _drawn(checkpoint: Path) -> int:
    """The processes whose random state has been written to its end."""
    return sum(map(zipfile.is_zipfile, checkpoint.glob("rng_state*.pth")))
