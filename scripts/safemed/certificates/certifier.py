"""Certificates of many questions at once: noisy images of all that are still open share each forward pass."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from safemed.certificates.smoothing import Procedure, Votes
from safemed.data.prompts import FAILED
from safemed.evaluation.batching import Failure, Halving
from safemed.evaluation.evaluator import Evaluator
from safemed.models.geometry import to_float
from safemed.utils.noise import gaussian, uniform


def noisy_classes(
    evaluator: Evaluator, function: str, sigma: float, seed: int, drawn: list[tuple[int, int]]
) -> list[str]:
    """What a function, one of FUNCTIONS, says of images under Gaussian noise: a class for each draw of `drawn`.

    drawn: (question, number of the draw), which with (seed, sigma, question id) decide the noise. Noisy pixels leave
    [0, 1] on purpose: clipped noise is not the theorem's.
    """
    rows = torch.tensor([row for row, _ in drawn])
    clean = to_float(evaluator.images[rows], torch.device("cpu"))  # [b, 3, H, W]
    noise = gaussian(clean.shape[1:], [_name(evaluator, row, sigma, seed, f"draw {number}") for row, number in drawn])
    return evaluator.classes(function, (clean + sigma * noise).to(evaluator.vlm.device), rows)


def _name(evaluator: Evaluator, row: int, sigma: float, seed: int, what: str) -> str:
    """What the random numbers of a question are drawn by."""
    return f"{seed}:{sigma}:{evaluator.rows[row]['question_id']}:{what}"


@dataclass
class Open:
    """A question under way. seconds: its share of the time of the batches that its draws were in.

    why: the reason for which it could not be evaluated, or "".
    """

    votes: Votes
    seconds: float = 0.0
    why: str = ""

    @property
    def stopped(self) -> str:
        """decided, futile, exhausted or failed; "" while votes are wanted."""
        return FAILED if self.why else self.votes.stopped


class Certifier:
    """Certifies a function of an evaluator's model, one of FUNCTIONS.

    A draw's noise depends on (seed, sigma, question id, number of the draw) alone, and a question's certificate on its
    own votes alone, so that neither the batches nor the shards, nor a restart, change a certificate. In bf16 the class
    of a draw may depend on the others in its batch.
    """

    def __init__(self, evaluator: Evaluator, function: str, procedure: Procedure, batch_size: int, seed: int):
        self.evaluator, self.function, self.procedure = evaluator, function, procedure
        self.batch_size, self.seed, self.halving = batch_size, seed, Halving()

    def run(self, rows: list[int]) -> Iterator[tuple[int, Open]]:
        """The questions `rows`, each as soon as it is done; one that cannot be evaluated is done as failed."""
        under_way = {row: Open(Votes(self.procedure, uniform(self._name(row, "coin")))) for row in rows}
        while under_way:
            portion = self._portion(under_way)
            started = time.perf_counter()
            classes = self._classes(portion, under_way)
            self._count(portion, classes, under_way, time.perf_counter() - started)
            for row in [row for row, question in under_way.items() if question.stopped]:
                yield row, under_way.pop(row)

    def _portion(self, under_way: dict[int, Open]) -> list[tuple[int, int]]:
        """The next draws, (question, number of the draw): a full batch, unless fewer are wanted of all questions."""
        portion: list[tuple[int, int]] = []
        for row, question in under_way.items():
            room = min(question.votes.wanted(), self.batch_size - len(portion))
            portion += [(row, question.votes.drawn + i) for i in range(room)]
            if len(portion) == self.batch_size:
                break
        return portion

    def _classes(self, portion: list[tuple[int, int]], under_way: dict[int, Open]) -> list[str]:
        """What the function says of each draw; "" where it could not be evaluated, and its question then is failed."""
        classes = [""] * len(portion)

        def work(part: Tensor) -> dict[int, str]:
            wanted = [i for i in part.tolist() if not under_way[portion[i][0]].why]  # none of what has failed already
            return dict(zip(wanted, self._hear([portion[i] for i in wanted]) if wanted else [], strict=True))

        for part, found in self.halving(torch.arange(len(portion)), work):
            if isinstance(found, Failure):
                under_way[portion[int(part)][0]].why = found.why
                continue
            for i, said in found.items():
                classes[i] = said
        return classes

    def _hear(self, drawn: list[tuple[int, int]]) -> list[str]:
        """The classes of some draws."""
        return noisy_classes(self.evaluator, self.function, self.procedure.sigma, self.seed, drawn)

    def _count(self, portion, classes: list[str], under_way: dict[int, Open], seconds: float) -> None:
        """Give each question its votes, and its share of the time."""
        heard: dict[int, list[str]] = {}
        for (row, _), said in zip(portion, classes, strict=True):
            heard.setdefault(row, []).append(said)
        for row, said in heard.items():
            under_way[row].seconds += seconds * len(said) / len(portion)
            if not under_way[row].why:
                under_way[row].votes.add(said)

    def _name(self, row: int, what: str) -> str:
        return _name(self.evaluator, row, self.procedure.sigma, self.seed, what)
