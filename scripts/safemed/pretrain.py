"""Training the tiny model from random weights: what a downloaded checkpoint would already know.

Three kinds of rows in equal parts: images with the names of all that they show (the image tower learns to see),
questions about something named in words (an option's name gets bound to its letter, the phase transition that answering
waits for), and, after `binding_steps`, the same kind of questions about images. The options of both kinds of questions
are drawn from all names of the study.
"""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from torch import Tensor
from torch.nn import functional as F

from safemed import prompts
from safemed.data import as_array
from safemed.vlm import VLM, to_float

log = logging.getLogger(__name__)

IMAGE = {"type": "image"}


def corpus(questions: Dataset) -> list[str]:
    """All the text the model will meet: the tokenizer is trained on it."""
    rows = questions.remove_columns("image")
    return [
        text
        for row in rows
        for variant in prompts.VARIANTS
        for text in (prompts.render(row["question"], row["options"], variant), prompts.target(row, variant))
    ]


class Pretraining:
    """Batches, optimiser and state of the pretraining; `run` can be killed and started again.

    settings: the config's `base` (steps, binding_steps, batch_size, learning_rate, noise, max_options).
    Guarantees: batches depend on (seed, step) alone, so a resumed run ends with the weights of an undisturbed one.
    """

    def __init__(self, vlm: VLM, questions: Dataset, settings: dict, seed: int, side: int):
        self.vlm, self.settings, self.seed, self.side = vlm, settings, seed, side
        self.questions = questions
        rows = questions.remove_columns("image")
        self.rows = list(rows)
        self.names = sorted({option for row in rows for option in row["options"]})
        self.true_names = rows.to_pandas().groupby("image_path").apply(_gold_names).to_dict()
        self.optimiser = torch.optim.AdamW(
            vlm.model.parameters(), lr=settings["learning_rate"], weight_decay=0.01, betas=(0.9, 0.95)
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser, settings["learning_rate"], total_steps=settings["steps"], pct_start=0.05
        )

    def run(self, checkpoint: Path, every: int) -> list[dict]:
        """Train to the last step, saving every `every` steps; returns the curves (step and the three losses)."""
        start, curves = self._resume(checkpoint)
        self.vlm.model.train()
        for step in range(start, self.settings["steps"]):
            rng = np.random.default_rng([self.seed, step])
            losses = {"caption_loss": self._caption_loss(rng), "described_loss": self._described_loss(rng)}
            if step >= self.settings["binding_steps"]:
                losses["shown_loss"] = self._shown_loss(rng)
            self.optimiser.zero_grad()
            sum(losses.values()).backward()
            torch.nn.utils.clip_grad_norm_(self.vlm.model.parameters(), 1.0)
            self.optimiser.step()
            self.schedule.step()
            if (step + 1) % every == 0 or step + 1 == self.settings["steps"]:
                curves.append({"step": step + 1, **{name: loss.item() for name, loss in losses.items()}})
                log.info("step %d/%d %s", step + 1, self.settings["steps"], curves[-1])
                self._save(checkpoint, step + 1, curves)
        self.vlm.model.eval()
        return curves

    def _caption_loss(self, rng: np.random.Generator) -> Tensor:
        """Loss of naming all that is true of images, nothing being asked."""
        picked = self._pick(rng)
        captions = [", ".join(self.true_names[self.rows[i]["image_path"]]) for i in picked]
        return self._shown(rng, picked, [_user([IMAGE])] * len(picked), captions)

    def _shown_loss(self, rng: np.random.Generator) -> Tensor:
        """Loss of answering questions about images, the wrong options drawn from all names untrue of the image."""
        picked, variant = self._pick(rng), prompts.VARIANTS[rng.integers(len(prompts.VARIANTS))]
        asked, targets = [], []
        for row in (self.rows[i] for i in picked):
            untrue = [name for name in self.names if name not in self.true_names[row["image_path"]]]
            question = {**row, **self._options(rng, _answer(row), untrue)}
            text = prompts.render(row["question"], question["options"], variant)
            asked.append(_user([IMAGE, {"type": "text", "text": text}]))
            targets.append(prompts.target(question, variant))
        return self._shown(rng, picked, asked, targets)

    def _described_loss(self, rng: np.random.Generator) -> Tensor:
        """Loss of answering questions about something named in words: one of the options."""
        variant = prompts.VARIANTS[rng.integers(len(prompts.VARIANTS))]
        asked, targets = [], []
        for i in self._pick(rng):
            gold = str(rng.choice(self.names))
            question = {"modality": None, "finding": None, **self._options(rng, gold, self.names)}
            text = prompts.render(self.rows[i]["question"], question["options"], variant)
            asked.append(_user([{"type": "text", "text": f"{gold} {text}"}]))
            targets.append(self._ended(prompts.target(question, variant)))
        ids, mask = self.vlm.encode_prompts(asked)
        target_ids, target_mask = self.vlm.tokenise(targets, "right")
        out = self.vlm.model(
            input_ids=torch.cat([ids, target_ids], 1),
            attention_mask=torch.cat([mask, target_mask], 1),
            logits_to_keep=target_ids.shape[1] + 1,
        )
        return _masked_cross_entropy(out.logits[:, :-1], target_ids, target_mask)

    def _shown(self, rng: np.random.Generator, picked: list[int], asked: list, targets: list[str]) -> Tensor:
        """Loss of the targets after prompts with the picked rows' images, seen through a little Gaussian noise."""
        images = to_float(np.stack([as_array(self.questions[i]["image"]) for i in picked]), self.vlm.device)
        scale = torch.from_numpy(rng.uniform(0, self.settings["noise"], (len(picked), 1, 1, 1))).float()
        noise = torch.from_numpy(rng.standard_normal(images.shape, dtype=np.float32))
        images = (images + (scale * noise).to(images)).clamp(0, 1)  # [B, 3, H, W]
        encoded = self.vlm.encode(asked, [self._ended(target) for target in targets], self.side)
        logits = self.vlm.completion_logits(images, encoded)[:, :-1]  # [B, C, V]
        return _masked_cross_entropy(logits, encoded.completion_ids, encoded.completion_mask)

    def _options(self, rng: np.random.Generator, gold: str, others: list[str]) -> dict:
        """Two to max_options options, the gold one at a random place among others than it."""
        others = [name for name in others if name != gold]
        count = int(rng.integers(1, min(self.settings["max_options"] - 1, len(others)) + 1))
        options = [str(name) for name in rng.choice(others, count, replace=False)]
        place = int(rng.integers(count + 1))
        return {"options": [*options[:place], gold, *options[place:]], "gold": prompts.LETTERS[place]}

    def _pick(self, rng: np.random.Generator) -> list[int]:
        return rng.choice(len(self.rows), self.settings["batch_size"]).tolist()

    def _ended(self, text: str) -> str:
        return text + self.vlm.tokenizer.eos_token

    def _save(self, checkpoint: Path, step: int, curves: list[dict]) -> None:
        state = {
            "step": step,
            "curves": curves,
            "model": self.vlm.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
        }
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        partial = checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(checkpoint)

    def _resume(self, checkpoint: Path) -> tuple[int, list[dict]]:
        if not checkpoint.exists():
            return 0, []
        state = torch.load(checkpoint, weights_only=False)
        self.vlm.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        log.info("resuming at step %d from %s", state["step"], checkpoint)
        return state["step"], state["curves"]


def _user(content: list[dict]) -> list[dict]:
    return [{"role": "user", "content": content}]


def _gold_names(rows: pd.DataFrame) -> list[str]:
    """All that is true of an image: the gold answers of its questions, in the order of the questions."""
    return list(dict.fromkeys(_answer(row) for row in rows.to_dict("records")))


def _answer(row: dict) -> str:
    return row["options"][prompts.LETTERS.index(row["gold"])]


def _masked_cross_entropy(logits: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Mean cross entropy over the tokens under the mask. logits [B, C, V], targets and mask [B, C]."""
    return F.cross_entropy(logits.flatten(0, 1), targets.masked_fill(mask == 0, -100).flatten())
