"""Rollouts are samples of the policy, each distinct one is kept once, and advantages compare a group's."""

from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import torch

from safemed.data import prompts
from safemed.data.dataset import as_arrays
from safemed.models.geometry import to_float
from safemed.training import rollouts
from safemed.training.rollouts import Rollouts, Unanswered, compact, group_advantages, roll_out, sample_groups
from support.commands import here
from support.settings import ADVERSARIAL, GRPO
from support.trainings import changed_tensors, training_arguments

LIMIT, SIZE = 3, 2000
SETTINGS = {**GRPO, "num_generations": 16, "rewards": {"accuracy": 1.0, "format": 0.5}}


@pytest.fixture(scope="module")
def asked(untrained, train_questions):
    """Two questions, their images, and what is asked."""
    rows = [{**row, "n_options": len(row["options"]), "variant": "instruct"} for row in train_questions.select([0, 9])]
    images = to_float(torch.from_numpy(as_arrays(row["image"] for row in rows)), untrained.device)
    conversations = [prompts.conversation(row, "instruct") for row in rows]
    return rows, images, untrained.encode(conversations, ["", ""], images.shape[-1])


def sampled(vlm, asked, seed=0, temperature=0.3, size=SIZE):
    draws = torch.Generator().manual_seed(seed)
    return sample_groups(vlm, *asked[1:], size, temperature, LIMIT, draws)


def next_token(vlm, asked, row, before, temperature):
    """The distribution of the next token, by a pass over the prompt and all before it."""
    alone = vlm.encode_ids(asked[2][torch.tensor([row])], [before]) if before else asked[2][torch.tensor([row])]
    logits = vlm.completion_logits(asked[1][[row]], alone)[0, -1].double() / temperature
    logits[[vlm.tokenizer.convert_tokens_to_ids(name) for name in ("<|image_pad|>", "<|vision_start|>")]] = -torch.inf
    logits[[vlm.tokenizer.convert_tokens_to_ids(name) for name in ("<|vision_end|>", "<|video_pad|>")]] = -torch.inf
    return logits.softmax(-1)


def test_each_token_is_drawn_as_the_policy_says(untrained, asked):
    """After the commonest beginnings of every length, shares of tokens agree with a pass over the whole text."""
    groups = sampled(untrained, asked)
    for row, group in enumerate(groups):
        assert len(group) == SIZE and all(len(words) <= LIMIT for words in group)
        for length in range(LIMIT):
            begun = Counter(words[:length] for words in group if len(words) > length)
            before, n = begun.most_common(1)[0]
            wanted = next_token(untrained, asked, row, before, 0.3)
            found = Counter(words[length] for words in group if words[:length] == before and len(words) > length)
            shares = torch.zeros(len(wanted), dtype=torch.float64)
            shares[list(found)] = torch.tensor([count / n for count in found.values()], dtype=torch.float64)
            assert (shares - wanted).abs().max() < 4 * (0.25 / n) ** 0.5


def test_a_step_of_grpo_rewards_and_trains_answers_before_their_thought(learned, skilled_in_all, tmp_path):
    start = skilled_in_all.model.name_or_path
    settings = {**GRPO, "steps": 1, "num_generations": 4, "max_new_tokens": {"after": 24}}
    # More would break what it has learned, in a few steps.
    settings |= {"augmentation": ADVERSARIAL | {"eps": 1}, "temperature": 0.2}
    here("train_grpo.py", *training_arguments(learned, start, tmp_path, "after"), settings=settings)
    assert changed_tensors(tmp_path / "model", Path(start))
    first = pd.read_csv(tmp_path / "model" / "curves.csv").iloc[0]
    assert first.reward_format > 0.5 and first.completion_length > 8  # a letter alone takes fewer tokens


def test_the_same_draws_give_the_same_rollouts(untrained, asked):
    first, again, other = (sampled(untrained, asked, seed, 1.0, 8) for seed in (1, 1, 2))
    assert first == again and first != other


def test_a_prompt_and_a_shared_beginning_go_through_the_model_once(untrained, asked):
    seen, before = [], untrained.passes.forward
    handle = untrained.backbone.language_model.register_forward_hook(
        lambda module, args, kwargs, output: seen.append(len(kwargs["inputs_embeds"])), with_kwargs=True
    )
    groups = sampled(untrained, asked, temperature=0.3, size=64)
    handle.remove()
    assert untrained.passes.forward - before == 2
    begun = [len({(row, words[:n]) for row, group in enumerate(groups) for words in group if len(words) > n})
             for n in range(LIMIT)]  # fmt: skip
    assert seen == begun


def test_rewards_are_of_the_decoded_texts_and_compact_rollouts_keep_their_sums(untrained, asked):
    draws = torch.Generator().manual_seed(0)
    found = roll_out(untrained, asked[1], asked[2], asked[0], SETTINGS, LIMIT, draws)
    assert found.counts.sum() == 2 * 16 and len(set(zip(found.rows, found.completions, strict=True))) == len(found.rows)
    advantages = group_advantages(found.total, SETTINGS["scale_rewards"])
    for row in (0, 1):
        mine = torch.tensor([place == row for place in found.rows])
        assert found.counts[mine].sum() == 16
        assert found.advantages[mine].sum().item() == pytest.approx(advantages[row].sum().item(), abs=1e-4)


def test_rewards_tell_right_from_wrong_and_well_formed_from_not(untrained, asked, monkeypatch):
    rows, images, encoded = asked
    gold = rows[0]["gold"]
    wrong = "AB"[gold == "A"]
    texts = [f"<answer> {gold} </answer>", f"<answer> {wrong} </answer>", f"<answer> {gold} </answer> so", "no"]
    end = untrained.tokenizer.eos_token_id
    group = [(*untrained.tokenizer.encode(text), end) for text in texts]
    monkeypatch.setattr("safemed.training.rollouts.sample_groups", lambda *_: [group])
    found = roll_out(untrained, images[:1], encoded, rows[:1], SETTINGS, LIMIT, torch.Generator())
    assert found.rewards["accuracy"].tolist() == [[1, 0, 1, 0]] and found.rewards["format"].tolist() == [[1, 1, 0, 0]]
    assert found.total.tolist() == [[1.5, 0.5, 1.0, 0.0]]


def test_advantages_are_relative_to_the_group():
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    plain, scaled = group_advantages(rewards, "none"), group_advantages(rewards, "group")
    assert plain[0].tolist() == [0.5, -0.5, -0.5, 0.5] and scaled[0].std().item() == pytest.approx(1, abs=1e-3)
    assert not plain[1].any() and not scaled[1].any()  # equal rewards teach nothing


def test_what_is_drawn_twice_is_kept_once_with_the_sum_of_its_advantages():
    groups = [[(1, 2), (3,), (1, 2)], [(1, 2), (1, 2), (1, 2)]]
    advantages = torch.tensor([[1.0, -1.5, 0.5], [0.25, -0.5, 0.25]])
    found = compact(groups, {}, advantages, advantages, advantages > 9)
    assert found.rows == [0, 0, 1] and found.completions == [(1, 2), (3,), (1, 2)]
    assert found.counts.tolist() == [2, 1, 3] and found.advantages.tolist() == [1.5, -1.5, 0.0]


def of_cut(cut: list[list[bool]]) -> Rollouts:
    """Rollouts [P, G] of which so many were cut."""
    values = torch.zeros(len(cut), len(cut[0]))
    return compact([[(1,)] * len(group) for group in cut], {}, values, values, torch.tensor(cut))


def test_a_rollout_that_the_limit_ends_without_an_answer_is_cut(untrained, asked):
    rows, images, encoded = asked
    found = roll_out(untrained, images, encoded, rows, SETTINGS, LIMIT, torch.Generator().manual_seed(0))
    end = untrained.tokenizer.eos_token_id
    lengths = {
        (row, words): len(words) == LIMIT and words[-1] != end
        for row, words in zip(found.rows, found.completions, strict=True)
    }
    assert found.cut.any() and not any(
        prompts.parse(untrained.text(words), 4, rows[0]["variant"]).answer for _, words in lengths
    )
    assert found.cut.sum() == sum(cut * int(n) for cut, n in zip(lengths.values(), found.counts, strict=True))
    whole = roll_out(untrained, images, encoded, rows, SETTINGS, 2 * LIMIT, torch.Generator().manual_seed(0))
    assert whole.metrics()["cut_rollouts"] == whole.cut.float().mean()


def test_a_training_that_begins_with_nothing_but_cut_rollouts_is_stopped_and_no_other(monkeypatch):
    monkeypatch.setattr(rollouts, "MOST_CUT", 12)
    watch, cpu = Unanswered(), torch.device("cpu")
    watch.check(of_cut([[True] * 4] * 2), 6, "think", cpu)
    with pytest.raises(SystemExit, match=r"^config: max_new_tokens.think: 6; the first 16 rollouts all end there"):
        watch.check(of_cut([[True] * 4] * 2), 6, "think", cpu)
    watch = Unanswered()
    watch.check(of_cut([[True, True, True, False]]), 6, "think", cpu)
    for _ in range(9):
        watch.check(of_cut([[True] * 4]), 6, "think", cpu)
