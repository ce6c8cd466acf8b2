"""What is extrapolated from a few layers is what more layers take, and what is measured is what is alive."""

import pytest
import torch
from transformers import Qwen3VLConfig

from safemed.models.tiny import shape, train_tokenizer
from safemed.preflight import factors, peak, shapes, steps, table
from safemed.preflight.factors import Factors, Run
from safemed.preflight.peak import cost_of
from safemed.training.common import adapter

LORA = {"r": 4, "alpha": 8, "dropout": 0.05}
SIDE, PROMPT = 64, 40
WIDTHS = {
    "hidden": 128, "layers": 12, "heads": 4, "vision_hidden": 96, "vision_layers": 9, "patch": 8, "merge": 2,
    "initializer_range": 0.02,
}  # fmt: skip
DEEPER = [Run(6, 7, 2, 70), Run(8, 6, 3, 120)]  # other depths, batches and lengths than those that are measured
KINDS = {*factors.EVALUATION, *factors.TRAINING}


@pytest.fixture(scope="module")
def wide() -> Qwen3VLConfig:
    """A shape with a deepstack of three layers, and far more words than tokens in a batch."""
    made = shape(train_tokenizer(["a"], 0), WIDTHS, SIDE, 5000)
    made.vision_config.deepstack_visual_indexes = [2, 4, 6]
    return made


def costs(shape: Qwen3VLConfig, runs: list[Run], peft: dict | None, kinds: set[str] = KINDS) -> dict:
    return factors.measured(kinds, shape, SIDE, PROMPT, "bf16", adapter(peft), runs)


@pytest.mark.parametrize("peft", [pytest.param(LORA, marks=pytest.mark.slow), None], ids=["lora", "full"])
def test_other_depths_batches_and_lengths_take_what_is_extrapolated(wide, peft):
    few, deeper = costs(wide, factors.runs(PROMPT), peft), costs(wide, DEEPER, peft)
    assert few.keys() == KINDS
    for kind, measured in few.items():
        fit = Factors.of(measured)
        for run in DEEPER:
            found, wanted = fit.at(run), deeper[kind][run]
            assert found.bytes == pytest.approx(wanted.bytes, rel=0.1), (kind, run)
            assert found.flops == pytest.approx(wanted.flops, rel=0.05), (kind, run)


@pytest.mark.slow
def test_as_many_rows_fit_as_their_memory_leaves_room_for(wide):
    fit = Factors.of(costs(wide, factors.runs(PROMPT), LORA, {"attack"})["attack"])
    model = table.Model(shapes.sizes(wide), {"attack": fit}, peak.Cost(0, 0), PROMPT, None, "bf16", 1)
    free = fit.at(Run(12, 9, 5, 60)).bytes
    found = [model.largest("attack", 60 - PROMPT, bytes) for bytes in (free + 10, free - 10**5, 0)]
    assert found == [5, 4, 0]


def test_bytes_are_those_alive_at_once_and_products_count_though_they_are_not_made(monkeypatch):
    left, right = torch.ones(300, 200), torch.ones(200, 100)

    def work():
        for _ in range(3):
            big = left * 2  # 240,000 bytes
            small = big @ right  # 120,000 more
            del big
            small.sum()
            del small

    found = cost_of(work)
    assert found.bytes == pytest.approx(4 * (300 * 200 + 300 * 100), abs=100)
    assert found.flops == 3 * 2 * 300 * 200 * 100
    monkeypatch.setattr(peak, "PRODUCTS", {})
    assert cost_of(work) == found


def test_checkpoints_of_layers_and_chunks_of_logits_save_memory(wide):
    """What the trainings do about memory is seen by the measure."""
    vlm = steps.trained(shapes.shallow(wide, 12, 9, "fp32"), adapter(LORA))
    batch = steps.Batch(vlm, 2, SIDE, PROMPT, 16)
    kept = cost_of(lambda: steps.grpo(vlm, batch)).bytes
    vlm.model.gradient_checkpointing_disable()
    assert cost_of(lambda: steps.grpo(vlm, batch)).bytes > 2 * kept
    one, four = (cost_of(lambda tokens=tokens: steps.head(vlm, tokens)).bytes for tokens in (512, 2048))
    assert four < 1.2 * one


def test_sizes_are_those_of_the_model(wide, untrained):
    found, model = shapes.sizes(untrained.model.config), untrained.model
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert found.tower == sum(p.numel() for p in untrained.visual.parameters())
    adapted = sum(4 * (rows + columns) for rows, columns in found.matrices)
    trained = steps.trained(shapes.shallow(wide, 12, 9, "fp32"), adapter(LORA)).model
    wanted = sum(p.numel() for p in trained.parameters() if p.requires_grad)
    assert sum(4 * (rows + columns) for rows, columns in shapes.sizes(wide).matrices) == wanted and adapted > 0


def test_a_prompt_without_room_for_its_image_is_refused(untrained):
    with pytest.raises(ValueError, match="no room for an image"):
        steps.Batch(untrained, 1, SIDE, 16, 1)
