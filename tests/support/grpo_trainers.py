"""AT-GRPO's trainer with a recorder of the pixels that each of its passes saw."""

import contextlib
from collections import defaultdict
from pathlib import Path

import torch
from datasets import Dataset
from transformers import TrainingArguments

from safemed.data.dataset import as_arrays
from safemed.models.geometry import patchify, to_float
from safemed.models.processor import load_processor
from safemed.models.vlm import VLM, load_weights
from safemed.training import at_grpo, common
from safemed.training.at_grpo import ATGRPOTrainer
from safemed.training.augmentation import Augmentation
from safemed.training.step_rows import Alter, unaltered
from support.settings import GRPO
from support.trainings import plain_rows, trainer_arguments

LIMIT = 6


class Recorder:
    """The images that went through a vision tower, as [n, 3 * H * W] in [0, 1] units, under the phase they went in."""

    def __init__(self):
        self.phase, self.seen = ["step"], defaultdict(list)

    def watch(self, visual: torch.nn.Module, vlm: VLM, who: str) -> None:
        """Record every forward pass of a vision tower."""

        def hook(module, args, kwargs):
            given = [*args, *kwargs.values()]
            pixel_values = next(v for v in given if torch.is_tensor(v) and v.is_floating_point())
            images = len(next(v for v in given if torch.is_tensor(v) and v.ndim == 2 and v.shape[1] == 3))
            mean, std = vlm.geometry.mean[0], vlm.geometry.std[0]  # the same for all three colours in the tiny model
            seen = (pixel_values.detach() * std + mean).view(images, -1)
            self.seen[who, self.phase[-1]].append((seen, vlm.model.training, torch.is_grad_enabled()))

        visual.register_forward_pre_hook(hook, with_kwargs=True)

    @contextlib.contextmanager
    def during(self, phase: str):
        """Passes inside the block belong to the phase."""
        self.phase.append(phase)
        yield
        self.phase.pop()

    def images(self, who: str, phase: str) -> torch.Tensor:
        """All images of a phase."""
        return torch.cat([images for images, _, _ in self.seen[who, phase]])


class Watched(ATGRPOTrainer):
    """The trainer itself; it only says which part of a step it is in, and keeps the rows and rollouts of its steps."""

    recorder: Recorder

    def compute_loss(self, model, rows, *args, **kwargs):
        self.inputs = rows
        return super().compute_loss(model, rows, *args, **kwargs)

    def _augmented(self, rows, clean):
        with self.recorder.during("attack"):
            return super()._augmented(rows, clean)

    def _loss(self, model, found, *args):
        self.found = found
        with self.recorder.during("loss"):
            return super()._loss(model, found, *args)


@contextlib.contextmanager
def rolling_out(recorder: Recorder):
    """Within the block, passes of the rollouts belong to a phase of their own."""
    made = at_grpo.roll_out

    def recording(*args):
        with recorder.during("rollout"):
            return made(*args)

    at_grpo.roll_out = recording
    try:
        yield
    finally:
        at_grpo.roll_out = made


def grpo_trainer(
    start: Path,
    questions: Dataset,
    folder: Path,
    augmentation: Augmentation,
    peft: dict | None = None,
    alter: Alter = unaltered,
    steps: int = 2,
    accumulate: int = 1,
    batch_size: int = 4,
    kind: type[Watched] = Watched,
    **settings,
) -> Watched:
    """A trainer of `steps` steps on four prompts; settings: what differs in the config's."""
    settings = {**GRPO, "steps": steps, "batch_size": batch_size, "gradient_accumulation": accumulate, **settings}
    trainer = kind(
        load_weights(start),
        TrainingArguments(**trainer_arguments(folder, settings)),
        train_dataset=plain_rows(questions, "instruct"),
        processing_class=load_processor(start),
        peft_config=common.adapter(peft),
        augmentation=augmentation,
        settings=settings,
        limit=LIMIT,
        alter=alter,
    )
    trainer.recorder = Recorder()
    trainer.start_trainable = [p for p in trainer.model.parameters() if p.requires_grad]
    trainer.recorder.watch(trainer.vlm.visual, trainer.vlm, "policy")
    if trainer.reference is not trainer.vlm:
        trainer.recorder.watch(trainer.reference.visual, trainer.vlm, "reference")
    return trainer


def trained(trainer: Watched) -> Watched:
    """The trainer after its training."""
    with rolling_out(trainer.recorder):
        trainer.train()
    return trainer


def nearest(images: torch.Tensor, questions: Dataset, vlm: VLM) -> tuple[torch.Tensor, torch.Tensor]:
    """For images [n, D]: which question's clean image is the nearest, and the L_inf distance to it, in levels."""
    clean = torch.from_numpy(as_arrays(questions["image"]))
    patches, _ = patchify(to_float(clean, torch.device("cpu")), vlm.geometry)
    patches = patches * vlm.geometry.std[0] + vlm.geometry.mean[0]
    distance = torch.cdist(images, patches.view(len(clean), -1), p=float("inf")) * 255
    return distance.argmin(1), distance.amin(1)
