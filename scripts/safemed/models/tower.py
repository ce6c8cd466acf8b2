"""The vision tower's arithmetic where all images have one size, as everywhere here: equal results in less time."""

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.models.qwen3_vl import modeling_qwen3_vl as qwen
from transformers.utils.generic import is_flash_attention_requested


class LinearPatchEmbed(qwen.Qwen3VLVisionPatchEmbed):
    """Each patch is one window of the convolution, which thus is a linear layer: a sixth of an attack step on a CPU."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        weight = self.proj.weight
        return F.linear(hidden_states.to(weight.dtype), weight.flatten(1), self.proj.bias)


class EqualSizeAttention(qwen.Qwen3VLVisionAttention):
    """Attention within each image by one call for all images, where the library makes one call an image.

    Raises ValueError for images of different sizes.
    """

    def forward(self, hidden_states: Tensor, cu_seqlens: Tensor, position_embeddings=None, **kwargs) -> Tensor:
        if is_flash_attention_requested(self.config):
            return super().forward(hidden_states, cu_seqlens, position_embeddings, **kwargs)
        total, images = len(hidden_states), len(cu_seqlens) - 1
        if total % images or int(cu_seqlens[1]) * images != total:
            raise ValueError("the images of a batch must have one size")
        query, key, value = self.qkv(hidden_states).view(total, 3, self.num_heads, -1).unbind(1)
        query, key = qwen.apply_rotary_pos_emb_vision(query, key, *position_embeddings)
        heads = (part.unflatten(0, (images, -1)).transpose(1, 2) for part in (query, key, value))
        seen = F.scaled_dot_product_attention(*heads, scale=self.scaling)  # [B, heads, n, D]
        return self.proj(seen.transpose(1, 2).reshape(total, -1))


QUICK = {qwen.Qwen3VLVisionPatchEmbed: LinearPatchEmbed, qwen.Qwen3VLVisionAttention: EqualSizeAttention}


def quicken(visual: torch.nn.Module) -> None:
    """Give a vision tower the classes above; its weights, their names and its hooks stay as they are."""
    for module in visual.modules():
        if type(module) in QUICK:
            module.__class__ = QUICK[type(module)]
