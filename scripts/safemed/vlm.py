"""The vision-language model: loading it, and the differentiable path from pixels in [0, 1] to logits and text.

Everything here takes images as float tensors [B, 3, H, W] in [0, 1]; resizing happened once, in `prepare`, and
normalisation happens inside, so that attacks and smoothing noise live in pixel space.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoTokenizer, LogitsProcessorList, Qwen3VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor

from safemed.prompts import LETTERS

IMAGE_TOKEN = "<|image_pad|>"
# A sampled placeholder makes the next forward pass fail for want of its image.
PLACEHOLDERS = (IMAGE_TOKEN, "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")


class _ImageTextProcessor(Qwen3VLProcessor):
    """Qwen3-VL's processor for images and text alone: its video part would need torchvision."""

    def __init__(self, image_processor=None, tokenizer=None, chat_template=None, **kwargs):
        super().__init__(image_processor, tokenizer, None, chat_template=chat_template, **kwargs)


# The saved folder names its processor class, and must name the one that every installation knows.
_ImageTextProcessor.__name__ = Qwen3VLProcessor.__name__


def build_processor(image_processor, tokenizer, chat_template: str) -> Qwen3VLProcessor:
    """A processor for images and text; padding is on the left, as generation needs."""
    tokenizer.padding_side = "left"
    return _ImageTextProcessor(image_processor=image_processor, tokenizer=tokenizer, chat_template=chat_template)


def load_processor(path: Path | str, revision: str | None = None) -> Qwen3VLProcessor:
    """The processor of a saved Qwen3-VL model, images and text only."""
    tokenizer = AutoTokenizer.from_pretrained(path, revision=revision)
    image_processor = Qwen2VLImageProcessorPil.from_pretrained(path, revision=revision)
    return build_processor(image_processor, tokenizer, tokenizer.chat_template)


def save_model(model, processor, folder: Path) -> None:
    """Save a model and its processor in the Hugging Face layout; adapters are merged into the weights first.

    Raises FloatingPointError for weights that are not finite: such a model still writes text, and would be scored.
    """
    model = _merged(model)
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise FloatingPointError(
                f"{folder}: {name} is not finite, no model is written; lower the learning_rate and delete the "
                "checkpoint folder, or fetch the model again"
            )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    # AutoProcessor wants a video processor's settings for Qwen3-VL, though no video is ever seen.
    settings = {"video_processor_type": "Qwen3VLVideoProcessor", "processor_class": "Qwen3VLProcessor"}
    (folder / "video_preprocessor_config.json").write_text(json.dumps(settings, indent=1) + "\n")


def _merged(model):
    """The model without adapters: its own, or those of its vision tower alone, are part of the weights then."""
    if hasattr(model, "merge_and_unload"):
        return model.merge_and_unload()
    if hasattr(model.model.visual, "merge_and_unload"):
        model.model.visual = model.model.visual.merge_and_unload()
    return model


@dataclass
class Encoded:
    """Tokenised prompts, left-padded, and completions, right-padded, of B questions.

    prompt_ids, prompt_mask: [B, P]. completion_ids, completion_mask: [B, C] (C = 0 where there are none).
    """

    prompt_ids: Tensor
    prompt_mask: Tensor
    completion_ids: Tensor
    completion_mask: Tensor

    def __getitem__(self, rows: Tensor) -> Encoded:
        """The given rows; columns that are padding in all of them are dropped."""
        prompt, completion = self.prompt_mask[rows], self.completion_mask[rows]
        first = prompt.shape[1] - int(prompt.sum(1).max())
        last = int(completion.sum(1).max()) if completion.shape[1] else 0
        return Encoded(
            self.prompt_ids[rows][:, first:],
            prompt[:, first:],
            self.completion_ids[rows][:, :last],
            completion[:, :last],
        )

    def joined(self) -> Encoded:
        """The completions as the ends of the prompts: what comes next is predicted by the last position of all rows."""
        ids = torch.cat([self.prompt_ids, self.completion_ids], 1)
        mask = torch.cat([self.prompt_mask, self.completion_mask], 1)
        order = mask.sort(dim=1, stable=True).indices  # padding first
        ids, mask = ids.gather(1, order), mask.gather(1, order)
        return Encoded(ids, mask, ids[:, :0], mask[:, :0])[torch.arange(len(ids), device=ids.device)]


@dataclass(frozen=True)
class Geometry:
    """How an image becomes patches: patch size p, merge size m, temporal repetition t, and the normalisation."""

    patch: int
    merge: int
    temporal: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def of(cls, image_processor) -> Geometry:
        """The geometry that an image processor applies."""
        p = image_processor
        return cls(p.patch_size, p.merge_size, p.temporal_patch_size, tuple(p.image_mean), tuple(p.image_std))


def patchify(images: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor]:
    """Normalise and cut images as Qwen's image processor does, differentiably.

    images: [B, 3, H, W] in [0, 1], H and W multiples of patch * merge (ValueError otherwise: a resize here would let
    the attacked image differ from the scored one). Returns pixel_values [B * n, 3 * t * p * p] and grid_thw [B, 3].
    """
    b, c, height, width = images.shape
    p, m, t = geometry.patch, geometry.merge, geometry.temporal
    if height % (p * m) or width % (p * m):
        raise ValueError(f"images are {height} x {width}; the model needs multiples of {p * m}: set data.image_size")
    mean, std = (images.new_tensor(v).view(1, 3, 1, 1) for v in (geometry.mean, geometry.std))
    x = (images - mean) / std  # [B, 3, H, W]
    x = x.view(b, c, height // (p * m), m, p, width // (p * m), m, p)
    x = x.permute(0, 2, 5, 3, 6, 1, 4, 7)  # [B, H/pm, W/pm, m, m, 3, p, p]
    x = x.unsqueeze(6).expand(*x.shape[:6], t, p, p)  # [B, H/pm, W/pm, m, m, 3, t, p, p]
    grid = torch.tensor([[1, height // p, width // p]] * b, device=images.device)
    return x.reshape(-1, c * t * p * p), grid


def check_resize(processor, side: int) -> None:
    """Refuse a model whose processor would change a prepared image: its own resize must be the identity.

    Raises ValueError naming data.image_size where the processor's patches of a side x side image are not `patchify`'s.
    """
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    processed = processor.image_processor(images=[Image.fromarray(pixels)], return_tensors="pt")
    ours, grid = patchify(to_float(torch.from_numpy(pixels)[None], "cpu"), Geometry.of(processor.image_processor))
    theirs = processed["image_grid_thw"]
    if not torch.equal(theirs, grid) or not torch.allclose(processed["pixel_values"], ours, atol=1e-5):
        raise ValueError(
            f"data.image_size: {side} x {side} images would be resized by the model's processor to a grid of "
            f"{theirs[0, 1:].tolist()} patches instead of {grid[0, 1:].tolist()}; choose a side that it leaves alone"
        )


@dataclass
class Passes:
    """Images that went forward, and backward, through the vision tower."""

    forward: int = 0
    backward: int = 0


class VLM:
    """A model with its processor: images [B, 3, H, W] in [0, 1] in, logits or text out.

    `passes` counts, by hooks, every image that goes through the vision tower in either direction.
    """

    def __init__(self, model, processor: Qwen3VLProcessor):
        self.model = model
        self.tokenizer = processor.tokenizer
        self.processor = processor
        self.geometry = Geometry.of(processor.image_processor)
        self.image_token_id = self.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        self.letter_ids = [self._single_token(f" {letter}") for letter in LETTERS]
        self.passes = Passes()
        self.count(self.visual)

    @classmethod
    def load(cls, path: Path | str) -> VLM:
        """A saved model for evaluation: fp32, eval mode, frozen, on the GPU where there is one."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = Qwen3VLForConditionalGeneration.from_pretrained(path, dtype=torch.float32)
        return cls(model.to(device).eval().requires_grad_(False), load_processor(path))

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def visual(self) -> torch.nn.Module:
        """The vision tower."""
        return self.backbone.visual

    @property
    def backbone(self) -> torch.nn.Module:
        """Vision tower and language model without the output head, whatever adapters wrap the model."""
        model = self.model.get_base_model() if hasattr(self.model, "peft_config") else self.model
        return model.model

    def encode(self, prompts: list[list[dict]], completions: list[str], side: int) -> Encoded:
        """Chat prompts, each with one image of side x side, and the completions to teacher-force ('' for none)."""
        n = (side // self.geometry.patch // self.geometry.merge) ** 2
        render = self.processor.apply_chat_template
        texts = [render(prompt, add_generation_prompt=True, tokenize=False) for prompt in prompts]
        texts = [text.replace(IMAGE_TOKEN, IMAGE_TOKEN * n) for text in texts]
        return Encoded(*self.tokenise(texts, "left"), *self.tokenise(completions, "right"))

    def features(self, images: Tensor) -> Tensor:
        """All that the language model sees of the images: [B, L, n, D], the image tokens and the deepstack's layers."""
        pixel_values, grid = patchify(images, self.geometry)
        return tower_features(self.visual, pixel_values, grid)

    def completion_logits(self, images: Tensor, encoded: Encoded) -> Tensor:
        """Logits [B, C + 1, V]: position c predicts completion token c, the last one what would follow."""
        pixel_values, grid = patchify(images, self.geometry)
        kept = encoded.completion_ids.shape[1] + 1
        return self._teacher_forced(encoded, kept, pixel_values=pixel_values, image_grid_thw=grid)

    def logits_of(self, tokens: Tensor, encoded: Encoded) -> Tensor:
        """Logits [B, P + C, V] at every position, where the image tokens [B, n, D] are given and not seen."""
        side = math.isqrt(tokens.shape[1]) * self.geometry.merge  # patches
        grid = torch.tensor([[1, side, side]] * len(tokens), device=self.device)
        seen = BaseModelOutputWithDeepstackFeatures(pooler_output=list(tokens), deepstack_features=[])
        everything = encoded.prompt_ids.shape[1] + encoded.completion_ids.shape[1]
        return self._teacher_forced(encoded, everything, mm_encoder_outputs={"image": seen}, image_grid_thw=grid)

    def _teacher_forced(self, encoded: Encoded, kept: int, **image) -> Tensor:
        ids = torch.cat([encoded.prompt_ids, encoded.completion_ids], 1)  # [B, P + C]
        mask = torch.cat([encoded.prompt_mask, encoded.completion_mask], 1)
        kinds = (ids == self.image_token_id).long()
        arguments = {"input_ids": ids, "attention_mask": mask, "mm_token_type_ids": kinds, "use_cache": False}
        return self.model(**arguments, **image, logits_to_keep=kept).logits

    @torch.no_grad()
    def generate(self, images: Tensor, encoded: Encoded, max_new_tokens: int) -> list[str]:
        """Greedy completions of the prompts, without special tokens; placeholders are never produced.

        Raises FloatingPointError where the model's logits are not numbers: its words would be scored, and mean nothing.
        """
        return self._decode(images, encoded, max_new_tokens, do_sample=False)

    @torch.no_grad()
    def sample(self, images: Tensor, encoded: Encoded, max_new_tokens: int, seed: int) -> list[str]:
        """As `generate`, sampled at temperature 1; the seed and the batch decide what."""
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed)
            return self._decode(images, encoded, max_new_tokens, do_sample=True, temperature=1.0, top_k=0, top_p=1.0)

    def _decode(self, images: Tensor, encoded: Encoded, max_new_tokens: int, **how) -> list[str]:
        pixel_values, grid = patchify(images, self.geometry)
        ids = self.model.generate(
            input_ids=encoded.prompt_ids,
            attention_mask=encoded.prompt_mask,
            mm_token_type_ids=(encoded.prompt_ids == self.image_token_id).long(),
            pixel_values=pixel_values,
            image_grid_thw=grid,
            max_new_tokens=max_new_tokens,
            **how,
            logits_processor=LogitsProcessorList([_refuse_nan]),
            suppress_tokens=placeholder_ids(self.tokenizer),
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=self.tokenizer.eos_token_id,
        )
        return self.tokenizer.batch_decode(ids[:, encoded.prompt_ids.shape[1] :], skip_special_tokens=True)

    def tokenise(self, texts: list[str], side: str) -> tuple[Tensor, Tensor]:
        """Ids and mask [B, L] of texts, padded on the side given."""
        out = self.tokenizer(texts, add_special_tokens=False, padding=True, padding_side=side, return_tensors="pt")
        return out["input_ids"].long().to(self.device), out["attention_mask"].long().to(self.device)

    def _single_token(self, text: str) -> int:
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        if len(ids) != 1:
            raise ValueError(f"the tokenizer cuts the option letter {text!r} into {len(ids)} tokens; one is needed")
        return ids[0]

    def count(self, visual: torch.nn.Module) -> None:
        """Count the images that pass through a vision tower, this model's or its reference's, in `passes`."""
        visual.register_forward_hook(self._count, with_kwargs=True)

    def _count(self, module, args, kwargs, output) -> None:
        """Forward hook of the vision tower; the gradient that comes back through its output is counted when it does."""
        images = len(args[1] if len(args) > 1 else kwargs["grid_thw"])
        self.passes.forward += images
        if output.pooler_output.requires_grad:
            output.pooler_output.register_hook(lambda grad: self._count_backward(images))

    def _count_backward(self, images: int) -> None:
        self.passes.backward += images


def _refuse_nan(ids: Tensor, logits: Tensor) -> Tensor:
    """A logits processor that lets numbers pass; some models have -inf for tokens that they never write."""
    if logits.isnan().any() or (logits == torch.inf).any():
        raise FloatingPointError("the model's logits are not finite")
    return logits


def tower_features(visual: torch.nn.Module, pixel_values: Tensor, grid: Tensor) -> Tensor:
    """Features [B, L, n, D] of a vision tower: its image tokens, then each deepstack layer's."""
    seen = visual(pixel_values, grid_thw=grid)
    layers = torch.stack([seen.pooler_output, *seen.deepstack_features])  # [L, B * n, D]
    return layers.unflatten(1, (len(grid), -1)).transpose(0, 1)


def placeholder_ids(tokenizer) -> list[int]:
    """Token ids that stand for pixels and must never be sampled."""
    return tokenizer.convert_tokens_to_ids(list(PLACEHOLDERS))


@contextlib.contextmanager
def frozen(model: torch.nn.Module) -> Iterator[None]:
    """Eval mode and no parameter gradients inside the block; mode and gradients as they were after it."""
    training, wanted = model.training, [p for p in model.parameters() if p.requires_grad]
    model.eval()
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)
        model.train(training)


def to_float(images: list | Tensor, device: torch.device) -> Tensor:
    """8-bit images [B, H, W, 3] -> float [B, 3, H, W] in [0, 1]."""
    return torch.as_tensor(images).to(device).permute(0, 3, 1, 2).float() / 255


def to_uint8(images: Tensor) -> Tensor:
    """Float images [B, 3, H, W] in [0, 1] -> 8-bit [B, H, W, 3], rounded to the nearest level (never truncated)."""
    return (images * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu()
