"""Packed completions get the logits and gradients of completions after prompts of their own, for one prompt's cost."""

import pytest
import torch
from torch.nn import functional as F

from safemed.data import prompts
from safemed.data.dataset import as_arrays
from safemed.models.geometry import patchify, to_float
from safemed.models.packing import pack, packed_hidden, rope_positions

TEXTS = ["<answer> A </answer>", "<answer> B </answer>", "<think> CT </think><answer> C </answer>"]
PAIRS = [(0, 0), (0, 2), (0, 1), (2, 2), (2, 0)]  # prompt and completion; the second prompt has none


@pytest.fixture(scope="module")
def asked(untrained, train_questions):
    """Three prompts of different lengths, each with its image."""
    rows = sorted(train_questions.select(range(40)), key=lambda row: len(str(row["options"])))
    rows = [rows[0], rows[20], rows[-1]]
    images = to_float(torch.from_numpy(as_arrays(row["image"] for row in rows)), untrained.device)
    encoded = untrained.encode([prompts.conversation(row, "instruct") for row in rows], [""] * 3, images.shape[-1])
    assert (encoded.prompt_mask == 0).any()
    return images, encoded


@pytest.fixture(scope="module")
def completions(untrained):
    """The pairs' completions as token ids."""
    return [tuple(untrained.tokenizer.encode(TEXTS[text]) + [untrained.tokenizer.eos_token_id]) for _, text in PAIRS]


def packed(vlm, images, encoded, completions):
    return pack(vlm, encoded, images, [row for row, _ in PAIRS], completions)


def test_positions_are_those_of_the_library(untrained, asked):
    images, encoded = asked
    image = encoded.prompt_ids == untrained.image_token_id
    _, grid = patchify(images, untrained.geometry)
    wanted, _ = untrained.backbone.get_rope_index(
        encoded.prompt_ids, image.long(), image_grid_thw=grid, attention_mask=encoded.prompt_mask
    )
    assert torch.equal(rope_positions(image, encoded.prompt_mask.bool(), untrained.columns(images)), wanted)


def test_each_completion_is_as_likely_as_after_a_prompt_of_its_own(untrained, asked, completions):
    images, encoded = asked
    found = packed(untrained, images, encoded, completions)
    logits = untrained.head(packed_hidden(untrained.model, untrained, images, found))
    for number, ((row, _), words) in enumerate(zip(PAIRS, completions, strict=True)):
        alone = untrained.encode_ids(encoded[torch.tensor([row])], [words])
        wanted = untrained.completion_logits(images[[row]], alone)[0, :-1]
        mine = found.completion == number
        assert found.token[mine].tolist() == list(words)
        assert torch.allclose(logits[mine], wanted, atol=1e-4)


def test_gradients_are_those_of_unpacked_completions(untrained, asked, completions):
    images, encoded = asked
    weights = torch.tensor([0.5, -1.0, 2.0, 1.0, -0.25])

    def gradient(loss_of):
        pixels = images.clone().requires_grad_(True)
        loss_of(pixels).backward()
        return pixels.grad

    def together(pixels):
        found = packed(untrained, pixels, encoded, completions)
        logp = untrained.head(packed_hidden(untrained.model, untrained, pixels, found)).log_softmax(-1)
        return (logp.gather(1, found.token[:, None])[:, 0] * weights[found.completion]).sum()

    def apart(pixels):
        total = 0.0
        for (row, _), words, weight in zip(PAIRS, completions, weights, strict=True):
            alone = untrained.encode_ids(encoded[torch.tensor([row])], [words])
            logits = untrained.completion_logits(pixels[[row]], alone)[0, :-1]
            total = total - weight * F.cross_entropy(logits, torch.tensor(words), reduction="sum")
        return total

    one, other = gradient(together), gradient(apart)
    assert other[[0, 2]].flatten(1).norm(dim=1).min() > 0 and other[1].norm() == 0
    assert (one - other).norm() < 1e-5 * other.norm()


def test_a_completion_does_not_see_another(untrained, asked, completions):
    images, encoded = asked
    found = packed(untrained, images, encoded, completions)
    first = untrained.head(packed_hidden(untrained.model, untrained, images, found))
    changed = [completions[0], tuple(reversed(completions[1])), *completions[2:]]
    found = packed(untrained, images, encoded, changed)
    second = untrained.head(packed_hidden(untrained.model, untrained, images, found))
    same = found.completion != 1
    assert torch.allclose(first[same], second[same], atol=1e-5) and not torch.allclose(first, second, atol=1e-2)


def test_a_prompt_goes_through_the_tower_once(untrained, asked, completions):
    images, encoded = asked
    before = untrained.passes.forward
    packed_hidden(untrained.model, untrained, images, packed(untrained, images, encoded, completions))
    assert untrained.passes.forward - before == 3
