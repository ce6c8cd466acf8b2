"""Supervised fine-tuning on TRL's SFTTrainer, on clean images or on an augmentation of them (at-sft)."""

from collections.abc import Callable

import torch
from torch import Tensor
from trl import SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from safemed.attacks.losses import words_away
from safemed.data.dataset import as_arrays
from safemed.models.chat import Chat
from safemed.models.geometry import patchify, to_float
from safemed.models.vlm import VLM
from safemed.training.augmentation import Augmentation, augment_step


class AugmentingCollator:
    """TRL's collator, which also hands on the images, the prompts and the targets that an augmentation is made from.

    It is given rendered texts: where a template opens the answer, TRL would render prompt and target otherwise than
    they are everywhere else.

    altered: what a row becomes before all else.
    """

    def __init__(self, processor, altered: Callable[[dict], dict] = lambda row: row):
        self.collate = DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True)
        self.altered, self.chat = altered, Chat(processor)

    def __call__(self, rows: list[dict]) -> dict:
        examples = [self.altered(row) for row in rows]
        images = torch.from_numpy(as_arrays(example["image"] for example in examples))
        kept = [{key: example[key] for key in ("question_id", "prompt", "target")} for example in examples]
        return {**self.collate([self._rendered(row) for row in examples]), "clean_images": images, "rows": kept}

    def _rendered(self, row: dict) -> dict:
        prompt, completion = self.chat.prompt(row["prompt"]), self.chat.taught(row["target"])
        return {"image": row["image"], "prompt": prompt, "completion": completion}


class AugmentedSFTTrainer(SFTTrainer):
    """SFTTrainer whose training steps see an augmentation of each image.

    augmentation: clean (plain SFT), noisy, or adversarial (at-sft: the attack climbs the loss of the same target). What
    it erases, the collator has erased. Rows are `common.training_rows`.
    """

    def __init__(self, *args, augmentation: Augmentation, **kwargs):
        super().__init__(*args, **kwargs)
        self.augmentation = augmentation
        self.vlm = VLM(self.accelerator.unwrap_model(self.model), self.processing_class)

    def compute_loss(self, model, inputs: dict, return_outputs: bool = False, num_items_in_batch=None):
        images, rows = inputs.pop("clean_images"), inputs.pop("rows")
        if self.augmentation.kind != "clean":
            inputs["pixel_values"], inputs["image_grid_thw"] = patchify(
                self._augmented(images, rows), self.vlm.geometry
            )
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def _augmented(self, images: Tensor, rows: list[dict]) -> Tensor:
        """Float augmentations [B, 3, H, W] of 8-bit images [B, H, W, 3]."""
        targets = [row["target"] for row in rows]
        encoded = self.vlm.encode([row["prompt"] for row in rows], targets, images.shape[1])
        clean, attack_loss = to_float(images, self.vlm.device), words_away(self.vlm, encoded)
        return augment_step(self, attack_loss, clean, [row["question_id"] for row in rows])
