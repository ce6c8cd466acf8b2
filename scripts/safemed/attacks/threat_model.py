"""The threat model: the ball that an attacker may move an image in, and distances in it.

Images are 8-bit; the attacker adds delta within a ball (|delta|_inf <= eps = k/255, or an L2 radius) and the result is
again an 8-bit image. Attacks climb on floats in [0, 1].
"""

import zlib
from dataclasses import dataclass

import torch
from torch import Tensor

from safemed.models.geometry import to_float, to_uint8


@dataclass(frozen=True)
class Ball:
    """All images within eps of a clean one and within [0, 1]. norm: linf or l2; eps in [0, 1] pixel units."""

    norm: str
    eps: float

    def project(self, images: Tensor, clean: Tensor) -> Tensor:
        """Images in the ball: for linf the nearest ones."""
        delta = images - clean
        if self.norm == "linf":
            delta = delta.clamp(-self.eps, self.eps)
        else:
            delta = delta * (self.eps / l2_norm(delta).clamp_min(1e-12)).clamp_max(1)
        return (clean + delta).clamp(0, 1)

    def direction(self, gradient: Tensor) -> Tensor:
        """The steepest ascent of unit length in the ball's norm; zero where the gradient is zero."""
        if self.norm == "linf":
            return gradient.sign()
        return gradient / l2_norm(gradient).clamp_min(1e-12)

    def start(self, clean: Tensor, names: list[str]) -> Tensor:
        """Random images of the ball, drawn for each image from the seed that its name hashes to."""
        if self.norm == "linf":
            return self.project(random_start(clean, self.eps, names), clean)
        return self.project(clean + self.eps * self.direction(random_start(clean, 1.0, names) - clean), clean)

    def store(self, images: Tensor, clean8: Tensor) -> Tensor:
        """The 8-bit images [b, H, W, 3] nearest to floats of the ball, which are in the ball too.

        Rounding keeps to an linf ball of whole levels. It may leave an L2 ball: then delta shrinks no more than it
        must.
        """
        stored = to_uint8(images)
        if self.norm == "linf":
            return stored
        clean = to_float(clean8, images.device)
        low, high = images.new_zeros(len(images)), images.new_ones(len(images))
        whole = self._holds(stored, clean8).to(images.device)
        for _ in range(10):  # the largest share of delta that is found to stay inside once it is rounded
            middle = (low + high) / 2
            inside = self._holds(shrunk(images, clean, middle), clean8).to(images.device)
            low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
        return shrunk(images, clean, torch.where(whole, 1.0, low))

    def _holds(self, stored: Tensor, clean8: Tensor) -> Tensor:
        """Whether 8-bit images are in the L2 ball, [b]."""
        return l2_levels(stored, clean8) <= self.eps


def shrunk(images: Tensor, clean: Tensor, share: Tensor) -> Tensor:
    """The 8-bit images of clean + share * delta, share [b]."""
    return to_uint8(clean + share[:, None, None, None] * (images - clean))


def l2_norm(delta: Tensor) -> Tensor:
    """L2 norm of each image, [B, 1, 1, 1]."""
    return delta.flatten(1).norm(dim=1)[:, None, None, None]


def l2_levels(images: Tensor, clean: Tensor) -> Tensor:
    """L2 distance [B], in [0, 1] pixel units, of 8-bit images."""
    return ((images.double() - clean.double()) / 255).flatten(1).norm(dim=1)


def random_start(clean: Tensor, eps: float, names: list[str]) -> Tensor:
    """Clean images plus uniform noise in [-eps, eps], drawn for each image from the seed that its name hashes to.

    The same name gives the same noise in any batch, on any process.
    """
    shape = clean.shape[1:]
    drawn = [torch.rand(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode()))) for name in names]
    return clean + eps * (2 * torch.stack(drawn).to(clean) - 1)
