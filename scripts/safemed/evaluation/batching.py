"""Work on a batch that may be too large for the memory, or hold a question whose numbers are not finite."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor

log = logging.getLogger(__name__)

Result = TypeVar("Result")


@dataclass(frozen=True)
class Failure:
    """In place of a result: a question could not be evaluated. Nothing was measured, and no score may be made of it."""

    why: str


class Halving:
    """Work in batches, which are halved where the memory does not suffice; later ones begin at the size that fitted."""

    def __init__(self):
        self.fits: int | None = None  # rows at once, once a larger batch has run out of memory
        self._short = False

    def __call__(self, rows: Tensor, work: Callable[[Tensor], Result]) -> Iterator[tuple[Tensor, Result | Failure]]:
        """`work` on the rows [b], in halves where it runs out of memory (CPU or GPU) or raises FloatingPointError.

        Yields parts of the rows, in order, each with what `work` returned for it as soon as it is done. A row on which
        `work` fails alone is a part with a Failure. Any other error is raised.
        """
        self._short, sizes = False, []
        for batch in rows.split(self.fits or max(1, len(rows))):
            for part, found in self._in_halves(batch, work):
                sizes.append(0 if isinstance(found, Failure) else len(part))
                yield part, found
        if self._short and all(sizes):  # a row that is too large by itself says nothing of others
            self.fits = max(sizes)

    def _in_halves(self, rows: Tensor, work: Callable[[Tensor], Result]) -> Iterator[tuple[Tensor, Result | Failure]]:
        try:
            yield rows, work(rows)
            return
        except Exception as error:
            short_of_memory = isinstance(error, MemoryError) or should_reduce_batch_size(error)
            if not (short_of_memory or isinstance(error, FloatingPointError)):
                raise
            why = f"{type(error).__name__}: {error}"
        log.warning("%d rows not evaluated: %s", len(rows), why)
        if short_of_memory:
            clear_device_cache(garbage_collection=True)
            self._short = True
        if len(rows) == 1:
            yield rows, Failure(why)
            return
        for half in rows.split((len(rows) + 1) // 2):
            yield from self._in_halves(half, work)


def for_each(
    batches: Iterable[Tensor], work: Callable[[Tensor], Sequence[Result]], halving: Halving | None = None
) -> dict[int, Result | Failure]:
    """Each row of the batches with its result of `work`, which returns one for each of the rows [b] that it is given.

    halving: what has been learned of sizes in earlier calls.
    """
    found: dict[int, Result | Failure] = {}
    halving = halving or Halving()
    for batch in batches:
        for part, results in halving(batch, work):
            each = [results] if isinstance(results, Failure) else results
            found |= zip(part.tolist(), each, strict=True)
    return found
