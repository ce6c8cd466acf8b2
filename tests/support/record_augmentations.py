"""scripts/train_grpo.py, which also writes what each process trains on: augmentations-{process}.npz, a step an array of each kind.

Run by test_processes and test_defences: python, or torchrun, tests/record_augmentations.py FOLDER and then the arguments of
scripts/train_grpo.py. The kinds are images, ids and prompts.
"""

import sys
from pathlib import Path

import numpy as np

from support.paths import SCRIPTS

sys.path.insert(0, str(SCRIPTS))
import grpo

from safemed.training.at_grpo import ATGRPOTrainer

folder, seen = Path(sys.argv.pop(1)), {}
make = ATGRPOTrainer._augmented


def recorded(self, inputs, clean):
    augmentations = make(self, inputs, clean)
    seen[f"images-{self.state.global_step}"] = augmentations.numpy()
    seen[f"ids-{self.state.global_step}"] = np.array([row["question_id"] for row in inputs])
    seen[f"prompts-{self.state.global_step}"] = np.array([row["prompt"][0]["content"][1]["text"] for row in inputs])
    np.savez(folder / f"augmentations-{self.accelerator.process_index}.npz", **seen)
    return augmentations


ATGRPOTrainer._augmented = recorded
grpo.main()
