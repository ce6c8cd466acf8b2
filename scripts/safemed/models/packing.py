"""Several completions of one prompt in one sequence: the prompt, with its image, goes through the model once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from safemed.models.geometry import patchify, rope_positions
from safemed.models.vlm import VLM, Encoded


@dataclass(frozen=True)
class Packed:
    """B prompts, each with its completions one after the other, of which none sees another.

    ids [B, T]; attention [B, 1, T, T] bool, whether a token (row) sees another (column); positions [3, B, T]; kept: how
    many logits at the end of a sequence predict a completion's token. All completions' tokens, N in number and in the
    order given: row, place (among the kept logits) and token of each, [N], and the completion that it belongs to, [N].
    """

    ids: Tensor
    attention: Tensor
    positions: Tensor
    kept: int
    row: Tensor
    place: Tensor
    token: Tensor
    completion: Tensor


def pack(vlm: VLM, asked: Encoded, images: Tensor, rows: Sequence[int], completions: Sequence[Sequence[int]]) -> Packed:
    """Pack completions (lists of token ids, none of them empty), each after the prompt of its row.

    asked: B prompts with images [B, 3, H, W].
    """
    starts, used = _laid_out(len(images), rows, completions)
    ids, owner, depth = (torch.zeros(len(images), max(used), dtype=torch.long) for _ in range(3))
    tokens: list[tuple[int, int, int, int]] = []
    for number, (row, start, words) in enumerate(zip(rows, starts, completions, strict=True)):
        span = slice(start, start + len(words))
        ids[row, span], owner[row, span], depth[row, span] = torch.tensor(words), number + 1, torch.arange(len(words))
        tokens += [(row, start + i if i else 0, token, number) for i, token in enumerate(words)]
    device, mask = asked.prompt_ids.device, asked.prompt_mask.bool()
    positions = rope_positions(asked.prompt_ids == vlm.image_token_id, mask, vlm.columns(images))
    after = positions[:, :, -1:] + 1 + depth.to(device)
    return Packed(
        torch.cat([asked.prompt_ids, ids.to(device)], 1),
        _attention(mask, owner.to(device)),
        torch.cat([positions, after], 2),
        max(used) + 1,
        *torch.tensor(tokens, device=device).T,
    )


def _laid_out(b: int, rows: Sequence[int], completions: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
    """Where each completion starts after its prompt, and how many tokens are then used of each prompt's room."""
    starts, used = [], [0] * b
    for row, words in zip(rows, completions, strict=True):
        starts.append(used[row])
        used[row] += len(words)
    return starts, used


def _attention(prompt_mask: Tensor, owner: Tensor) -> Tensor:
    """Who sees whom [B, 1, T, T]: earlier tokens of the prompt and of the same completion; padding sees itself.

    owner [B, S]: the number of each token's completion, 0 for padding.
    """
    p, s = prompt_mask.shape[1], owner.shape[1]
    whose = torch.cat([torch.zeros_like(prompt_mask, dtype=torch.long), owner], 1)
    common = torch.cat([prompt_mask, torch.zeros_like(owner, dtype=torch.bool)], 1)  # the prompt is everybody's
    seen = common[:, None, :] | ((whose[:, :, None] == whose[:, None, :]) & (whose > 0)[:, None, :])
    order = torch.ones(p + s, p + s, dtype=torch.bool, device=owner.device)
    return ((seen & order.tril()) | torch.eye(p + s, dtype=torch.bool, device=owner.device))[:, None]


def packed_hidden(model: torch.nn.Module, vlm: VLM, images: Tensor, packed: Packed) -> Tensor:
    """The last hidden states [N, D] from which vlm.head predicts each token of packed completions.

    model: what is called, vlm.model or what wraps it. images: [B, 3, H, W], of the packed prompts.
    """
    pixel_values, grid = patchify(images, vlm.geometry)
    with vlm.headless():
        hidden = model(
            input_ids=packed.ids,
            attention_mask=packed.attention,
            position_ids=packed.positions,
            pixel_values=pixel_values,
            image_grid_thw=grid,
            use_cache=False,
            logits_to_keep=packed.kept,
        ).logits
    return hidden[packed.row, packed.place]
