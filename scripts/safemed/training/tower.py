"""The trainer `tower`: the vision tower alone is trained, towards one of several objectives (training.objectives).

The language model's weights stay what they were, to the bit.
"""

import copy
from dataclasses import replace

import pandas as pd
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import set_seed

from safemed.data import levels
from safemed.data.dataset import as_arrays
from safemed.models.geometry import patchify, to_float
from safemed.models.tower import quicken
from safemed.models.vlm import VLM, Encoded, tower_features
from safemed.training import optimizers
from safemed.training.augmentation import Augmentation, augment_step
from safemed.training.logging_trainer import LoggingTrainer
from safemed.training.objectives import OBJECTIVES, Step


def one_row_an_image(questions: Dataset) -> Dataset:
    """question_id and image of the first question about each image, and `levels`, its labels at those that are told.

    All objectives but tecoa are expectations over images. Labels are added when rows are read, so that no copy of the
    images is cached in the data folder.
    """
    first = pd.Series(questions["image_path"]).drop_duplicates().index
    rows = questions.select(first).select_columns(["question_id", "image"])
    told = levels.labels(levels.of_images(questions)).to_numpy().tolist()
    known = dict(zip(rows["question_id"], told, strict=True))
    return rows.with_transform(lambda batch: batch | {"levels": [known[name] for name in batch["question_id"]]})


def collate(examples: list[dict]) -> dict:
    """Images uint8 [B, H, W, 3], and their rows without them."""
    images = torch.from_numpy(as_arrays(example["image"] for example in examples))
    rows = [{key: value for key, value in example.items() if key != "image"} for example in examples]
    return {"images": images, "rows": rows}


class TowerTrainer(LoggingTrainer):
    """Trains the vision tower, or its adapters.

    model: the whole model, whose tower is the Trainer's own. objective: one of OBJECTIVES. augmentation: adversarial,
    or noisy. vision_optimizer: see optimizers.make. Rows carry question_id and image; with levels (`one_row_an_image`)
    for all objectives but tecoa, which needs prompt and target (`common.training_rows`).

    Where several processes share a batch, contrastive losses compare the images of each process with each other.
    """

    def __init__(
        self,
        model,
        args,
        *,
        processing_class,
        objective: str,
        augmentation: Augmentation,
        vision_optimizer: str,
        peft_config: LoraConfig | None = None,
        **kwargs,
    ):
        set_seed(args.seed)  # the Trainer's own comes after the adapters are drawn
        model.requires_grad_(False)
        tower = model.model.visual.requires_grad_(True)
        self.reference = copy.deepcopy(tower).eval().requires_grad_(False)
        if peft_config:
            tower = model.model.visual = get_peft_model(tower, replace(peft_config, task_type=None))
        super().__init__(tower, args, processing_class=processing_class, data_collator=collate, **kwargs)
        self.model_accepts_loss_kwargs = False  # the loss is a mean: accumulated gradients are to be averaged
        self.objective, self.augmentation, self.kind = OBJECTIVES[objective], augmentation, vision_optimizer
        self.vlm = VLM(model.to(self.args.device).train(), processing_class)
        self.reference.to(self.vlm.device)
        quicken(self.reference)
        self.vlm.count(self.reference)

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        self.optimizer = optimizers.make(self.kind, self.model, self.args.learning_rate)
        return self.optimizer

    def compute_loss(self, model, inputs: dict, return_outputs: bool = False, num_items_in_batch=None):
        step = Step(
            vlm=self.vlm,
            # Through `model`, which averages gradients over processes, and not through the tower inside it.
            features=lambda images: tower_features(model, *patchify(images, self.vlm.geometry)),
            reference=self._reference_features,
            augmented=lambda loss, images, names: augment_step(self, loss, images, names),
            logits=self._logits,
            name=f"{self.args.seed}:{self.state.global_step}",
        )
        return self.objective(step, to_float(inputs["images"], self.vlm.device), inputs["rows"])

    @torch.no_grad()
    def _reference_features(self, images: Tensor) -> Tensor:
        """The reference's features [B, L, n, D], as precise as the tower's."""
        with self.accelerator.autocast():
            return tower_features(self.reference, *patchify(images, self.vlm.geometry))

    def _logits(self, features: Tensor, encoded: Encoded) -> Tensor:
        """Logits of the language model where it is given features of the tower, as precise as the tower."""
        with self.accelerator.autocast():
            return self.vlm.logits_given(features, encoded)
