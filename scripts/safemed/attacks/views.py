"""What a defence makes of an image before a model sees it, and how an attack differentiates through it.

A view takes float images [b, 3, H, W] in [0, 1] and a name for each, and returns what the model is shown. Its gradient
is exact where there is one. JPEG and rounding have none: their backward pass is the identity (BPDA, Athalye, Carlini &
Wagner 2018, arXiv 1802.00420), their forward pass is what the model is really shown.
"""

import io
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from safemed.attacks.losses import AttackLoss
from safemed.models.geometry import to_float, to_uint8
from safemed.utils.noise import gaussian

View = Callable[[Tensor, list[str]], Tensor]


def as_it_is(images: Tensor, names: list[str]) -> Tensor:
    """The images themselves."""
    return images


def jpeg(quality: int) -> View:
    """Rounded to 8 bits, stored as JPEG of a quality from 1 to 95, and read again; BPDA."""
    return partial(_jpeg, quality)


def blur(sigma: float) -> View:
    """Blurred by a Gaussian of `sigma` pixels, cut off at three of them, edges mirrored; the exact gradient."""
    return partial(_blur, sigma)


def noisy(sigma: float) -> View:
    """With Gaussian noise of `sigma` in [0, 1] pixel units, which belongs to the image's name; the exact gradient."""
    return partial(_noisy, sigma)


def one_after_another(*views: View) -> View:
    """Each view of what the one before it made."""

    def view(images: Tensor, names: list[str]) -> Tensor:
        for each in views:
            images = each(images, names)
        return images

    return view


def through(attack_loss: AttackLoss, view: View, names: Callable[[Tensor], list[str]]) -> AttackLoss:
    """The loss of what a view makes of the images; names: rows [b] -> the images' names, asked for at every call."""

    def viewed(images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        return attack_loss(view(images, names(rows)), rows)

    return viewed


def _jpeg(quality: int, images: Tensor, names: list[str]) -> Tensor:
    with torch.no_grad():
        stored = np.stack([_stored(image, quality) for image in to_uint8(images).numpy()])
        shown = to_float(torch.from_numpy(stored), images.device).to(images.dtype)
    return images + (shown - images).detach()


def _stored(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def _blur(sigma: float, images: Tensor, names: list[str]) -> Tensor:
    reach = int(np.ceil(3 * sigma))
    places = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    weights = torch.exp(-(places**2) / (2 * sigma**2))
    weights = weights / weights.sum()
    channels = images.shape[1]
    padded = F.pad(images, (reach, reach, reach, reach), mode="reflect")
    along = F.conv2d(padded, weights.view(1, 1, 1, -1).repeat(channels, 1, 1, 1), groups=channels)
    return F.conv2d(along, weights.view(1, 1, -1, 1).repeat(channels, 1, 1, 1), groups=channels)


def _noisy(sigma: float, images: Tensor, names: list[str]) -> Tensor:
    return images + sigma * gaussian(images.shape[1:], names).to(images)
