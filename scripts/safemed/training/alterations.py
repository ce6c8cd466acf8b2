"""Alterations of a training's questions: reports and hints before them, second turns, and images without what they ask
for.

Trainings without any do not import this module: the rule and the script name it where a method wants it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Dataset
from torch import Tensor

from safemed.data import prompts
from safemed.data.dataset import as_arrays
from safemed.models.geometry import to_float
from safemed.models.vlm import VLM, frozen
from safemed.stress.hints import Hint, Templates, hinted, hinted_by_one
from safemed.training.abstention import offered
from safemed.training.retrieved import Retrieved
from safemed.training.second_turns import Turn, turning
from safemed.training.step_rows import AlteredRows, target_loss
from safemed.training.targets import Targets
from safemed.utils.draws import RANKS, draw

VERDICTS = {"positive": "true", "negative": "false"}  # what a thought says of a hint


def for_sft(augmentation: dict, templates: Path, seed: int, corpus: Path | None = None) -> Callable[[dict], dict]:
    """What SFT makes of each row, the same in every epoch: reports before the question; abstention offered, and a share
    of the images erased; then a share of the questions put after a hint, of which the target tells; then a share of
    them in a second turn.

    augmentation: the method's, of which `retrieved`, `poisoned`, `erased`, `told` and `turns` are read. templates: the
    file of templates; corpus: the folder of what is retrieved.
    """
    read = Templates.read(templates)
    retrieved = retrieving(augmentation, read, corpus, seed)
    wordings, turn = read.told(), turning(read, augmentation.get("turns", 0.0), seed)

    def altered(row: dict) -> dict:
        row = retrieved(row, "sft") if retrieved else row
        if augmentation.get("erased"):
            row = offered(row, read.abstain, augmentation["erased"], seed, "sft")
        row = told(row, wordings, augmentation["told"], seed) if augmentation.get("told") else row
        return turn(row, "sft")

    return altered


def for_grpo(augmentation: dict, templates: Path, seed: int, corpus: Path | None = None) -> "GRPOAlterations":
    """What GRPO makes of the rows of a step; of the method's augmentation, `retrieved`, `poisoned`, `hints`, `turns`
    and `erased` are read. templates, corpus: as in `for_sft`.

    Raises ValueError where the file of templates has fewer hints to train on than a question draws.
    """
    read = Templates.read(templates)
    hints, erased = augmentation.get("hints", 0), augmentation.get("erased", 0.0)
    turn = turning(read, augmentation["turns"], seed) if augmentation.get("turns") else None
    retrieved = retrieving(augmentation, read, corpus, seed)
    return GRPOAlterations(read.taught(), hints, read.abstain, erased, turn, seed, retrieved)


def retrieving(augmentation: dict, templates: Templates, corpus: Path | None, seed: int) -> Retrieved | None:
    """What puts reports before the questions, where an augmentation says so."""
    if not augmentation.get("retrieved"):
        return None
    return Retrieved(corpus, templates.report, augmentation["retrieved"], augmentation.get("poisoned", 0.0), seed)


def told_targets(
    questions: Dataset, variant: str, taught: Targets, augmentation: dict, templates: Path, seed: int
) -> Targets:
    """The targets of `for_sft` where hints are told, to be checked before a training; no image is read for them."""
    wordings = Templates.read(templates).told()
    texts = [row for row in questions.remove_columns("image") if row["question_id"] in taught]
    rows = [row | prompts.posed(row, variant, taught[row["question_id"]]) for row in texts]
    return {row["question_id"]: told(row, wordings, augmentation.get("told", 0), seed)["target"] for row in rows}


def told(row: dict, wordings: Sequence[Hint], share: float, seed: int) -> dict:
    """A row of `training.training_rows`, for a `share` of the questions after one of the wordings, right or misleading.

    The thought that is taught then names who gave the hint, whether it is true, and the right answer; a target without
    a thought stays as it is. Which questions and wordings, and which hints mislead, is drawn by seed and question.
    """
    name = row["question_id"]
    if draw(seed, name, "told") >= round(share * RANKS):
        return row
    polarity = ("positive", "negative")[draw(seed, name, "told polarity", 2)]
    asked = hinted_by_one(row, wordings, polarity, seed)
    source = next(hint.source for hint in wordings if hint.name == asked["hint"])
    target = prompts.target(asked, row["variant"], earlier=(f"{source} {VERDICTS[polarity]}",))
    return {**asked, **prompts.posed(asked, row["variant"], target)}


@dataclass(frozen=True)
class GRPOAlterations:
    """Alters the rows of a step of GRPO.

    Where reports are `retrieved`, they stand before every question, and the policy alone sees those that claim a wrong
    answer. Where `erased` > 0, every question offers to abstain as its last option, and that share of the images lacks
    what is asked for: the anchor and the policy both see this. Where there is a `turn`, it then puts some questions in
    a second turn, which the policy alone sees: the reference is asked the plain question. Where `n_hints` > 0, each
    question then draws as many of `hints`, and the one under which its target has the greatest loss goes before it: the
    policy alone sees this. All draws are by seed, step and question, the same in every process. Raises ValueError for
    fewer hints than a question draws.
    """

    hints: Sequence[Hint]
    n_hints: int
    abstain: str
    erased: float
    turn: Turn | None
    seed: int
    retrieved: Retrieved | None = None

    def __post_init__(self):
        if self.n_hints > len(self.hints):
            raise ValueError(
                f"augmentation.hints: {self.n_hints} cannot be drawn from {len(self.hints)} hints that are to train on"
            )

    @property
    def poisoned(self) -> bool:
        """Whether reports may claim a wrong answer."""
        return bool(self.retrieved and self.retrieved.share)

    def __call__(self, rows: list[dict], vlm: VLM, step: int) -> AlteredRows:
        if self.erased:
            rows = [offered(row, self.abstain, self.erased, self.seed, f"step {step}") for row in rows]
        policy = rows
        if self.retrieved:
            policy = [self.retrieved(row, f"step {step}") for row in rows]
            rows = [self.retrieved(row, f"step {step}", poisoned=False) for row in rows] if self.poisoned else policy
        policy = [self.turn(row, f"step {step}") for row in policy] if self.turn else policy
        policy, metrics = self._misled(policy, vlm, step) if self.n_hints else (policy, {})
        return AlteredRows(rows, policy, metrics)

    def _misled(self, rows: list[dict], vlm: VLM, step: int) -> tuple[list[dict], dict[str, float]]:
        """The rows with the worst of the step's hints before their questions, and its loss."""
        wordings = [self.wordings(row, step) for row in rows]
        images = to_float(torch.from_numpy(as_arrays(row["image"] for row in rows)), vlm.device)
        losses, worst = wording_losses(vlm, rows, wordings, images).max(1)
        chosen = [several[place] for several, place in zip(wordings, worst.tolist(), strict=True)]
        misled = [{**row, "prompt": prompt} for row, prompt in zip(rows, chosen, strict=True)]
        return misled, {"hint_loss": losses.mean().item()}

    def wordings(self, question: dict, step: int) -> list[list[dict]]:
        """A question's prompts after `n_hints` misleading hints, all different, that all claim one option."""
        seed = draw(self.seed, question["question_id"], f"step {step}")
        order = sorted(self.hints, key=lambda hint: draw(seed, question["question_id"], f"hint {hint.name}"))
        misled = [hinted(question, hint, "negative", seed) for hint in order[: self.n_hints]]
        return [prompts.conversation(row, question["variant"]) for row in misled]


@torch.no_grad()
def wording_losses(vlm: VLM, questions: list[dict], wordings: list[list[list[dict]]], images: Tensor) -> Tensor:
    """The loss [B, K] of each question's target under each of its K prompts; images [B, 3, H, W].

    One forward pass of all questions a prompt, by the model as it is in evaluation.
    """
    losses = []
    with frozen(vlm.model):
        for nth in zip(*wordings, strict=True):
            loss = target_loss(vlm, [row | {"prompt": prompt} for row, prompt in zip(questions, nth, strict=True)])
            losses.append(loss(images, torch.arange(len(images)))[0])
    return torch.stack(losses, 1)
