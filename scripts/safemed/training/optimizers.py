"""The optimizers of trainings with a learning rate of its own for each part of the model."""

import torch
from torch.nn import Module, Parameter

WEIGHT_DECAY = 0.01
MUON_RATE = 5  # the library scales Muon's steps to 0.2 times the rate; AdamW's first steps are of the rate itself

Group = tuple[float, list[tuple[str, Parameter]]]  # a learning rate and what it is of


def make(kind: str, rates: dict[Module, float]) -> torch.optim.Optimizer:
    """The optimizer of a kind, adamw or muon, for the trained parameters of some modules.

    rates: module -> the learning rate of its parameters, but for those that stand in a module before it. Raises
    ValueError for another kind.
    """
    groups, known = [], set()
    for module, rate in rates.items():
        own = [(name, p) for name, p in module.named_parameters() if p.requires_grad and id(p) not in known]
        known |= {id(parameter) for _, parameter in own}
        groups.append((rate, own))
    if kind == "muon":
        return Chained(
            [_muon(groups), _adamw([(rate, [each for each in own if not _is_matrix(*each)]) for rate, own in groups])]
        )
    if kind != "adamw":
        raise ValueError(f"optimizer must be adamw or muon, got {kind!r}")
    return _adamw(groups)


def _adamw(groups: list[Group]) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        [{"params": [parameter for _, parameter in own], "lr": rate} for rate, own in groups], weight_decay=WEIGHT_DECAY
    )


def _muon(groups: list[Group]) -> torch.optim.Muon:
    """Muon (Jordan et al. 2024) on the matrices, its steps as long as AdamW's in root mean square (Liu et al. 2025)."""
    return torch.optim.Muon(
        [{"params": [p for name, p in own if _is_matrix(name, p)], "lr": MUON_RATE * rate} for rate, own in groups],
        weight_decay=WEIGHT_DECAY,
        adjust_lr_fn="match_rms_adamw",
    )


def _is_matrix(name: str, parameter: Parameter) -> bool:
    """Whether a parameter maps features to features: embeddings and the output head, whose rows are words, do not."""
    return parameter.ndim == 2 and "embed" not in name and "lm_head" not in name


class Chained(torch.optim.Optimizer):
    """Several optimizers of different parameters as one, for a schedule, a checkpoint and a step."""

    def __init__(self, parts: list[torch.optim.Optimizer]):
        super().__init__([p for part in parts for group in part.param_groups for p in group["params"]], {})
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
