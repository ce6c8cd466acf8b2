"""Several completions of one prompt in one sequence: the prompt, with its image, goes through the model once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


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


def rope_positions(image: Tensor, mask: Tensor, columns: int) -> Tensor:
    """Qwen3-VL's positions (time, row, column) [3, B, T] of prompts that hold one square image each.

    image, mask: bool [B, T], the image tokens, and all but padding; columns: image tokens a side. What
    `Qwen3VLModel.get_rope_index` finds, without its loop over the prompts.
    """
    texts, place = (mask & ~image).cumsum(1), image.cumsum(1) - 1  # [B, T]
    base = torch.where(image, texts, texts - 1 + columns * (place >= 0))
    inside = torch.stack([torch.zeros_like(place), place // columns, place % columns]) * image
    return (base + inside) * mask


def pack(
    prompt_ids: Tensor, prompt_mask: Tensor, image_token_id: int, columns: int, rows: Sequence[int],
    completions: Sequence[Sequence[int]],
) -> Packed:  # fmt: skip
    """Pack completions (lists of token ids, none empty), each after the prompt of its row.

    prompt_ids, prompt_mask: [B, P], left-padded; columns: as in `rope_positions`.
    """
    device, (b, p) = prompt_ids.device, prompt_ids.shape
    used = [0] * b
    starts = []
    for row, completion in zip(rows, completions, strict=True):
        starts.append(used[row])
        used[row] += len(completion)
    width = max(used)
    ids, owner, depth = (torch.zeros(b, width, dtype=torch.long) for _ in range(3))
    tokens: list[tuple[int, int, int, int]] = []
    for number, (row, start, completion) in enumerate(zip(rows, starts, completions, strict=True)):
        span = slice(start, start + len(completion))
        ids[row, span], owner[row, span] = torch.tensor(completion), number + 1
        depth[row, span] = torch.arange(len(completion))
        tokens += [(row, start + i if i else 0, token, number) for i, token in enumerate(completion)]
    ids, owner, depth = ids.to(device), owner.to(device), depth.to(device)
    mask = prompt_mask.bool()
    positions = rope_positions(prompt_ids == image_token_id, mask, columns)
    after = positions[:, :, -1:] + 1 + depth
    row, place, token, completion = torch.tensor(tokens, device=device).T
    return Packed(
        torch.cat([prompt_ids, ids], 1), _attention(mask, owner), torch.cat([positions, after], 2), width + 1,
        row, place, token, completion,
    )  # fmt: skip


def _attention(prompt_mask: Tensor, owner: Tensor) -> Tensor:
    """Who sees whom [B, 1, T, T]: earlier tokens of the prompt and of the same completion; padding sees itself.

    owner [B, S]: the number of each token's completion, 0 for padding.
    """
    (b, p), s = prompt_mask.shape, owner.shape[1]
    whose = torch.cat([torch.zeros_like(prompt_mask, dtype=torch.long), owner], 1)
    common = torch.cat([prompt_mask, torch.zeros_like(owner, dtype=torch.bool)], 1)  # the prompt is everybody's
    seen = common[:, None, :] | ((whose[:, :, None] == whose[:, None, :]) & (whose > 0)[:, None, :])
    order = torch.ones(p + s, p + s, dtype=torch.bool, device=owner.device)
    return ((seen & order.tril()) | torch.eye(p + s, dtype=torch.bool, device=owner.device))[:, None]
