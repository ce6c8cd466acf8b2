"""What a piece of work takes of a machine: the most bytes that are alive at once, and its floating point operations."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

aten = torch.ops.aten


@dataclass(frozen=True)
class Cost:
    """bytes: the largest sum of the tensors that were alive at once, but for those that were there before.
    flops: floating point operations of matrix products and attention.
    """

    bytes: int
    flops: int


def cost_of(work: Callable[[], object]) -> Cost:
    """Run some work of torch's twice and measure it, on any device: a GPU allocates for the same tensors.

    Twice, since counting operations keeps some tensors alive.
    """
    with LiveBytes() as alive:
        work()
    counted = FlopCounterMode(display=False, custom_mapping=ATTENTION)
    with Shapes(), counted:
        work()
    return Cost(alive.peak, counted.get_total_flops())


class Shapes(TorchDispatchMode):
    """Inside the block, products of matrices are zeros of the right shape: no value matters where work is measured, and
    they would take nearly all of the time.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return PRODUCTS.get(func, func)(*args, **(kwargs or {}))


class LiveBytes(Shapes):
    """Adds up, too, the storages that operations make until they are freed. peak: the largest sum."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.known: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for storage in _storages((args, kwargs)):
            self.known.setdefault(storage, 0)  # what was there before, or is counted already
        made = super().__torch_dispatch__(func, types, args, kwargs)
        for storage in _storages(made):
            if storage not in self.known:
                self.known[storage] = storage.nbytes()
                self.now += storage.nbytes()
                weakref.finalize(storage, self._freed, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return made

    def _freed(self, size: int) -> None:
        self.now -= size


def _mm(left, right):
    return left.new_zeros(left.shape[0], right.shape[1])


def _addmm(bias, left, right, **kwargs):
    return _mm(left, right)


def _bmm(left, right):
    return left.new_zeros(*left.shape[:2], right.shape[2])


PRODUCTS = {aten.mm.default: _mm, aten.addmm.default: _addmm, aten.bmm.default: _bmm}


def _storages(values) -> list[torch.UntypedStorage]:
    """The storages of all tensors in nested tuples, lists and dicts."""
    found, waiting = [], [values]
    while waiting:
        value = waiting.pop()
        if isinstance(value, torch.Tensor):
            found.append(value.untyped_storage())
        elif isinstance(value, tuple | list):
            waiting += value
        elif isinstance(value, dict):
            waiting += value.values()
    return found


def _forward(query, key, value, *args, out_shape=None, **kwargs) -> int:
    return sdpa_flop_count(query, key, value)


def _backward(gradient, query, key, value, *args, out_shape=None, **kwargs) -> int:
    """Five products of which the forward pass has two: scores and values again, and a gradient of each."""
    return sdpa_flop_count(query, key, value) * 5 // 2


# torch counts the attention of GPUs, and not the one that CPUs have in its place.
ATTENTION = {
    aten._scaled_dot_product_flash_attention_for_cpu: _forward,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _backward,
}
