"""Rollouts: the G completions that are sampled of each prompt, their rewards and their group-relative advantages."""

from collections import Counter
from dataclasses import dataclass

import torch
from accelerate.utils import reduce
from torch import Tensor

from safemed.data.prompts import parse
from safemed.models.geometry import patchify, rope_positions
from safemed.models.processor import placeholder_ids
from safemed.models.vlm import VLM, Encoded
from safemed.training.rewards import REWARDS

MOST_CUT = 512  # rollouts
Completion = tuple[int, ...]  # token ids, with the end of text where it was reached


@dataclass(frozen=True)
class Rollouts:
    """The distinct completions of P prompts, K in all: what is drawn twice goes through the model once.

    rows [K]: the prompt of each. completions [K]. counts [K]: how often each was drawn. advantages [K]: the sum of the
    advantages of its draws. rewards: name -> [P, G], as drawn. total [P, G]: the weighted sum that advantages are of.
    cut [P, G]: whether the limit ended a draw before it named an answer.
    """

    rows: list[int]
    completions: list[Completion]
    counts: Tensor
    advantages: Tensor
    rewards: dict[str, Tensor]
    total: Tensor
    cut: Tensor

    def metrics(self) -> dict[str, float]:
        """What training curves show of them."""
        lengths = torch.tensor([float(len(words)) for words in self.completions])
        compared = {"frac_reward_zero_std": (self.total.std(1, correction=0) < 1e-6).float().mean().item()}
        return {
            **{f"reward_{name}": values.mean().item() for name, values in self.rewards.items()},
            **(compared | {"cut_rollouts": self.cut.float().mean().item()} if self.rewards else {}),
            "distinct_rollouts": len(self.completions) / self.total.numel(),
            "completion_length": ((lengths * self.counts).sum() / self.counts.sum()).item(),
        }


def taught(vlm: VLM, rows: list[dict]) -> Rollouts:
    """The target of each of P rows where its rollouts would be, with an advantage of 1: supervised fine-tuning."""
    ids, mask = vlm.tokenise([vlm.chat.taught(row["target"]) for row in rows], "right")
    targets = [tuple(words[:length]) for words, length in zip(ids.tolist(), mask.sum(1).tolist(), strict=True)]
    ones = torch.ones(len(rows))
    return Rollouts([*range(len(rows))], targets, ones, ones, {}, ones[:, None], torch.zeros(len(rows), 1, dtype=bool))


class Unanswered:
    """How many rollouts a training began with that were all cut: none of them can be rewarded, and nothing is learned.

    After `MOST_CUT` of them, at least 99.4 % of all would be cut (95 % confidence, the rule of three). One rollout that
    is not ends the watch: what is rewarded now and then is learned. Every process must ask, and gets the same answer.
    """

    def __init__(self):
        self.drawn, self.over = 0, False

    def check(self, found: Rollouts, limit: int, variant: str, device: torch.device) -> None:
        """Count the rollouts of a step of all processes. Raises SystemExit naming the key where it is time to stop."""
        if self.over:
            return
        drawn, cut = reduce(torch.tensor([found.cut.numel(), int(found.cut.sum())], device=device), "sum").tolist()
        self.drawn, self.over = self.drawn + drawn, cut < drawn
        if not self.over and self.drawn >= MOST_CUT:
            raise SystemExit(
                f"config: max_new_tokens.{variant}: {limit}; the first {self.drawn} rollouts all end there without an "
                "answer, so that none is rewarded and nothing is learned: raise it, or start from a model that has "
                "learned the format"
            )


def roll_out(
    vlm: VLM, images: Tensor, asked: Encoded, rows: list[dict], settings: dict, limit: int, draws: torch.Generator
) -> Rollouts:
    """Sample, reward and compare the completions of P prompts.

    images [P, 3, H, W]; rows: what is asked, with gold, n_options and variant. settings: num_generations, temperature,
    rewards (name -> weight) and scale_rewards. limit: tokens of a completion.
    """
    groups = sample_groups(vlm, images, asked, settings["num_generations"], settings["temperature"], limit, draws)
    texts = [[vlm.text(words) for words in group] for group in groups]
    rewards = {
        name: torch.tensor([[reward(text, row) for text in group] for group, row in zip(texts, rows, strict=True)])
        for name, reward in REWARDS.items()
    }
    total = sum(settings["rewards"][name] * values for name, values in rewards.items())
    ended = (limit, vlm.tokenizer.eos_token_id)
    cut = torch.tensor(
        [
            [_cut(words, text, row, *ended) for words, text in zip(group, said, strict=True)]
            for group, said, row in zip(groups, texts, rows, strict=True)
        ]
    )
    return compact(groups, rewards, total, group_advantages(total, settings["scale_rewards"]), cut)


def _cut(words: Completion, text: str, row: dict, limit: int, end: int) -> bool:
    """Whether the limit ended a completion before it named an answer."""
    return len(words) == limit and words[-1] != end and parse(text, row["n_options"], row["variant"]).answer is None


def group_advantages(rewards: Tensor, scale: str) -> Tensor:
    """Advantages [P, G] of rewards [P, G]: less the group's mean, and, where scale is "group", over its standard
    deviation (Shao et al. 2024); "none" does not divide (Liu et al. 2025)."""
    centred = rewards - rewards.mean(1, keepdim=True)
    return centred / (rewards.std(1, keepdim=True) + 1e-4) if scale == "group" else centred


def compact(
    groups: list[list[Completion]], rewards: dict[str, Tensor], total: Tensor, advantages: Tensor, cut: Tensor
) -> Rollouts:
    """Rollouts of groups of completions, as first drawn, in that order; advantages, total, cut: [P, G]."""
    found: dict[tuple[int, Completion], list[float]] = {}
    for row, group in enumerate(groups):
        for words, advantage in zip(group, advantages[row].tolist(), strict=True):
            entry = found.setdefault((row, words), [0, 0.0])
            entry[0] += 1
            entry[1] += advantage
    counts, summed = torch.tensor(list(found.values()), dtype=torch.float32).T
    return Rollouts([row for row, _ in found], [words for _, words in found], counts, summed, rewards, total, cut)


@torch.no_grad()
def sample_groups(
    vlm: VLM, images: Tensor, asked: Encoded, size: int, temperature: float, limit: int, draws: torch.Generator
) -> list[list[Completion]]:
    """`size` completions of each of P prompts, sampled from the whole vocabulary but for placeholders of images.

    images [P, 3, H, W]. Completions that begin alike are one row until they part: a prompt goes through the model once,
    and so does every beginning that several completions share.
    """
    pixel_values, grid = patchify(images, vlm.geometry)
    mask = asked.prompt_mask
    positions = rope_positions(asked.prompt_ids == vlm.image_token_id, mask.bool(), vlm.columns(images))
    shown = {"pixel_values": pixel_values, "image_grid_thw": grid, "position_ids": positions, "attention_mask": mask}
    seen = vlm.model(input_ids=asked.prompt_ids, **shown, use_cache=True, logits_to_keep=1)
    position = positions[:, :, -1:]
    groups: list[list[Completion]] = [[] for _ in images]
    begun = [(row, (), size) for row in range(len(images))]  # prompt, tokens so far, completions that begin so
    for written in range(1, limit + 1):
        chances = _chances(vlm, seen.logits[:, -1], temperature)
        parents, grown = _grown(begun, drawn(chances, [count for *_, count in begun], draws))
        begun, kept = [], []
        for parent, (row, words, count) in zip(parents, grown, strict=True):
            if words[-1] == vlm.tokenizer.eos_token_id or written == limit:
                groups[row] += [words] * count
            else:
                begun.append((row, words, count))
                kept.append(parent)
        if not begun:
            break
        here = torch.tensor(kept, device=mask.device)
        seen.past_key_values.batch_select_indices(here)
        mask, position = torch.cat([mask[here], mask.new_ones(len(here), 1)], 1), position[:, here] + 1
        last = torch.tensor([words[-1:] for _, words, _ in begun], device=mask.device)
        state = {"attention_mask": mask, "position_ids": position, "past_key_values": seen.past_key_values}
        seen = vlm.model(input_ids=last, **state, use_cache=True)
    return groups


def _chances(vlm: VLM, logits: Tensor, temperature: float) -> Tensor:
    """Probabilities [B, V] of the next token; none for placeholders of images, which would break the next pass."""
    logits = logits.double() / temperature
    logits[:, placeholder_ids(vlm.tokenizer)] = -torch.inf
    return logits.softmax(-1)


def drawn(chances: Tensor, counts: list[int], draws: torch.Generator) -> list[list[int]]:
    """counts[b] tokens of each row's distribution [B, V], by inversion of numbers that are the same on every device."""
    row = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).to(chances.device)
    at = torch.rand(len(row), 1, generator=draws, dtype=torch.float64).to(chances.device)
    total = chances.cumsum(1)
    tokens = torch.searchsorted(total[row], at * total[row, -1:], right=True).clamp(max=total.shape[1] - 1)
    return [part.tolist() for part in tokens[:, 0].cpu().split(counts)]


def _grown(begun: list[tuple[int, Completion, int]], tokens: list[list[int]]) -> tuple[list[int], list]:
    """Beginnings, each longer by a token drawn after it, once for each different one; and the places of the parents."""
    parents, grown = [], []
    for parent, ((row, words, _), after) in enumerate(zip(begun, tokens, strict=True)):
        for token, count in Counter(after).items():
            parents.append(parent)
            grown.append((row, (*words, token), count))
    return parents, grown
