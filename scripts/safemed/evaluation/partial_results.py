"""What a long evaluation has done so far, a batch a file, so that a killed job goes on where it was."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from safemed.utils import cost, files, resume


class PartialResults:
    """Numbered parts of one evaluation, each written whole or not at all.

    folder: where they are kept; those of another identity (settings, seed, code, inputs) are set aside. What the parts
    have cost is added to the cost meter and the passes, so that a resumed job counts the cost of all of it.
    """

    def __init__(self, folder: Path, identity: dict, meter: cost.CostMeter, passes):
        self.folder, self.meter, self.passes = resume.checkpoints(folder, identity), meter, passes
        spent = [json.loads(path.read_text()) for path in self._written("json")]
        if spent:
            meter.resume(max(spent, key=lambda cost: cost["wall_s"]), passes)

    def has(self, number: int) -> bool:
        """Whether a part is done."""
        return self._path(number, "json").exists()

    def write(self, number: int, rows: pd.DataFrame, images: np.ndarray | None = None) -> None:
        """Store a part; its cost is written last, and marks it as whole. images: [radii, b, H, W, 3]."""
        with files.atomic_file(self._path(number, "parquet")) as path:
            rows.to_parquet(path, index=False)
        if images is not None:
            with files.atomic_file(self._path(number, "npy")) as path:
                np.save(path, images)
        with files.atomic_file(self._path(number, "json")) as path:
            path.write_text(json.dumps(self.meter.spent(self.passes)))

    def read(self, number: int) -> pd.DataFrame:
        """The rows of a part that is done."""
        return pd.read_parquet(self._path(number, "parquet"))

    def rows(self) -> pd.DataFrame:
        """All rows, part after part."""
        return pd.concat([pd.read_parquet(path) for path in self._written("parquet")], ignore_index=True)

    def images(self) -> np.ndarray:
        """All images, part after part, [radii, N, H, W, 3]."""
        return np.concatenate([np.load(path) for path in self._written("npy")], 1)

    def remove(self) -> None:
        """Forget the parts, whose contents are in the result."""
        shutil.rmtree(self.folder)

    def _written(self, suffix: str) -> list[Path]:
        return sorted(self.folder.glob(f"[0-9]*.{suffix}"))

    def _path(self, number: int, suffix: str) -> Path:
        return self.folder / f"{number:06d}.{suffix}"
