"""Rows are followed through what attacks do to images, and lost, never guessed, through anything else."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from safemed.evaluation.followed_rows import Followed, rows_of


def images(rows: list[int], side: int = 4) -> Followed:
    """Random images of some rows."""
    drawn = torch.rand(len(rows), 3, side, side, generator=torch.Generator().manual_seed(0))
    return Followed.of(drawn, torch.tensor(rows))


X = [0, 1, 2, 3]
KEPT = {
    "an index": (lambda x: x[2:3], [2]),
    "a mask": (lambda x: x[torch.tensor([True, False, False, True])], [0, 3]),
    "places in any order": (lambda x: x[torch.tensor([3, 1, 1])], [3, 1, 1]),
    "a part of a part": (lambda x: x[torch.tensor([3, 1, 0])][torch.tensor([2, 0])], [0, 3]),
    "noise and clamping": (lambda x: (x + 0.2 * torch.randn(4, 3, 4, 4)).clamp(0, 1), X),
    "a difference": (lambda x: torch.clamp(x - x.detach().clone(), -0.1, 0.1) + x, X),
    "the nearer of two": (lambda x: torch.min(torch.max(x * 2, x - 0.1), x + 0.1), X),
    "a number first": (lambda x: 1 - x, X),
    "flat and back": (lambda x: x.reshape([4, -1]).view(4, 3, 4, 4), X),
    "one put to others": (lambda x: torch.cat([x[1:2], x[3:]]), [1, 3]),
    "copies of a batch": (lambda x: x.unsqueeze(0).expand(2, *x.shape).contiguous().view(-1, 3, 4, 4), X + X),
    "parts": (lambda x: x.split(3)[1], [3]),
    "another size": (lambda x: F.pad(F.interpolate(x, size=[3, 3], mode="bilinear"), [0, 1, 1, 0]), X),
    "a gradient step": (lambda x: x + torch.autograd.grad((x.requires_grad_() ** 2).sum(), x)[0].sign(), X),
    "where they stand": (lambda x: x * (x > 0.5).float() + x.detach() * (x <= 0.5).float(), X),
}


@pytest.mark.parametrize("name", KEPT)
def test_rows_are_followed(name):
    work, rows = KEPT[name]
    assert rows_of(work(images(X))).tolist() == rows


LOST = {
    "plain images": lambda x: x.as_subclass(Tensor),
    "a flipped batch": lambda x: x.flip(0),
    "a rolled batch": lambda x: x.roll(1, 0),
    "sorted pixels": lambda x: x.sort(dim=0)[0],
    "channels for rows": lambda x: x[:3, :, :3, :3].transpose(0, 1),
    "a mean of rows": lambda x: x.mean(0, keepdim=True),
    "two rows added": lambda x: x[:2] + x[2:],
    "one row for all": lambda x: x * 0 + x[:1],
    "an unknown one put to others": lambda x: torch.cat([x, x.as_subclass(Tensor)]),
    "halves of two rows": lambda x: x.view(2, 6, 4, 4),
    "new data": lambda x: put(x, lambda y: setattr(y, "data", y.flip(0).as_subclass(Tensor))),
    "a copy into it": lambda x: put(x, lambda y: y.copy_(x.flip(0))),
    "an unknown one written into it": lambda x: put(x, lambda y: y.__setitem__(0, x[1].as_subclass(Tensor))),
    "half of another row written into it": lambda x: put(x, lambda y: y.__setitem__((0, 0), x[1, 0])),
}


def put(x: Followed, work) -> Followed:
    """A copy of images after work in place."""
    copy = x.clone()
    work(copy)
    return copy


@pytest.mark.parametrize("name", LOST)
def test_rows_that_are_not_known_are_refused(name):
    with pytest.raises(LookupError, match="not known to which questions they belong"):
        rows_of(LOST[name](images(X)))


def test_what_is_written_into_images_brings_its_rows_and_leaves_the_source_alone():
    x = images(X)
    y = x.clone()
    y[torch.tensor([0, 1])] = x[torch.tensor([3, 2])]
    assert rows_of(y).tolist() == [3, 2, 2, 3] and rows_of(x).tolist() == X
    y[:, 0, 1, 1] = 0.5
    assert rows_of(y).tolist() == [3, 2, 2, 3]


def test_gradients_pass_images_that_are_followed():
    x = images(X).requires_grad_()
    (gradient,) = torch.autograd.grad((x[torch.tensor([2, 0])].as_subclass(Tensor) ** 2).sum(), x)
    assert gradient[[1, 3]].abs().max() == 0 and torch.allclose(gradient[[0, 2]], 2 * x[[0, 2]].detach())
