"""The optimizers of trainings with a learning rate of its own for each part of the model."""

import torch
from torch.nn import Module, Parameter

WEIGHT_DECAY = 0.01
MUON_RATE = 5  # the library scales Muon's steps to 0.2 times the rate; AdamW's first steps are of the rate itself

Group = tuple[float, list[tuple[str, Parameter]]]  # a learning rate and what it is of


def make(
    kind: str, tower: Module, rate: float, model: Module | None = None, model_rate: float = 0.0, betas=(0.9, 0.999)
) -> torch.optim.Optimizer:
    """The optimizer of the trained parameters of a vision tower, and of those of a model around it or beside it.

    kind: what optimizes the matrices of the tower, adamw or muon; all else is AdamW's, with `betas`. rate: the tower's
    learning rate. model_rate: that of the model's parameters outside the tower. Raises ValueError for another kind.
    """
    if kind not in ("adamw", "muon"):
        raise ValueError(f"vision_optimizer must be adamw or muon, got {kind!r}")
    own = _trained(tower)
    known = {id(parameter) for _, parameter in own}
    rest = [each for each in _trained(model) if id(each[1]) not in known] if model else []
    matrices = [each for each in own if kind == "muon" and _is_matrix(*each)]
    others = [each for each in own if kind != "muon" or not _is_matrix(*each)]
    parts = [_muon(rate, matrices)] if matrices else []
    if others or rest:
        parts.append(_adamw([(rate, others), (model_rate, rest)], betas))
    return parts[0] if len(parts) == 1 else Chained(parts)


def _trained(module: Module) -> list[tuple[str, Parameter]]:
    """The parameters of a module that are trained, with their names."""
    return [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]


def _adamw(groups: list[Group], betas: tuple[float, float]) -> torch.optim.AdamW:
    own = [{"params": [parameter for _, parameter in named], "lr": rate} for rate, named in groups if named]
    return torch.optim.AdamW(own, weight_decay=WEIGHT_DECAY, betas=betas)


def _muon(rate: float, matrices: list[tuple[str, Parameter]]) -> torch.optim.Muon:
    """Muon (Jordan et al. 2024), its steps as long as AdamW's in root mean square (Liu et al. 2025)."""
    own = [parameter for _, parameter in matrices]
    return torch.optim.Muon(own, lr=MUON_RATE * rate, weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw")


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
