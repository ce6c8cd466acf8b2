"""Work on a batch that may be too large for the memory, or hold a question whose numbers are not finite."""

import logging
from collections.abc import Callable, Iterator
from typing import TypeVar

from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor

log = logging.getLogger(__name__)

Result = TypeVar("Result")


def halving(
    rows: Tensor, work: Callable[[Tensor], Result], failed: Callable[[Tensor, str], Result]
) -> Iterator[Result]:
    """`work` on the rows [b], in halves where it runs out of memory (CPU or GPU) or raises FloatingPointError.

    A row that does so alone is given to `failed` with the reason: nothing was measured of it, and no score may be made
    of it. Any other error is raised.
    """
    try:
        yield work(rows)
        return
    except Exception as error:
        if not isinstance(error, FloatingPointError | MemoryError) and not should_reduce_batch_size(error):
            raise
        why = f"{type(error).__name__}: {error}"
    log.warning("%d rows not evaluated: %s", len(rows), why)
    clear_device_cache(garbage_collection=True)
    if len(rows) == 1:
        yield failed(rows, why)
        return
    for half in rows.split((len(rows) + 1) // 2):
        yield from halving(half, work, failed)
