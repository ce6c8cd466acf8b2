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
    """Attention within each image by one call for all images, where the library makes one call an image."""

    def forward(self, hidden_states: Tensor, cu_seqlens: Tensor, position_embeddings=None, **kwargs) -> Tensor:
        if is_flash_attention_requested(self.config):
            return super().forward(hidden_states, cu_seqlens, position_embeddings, **kwargs)
        total, images = len(hidden_states), len(cu_seqlens) - 1
        query, key, value = self.qkv(hidden_states).view(total, 3, self.num_heads, -1).unbind(1)
        query, key = qwen.apply_rotary_pos_emb_vision(query, key, *position_embeddings)
        heads = (part.unflatten(0, (images, -1)).transpose(1, 2) for part in (query, key, value))
        seen = F.scaled_dot_product_attention(*heads, scale=self.scaling)  # [B, heads, n, D]
        return self.proj(seen.transpose(1, 2).reshape(total, -1))


QUICK = {qwen.Qwen3VLVisionPatchEmbed: LinearPatchEmbed, qwen.Qwen3VLVisionAttention: EqualSizeAttention}


def quicken(visual: torch.nn.Module) -> None:
    """Give a vision tower the classes above; its weights, their names and its hooks stay as they are.

    From then on it raises ValueError for images of different sizes.
    """
    slow = [module for module in visual.modules() if type(module) in QUICK]
    for module in slow:
        module.__class__ = QUICK[type(module)]
    if slow:
        visual.register_forward_pre_hook(_check_sizes, with_kwargs=True)


def _check_sizes(module, args, kwargs) -> None:
    """Once for all layers: a look at the numbers waits for a GPU."""
    grid = args[1] if len(args) > 1 else kwargs["grid_thw"]
    if not bool((grid == grid[0]).all()):
        raise ValueError("the images of a batch must have one size")
