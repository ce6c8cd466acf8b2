"""The rows of one training step: what alters them, and the loss that an attack on them climbs."""

from collections.abc import Callable
from dataclasses import dataclass, field

from safemed.attacks.losses import AttackLoss, words_away
from safemed.models.vlm import VLM


@dataclass(frozen=True)
class AlteredRows:
    """The rows of a step after their alteration, in the order given.

    anchor: those that the reference sees. policy: those that rollouts, attack and policy loss see. metrics: name -> a
    number for the training curves.
    """

    anchor: list[dict]
    policy: list[dict]
    metrics: dict[str, float] = field(default_factory=dict)


Alter = Callable[[list[dict], VLM, int], AlteredRows]  # rows, the policy, the number of the step


def unaltered(rows: list[dict], vlm: VLM, step: int) -> AlteredRows:
    """The rows as they are, for the reference and for the policy."""
    return AlteredRows(rows, rows)


def target_loss(vlm: VLM, rows: list[dict]) -> AttackLoss:
    """The loss of each row's target after its prompt, which an attack climbs."""
    side = rows[0]["image"].width
    return words_away(vlm, vlm.encode([row["prompt"] for row in rows], [row["target"] for row in rows], side))
