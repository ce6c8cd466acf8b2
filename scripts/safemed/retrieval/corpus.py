"""The corpus that reports are retrieved from: the images of the training split, each with its report."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from torch import Tensor

from safemed.data.dataset import as_arrays
from safemed.models.geometry import to_float
from safemed.models.vlm import VLM
from safemed.retrieval.entries import Entry, read_entries, write_entries
from safemed.retrieval.retriever import Retriever, query_text

NEIGHBOURS = 8  # reports that are kept for each training question
BATCH = 128  # images


@dataclass(frozen=True)
class Corpus:
    """Entries, and what a tower makes of their images, float32 [N, D]."""

    entries: list[Entry]
    features: Tensor

    def __post_init__(self):
        if len(self.entries) != len(self.features):
            raise ValueError(f"{len(self.entries)} entries, and features of {len(self.features)}")

    def retriever(self, weight: float) -> Retriever:
        """What searches the entries; weight: that of the words, in [0, 1]."""
        return Retriever(self.features, [entry.report.text for entry in self.entries], self.features.mean(0), weight)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """What `write` has written. Raises ValueError where entries and features are not of one corpus."""
        try:
            return cls(read_entries(folder), torch.from_numpy(np.load(folder / "features.npy")))
        except ValueError as error:
            raise ValueError(f"{folder}: {error}; delete it and run build_corpus again") from error

    def write(self, folder: Path) -> None:
        """Write entries.parquet and features.npy into a folder."""
        write_entries(self.entries, folder)
        np.save(folder / "features.npy", self.features.numpy())


@torch.no_grad()
def pooled_features(vlm: VLM, images: Tensor) -> Tensor:
    """What a vision tower makes of 8-bit images [N, H, W, 3], pooled: float32 [N, D] on the CPU."""
    return torch.cat([pooled(vlm, to_float(part, vlm.device)).cpu() for part in images.split(BATCH)])


def pooled(vlm: VLM, images: Tensor) -> Tensor:
    """The mean over the image tokens of each layer of `VLM.features`, each of unit length: [B, L * D].

    images: float [B, 3, H, W]; differentiable.
    """
    features = vlm.features(images).float().mean(2)  # [B, L, D]
    return torch.nn.functional.normalize(features, dim=-1).flatten(1)


def images_of(questions: Dataset, entries: list[Entry]) -> Tensor:
    """The images of entries, uint8 [N, H, W, 3]; questions: those of the training split."""
    places = {name: place for place, name in enumerate(questions["question_id"])}
    rows = questions.select([places[entry.question_id] for entry in entries])
    return torch.from_numpy(as_arrays(rows["image"]))


def neighbours(corpus: Corpus, questions: Dataset, weight: float) -> pd.DataFrame:
    """For each training question the NEIGHBOURS entries that its image and words find among those of other images.

    Columns question_id, and entries, a list of their numbers, best first. weight: that of the words.
    """
    places = {entry.image_key: place for place, entry in enumerate(corpus.entries)}
    rows = list(questions.select_columns(["question_id", "question", "options", "image_key"]))
    own = np.array([places[row["image_key"]] for row in rows])
    texts = [query_text(row) for row in rows]
    found = corpus.retriever(weight).ranked(corpus.features[own], texts, NEIGHBOURS, own)
    return pd.DataFrame({"question_id": [row["question_id"] for row in rows], "entries": list(found)})
