"""The optimizer of the trainings that teach a vision tower against an attack: Muon, and AdamW where Muon cannot be."""

from collections.abc import Iterable

import torch
from torch.nn import Parameter

WEIGHT_DECAY = 0.01


class Chained(torch.optim.Optimizer):
    """Several optimizers of different parameters as one, for a schedule, a checkpoint and a step."""

    def __init__(self, parts: list[torch.optim.Optimizer]):
        super().__init__([parameter for part in parts for parameter in _parameters(part)], {})
        self.parts = parts
        self._share()

    def _share(self) -> None:
        """Show the parts' own groups, so that a schedule changes their learning rates."""
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict) -> None:
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share()


def _parameters(optimizer: torch.optim.Optimizer) -> Iterable[Parameter]:
    return (parameter for group in optimizer.param_groups for parameter in group["params"])


def muon(towers: dict[torch.nn.Module, float]) -> Chained:
    """Muon (Jordan et al. 2024) on the matrices inside transformer blocks, AdamW on all other parameters.

    towers: module -> its learning rate. Muon's steps are scaled to the root mean square of AdamW's (Liu et al. 2025),
    so that one learning rate serves both. Parameters that are not trained are left out.
    """
    matrices, others = [], []
    for module, rate in towers.items():
        trained = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
        inside = [parameter for name, parameter in trained if parameter.ndim == 2 and "embed" not in name]
        rest = {id(parameter) for parameter in inside}
        matrices.append({"params": inside, "lr": rate})
        others.append({"params": [parameter for _, parameter in trained if id(parameter) not in rest], "lr": rate})
    return Chained(
        [
            torch.optim.Muon(matrices, weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, weight_decay=WEIGHT_DECAY),
        ]
    )
