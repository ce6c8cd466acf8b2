"""scripts/grpo.py, which also writes what each process trains on: views-{process}.npz, a step an array of each kind.

Run by test_processes and test_defences: python, or torchrun, tests/record_views.py FOLDER and then the arguments of
scripts/grpo.py. The kinds are images, ids and prompts.
"""

import sys
from pathlib import Path

import numpy as np

from helpers import SCRIPTS

sys.path.insert(0, str(SCRIPTS))
import grpo
from safemed.at_grpo import ATGRPOTrainer

folder, seen = Path(sys.argv.pop(1)), {}
make = ATGRPOTrainer._views


def recorded(self, inputs, clean):
    views = make(self, inputs, clean)
    seen[f"images-{self.state.global_step}"] = views.numpy()
    seen[f"ids-{self.state.global_step}"] = np.array([row["question_id"] for row in inputs])
    seen[f"prompts-{self.state.global_step}"] = np.array([row["prompt"][0]["content"][1]["text"] for row in inputs])
    np.savez(folder / f"views-{self.accelerator.process_index}.npz", **seen)
    return views


ATGRPOTrainer._views = recorded
grpo.main()
