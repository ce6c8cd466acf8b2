"""Rollouts: G sampled completions of each prompt, their rewards, and their group-relative advantages."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from safemed.models.geometry import patchify, rope_positions
from safemed.models.processor import placeholder_ids
from safemed.models.vlm import VLM, Encoded


@torch.no_grad()
def sample_groups(
    vlm: VLM, images: Tensor, asked: Encoded, group: int, limit: int, temperature: float, draws: torch.Generator
) -> list[list[tuple[int, ...]]]:
    """`group` completions (token ids, with the end of text) of each of P prompts, sampled at a temperature.

    images [P, 3, H, W]. A prompt and its image go through the model once, whatever the group's size; placeholders of
    images are never drawn. limit: the greatest number of tokens.
    """
    pixel_values, grid = patchify(images, vlm.geometry)
    mask = asked.prompt_mask
    positions = rope_positions(asked.prompt_ids == vlm.image_token_id, mask.bool(), vlm.columns(images))
    out = vlm.model(
        input_ids=asked.prompt_ids, attention_mask=mask, position_ids=positions, pixel_values=pixel_values,
        image_grid_thw=grid, use_cache=True, logits_to_keep=1,
    )  # fmt: skip
    cache, logits = out.past_key_values, out.logits[:, -1].repeat_interleave(group, 0)
    cache.batch_repeat_interleave(group)
    mask, position = mask.repeat_interleave(group, 0), positions[:, :, -1:].repeat_interleave(group, 1)
    banned = placeholder_ids(vlm.tokenizer)
    written, ended = [], torch.zeros(len(mask), dtype=torch.bool, device=mask.device)
    for step in range(limit):
        logits = logits.float() / temperature
        logits[:, banned] = -torch.inf
        token = _drawn(logits.softmax(-1), draws)
        written.append(token.masked_fill(ended, -1))
        ended = ended | (token == vlm.tokenizer.eos_token_id)
        if ended.all() or step + 1 == limit:
            break
        mask, position = torch.cat([mask, mask.new_ones(len(mask), 1)], 1), position + 1
        out = vlm.model(
            input_ids=token[:, None], attention_mask=mask, position_ids=position, past_key_values=cache, use_cache=True,
        )  # fmt: skip
        logits = out.logits[:, -1]
    rows = [tuple(t for t in row if t >= 0) for row in torch.stack(written, 1).tolist()]
    return [rows[i : i + group] for i in range(0, len(rows), group)]


def _drawn(probabilities: Tensor, draws: torch.Generator) -> Tensor:
    """A token of each row's distribution [B, V], by inversion: the draws are the same on every device."""
    at = torch.rand(len(probabilities), 1, generator=draws, dtype=torch.float64)
    total = probabilities.double().cumsum(1)
    return torch.searchsorted(total, at.to(total) * total[:, -1:]).clamp(max=total.shape[1] - 1)[:, 0]


@dataclass(frozen=True)
class Rollouts:
    """The distinct (prompt, completion) pairs of P groups, K in all.

    row [K]: the prompt of each; completions [K]: its token ids; count [K]: how often it was drawn; advantage [K]: the
    sum of its draws' advantages. rewards: [P, G].
    """

    row: list[int]
    completions: list[tuple[int, ...]]
    count: Tensor
    advantage: Tensor
    rewards: Tensor

    @classmethod
    def of(cls, groups: list[list[tuple[int, ...]]], rewards: Tensor, advantages: Tensor) -> "Rollouts":
        """The distinct pairs of groups of G completions; rewards, advantages: [P, G]."""
        found: dict[tuple[int, tuple[int, ...]], list[float]] = {}
        for row, group in enumerate(groups):
            for i, completion in enumerate(group):
                entry = found.setdefault((row, completion), [0, 0.0])
                entry[0] += 1
                entry[1] += float(advantages[row, i])
        count, advantage = torch.tensor(list(found.values()), dtype=torch.float32).T
        return cls([row for row, _ in found], [words for _, words in found], count, advantage, rewards)


def group_advantages(rewards: Tensor, scale: str) -> Tensor:
    """Group-relative advantages [P, G] of rewards [P, G]: less the group's mean, over its standard deviation (scale
    "group"; Shao et al. 2024), or not divided ("none"; Liu et al. 2025)."""
    centred = rewards - rewards.mean(1, keepdim=True)
    return centred / (rewards.std(1, keepdim=True) + 1e-4) if scale == "group" else centred


def scored(vlm: VLM, groups: Sequence[Sequence[tuple[int, ...]]], reward) -> Tensor:
    """Rewards [P, G]; reward: (row, text) -> number, asked once for each distinct completion of a prompt."""
    known: dict[tuple[int, tuple[int, ...]], float] = {}
    for row, group in enumerate(groups):
        for completion in group:
            if (row, completion) not in known:
                known[row, completion] = reward(row, vlm.tokenizer.decode(completion, skip_special_tokens=True))
    return torch.tensor([[known[row, words] for words in group] for row, group in enumerate(groups)])
