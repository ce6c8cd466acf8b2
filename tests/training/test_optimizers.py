"""Tower and model have a learning rate each, and a chain of optimizers is one to schedules and checkpoints."""

import copy

import pytest
import torch
from torch import nn

from safemed.training import optimizers


class Model(nn.Module):
    """A tower and a head; an embedding, whose rows are words."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed_tokens, self.visual, self.lm_head = nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(4, 7)

    def loss(self) -> torch.Tensor:
        return self.lm_head(self.visual(self.embed_tokens(torch.arange(7)))).logsumexp(-1).mean()


def made(kind: str) -> tuple[Model, torch.optim.Optimizer]:
    model = Model()
    return model, optimizers.make(kind, model.visual, 3e-3, model, 1e-4)


def stepped(model: Model, optimizer: torch.optim.Optimizer, steps: int) -> list[torch.Tensor]:
    for _ in range(steps):
        optimizer.zero_grad()
        model.loss().backward()
        optimizer.step()
    return [parameter.detach().clone() for parameter in model.parameters()]


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_first_step_of_each_part_is_as_long_as_its_learning_rate(kind):
    model, optimizer = made(kind)
    before = copy.deepcopy(model)
    stepped(model, optimizer, 1)
    for name, rate in (("visual", 3e-3), ("lm_head", 1e-4), ("embed_tokens", 1e-4)):
        moved = getattr(model, name).weight - getattr(before, name).weight
        assert moved.square().mean().sqrt().item() == pytest.approx(rate, rel=0.35), name


def test_muon_takes_the_towers_matrices_and_adamw_all_else():
    model, optimizer = made("muon")
    first, second = ({id(p) for group in part.param_groups for p in group["params"]} for part in optimizer.parts)
    assert isinstance(optimizer.parts[0], torch.optim.Muon) and first == {id(model.visual.weight)}
    assert first | second == {id(parameter) for parameter in model.parameters()} and not first & second


def test_a_loaded_chain_goes_on_as_the_saved_one_and_obeys_a_schedule():
    model, optimizer = made("muon")
    stepped(model, optimizer, 3)
    weights, state = copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict())
    wanted = stepped(model, optimizer, 3)
    other, again = made("muon")
    other.load_state_dict(weights)
    again.load_state_dict(state)
    assert all(torch.equal(one, two) for one, two in zip(stepped(other, again, 3), wanted, strict=True))
    torch.optim.lr_scheduler.LambdaLR(again, lambda step: 0.0)
    assert all(torch.equal(one, two) for one, two in zip(stepped(other, again, 1), wanted, strict=True))


def test_frozen_parameters_and_unknown_kinds_are_left_out():
    model = Model()
    model.visual.bias.requires_grad_(False)
    optimizer = optimizers.make("adamw", model.visual, 1e-3)
    assert [p is model.visual.weight for group in optimizer.param_groups for p in group["params"]] == [True]
    with pytest.raises(ValueError, match="adamw or muon"):
        optimizers.make("sgd", model.visual, 1e-3)
