"""AT-GRPO's trainer with a recorder of the pixels that each of its passes saw."""

import contextlib
from collections import defaultdict
from pathlib import Path

import torch
from datasets import Dataset
from trl import GRPOConfig

from safemed.data.dataset import as_arrays
from safemed.models.geometry import patchify, to_float
from safemed.models.processor import load_processor, placeholder_ids
from safemed.models.vlm import VLM
from safemed.training import common, rewards
from safemed.training.at_grpo import ATGRPOTrainer
from safemed.training.augmentation import Augmentation
from safemed.training.step_rows import Alter, unaltered
from support.settings import TRAINING
from support.trainings import trainer_arguments


class Recorder:
    """The images that went through a vision tower, as [n, 3 * H * W] in [0, 1] units, under the phase they went in."""

    def __init__(self):
        self.phase, self.seen = [], defaultdict(list)

    def watch(self, visual: torch.nn.Module, vlm: VLM, who: str) -> None:
        """Record every forward pass of a vision tower."""

        def hook(module, args, kwargs):
            given = [*args, *kwargs.values()]
            pixel_values = next(v for v in given if torch.is_tensor(v) and v.is_floating_point())
            images = len(next(v for v in given if torch.is_tensor(v) and v.ndim == 2 and v.shape[1] == 3))
            mean, std = vlm.geometry.mean[0], vlm.geometry.std[0]  # the same for all three colours in the tiny model
            seen = (pixel_values.detach() * std + mean).view(images, -1)
            self.seen[(who, *self.phase)].append((seen, vlm.model.training, torch.is_grad_enabled()))

        visual.register_forward_pre_hook(hook, with_kwargs=True)

    @contextlib.contextmanager
    def during(self, phase: str):
        """Passes inside the block belong to the phase."""
        self.phase.append(phase)
        yield
        self.phase.pop()

    def images(self, *key: str) -> torch.Tensor:
        """All images of a phase."""
        return torch.cat([images for images, _, _ in self.seen[key]])


class Watched(ATGRPOTrainer):
    """The trainer itself; it only says which of TRL's steps it is in."""

    recorder: Recorder

    def _generate_and_score_completions(self, inputs):
        self.inputs = inputs
        with self.recorder.during("make"):
            return super()._generate_and_score_completions(inputs)

    def _generate(self, *args, **kwargs):
        self.state_at_rollout = (self.model.training, all(p.requires_grad for p in self.start_trainable))
        with self.recorder.during("rollout"):
            return super()._generate(*args, **kwargs)

    def _get_per_token_logps_and_entropies(self, *args, **kwargs):
        with self.recorder.during("logps"):
            return super()._get_per_token_logps_and_entropies(*args, **kwargs)

    def _compute_loss(self, model, inputs):
        with self.recorder.during("loss"):
            return super()._compute_loss(model, inputs)


def grpo_trainer(
    start: Path,
    questions: Dataset,
    folder: Path,
    augmentation: Augmentation,
    anchor_beta: float = 1.0,
    peft: dict | None = None,
    alter: Alter = unaltered,
    kind: type[Watched] = Watched,
    **config,
) -> Watched:
    """A trainer of two steps on two prompts of four rollouts, which computes old log-probabilities too.

    A batch of eight completions serves two steps of four: its second step is off-policy, so TRL wants the old ones.
    config: what differs in TRL's.
    """
    processor = load_processor(start)
    settings = {**TRAINING, "steps": 2, "batch_size": 4, "save_steps": 100}
    arguments = {
        **trainer_arguments(folder, settings),
        **{"steps_per_generation": 2, "temperature": 1.0, "beta": 0.0, "loss_type": "grpo", "num_generations": 4},
        **{"max_completion_length": 6, "save_strategy": "no"},
        **{"generation_kwargs": {"suppress_tokens": placeholder_ids(processor.tokenizer)}},
        **config,
    }
    trainer = kind(
        model=common.load_policy(start, peft),
        args=GRPOConfig(**arguments),
        reward_funcs=[rewards.accuracy, rewards.format],
        train_dataset=common.training_rows(questions, "instruct"),
        processing_class=processor,
        peft_config=common.adapter(peft),
        augmentation=augmentation,
        beta=anchor_beta,
        alter=alter,
    )
    trainer.recorder = Recorder()
    trainer.start_trainable = [p for p in trainer.model.parameters() if p.requires_grad]
    trainer.recorder.watch(trainer.vlm.visual, trainer.vlm, "policy")
    if trainer.anchor is not None and not trainer.has_adapter:
        trainer.recorder.watch(trainer.anchor.model.visual, trainer.vlm, "anchor")
    return trainer


def nearest(images: torch.Tensor, questions: Dataset, vlm: VLM) -> tuple[torch.Tensor, torch.Tensor]:
    """For images [n, D]: which question's clean image is the nearest, and the L_inf distance to it, in levels."""
    clean = torch.from_numpy(as_arrays(questions["image"]))
    patches, _ = patchify(to_float(clean, torch.device("cpu")), vlm.geometry)
    patches = patches * vlm.geometry.std[0] + vlm.geometry.mean[0]
    distance = torch.cdist(images, patches.view(len(clean), -1), p=float("inf")) * 255
    return distance.argmin(1), distance.amin(1)
