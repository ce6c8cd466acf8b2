"""From pixels to patches: images as 8-bit numbers, as floats in [0, 1], and as the patches that Qwen3-VL sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor


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


def rope_positions(image: Tensor, mask: Tensor, columns: int) -> Tensor:
    """Qwen3-VL's positions (time, row, column) [3, B, T] of prompts that hold one square image each.

    image, mask: bool [B, T], the image tokens, and all but padding; columns: image tokens a side. What
    `Qwen3VLModel.get_rope_index` finds, without its loop over the prompts.
    """
    texts, place = (mask & ~image).cumsum(1), image.cumsum(1) - 1  # [B, T]
    base = torch.where(image, texts, texts - 1 + columns * (place >= 0))
    inside = torch.stack([torch.zeros_like(place), place // columns, place % columns]) * image
    return (base + inside) * mask


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


def to_float(images: list | Tensor, device: torch.device) -> Tensor:
    """8-bit images [B, H, W, 3] -> float [B, 3, H, W] in [0, 1]."""
    return torch.as_tensor(images).to(device).permute(0, 3, 1, 2).float() / 255


def to_uint8(images: Tensor) -> Tensor:
    """Float images [B, 3, H, W] in [0, 1] -> 8-bit [B, H, W, 3], rounded to the nearest level (never truncated)."""
    return (images * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu()
