"""The answers of a model behind each defence: to plain questions, under attacks, and under attacks made for it.

An attack through a defence differentiates through it (BPDA, EOT), starts from the image that the plain attack stored,
from the clean one and from random ones, and keeps the stored image where that is enough: it breaks whatever the plain
attack breaks. Words made for defences are a fixed set of claims, all asked through the defence, beside as many silent
sentences.
"""

import logging
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from safemed.attacks.threat_model import Ball
from safemed.data.dataset import load_questions, subset
from safemed.data.prompts import FAILED
from safemed.evaluation import registry, results
from safemed.evaluation.arguments import asking, load, model_columns
from safemed.evaluation.batching import Failure, Halving, for_each
from safemed.evaluation.defences import Defence, defences
from safemed.evaluation.defended import DefendedEvaluator
from safemed.evaluation.evaluator import Evaluator
from safemed.evaluation.stress_answers import stored_images
from safemed.evaluation.sweep import Sweep, Task
from safemed.models.geometry import to_float, to_uint8
from safemed.stress import disguises, hints
from safemed.stress.hints import Templates
from safemed.utils import cli, cost

log = logging.getLogger(__name__)

POOL = 64  # questions of the training split that examples are drawn from
CLEAN, THROUGH = "clean", "through"  # beside the name of an attack: the clean image, and the one of the adaptive attack
HINT, MADE = "hint", "made"  # words that are not made for defences, and words that are


@dataclass(frozen=True)
class Condition:
    """What a defence is asked under.

    seen: CLEAN, an attack's name or THROUGH. words: "" for the question as it is, HINT or MADE. wording: which of them.
    polarity: "negative" or "neutral", of words. asked: the questions under the words, and the letter that each claims.
    """

    seen: str = CLEAN
    words: str = ""
    wording: str = ""
    polarity: str = ""
    asked: Sequence[tuple[dict, str]] = ()

    def columns(self) -> dict:
        """What its rows say of it."""
        return {"seen": self.seen, "words": self.words, "wording": self.wording, "polarity": self.polarity}


def conditions(rows: list[dict], templates: Templates, attack: str, seed: int) -> Iterator[Condition]:
    """All conditions but the attack through the defence: plain questions first, then those that an attack stored, then
    all words. rows: of the prepared questions.
    """
    plain = [(row, "") for row in rows]
    yield Condition(asked=plain)
    yield Condition(seen=attack, asked=plain)
    for polarity in ("negative", "neutral"):
        for hint in templates.untaught():
            told = [(hints.hinted(row, hint, polarity, seed), hints.claimed(row, polarity, seed)) for row in rows]
            yield Condition(words=HINT, wording=hint.name, polarity=polarity, asked=told)
        told_all = [list(disguises.disguised(row, polarity == "neutral", seed)) for row in rows]
        for same in zip(*told_all, strict=True):
            name = same[0][0]
            yield Condition(words=MADE, wording=name, polarity=polarity, asked=[told[1:] for told in same])


def run(args: Namespace, script: str) -> None:
    """Write the folder args.out: rows.parquet (DEFENCE_ROWS of the report), images.npz (the stored images of the attack
    through each defence, uint8 [N, H, W, 3]), cost.json and provenance.json.
    """
    meter, vlm = cost.CostMeter("defend", args.model), load(args)
    inputs = [args.templates, args.attack / "rows.parquet", args.attack / "images.npz"]
    with results.resumable(args, script, meter, vlm, inputs, {}) as (folder, parts):
        templates = Templates.read(args.templates)
        plain = asking(vlm, subset(load_questions(args.data, "test"), args.settings["questions"], args.seed), args)
        examples = list(subset(load_questions(args.data, "train"), POOL, args.seed).remove_columns("image"))
        made = list(defences(args.settings, templates, examples, args.seed))
        defended = DefendedAnswers(plain, args, templates)
        for number, defence in enumerate(tqdm(made, desc="defences", disable=not cli.watched())):
            if not parts.has(2 * number):
                parts.write(2 * number, defended.told(defence))
            if not parts.has(2 * number + 1):
                parts.write(2 * number + 1, *defended.attacked(defence, parts.read(2 * number)))
        parts.rows().to_parquet(folder / "rows.parquet", index=False)
        images = dict(
            zip([one.name for one in made], parts.images().reshape(len(made), *plain.images.shape), strict=True)
        )
        np.savez_compressed(folder / "images.npz", **images)


class DefendedAnswers:
    """The rows of the questions that one model is asked through defences."""

    def __init__(self, plain: Evaluator, args: Namespace, templates: Templates):
        """plain: the model without a defence, asked the questions. args: of scripts/defend.py."""
        self.plain, self.args, self.settings, self.templates = plain, args, args.settings, templates
        self.stored, self.failed = stored_images(plain, args.attack, args.settings["eps"])
        self.starts, self.halving = self._starts(), Halving()

    def told(self, defence: Defence) -> pd.DataFrame:
        """The rows of all conditions but the attack through the defence."""
        asked = conditions(self.plain.rows, self.templates, self.args.attack.name, self.args.seed)
        tables = []
        for one in asked:
            attacked = one.seen != CLEAN
            failed = {i for i, row in enumerate(self.plain.rows) if attacked and row["question_id"] in self.failed}
            images = self.stored if attacked else self.plain.images
            tables.append(self._rows(defence, one, images, dict.fromkeys(failed, "the attack failed")))
        table = pd.concat(tables, ignore_index=True)
        right = (table.outcome == "right").groupby([table.seen, table.words, table.polarity], sort=False).mean()
        log.info("%s: right %s", defence.name, {"/".join(filter(None, k)): round(v, 3) for k, v in right.items()})
        return table

    def attacked(self, defence: Defence, told: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
        """The rows of the attack through the defence, and its stored images [1, N, H, W, 3].

        told: of the same defence. What the plain attack's images break through it stays as they have it.
        """
        plain = told[told.words == ""]
        outcomes = {seen: part.outcome.reset_index(drop=True) for seen, part in plain.groupby("seen")}
        clean, stored = outcomes[CLEAN], outcomes[self.args.attack.name]
        fell = torch.tensor(((clean == "right") & ~stored.isin(["right", FAILED])).to_numpy())
        start = torch.where(fell[:, None, None, None], self.stored, self.plain.images)
        evaluator = DefendedEvaluator(self.plain, defence, self.args.seed, self.settings["draws"], self.starts)
        images, failed = start.clone(), {}
        for rows in evaluator.batches(torch.arange(len(evaluator)), self.settings["batch_size"]):
            sweep = Sweep(evaluator, rows, self._task(), SimpleNamespace(images=start))
            sweep.attack(self.settings["eps"])
            sweep.table(self.settings["eps"])  # which refuses an image that is too far away
            images[rows] = sweep.stored
            failed |= {int(rows[i]): why for i, why in sweep.failed.items()}
        asked = [(row, "") for row in self.plain.rows]
        table = self._rows(defence, Condition(seen=THROUGH, asked=asked), images, failed)
        log.info("%s: right %.3f through it", defence.name, (table.outcome == "right").mean())
        return table, images.numpy()[None]

    def _starts(self) -> tuple[Tensor, Tensor]:
        """What the first restarts climb from: the stored images, and the clean ones; random ones of the ball where the
        stored image is the clean one, from which nothing new would be found.
        """
        clean, ball = self.plain.images, Ball("linf", self.settings["eps"] / 255)
        names = [f"{self.args.seed}:{THROUGH}:{row['question_id']}:start" for row in self.plain.rows]
        random = to_uint8(ball.start(to_float(clean, "cpu"), names))
        same = (self.stored == clean).flatten(1).all(1)
        return self.stored, torch.where(same[:, None, None, None], random, clean)

    def _task(self) -> Task:
        """The plain attack's settings with the restarts of the attack through a defence."""
        own = self.settings["budget"] | {"restarts": self.settings["restarts"]}
        config = registry.read_attack_config(THROUGH, own, self.args.variant, self.settings["amp"])
        return Task(own, config, model_columns(self.args), self.args.seed, survivors=True)

    def _rows(self, defence: Defence, condition: Condition, images: Tensor, failed: dict[int, str]) -> pd.DataFrame:
        """A row a question: the answer that comes out of the defence. failed: place -> why it could not be attacked."""
        questions, claims = zip(*condition.asked, strict=True)
        plain = self.plain.with_questions(list(questions), images)
        evaluator = DefendedEvaluator(plain, defence, self.args.seed, self.settings["draws"])
        batches = evaluator.batches(torch.arange(len(evaluator)), self.settings["batch_size"])
        found = for_each(batches, partial(_answers_and_passes, evaluator), self.halving)
        found |= {i: Failure(why) for i, why in failed.items()}
        far = (images.int() - self.plain.images.int()).abs().flatten(1).amax(1).tolist()
        made = [
            evaluator.about(i) | evaluator.about_answer(i, found[i], "passes") | {"claimed": claims[i], "linf": far[i]}
            for i in range(len(evaluator))
        ]
        same = model_columns(self.args) | {"defence": defence.name, "templates": self.templates.version}
        return pd.DataFrame(made).assign(**same, **condition.columns())


def _answers_and_passes(evaluator: DefendedEvaluator, part: Tensor) -> list[tuple[str, float]]:
    """The text that answers each question, and how often the vision tower saw an image for it: the part's mean."""
    before = evaluator.vlm.passes.forward
    texts = evaluator.answers(evaluator.images[part], part)
    return [(text, (evaluator.vlm.passes.forward - before) / len(part)) for text in texts]
