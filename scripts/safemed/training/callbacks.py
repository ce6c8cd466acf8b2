"""What a training has cost, kept in its checkpoints."""

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from transformers import TrainerCallback

from safemed.models.vlm import Passes
from safemed.utils import cost


class CostCallback(TrainerCallback):
    """Keeps what a training has spent in its checkpoints' history, and counts on from there when it resumes."""

    def __init__(self, meter: cost.CostMeter, passes: Passes):
        self.meter, self.passes = meter, passes

    def on_train_begin(self, args, state, control, **kwargs):
        spent = [entry for entry in state.log_history if "wall_s" in entry]
        if spent and state.is_world_process_zero:
            self.meter.resume(spent[-1], self.passes)

    def on_step_end(self, args, state, control, **kwargs):
        if control.should_save:
            state.log_history.append({"step": state.global_step, **self.meter.spent(of_all(self.passes))})


def of_all(passes: Passes) -> Passes:
    """The passes of all processes together; every process must ask."""
    counts = torch.tensor([passes.forward, passes.backward], device=PartialState().device)
    return Passes(*reduce(counts, "sum").tolist())
