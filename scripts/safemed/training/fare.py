"""FARE: unsupervised adversarial fine-tuning of the vision tower (Schlarmann et al. 2024, "Robust CLIP", eq. 3).

    min_theta  E_x  max_{|delta|_inf <= eps}  || phi_theta(x + delta) - phi_ref(x) ||^2

The tower phi_theta keeps, under attack, the features that the tower it started from has of the CLEAN image, so that the
language model, which is not trained, goes on understanding them. The distance is relative to the norm of the clean
features, in each layer of a deepstack by itself. No label and no answer enters. A step costs a fraction
of AT-GRPO's: the language model is not run.
"""

import copy
from dataclasses import replace

import pandas as pd
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import set_seed

from safemed.attacks.losses import feature_distance, features_away
from safemed.data.dataset import as_arrays
from safemed.models.geometry import patchify, to_float
from safemed.models.tower import quicken
from safemed.models.vlm import VLM, tower_features
from safemed.training import optimizers
from safemed.training.augmentation import Augmentation, augment_step
from safemed.training.logging_trainer import LoggingTrainer


def one_row_an_image(questions: Dataset) -> Dataset:
    """question_id and image of the first question about each image: FARE's expectation is over images."""
    first = pd.Series(questions["image_path"]).drop_duplicates().index
    return questions.select(first).select_columns(["question_id", "image"])


def collate(examples: list[dict]) -> dict:
    """Images uint8 [B, H, W, 3] and the ids of their questions."""
    images = torch.from_numpy(as_arrays(example["image"] for example in examples))
    return {"images": images, "question_ids": [example["question_id"] for example in examples]}


class FARETrainer(LoggingTrainer):
    """Trains the vision tower, or its adapters, towards its own clean features as they were at the start.

    model: the whole model, whose tower is the Trainer's own. augmentation: adversarial (FARE), or noisy.
    vision_optimizer: see optimizers.make. Rows carry question_id and image.
    """

    def __init__(
        self,
        model,
        args,
        *,
        processing_class,
        augmentation: Augmentation,
        vision_optimizer: str,
        peft_config: LoraConfig | None = None,
        **kwargs,
    ):
        set_seed(args.seed)  # the Trainer's own comes after the adapters are drawn
        tower = model.model.visual
        self.reference = copy.deepcopy(tower).eval().requires_grad_(False)
        if peft_config:
            tower = model.model.visual = get_peft_model(tower, replace(peft_config, task_type=None))
        super().__init__(tower, args, processing_class=processing_class, data_collator=collate, **kwargs)
        self.model_accepts_loss_kwargs = False  # the loss is a mean: accumulated gradients are to be averaged
        self.augmentation, self.kind = augmentation, vision_optimizer
        self.vlm = VLM(model.to(self.args.device).train(), processing_class)
        self.reference.to(self.vlm.device)
        quicken(self.reference)
        self.vlm.count(self.reference)

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        self.optimizer = optimizers.make(self.kind, self.model, self.args.learning_rate)
        return self.optimizer

    def compute_loss(self, model, inputs: dict, return_outputs: bool = False, num_items_in_batch=None):
        clean = to_float(inputs["images"], self.vlm.device)
        wanted = self._clean_features(clean)
        seen = augment_step(self, features_away(self.vlm, wanted), clean, inputs["question_ids"])
        # Through `model`, which averages gradients over processes, and not through the tower inside it.
        return feature_distance(tower_features(model, *patchify(seen, self.vlm.geometry)), wanted).mean()

    @torch.no_grad()
    def _clean_features(self, clean: Tensor) -> Tensor:
        """The reference's features [B, L, n, D] of the clean images, as precise as the tower's."""
        with self.accelerator.autocast():
            return tower_features(self.reference, *patchify(clean, self.vlm.geometry))
