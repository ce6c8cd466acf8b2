"""An attack on the evaluation questions, from radius to radius, and the rows of the texts generated from its images."""

import logging
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from safemed.attacks.engine import AttackConfig, Attacked
from safemed.attacks.threat_model import l2_levels
from safemed.data.dataset import load_questions, subset
from safemed.data.prompts import FAILED
from safemed.evaluation import registry, results
from safemed.evaluation.arguments import load, model_columns
from safemed.evaluation.batching import Failure, Halving, for_each
from safemed.evaluation.evaluator import Evaluator
from safemed.evaluation.partial_results import PartialResults
from safemed.utils import cli, cost, files

log = logging.getLogger(__name__)

AGAIN = 2  # attacks more on a question whose answer changes with the batch

Result = TypeVar("Result")


@dataclass(frozen=True)
class Task:
    """What a sweep attacks with. settings: the attack's section of the config, {} for the clean images. model: the
    columns of the rows that name the model. survivors: only what earlier attacks left is attacked.
    """

    settings: dict
    config: AttackConfig
    model: dict[str, str]
    seed: int
    survivors: bool
    reading: Halving = field(default_factory=Halving)  # batches that are answered, and those that are attacked
    attacking: Halving = field(default_factory=Halving)

    @classmethod
    def of(cls, args: Namespace) -> "Task":
        """From the arguments and settings of scripts/attack.py."""
        own = args.settings.get(args.attack) or {}
        config = registry.read_attack_config(args.attack, own, args.variant, args.settings["amp"])
        return cls(own, config, model_columns(args), args.seed, bool(args.before))


def run(args: Namespace, script: str) -> None:
    """Write the folder args.out: rows.parquet, images.npz (clean, eps1, ...), cost.json, provenance.json."""
    meter, vlm, task = cost.CostMeter("attack", args.model), load(args), Task.of(args)
    questions = subset(load_questions(args.data, "test"), args.settings["questions"], args.seed)
    longest = args.settings["max_new_tokens"][args.variant]
    evaluator = registry.evaluator_for(
        vlm, questions, args.variant, longest, task.settings, args.seed, args.settings["batch_size"], args.templates
    )
    before = {str(path): files.content_hash(path / "rows.parquet") for path in args.before}
    identity = {"attack": args.attack, "eps": args.eps, "before": before}
    inputs = [args.templates] if args.templates else []
    with results.resumable(args, script, meter, vlm, inputs, identity, attack=args.attack) as (folder, parts):
        start, radii = StartImages(evaluator, args.before, args.eps), sorted(args.eps)
        rows, images = swept(evaluator, task, start, radii, parts, args.settings["batch_size"])
        results.tell_cut(rows, args.variant, longest)
        rows.to_parquet(folder / "rows.parquet", index=False)
        np.savez_compressed(folder / "images.npz", clean=evaluator.images.numpy(), **images)


def swept(
    evaluator: Evaluator, task: Task, start: "StartImages", radii: list[float], parts: PartialResults, batch_size: int
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Rows of all questions and radii (ascending), and for each radius the stored images, uint8 [N, H, W, 3].

    Batches that are among the parts are not attacked again.
    """
    batches = evaluator.batches(torch.arange(len(evaluator)), batch_size)
    for number, rows in enumerate(tqdm(batches, desc=task.config.name, disable=not cli.watched()), 1):
        if parts.has(number):
            continue
        table, images = Sweep(evaluator, rows, task, start).over(radii)
        parts.write(number, table, images)
        right = table.groupby("eps").outcome.agg(lambda outcomes: (outcomes == "right").mean())
        log.info("%d/%d batches, right in this one %s", number, len(batches), right.round(3).to_dict())
    order = torch.cat(batches).argsort().numpy()  # back to the order of the questions
    table = parts.rows().sort_values(["eps", "row"], ignore_index=True).drop(columns="row")
    names = [f"eps{eps:g}" for eps in radii]
    return table, dict(zip(names, parts.images()[:, order], strict=True))


class StartImages:
    """Where a sweep starts: the image with which an earlier attack broke a question, else its clean image.

    Raises ValueError where an earlier attack was on other questions, or at other radii than one.
    """

    def __init__(self, evaluator: Evaluator, earlier: list[Path], radii: list[float]):
        if earlier and len(radii) != 1:
            raise ValueError(f"--before needs one radius, got {radii}")
        self.images = evaluator.images.clone()
        broken = torch.zeros(len(evaluator), dtype=torch.bool)
        for folder in earlier:
            rows = pd.read_parquet(folder / "rows.parquet")
            rows = rows[rows.eps == radii[0]]
            if rows.question_id.tolist() != [row["question_id"] for row in evaluator.rows]:
                raise ValueError(f"{folder}: other questions, or none at eps {radii[0]:g}; re-run that attack")
            fell = torch.tensor(rows.outcome.isin(["wrong", "unparsable"]).to_numpy()) & ~broken
            with np.load(folder / "images.npz") as archive:
                self.images[fell] = torch.from_numpy(archive[f"eps{radii[0]:g}"])[fell]
            broken |= fell


class Sweep:
    """A batch of questions on its way from radius to radius, ascending.

    A question that is wrong on its clean image stays as it is. One whose text is not right keeps the image that it is
    scored on, which is within every larger radius, too: only survivors are attacked on. One that cannot be evaluated is
    failed from that radius on. All tensors and lists have one entry for each question of the batch.
    """

    def __init__(self, evaluator: Evaluator, rows: Tensor, task: Task, start: StartImages):
        n = len(rows)
        self.evaluator, self.rows, self.task = evaluator, rows, task
        self.stored, self.steps = start.images[rows].clone(), torch.zeros(n, dtype=torch.long)
        self.attacked = torch.zeros(n, dtype=torch.bool)  # by this attack, at this radius or a smaller one
        self.words, questions = [""] * n, [evaluator.rows[i] for i in rows.tolist()]
        self.failed = {i: row["failed"] for i, row in enumerate(questions) if "failed" in row}  # place -> why
        askable = torch.tensor([i for i in range(n) if i not in self.failed], dtype=torch.long)
        self._read(self.words, askable, evaluator.images[rows])
        self.texts = list(self.words)
        if task.survivors:
            self._read(self.texts, self._live(), self.stored)

    def over(self, radii: list[float]) -> tuple[pd.DataFrame, np.ndarray]:
        """The rows at all radii, and the stored images [radii, b, H, W, 3]."""
        tables, images = [], []
        for eps in radii:
            self.attack(eps)
            tables.append(self.table(eps))
            images.append(self.stored.clone().numpy())
        return pd.concat(tables, ignore_index=True), np.stack(images)

    def attack(self, eps: float) -> None:
        """Attack the survivors within eps, 0 for no attack."""
        self.steps = torch.zeros_like(self.steps)
        if not eps:
            return
        live = self._live()
        self.attacked[live] = True
        found = self._evaluated(live, lambda part: self._broken_or_not(part, eps), self.task.attacking)
        for i, (text, image, steps) in found.items():
            self.texts[i], self.stored[i], self.steps[i] = text, image, steps

    def table(self, eps: float) -> pd.DataFrame:
        """One row a question: the outcome of the text generated from its stored image, whose distance is checked."""
        norm, places = self.task.settings.get("norm", "linf"), range(len(self.rows))
        linf, l2 = self._distances(norm, eps)
        questions = [self.evaluator.rows[i] for i in self.rows.tolist()]
        outcomes, answers, texts = zip(*map(self._outcome, places), strict=True)
        return pd.DataFrame([self.evaluator.about(i) | self.task.model for i in self.rows.tolist()]).assign(
            row=self.rows.numpy(), attack=self.task.config.name, hint=[row.get("hint", "") for row in questions],
            norm=norm, eps=float(eps), function=self.task.settings.get("function", "generate"),
            sigma=self.task.settings.get("sigma", 0.0), outcome=outcomes, answer=answers, text=texts, linf=linf.numpy(),
            l2=l2.numpy(), steps=self.steps.numpy(), attacked=self.attacked.numpy(), cut=self._cut(texts),
        )  # fmt: skip

    def _distances(self, norm: str, eps: float) -> tuple[Tensor, Tensor]:
        """L_inf [b], in 8-bit levels, and L2 distances [b] of the stored images; RuntimeError where eps is exceeded."""
        clean = self.evaluator.images[self.rows]
        linf = (self.stored.int() - clean.int()).abs().flatten(1).amax(1)
        l2 = l2_levels(self.stored, clean)
        if (far := (linf if norm == "linf" else l2).max().item()) > eps:  # infinite for l0
            raise RuntimeError(f"a stored image is {far:g} away from its clean one in {norm}, eps is {eps:g}")
        return linf, l2

    def _outcome(self, place: int) -> tuple[str, str, str]:
        """Outcome, answer and text of a question; of one that failed, the reason for its text."""
        if place in self.failed:
            return FAILED, "", self.failed[place]
        text, row = self.texts[place], int(self.rows[place])
        return self.evaluator.outcome(text, row), self.evaluator.answer(text, row), text

    def _cut(self, texts: Sequence[str]) -> list[bool]:
        """Whether each text is as long as it may be; the reason for which a question failed is none."""
        return [cut and place not in self.failed for place, cut in enumerate(self.evaluator.cut(texts))]

    def _live(self) -> Tensor:
        """The places of the questions that are right on both the clean and the stored image."""
        right = self.evaluator.right(self.words, self.rows) & self.evaluator.right(self.texts, self.rows)
        return torch.tensor([i for i in torch.nonzero(right)[:, 0].tolist() if i not in self.failed], dtype=torch.long)

    def _broken_or_not(self, part: Tensor, eps: float) -> list[tuple[str, Tensor, int]]:
        """Attack some of the questions: text, image and steps of each.

        What is scored is asked once more. In bf16 an answer may depend on the batch that it is in: a question that the
        attack broke and that is right now is attacked again, from other starts where the attack has random ones.
        """
        words, rows = [self.words[i] for i in part.tolist()], self.rows[part]
        found, texts = self._attacked(words, rows, eps, self.task.seed)
        for more in range(1, 1 + AGAIN):
            healed = torch.nonzero(found.broken & self.evaluator.right(texts, rows))[:, 0]
            if not len(healed):
                break
            log.warning("%d broken questions are right when asked again; they are attacked again", len(healed))
            own = [words[i] for i in healed.tolist()]
            other, said = self._attacked(own, rows[healed], eps, self.task.seed + more)
            found.images[healed], found.broken[healed] = other.images, other.broken
            found.steps[healed] += other.steps
            for i, text in zip(healed.tolist(), said, strict=True):
                texts[i] = text
        return list(zip(texts, found.images, found.steps.tolist(), strict=True))

    def _attacked(self, words: list[str], rows: Tensor, eps: float, seed: int) -> tuple[Attacked, list[str]]:
        """An attack on the questions `rows`, and the texts that are generated from its images."""
        found = registry.run_attack(self.evaluator, words, rows, self.task.config, eps, seed)
        return found, self.evaluator.answers(found.images, rows)

    def _read(self, texts: list[str], which: Tensor, images: Tensor) -> None:
        """Put the texts that are generated from the images [b of the batch] of some questions into their places."""
        answers = partial(self._answers, images)
        found = self._evaluated(which, answers, self.task.reading)
        for i, text in found.items():
            texts[i] = text

    def _answers(self, images: Tensor, part: Tensor) -> list[str]:
        return self.evaluator.answers(images[part], self.rows[part])

    def _evaluated(
        self, which: Tensor, work: Callable[[Tensor], Sequence[Result]], halving: Halving
    ) -> dict[int, Result]:
        """The results of `work` on some of the questions, but for those that fail."""
        found = for_each([which] if len(which) else [], work, halving)
        self.failed |= {i: one.why for i, one in found.items() if isinstance(one, Failure)}
        return {i: one for i, one in found.items() if i not in self.failed}
