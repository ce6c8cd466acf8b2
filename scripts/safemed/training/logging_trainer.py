"""A Trainer whose steps leave numbers for the training curves."""

from collections import defaultdict
from statistics import fmean

from accelerate.utils import reduce
from torch import Tensor, as_tensor
from transformers import Trainer


class LoggingTrainer(Trainer):
    """The Trainer, which logs the means of what its steps have noted since the last line.

    Notes lie where TRL's trainers have theirs, so that an augmentation leaves its own in all trainers alike.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._metrics = {"train": defaultdict(list)}

    def note(self, **numbers: float | Tensor) -> None:
        """Leave numbers, each the mean over all processes."""
        for name, value in numbers.items():
            mean = reduce(as_tensor(value, dtype=float, device=self.args.device).detach(), "mean")
            self._metrics["train"][name].append(mean.item())

    def log(self, logs: dict, *args, **kwargs) -> None:
        means = {name: fmean(values) for name, values in self._metrics["train"].items()}
        self._metrics["train"].clear()
        super().log({**logs, **means}, *args, **kwargs)
