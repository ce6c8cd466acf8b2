"""What a long evaluation has done so far, a batch a file, so that a killed job goes on where it was."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from safemed import run


class Shards:
    """Numbered parts of one evaluation, each written whole or not at all.

    folder: where they are kept; those of another identity (settings, seed, code, inputs) are thrown away. What the
    parts have cost is added to the stopwatch and the passes, so that a resumed job tells the price of all of it.
    """

    def __init__(self, folder: Path, identity: dict, clock: run.Stopwatch, passes):
        self.folder, self.clock, self.passes = run.checkpoints(folder, identity), clock, passes
        spent = [json.loads(path.read_text()) for path in self.folder.glob("[0-9]*.json")]
        if spent:
            clock.resume(max(spent, key=lambda cost: cost["wall_s"]), passes)

    def has(self, number: int) -> bool:
        """Whether a part is done."""
        return self._path(number, "json").exists()

    def write(self, number: int, rows: pd.DataFrame, images: np.ndarray) -> None:
        """Store a part; its price comes last and says that it is whole. images: [radii, b, H, W, 3]."""
        with run.atomic_file(self._path(number, "parquet")) as path:
            rows.to_parquet(path, index=False)
        with run.atomic_file(self._path(number, "npy")) as path:
            np.save(path, images)
        with run.atomic_file(self._path(number, "json")) as path:
            path.write_text(json.dumps(self.clock.spent(self.passes)))

    def read(self) -> tuple[pd.DataFrame, np.ndarray]:
        """All rows and images, part after part."""
        parts = sorted(self.folder.glob("[0-9]*.parquet"))
        rows = pd.concat([pd.read_parquet(path) for path in parts], ignore_index=True)
        return rows, np.concatenate([np.load(path.with_suffix(".npy")) for path in parts], 1)

    def remove(self) -> None:
        """Forget the parts, whose contents are in the result."""
        shutil.rmtree(self.folder)

    def _path(self, number: int, suffix: str) -> Path:
        return self.folder / f"{number:06d}.{suffix}"
