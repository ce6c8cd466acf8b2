"""The table refuses what cannot fit, by name, and its hours follow from what is done and from what is assumed."""

from dataclasses import replace

import numpy as np
import pytest

from safemed.preflight import table
from safemed.preflight.factors import Factors
from safemed.preflight.peak import Cost
from safemed.preflight.shapes import Sizes

# Qwen3-VL-4B, and a gigabyte and a tera of operations a row, of which a token and layer has a part.
SIZES = Sizes(4_437_815_808, 415_347_712, ((2560, 2560),) * 300, 147_456, 36, 24, 16, 2)
ROW = Factors(np.array([1e9, 0, 0, 1e9, 0, 0, 0]), np.array([0, 0, 0, 1e12, 0, 0, 0.0]))
MODEL = table.Model(
    SIZES, dict.fromkeys(("query", "attack", "training_attack", "sft", "grpo", "tower"), ROW), Cost(2 * 10**9, 10**12),
    244, {"r": 16, "alpha": 32, "dropout": 0.0}, "bf16", 1,
)  # fmt: skip
MACHINE = table.Machine("H100", 8, 80, 0.92, 1000, 60, 3.35, 0.5, 30)


def job(step: str, rule="attack_model", trainer=None, held=1, **changes) -> dict:
    work = {"step": step, "rows": 3600, "tokens": 100, "at_once": 10, **changes}
    told = {"rule": rule, "model": "sft-think", "what": "", "jobs": 1, "trainer": trainer, "held": held}
    return told | {"passes": [work]}


def priced(*jobs: dict, model=MODEL, machine=MACHINE):
    return table.priced(list(jobs), {"sft-think": model}, machine)


def test_hours_are_operations_over_what_a_gpu_attains():
    (row,) = priced(job("attack")).to_dict("records")
    assert row["hours"] == pytest.approx(3600 * 1e12 / (1000e12 * 0.5) / 3600)
    (slow,) = priced(job("attack"), model=replace(MODEL, precision="fp32")).to_dict("records")
    assert slow["hours"] == pytest.approx(row["hours"] * 1000 / 60)


def test_writing_takes_a_tokens_least_time_for_each_batch():
    (row,) = priced(job("answer")).to_dict("records")
    reading = 3600 * 1e12 / (1000e12 * 0.5)
    assert row["hours"] == pytest.approx((reading + 360 * 100 * 0.03) / 3600)
    (larger,) = priced(job("answer", at_once=100)).to_dict("records")
    assert larger["hours"] == pytest.approx((reading + 36 * 100 * 0.03) / 3600)
    (rolled,) = priced(job("rollout", "train_grpo", "grpo", prompts=450)).to_dict("records")
    assert rolled["hours"] == pytest.approx((450 * 1e12 / 500e12 + 360 * 100 * 0.03) / 3600)


def test_an_evaluation_holds_its_models_without_an_optimizer_whatever_its_step():
    one, two = (priced(job("attack", "retrieve_model", held=held)).memory_gb[0] for held in (1, 2))
    assert (two - one) * 1e9 == pytest.approx(2 * SIZES.parameters)
    moved = replace(MODEL, factors=MODEL.factors | {"tower_attack": ROW}, peft=None)
    assert priced(job("tower_attack", "retrieve_model", held=1), model=moved).memory_gb[0] == one


def test_what_is_evaluated_may_be_halved_and_what_is_trained_must_fit():
    many = priced(job("attack", at_once=1000))
    assert many.largest[0] == (0.92 * 80e9 - 2 * SIZES.parameters - 1e9) // 1e9 and not table.refusals(many, MACHINE)
    (line,) = table.refusals(priced(job("sft", "train_sft", "sft", at_once=1000)), MACHINE)
    assert line.startswith("train_sft sft-think: sft of 1000 at once needs 10")
    assert line.endswith(
        "and H100 has 74 to use; at most 54 fit: lower batch_size and raise gradient_accumulation by as much"
    )
    (line,) = table.refusals(
        priced(job("attack"), machine=replace(MACHINE, memory_gb=10)), replace(MACHINE, memory_gb=10)
    )
    assert "or take a larger GPU" in line


def test_training_all_weights_of_4b_does_not_fit_on_80_gb_and_adapters_do():
    whole = priced(job("grpo", "train_grpo", "grpo"), model=replace(MODEL, peft=None))
    (line,) = table.refusals(whole, MACHINE)
    assert "train adapters (peft)" in line and whole.memory_gb[0] > 71 + 2  # weights, reference, Adam: 16 bytes each
    assert not table.refusals(priced(job("grpo", "train_grpo", "grpo")), MACHINE)
    shared = priced(job("grpo", "train_grpo", "grpo"), model=replace(MODEL, peft=None, shards=8))
    assert whole.memory_gb[0] - shared.memory_gb[0] == pytest.approx(8 * SIZES.parameters * 7 / 8 / 1e9)


def test_the_longest_chain_waits_for_its_trainings():
    trained, after = job("sft", "train_sft", "sft"), job("attack", rows=36000)
    shards = {**job("query", "certify_model", rows=360000), "jobs": 10}
    found = priced(trained, after, shards)
    hours = table.summary(found, MACHINE, {"sft-think": ["sft-think"]}).set_index("what").hours
    assert hours["longest chain"] == pytest.approx(found.hours[0] + max(found.hours[1], found.hours[2] / 10))
    assert hours["all"] == pytest.approx(found.hours.sum())
    assert hours["on 8 GPUs"] == max(hours["longest chain"], hours["all"] / 8)
