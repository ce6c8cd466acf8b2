"""What the features of a vision tower tell by themselves: a vote of the nearest training images (Wu et al. 2018).

The language model is not asked. Neighbours are clean training images, by the cosine of pooled features; an image is
attacked first away from its own features, which no label enters, and then, where the vote still holds, against the
vote. The verdict is the vote on the stored 8-bit image.
"""

import logging
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from torch import Tensor

from safemed.attacks.contrast import pooled, votes, votes_away
from safemed.attacks.engine import AttackConfig, attack
from safemed.attacks.losses import feature_distance, features_away
from safemed.attacks.pgd import pgd
from safemed.attacks.threat_model import Ball
from safemed.data import levels
from safemed.data.dataset import as_arrays, load_questions, subset
from safemed.data.prompts import FAILED
from safemed.evaluation import results
from safemed.evaluation.arguments import model_columns
from safemed.evaluation.batching import Failure, Halving, for_each
from safemed.evaluation.partial_results import PartialResults
from safemed.models.geometry import to_float
from safemed.models.vlm import VLM

log = logging.getLogger(__name__)

PROBED = ("modality", "anatomy", "finding")  # levels that are voted on, where the records tell two labels at least
TAU = 0.07  # of the weights of votes, as there
CLEAN, PGD = "clean", "pgd"


@dataclass
class Images:
    """B distinct images. names: the id of the first question about each. images: uint8 [B, H, W, 3]. told: what is told
    of each, of `levels.of_images`.
    """

    names: list[str]
    images: Tensor
    told: pd.DataFrame

    @classmethod
    def of(cls, questions: Dataset) -> "Images":
        """Those that the questions show."""
        first = pd.Series(questions["image_path"]).drop_duplicates().index
        shown = questions.select(first)
        return cls(list(shown["question_id"]), torch.from_numpy(as_arrays(shown["image"])), levels.of_images(questions))


def run(args: Namespace, script: str) -> None:
    """Write the folder args.out: rows.parquet (TOWER_ROWS of the report), cost.json, provenance.json."""
    results.write_parts(args, script, "towers", [], _write)


def _write(vlm: VLM, args: Namespace, parts: PartialResults) -> None:
    """Probe the test images that are not probed yet, a batch a part."""
    settings, everything = args.settings, load_questions(args.data, "test")
    once = everything.select(pd.Series(everything["image_path"]).drop_duplicates().index)
    shown = set(subset(once, settings["images"], args.seed)["image_path"])
    asked = everything.select([i for i, path in enumerate(everything["image_path"]) if path in shown])
    probe = Probe(vlm, Images.of(load_questions(args.data, "train")), Images.of(asked), settings, args.seed)
    for number, batch in enumerate(probe.asked().split(settings["batch_size"])):
        if not parts.has(number):
            parts.write(number, probe.rows(batch).assign(**model_columns(args)))
            log.info("batch %d is probed", number)


class Probe:
    """A tower, the features of the training images, and the test images that it is probed on.

    settings: neighbours (k), steps and eps (in 1/255) of the attacks, batch_size. names: the labels that the training
    images have at each of PROBED. A level with fewer than two is left out: no vote on it could be wrong.
    """

    def __init__(self, vlm: VLM, train: Images, test: Images, settings: dict, seed: int):
        self.vlm, self.test, self.settings, self.seed = vlm, test, settings, seed
        self.halving = Halving()
        batches = torch.arange(len(train.names)).split(settings["batch_size"])
        found = for_each(batches, lambda rows: self._vectors(train.images[rows]), self.halving)
        whole = [i for i, vector in found.items() if not isinstance(vector, Failure)]
        if not whole:
            raise FloatingPointError("no training image has features that are numbers; train the model again")
        if len(whole) < len(found):
            log.warning("%d training images have no features, and do not vote", len(found) - len(whole))
        self.bank = torch.stack([found[i] for i in whole])  # [M, D]
        self.train = train.told.iloc[whole]
        labels = {level: sorted(set(self.train[level].dropna())) for level in PROBED}
        self.names = {level: names for level, names in labels.items() if len(names) > 1}

    def asked(self) -> Tensor:
        """The places of the test images that have a label, at some level, that can be voted for.

        Raises ValueError if there is none.
        """
        able = [self.test.told[level].isin(names).to_numpy() for level, names in self.names.items()]
        if not np.any(able):
            raise ValueError(
                f"{', '.join(PROBED)}: at none of them training images have two labels, of which a test image has one, "
                "so that there is nothing to vote on; leave towers out of evaluations"
            )
        return torch.from_numpy(np.flatnonzero(np.any(able, axis=0)))

    def rows(self, batch: Tensor) -> pd.DataFrame:
        """The rows of some images of `asked`, one for each level that is told of the image, clean and attacked."""
        shifts = self._shifts(batch)
        found = [row for level in self.names for row in self._of_level(level, batch)]
        return pd.DataFrame(found).assign(shift=lambda rows: rows["place"].map(shifts)).drop(columns="place")

    def _shifts(self, batch: Tensor) -> dict[int, float]:
        """How far an attack moves the features of each image (`feature_distance`), nan where that failed."""
        found = for_each([batch], self._moved, self.halving)
        return {i: np.nan if isinstance(one, Failure) else float(one) for i, one in found.items()}

    def _moved(self, batch: Tensor) -> Tensor:
        """The relative squared distance [b] of the features of stored attacked images to those of the clean ones."""
        ball, steps = Ball("linf", self.settings["eps"] / 255), self.settings["steps"]
        clean8 = self.test.images[batch]
        clean = to_float(clean8, self.vlm.device)
        with torch.no_grad():
            own = self.vlm.features(clean)
        start = ball.start(clean, self._names(batch, "shift"))
        seen, _ = pgd(features_away(self.vlm, own), clean, ball, steps, start, 2.5 * ball.eps / steps)
        with torch.no_grad():
            moved = self.vlm.features(to_float(ball.store(seen, clean8), self.vlm.device))
        found = feature_distance(moved, own)
        if not found.isfinite().all():
            raise FloatingPointError("features are not finite")
        return found.cpu()

    def _of_level(self, level: str, batch: Tensor) -> Iterator[dict]:
        """The rows of a level. An image whose label no training image has could not be right, and is left out."""
        voters = self.train[level].notna().to_numpy()
        names, told = self.names[level], self.test.told[level]
        batch = torch.tensor([i for i in batch.tolist() if told.iloc[i] in names], dtype=torch.long)
        if not len(batch):
            return
        code = {name: number for number, name in enumerate(names)}
        labels = torch.tensor([code[name] for name in self.train[level][voters]], device=self.vlm.device)
        gold = [code[name] for name in told.iloc[batch.tolist()]]
        vote = Vote(self.vlm, self.bank[torch.tensor(voters)], labels, len(names), self.settings["neighbours"])
        work = partial(self._votes, vote, dict(zip(batch.tolist(), gold, strict=True)), level)
        found = for_each([batch], work, self.halving)
        for i in batch.tolist():
            for seen in (CLEAN, PGD):
                yield self._row(i, level, seen, names, found[i])

    def _row(self, i: int, level: str, seen: str, names: list[str], found: tuple[int, int] | Failure) -> dict:
        told = self.test.told.iloc[i]
        answer = "" if isinstance(found, Failure) else names[found[seen == PGD]]
        outcome = FAILED if isinstance(found, Failure) else "right" if answer == told[level] else "wrong"
        return {
            "place": i, "question_id": self.test.names[i], "image_path": told.image_path, "level": level, "seen": seen,
            "gold": told[level], "answer": answer, "outcome": outcome, "k": self.settings["neighbours"],
            "classes": len(names), "eps": 0 if seen == CLEAN else self.settings["eps"],
        }  # fmt: skip

    def _votes(self, vote: "Vote", gold: dict[int, int], level: str, batch: Tensor) -> list[tuple[int, int]]:
        """The classes that are voted for of the clean and of the attacked image of each of a batch."""
        right, clean8 = torch.tensor([gold[i] for i in batch.tolist()]), self.test.images[batch]
        plain = vote.of(clean8)
        attacked = plain.clone()
        live = torch.nonzero(plain == right)[:, 0]  # what is wrong as it is, stays so
        if len(live):
            attacked[live] = vote.of(self._attacked(vote, right[live], batch[live], level))
        return list(zip(plain.tolist(), attacked.tolist(), strict=True))

    def _attacked(self, vote: "Vote", right: Tensor, batch: Tensor, level: str) -> Tensor:
        """The stored attacked images of a batch."""
        clean8 = self.test.images[batch]
        with torch.no_grad():
            own = self.vlm.features(to_float(clean8, self.vlm.device))
        losses = [features_away(self.vlm, own), vote.away(right.to(self.vlm.device))]
        config = AttackConfig(steps=self.settings["steps"])
        names = self._names(batch, level)

        def still_right(images: Tensor, rows: Tensor) -> Tensor:
            return vote.of(images) == right[rows]

        return attack(losses, still_right, clean8, names, self.settings["eps"], config, self.vlm.device).images

    def _names(self, batch: Tensor, what: str) -> list[str]:
        return [f"{self.seed}:towers:{what}:{self.test.names[i]}" for i in batch.tolist()]

    @torch.no_grad()
    def _vectors(self, images: Tensor) -> Tensor:
        return _finite(pooled(self.vlm.features(to_float(images, self.vlm.device))))


@dataclass
class Vote:
    """A vote of training images on the label of an image. bank: unit vectors [M, D]; labels [M]: of `classes`."""

    vlm: VLM
    bank: Tensor
    labels: Tensor
    classes: int
    k: int

    @torch.no_grad()
    def of(self, images: Tensor) -> Tensor:
        """The class [b] that the k nearest of the bank vote for, of 8-bit images [b, H, W, 3]; on the CPU."""
        vectors = _finite(pooled(self.vlm.features(to_float(images, self.vlm.device))))
        return votes(vectors, self.bank, self.labels, self.classes, self.k, TAU).argmax(1).cpu()

    def away(self, gold: Tensor):
        """The attack on the vote for gold [B]."""
        return votes_away(self.vlm, self.bank, self.labels, self.classes, gold, self.k, TAU)


def _finite(vectors: Tensor) -> Tensor:
    if not vectors.isfinite().all():
        raise FloatingPointError("features are not finite")
    return vectors
