"""What a killed training leaves."""

from pathlib import Path


def complete_checkpoints(folder: Path) -> list[Path]:
    """What a killed run can go on from; the checkpoints lie below `folder`."""
    return [*folder.glob("checkpoint/checkpoint-*/trainer_state.json"), *folder.glob("checkpoint/base.pt")]
