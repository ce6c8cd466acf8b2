"""What a step takes of memory and operations, measured with few layers and extrapolated to all of them.

Both grow with a model's layers and with what passes through them:

    fixed + text * L_t + vision * L_v                                       (fixed: what does not depend on the batch)
    + rows * (image + image_layer * L_v + tokens * (token + token_layer * L_t))                          (of a row)

A step is run with few layers of either kind and with one more, one and two rows, short and longer texts, and the seven
factors are what fits these runs best. Values are never computed: see peak.LiveBytes.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from peft import LoraConfig
from transformers import Qwen3VLConfig

from safemed.models.vlm import VLM
from safemed.preflight import shapes, steps
from safemed.preflight.peak import Cost, cost_of
from safemed.training.token_losses import CHUNK

TEXT, VISION = 3, 4  # layers: a published model's deepstack takes three of either, and one more is a plain one
COMPLETION = 16  # tokens, of the shorter text
EVALUATION = {"query": steps.query, "attack": steps.attack}
TRAINING = {
    "training_attack": steps.training_attack,
    "tower_attack": steps.tower_attack,
    "sft": steps.sft,
    "tower": steps.tower,
    "grpo": steps.grpo,
}


@dataclass(frozen=True)
class Run:
    """How large a measured step was."""

    text_layers: int
    vision_layers: int
    rows: int
    tokens: int

    def terms(self) -> list[float]:
        """What the seven factors are multiplied by."""
        vision, text, rows = self.vision_layers, self.text_layers, self.rows
        return [1, text, vision, rows, rows * vision, rows * self.tokens, rows * self.tokens * text]


@dataclass(frozen=True)
class Factors:
    """The factors of a kind of step: of its bytes, and of its operations."""

    bytes: np.ndarray
    flops: np.ndarray

    @classmethod
    def of(cls, measured: dict[Run, Cost]) -> "Factors":
        """The best fit of some runs."""
        terms = np.array([run.terms() for run in measured], float)
        fit = [
            np.linalg.lstsq(terms, np.array([getattr(cost, what) for cost in measured.values()], float), rcond=None)[0]
            for what in ("bytes", "flops")
        ]
        return cls(*fit)

    def at(self, run: Run) -> Cost:
        """Bytes and operations of a step of another size."""
        return Cost(*(max(0, round(float(np.dot(run.terms(), fit)))) for fit in (self.bytes, self.flops)))


def runs(prompt: int) -> list[Run]:
    """The sizes that are measured: each factor changes in one of them at least, and products of two of them."""
    short, long = prompt + COMPLETION, prompt + 4 * COMPLETION
    few, text, vision, both = (TEXT, VISION), (TEXT + 1, VISION), (TEXT, VISION + 1), (TEXT + 1, VISION + 1)
    sizes = [(few, 1, short), (text, 1, short), (vision, 1, short), (few, 2, short), (both, 2, short)]
    sizes += [(few, 1, long), (text, 1, long)]
    return [Run(*layers, rows, tokens) for layers, rows, tokens in sizes]


def measured(
    steps_made: set[str], shape: Qwen3VLConfig, side: int, prompt: int, precision: str, adapter: LoraConfig | None,
    wanted: Iterable[Run],
) -> dict[str, dict[Run, Cost]]:  # fmt: skip
    """Each kind of step that is made, and query -> its cost in each run.

    prompt: tokens with those of the image; precision: of evaluations; adapter: None trains all weights.
    """
    evaluated, trained = ({n: step for n, step in kinds.items() if n in steps_made} for kinds in (EVALUATION, TRAINING))
    evaluated["query"] = steps.query  # reading a prompt is one
    found: dict[str, dict[Run, Cost]] = {name: {} for name in (*evaluated, *trained)}
    by_shape: dict[tuple[int, int], list[Run]] = {}
    for run in wanted:
        by_shape.setdefault((run.text_layers, run.vision_layers), []).append(run)
    for layers, group in by_shape.items():
        vlm = shapes.shallow(shape, *layers, precision)
        _measure(evaluated, vlm, side, prompt, group, found)
        vlm = steps.trained(shapes.shallow(shape, *layers, "fp32"), adapter)
        _measure(trained, vlm, side, prompt, group, found)
    return found


def head(shape: Qwen3VLConfig) -> Cost:
    """GRPO's losses of a chunk of tokens: as many bytes for any number of tokens, and operations in proportion."""
    vlm = shapes.shallow(shape, 1, VISION, "fp32")
    return cost_of(lambda: steps.head(vlm, CHUNK))


def _measure(
    kinds: dict[str, Callable], vlm: VLM, side: int, prompt: int, group: list[Run], found: dict[str, dict[Run, Cost]]
) -> None:
    for run in group:
        batch = steps.Batch(vlm, run.rows, side, prompt, run.tokens - prompt)
        for name, step in kinds.items():
            vlm.model.zero_grad(set_to_none=True)
            found[name][run] = cost_of(lambda step=step, batch=batch: step(vlm, batch))
