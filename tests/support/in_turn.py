"""Command lines that run one after another in each of the processes that torchrun started, which saves their starts.

torchrun ... tests/support/in_turn.py JOBS. JOBS: a JSON list of
    {"line": a script and its arguments,
     "record": null, or a folder, where each process writes {process}.npz of the rows that GRPO's steps train on,
     "error": null, or a file for the error with which the script is to fail in all processes alike}
"""

import contextlib
import json
import os
import runpy
import sys
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "scripts")]


@contextlib.contextmanager
def recorded(folder: Path):
    """Within the block, what GRPO trains on is written: ids-{step}, prompts-{step} and images-{step}, a row each."""
    from safemed.models.geometry import to_uint8
    from safemed.training.at_grpo import ATGRPOTrainer

    seen, make = {}, ATGRPOTrainer._augmented

    def recording(self, rows, clean):
        step, images = self.state.global_step, make(self, rows, clean)
        seen[f"images-{step}"] = to_uint8(images).numpy()
        seen[f"ids-{step}"] = np.array([row["question_id"] for row in rows])
        seen[f"prompts-{step}"] = np.array([row["prompt"][0]["content"][1]["text"] for row in rows])
        return images

    ATGRPOTrainer._augmented = recording
    try:
        yield
    finally:
        ATGRPOTrainer._augmented = make
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / f"{os.environ.get('RANK', 0)}.npz", **seen)


def run(line: list[str], record: str | None, error: str | None) -> None:
    """Run one of the jobs in this process."""
    sys.argv = line
    with recorded(Path(record)) if record else contextlib.nullcontext():
        try:
            runpy.run_path(line[0], run_name="__main__")
        except Exception as raised:
            if not error:
                raise
            Path(error).write_text(str(raised))


if __name__ == "__main__":
    for job in json.loads(Path(sys.argv[1]).read_text()):
        run(**job)
