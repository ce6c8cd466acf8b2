"""The rows of one training step, in which a question stands once a rollout, and in several processes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from accelerate.utils import gather_object

from safemed.attacks.losses import AttackLoss, words_away
from safemed.models.vlm import VLM

Made = TypeVar("Made")


@dataclass(frozen=True)
class AlteredRows:
    """The rows of a step after their alteration, in the order given.

    anchor: those that the reference policy sees. policy: those that rollouts, attack and policy loss see. metrics: name
    -> a number for the training curves.
    """

    anchor: list[dict]
    policy: list[dict]
    metrics: dict[str, float] = field(default_factory=dict)


Alter = Callable[[list[dict], VLM, int], AlteredRows]  # rows, the policy, the number of the step


def unaltered(rows: list[dict], vlm: VLM, step: int) -> AlteredRows:
    """The rows as they are, for the anchor and for the policy."""
    return AlteredRows(rows, rows)


def first_rows(rows: list[dict]) -> list[int]:
    """The places of the rows that are the first of their question, ascending."""
    return sorted({row["question_id"]: i for i, row in reversed(list(enumerate(rows)))}.values())


def target_loss(vlm: VLM, rows: list[dict]) -> AttackLoss:
    """The loss of each row's target after its prompt, which an attack climbs."""
    side = rows[0]["image"].width
    return words_away(vlm, vlm.encode([row["prompt"] for row in rows], [row["target"] for row in rows], side))


def agreed(made: dict[str, Made]) -> dict[str, Made]:
    """What was made of this process's questions, by the first process where several have made it of a question.

    The processes draw the same start for a question, but sums over other batches round differently.
    """
    everybodys = gather_object([made])
    return {name: next(others[name] for others in everybodys if name in others) for name in made}
