"""What one retriever finds for some questions: in the sound corpus, and once poisons are added to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from datasets import Dataset
from torch import Tensor

from safemed.models.vlm import VLM
from safemed.retrieval import poisons
from safemed.retrieval.corpus import Corpus, images_of, pooled_features
from safemed.retrieval.entries import Entry
from safemed.retrieval.poisons import Poison
from safemed.retrieval.reports import Report
from safemed.retrieval.retriever import Retriever, query_text


@dataclass(frozen=True)
class Found:
    """What is retrieved: an entry; the poison that it is, if it is one; and its picture, if that is not the entry's."""

    entry: Entry
    poison: Poison | None = None
    moved: Tensor | None = None

    @property
    def report(self) -> Report:
        return self.entry.report


class Library:
    """A corpus, and the tower that its images and the questions' are sought by, which image poisons know.

    train: the questions of the training split, with the images of the entries. shown: kind of image -> the questions'
    images, uint8 [Q, H, W, 3], of which poisons are aimed at the first kind. settings: k, words, eps, steps and
    restarts.
    """

    def __init__(
        self, tower: VLM, corpus: Corpus, train: Dataset, shown: Mapping[str, Tensor], questions: Sequence[dict],
        settings: dict, seed: int,
    ):  # fmt: skip
        self.tower, self.corpus, self.train, self.settings, self.seed = tower, corpus, train, settings, seed
        self.questions, self.texts = list(questions), [query_text(question) for question in questions]
        self.queries = {kind: pooled_features(tower, images) for kind, images in shown.items()}
        self.aimed_at = next(iter(self.queries.values()))
        self.sought = corpus.retriever(settings["words"])

    def sound(self, shown: str) -> list[list[Found]]:
        """The k entries for each question, beside this kind of image, best first."""
        return self._found(self.sought, shown, [Found(entry) for entry in self.corpus.entries])

    def poisoned(self, shown: str, kind: str, rate: float, per_question: int) -> list[list[Found]]:
        """The same with poisons of a kind added, as many as `aims` says."""
        alike = self.sought.cosines(self.aimed_at)
        added = poisons.poisons(kind, self.aims(rate, per_question), self.questions, self.corpus, alike, self.seed)
        features, moved = self.corpus.features[[one.donor for one in added]], [None] * len(added)
        if kind == "image" and added:
            moved = self.moved(added)
            features = pooled_features(self.tower, moved)
        entries = [Found(entry) for entry in self.corpus.entries]
        entries += [Found(one.entry, one, picture) for one, picture in zip(added, moved, strict=True)]
        texts = [one.report.text for one in entries]
        together = torch.cat([self.corpus.features, features])
        sought = Retriever(together, texts, self.sought.mean, self.settings["words"])
        return self._found(sought, shown, entries)

    def aims(self, rate: float, per_question: int) -> list[int]:
        """The numbers of the questions that poisons are aimed at, one a poison; see `poisons.aims`."""
        names = [question["question_id"] for question in self.questions]
        return poisons.aims(names, len(self.corpus.entries), rate, per_question, self.seed)

    def moved(self, added: Sequence[Poison]) -> Tensor:
        """The images of poisons, uint8 [P, H, W, 3], moved towards those of the questions that they are aimed at."""
        images = images_of(self.train, [one.entry for one in added])
        names = [f"{self.seed}:poison {i} of {self.texts[one.aim]}" for i, one in enumerate(added)]
        wanted, settings = self.aimed_at[[one.aim for one in added]], self.settings
        budget = settings["eps"], settings["steps"], settings["restarts"]
        return poisons.towards(self.tower, images, wanted, self.sought.mean, *budget, names)

    def pictures(self, found: Sequence[Found]) -> list[Tensor]:
        """The picture [H, W, 3] of each of what is found."""
        own = images_of(self.train, [one.entry for one in found]) if found else []
        return [image if one.moved is None else one.moved for one, image in zip(found, own, strict=True)]

    def _found(self, sought: Retriever, shown: str, entries: list[Found]) -> list[list[Found]]:
        ranked = sought.ranked(self.queries[shown], self.texts, self.settings["k"])
        return [[entries[place] for place in places] for places in ranked]
