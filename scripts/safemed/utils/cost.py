"""The price of a stage: wall time, passes through the model, peak memory."""

import json
import resource
import time
from pathlib import Path


class CostMeter:
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
