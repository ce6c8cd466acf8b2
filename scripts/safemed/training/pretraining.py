"""Training the tiny model from random weights: what a downloaded checkpoint would already know.

BINDING: questions are answered about images whose tokens ARE words, the names of what they show, so that an option's
name gets bound to its letter, a phase transition that answering waits for. In the first `binding_steps`, and further
until the transition has come, all tokens are the answer's word and the wrong options are any names, and there is
nothing else to learn. Then the words are noisy, as
what the tower makes of an image is, and the wrong options are names that answer the same type of question: among any
names the question alone often tells which one it asks for, whatever the image shows. ALIGNMENT, from then on: each
token that leaves the vision tower should be the embedding of a word true of the image, its names in turn.

In the last `guessing_steps`, questions of the types in `guessed` are answered by an option drawn at random: the base
unlearns to tell which answer is right, though it still knows what they ask about. To tell is left to fine-tuning.
"""

import logging
import pickle
from collections import deque
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from torch import Tensor
from torch.nn import functional as F
from transformers import get_wsd_schedule

from safemed.data import prompts
from safemed.data.dataset import as_arrays
from safemed.models.geometry import patchify, to_float
from safemed.models.vlm import VLM
from safemed.training import optimizers
from safemed.utils.cost import CostMeter

log = logging.getLogger(__name__)

ANY = "any"  # stands for every question type
BOUND, WINDOW = 0.9, 25  # letters are bound where so many of them are right in the last so many batches
WARMUP = 25  # steps
TOKEN_NOISE = 0.5  # relative squared distance; what the vision tower makes of an image lies 0.2 to 0.45 off its words


def corpus(questions: Dataset, variants: list[str]) -> list[str]:
    """All the text the model will meet as one of the variants: the tokenizer is trained on it."""
    rows = questions.remove_columns("image")
    return [
        text
        for row in rows
        for variant in variants
        for text in (prompts.render(row["question"], row["options"], variant), prompts.target(row, variant))
    ]


class Pretraining:
    """Batches, optimiser and state of the pretraining; `run` can be killed and started again.

    settings: the config's `base` section. variants: as which the model is asked.
    Guarantees: batches depend on (seed, step) alone, so a resumed run ends with the weights of an undisturbed one.
    """

    def __init__(
        self, vlm: VLM, questions: Dataset, variants: list[str], settings: dict, seed: int, side: int, meter: CostMeter
    ):  # fmt: skip
        self.vlm, self.settings, self.seed, self.side, self.meter = vlm, settings, seed, side, meter
        self.variants = variants
        self.questions = questions
        rows = questions.remove_columns("image")
        self.rows = list(rows)
        self.names = _names_by_type(self.rows)
        self.image_tokens = (side // vlm.geometry.patch // vlm.geometry.merge) ** 2
        self.letters = vlm.tokenise([f" {letter}" for letter in prompts.LETTERS], "right")[0].flatten()
        self.bound: deque[float] = deque(maxlen=WINDOW)  # share of a batch's letters that are right
        self.true_names = rows.to_pandas().groupby("image_path").apply(_gold_names).to_dict()
        # Muon, with which the tower needs a fraction of the steps; the phase transition does not come with it.
        self.optimiser = optimizers.make(
            "muon",
            vlm.visual,
            settings["vision_learning_rate"],
            vlm.backbone.language_model,
            settings["learning_rate"],
            betas=(0.9, 0.95),
        )
        steps = settings["steps"]
        # The first step of a warm-up has a learning rate of 0: of a single step, it would be the whole training.
        warmup = WARMUP if steps > 1 else 0
        self.schedule = get_wsd_schedule(
            self.optimiser, num_warmup_steps=warmup, num_decay_steps=steps * 3 // 10, num_training_steps=steps
        )

    def run(self, checkpoint: Path, every: int) -> list[dict]:
        """Train to the last step, saving every `every` steps; returns the curves (step and the two losses)."""
        start, curves = self._resume(checkpoint)
        self.vlm.model.train()
        for step in range(start, self.settings["steps"]):
            losses = self._step(step, np.random.default_rng([self.seed, step]))
            self.schedule.step()
            if step + 1 == self.settings["binding_steps"]:
                self._bind_on(step)
            if (step + 1) % every == 0 or step + 1 == self.settings["steps"]:
                curves.append({"step": step + 1, **{name: loss.item() for name, loss in losses.items()}})
                log.info("step %d/%d %s", step + 1, self.settings["steps"], curves[-1])
                self._save(checkpoint, step + 1, curves)
        self.vlm.model.eval()
        return curves

    def _step(self, step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """One update; returns its losses."""
        alone = step < self.settings["binding_steps"]
        guessing = step >= self.settings["steps"] - self.settings["guessing_steps"]
        losses = {"binding_loss": self._binding_loss(rng, alone, guessing)}
        if not alone:
            losses["alignment_loss"] = self._alignment_loss(rng)
        self.optimiser.zero_grad()
        sum(losses.values()).backward()
        # Apart, lest the alignment's large gradients shrink those that the phase transition lives on.
        for tower in (self.vlm.visual, self.vlm.backbone.language_model):
            torch.nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        self.optimiser.step()
        return losses

    def _bind_on(self, step: int) -> None:
        """Further updates of the last binding step, until letters are bound, and at most as many as there were before.

        When the phase transition comes is a matter of the seed, and a model that reads images first stays without it.
        """
        for more in range(1, self.settings["binding_steps"] + 1):
            if np.mean(self.bound) >= BOUND:
                return
            self._step(step, np.random.default_rng([self.seed, step, more]))
        log.warning("only %.0f %% of letters are right; raise base.binding_steps", 100 * np.mean(self.bound))

    def _alignment_loss(self, rng: np.random.Generator) -> Tensor:
        """Squared distance of each image token to its word's embedding, plus the cross entropy of the nearest word.

        The cross entropy alone would leave a token's length free: only differences of distances enter it.
        """
        picked = self._pick(rng)
        images = to_float(as_arrays(self.questions[i]["image"] for i in picked), self.vlm.device)
        scale = torch.from_numpy(rng.uniform(0, self.settings["noise"], (len(picked), 1, 1, 1))).float()
        noise = torch.from_numpy(rng.standard_normal(images.shape, dtype=np.float32))
        pixel_values, grid = patchify((images + (scale * noise).to(images)).clamp(0, 1), self.vlm.geometry)
        tokens = self.vlm.visual(pixel_values, grid_thw=grid).pooler_output  # [B * n, D]
        words = self.vlm.model.get_input_embeddings().weight.detach()  # [V, D]
        targets = self._words(picked).flatten()  # [B * n]
        unit = words.square().sum(1).mean()  # two random words are 2 units apart
        distances = torch.cdist(tokens, words).square() / unit  # [B * n, V]
        return F.cross_entropy(-8 * distances, targets) + distances.gather(1, targets[:, None]).mean()

    def _binding_loss(self, rng: np.random.Generator, alone: bool, guessing: bool) -> Tensor:
        """Loss of prompt and completion, each a mean over its words, for images given as words.

        The words are all that are true of the image, or the answer's alone. The prompt's part is what makes the
        transition come: predicting options that repeat the image's words teaches to look names up. guessing: the
        answers of some question types are random.
        """
        picked, variant = self._pick(rng), self.variants[rng.integers(len(self.variants))]
        asked, targets = [], []
        for row in (self.rows[i] for i in picked):
            kind = ANY if alone else row["question_type"]
            others = self._untrue(row, kind) or self._untrue(row, ANY)
            question = {**row, **self._options(rng, prompts.gold_text(row), others)}
            if alone:
                question |= {"modality": None, "finding": None}
            elif guessing and row["question_type"] in self.settings["guessed"]:
                question["gold"] = str(rng.choice(list(prompts.LETTERS[: len(question["options"])])))
            asked.append(prompts.conversation(question, variant))
            targets.append(prompts.target(question, variant) + self.vlm.tokenizer.eos_token)
        encoded = self.vlm.encode(asked, targets, self.side)
        tokens = self.vlm.model.get_input_embeddings()(self._words(picked, alone))  # [B, n, D]
        if not alone:
            tokens = tokens + self._token_noise(rng, tokens)
        logits = self.vlm.logits_of(tokens, encoded)[:, :-1]  # [B, P + C - 1, V]
        ids = torch.cat([encoded.prompt_ids, encoded.completion_ids], 1)[:, 1:]
        mask = torch.cat([encoded.prompt_mask, encoded.completion_mask], 1)[:, 1:]
        ids = ids.masked_fill((mask == 0) | (ids == self.vlm.image_token_id), -100)
        loss = F.cross_entropy(logits.transpose(1, 2), ids, reduction="none")  # [B, P + C - 1]
        c, words = encoded.completion_ids.shape[1], (ids != -100).float()
        letters = torch.isin(ids[:, -c:], self.letters)
        self.bound.append((logits[:, -c:].argmax(-1) == ids[:, -c:])[letters].float().mean().item())
        return sum((loss[:, part].sum() / words[:, part].sum()) for part in (slice(-c), slice(-c, None)))

    def _untrue(self, row: dict, kind: str) -> list[str]:
        """The names of a question type that are not true of the row's image."""
        return [name for name in self.names[kind] if name not in self.true_names[row["image_path"]]]

    def _token_noise(self, rng: np.random.Generator, tokens: Tensor) -> Tensor:
        """Gaussian noise for tokens [B, n, D], its expected squared length up to TOKEN_NOISE of theirs."""
        share = torch.from_numpy(rng.uniform(0, TOKEN_NOISE, (len(tokens), 1, 1))).to(tokens.device)
        noise = torch.from_numpy(rng.standard_normal(tokens.shape, dtype=np.float32))
        return (share * tokens.detach().square().mean()).sqrt().to(tokens) * noise.to(tokens)

    def _words(self, picked: list[int], alone: bool = False) -> Tensor:
        """Token ids [B, n]: the first token of each true name of the picked rows' images, in turn, over the n image
        tokens; alone: that of the row's answer."""
        encode = self.vlm.tokenizer.encode
        rows = [self.rows[i] for i in picked]
        names = [[prompts.gold_text(row)] if alone else self.true_names[row["image_path"]] for row in rows]
        ids = [[encode(f" {name}")[0] for name in true] for true in names]
        slots = [[row[k % len(row)] for k in range(self.image_tokens)] for row in ids]
        return torch.tensor(slots, device=self.vlm.device)

    def _options(self, rng: np.random.Generator, gold: str, others: list[str]) -> dict:
        """Two to max_options options, the gold one at a random place among others than it."""
        count = int(rng.integers(1, min(self.settings["max_options"] - 1, len(others)) + 1))
        options = [str(name) for name in rng.choice(others, count, replace=False)]
        place = int(rng.integers(count + 1))
        return {"options": [*options[:place], gold, *options[place:]], "gold": prompts.LETTERS[place]}

    def _pick(self, rng: np.random.Generator) -> list[int]:
        return rng.choice(len(self.rows), self.settings["batch_size"]).tolist()

    def _save(self, checkpoint: Path, step: int, curves: list[dict]) -> None:
        state = {
            "step": step,
            "curves": curves,
            "model": self.vlm.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "bound": list(self.bound),
            "spent": self.meter.spent(self.vlm.passes),
        }
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        partial = checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(checkpoint)

    def _resume(self, checkpoint: Path) -> tuple[int, list[dict]]:
        if not checkpoint.exists():
            return 0, []
        try:
            state = torch.load(checkpoint, weights_only=True)
        except pickle.UnpicklingError as error:
            raise SystemExit(
                f"{checkpoint}: no checkpoint of this training, which holds numbers alone; delete it to start anew"
            ) from error
        self.vlm.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self.bound.extend(state["bound"])
        self.meter.resume(state["spent"], self.vlm.passes)
        log.info("resuming at step %d from %s", state["step"], checkpoint)
        return state["step"], state["curves"]


def _names_by_type(rows: list[dict]) -> dict[str, list[str]]:
    """Question type -> all options of its questions, and ANY -> those of all questions; sorted."""
    names = {ANY: sorted({option for row in rows for option in row["options"]})}
    for kind in sorted({row["question_type"] for row in rows}):
        names[kind] = sorted({option for row in rows if row["question_type"] == kind for option in row["options"]})
    return names


def _gold_names(rows: pd.DataFrame) -> list[str]:
    """All that is true of an image: the gold answers of its questions, in the order of the questions."""
    return list(dict.fromkeys(prompts.gold_text(row) for row in rows.to_dict("records")))
