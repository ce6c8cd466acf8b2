"""A model that has learned a handful of questions, so that attacks have something to break."""

from collections.abc import Sequence
from pathlib import Path

import torch
from datasets import Dataset
from torch.nn import functional as F

from safemed.data import prompts
from safemed.data.dataset import FEATURES
from safemed.evaluation.evaluator import Evaluator
from safemed.models.geometry import to_float
from safemed.models.vlm import VLM, save_model
from support.settings import SIDE


def one_question_about_everything(questions: Dataset, n: int) -> Dataset:
    """n questions on different images of four modalities, with the same text and the same options, A to D."""
    names = ["CT", "dermoscopy", "ultrasound", "microscopy"]
    rows, seen = [], set()
    for i, (modality, path) in enumerate(zip(questions["modality"], questions["image_path"], strict=True)):
        letter = "ABCD"[names.index(modality)] if modality in names else None
        if letter and path not in seen and sum(row["gold"] == letter for row in rows) < n // 4:
            seen.add(path)
            rows.append({**questions[i], "question": "What is it?", "options": names, "gold": letter})
    assert len(rows) == n
    return Dataset.from_list(rows, features=FEATURES)


def teach(start: Path, questions: Dataset, out: Path, steps: int = 120, variants: Sequence[str] = prompts.VARIANTS):
    """Fit a saved model to all the questions in all variants at once, and save it."""
    vlm = VLM.load(start)
    vlm.model.requires_grad_(True).train()
    rows, images = list(questions), Evaluator(vlm, questions, "instruct", 1).images
    asked = [prompts.conversation(row, variant) for variant in variants for row in rows]
    targets = [prompts.target(row, v) + vlm.tokenizer.eos_token for v in variants for row in rows]
    encoded, pixels = vlm.encode(asked, targets, SIDE), to_float(images, vlm.device).repeat(len(variants), 1, 1, 1)
    ids = encoded.completion_ids.masked_fill(encoded.completion_mask == 0, -100)
    optimiser = torch.optim.AdamW(vlm.model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        loss = F.cross_entropy(vlm.completion_logits(pixels, encoded)[:, :-1].flatten(0, 1), ids.flatten())
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vlm.model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    save_model(vlm.model, vlm.processor, out)
