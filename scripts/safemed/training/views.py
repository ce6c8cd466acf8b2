"""The views of an image that a contrastive loss compares: noise, brightness, blur, and a small shift.

No flips and no crops: they change what questions about a side, a place or a size are answered with.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from safemed.utils.noise import gaussian, uniform

NOISE, BRIGHTNESS, BLUR, SHIFT = 0.05, 0.2, 1.0, 1 / 32  # the most: sigma; share; sigma in pixels; share of the side


def view(images: Tensor, names: list[str]) -> Tensor:
    """A view of each image, of the same shape [B, 3, H, W] in [0, 1], which its name draws.

    Equal names and images give equal views, in any batch and on any process.
    """
    seen = torch.stack([_one(image, name) for image, name in zip(images, names, strict=True)])
    amounts = seen.new_tensor([NOISE * uniform(f"{name}:noise") for name in names])
    noise = gaussian(images.shape[1:], [f"{name}:grain" for name in names]).to(images)
    return (seen + amounts[:, None, None, None] * noise).clamp(0, 1)


def _one(image: Tensor, name: str) -> Tensor:
    """One image [3, H, W], shifted, blurred and brightened or darkened."""
    most = max(1, round(SHIFT * image.shape[-1]))
    dx, dy = (int(uniform(f"{name}:{axis}") * (2 * most + 1)) - most for axis in "xy")
    padded = F.pad(image[None], (most, most, most, most), mode="replicate")
    height, width = image.shape[-2:]
    moved = padded[:, :, most + dy : most + dy + height, most + dx : most + dx + width]
    blurred = _blurred(moved, BLUR * uniform(f"{name}:blur"))[0]
    return blurred * (1 + BRIGHTNESS * (2 * uniform(f"{name}:brightness") - 1))


def _blurred(images: Tensor, sigma: float) -> Tensor:
    """Images [B, 3, H, W] under a Gaussian of so many pixels."""
    places = torch.arange(-3, 4, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-(places**2) / (2 * max(sigma, 1e-3) ** 2))
    kernel = (kernel / kernel.sum()).expand(images.shape[1], 1, 1, 7)
    across = F.conv2d(F.pad(images, (3, 3, 0, 0), mode="replicate"), kernel, groups=images.shape[1])
    down = F.pad(across, (0, 0, 3, 3), mode="replicate")
    return F.conv2d(down, kernel.transpose(2, 3), groups=images.shape[1])
