"""The suite as the workflow runs it: every attack, survivors, failures that are no scores, resuming, replaying."""

import json
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers import command, command_line, here
from safemed import attacks, objectives, suite, tables
from safemed.attacks import Plan, apgd_checkpoints, l2_levels
from safemed.evaluation import Exam, SmoothedExam
from safemed.prompts import FAILED

EVERYTHING = torch.arange(24)
ATTACKS = {
    "pgd": {"kind": "pgd", "steps": 5, "restarts": 3},
    "apgd": {"kind": "apgd", "steps": 8, "restarts": 2, "targets": {"think": ["other"]}, "survivors": True},
    "reasoning": {"kind": "pgd", "steps": 4, "restarts": 3, "targets": {"think": ["sampled", "thought", "stop"]}},
    "pgd-l2": {"kind": "pgd", "norm": "l2", "steps": 5},
    "cw": {"kind": "cw", "norm": "l2", "steps": 12, "targets": {"think": ["answer"]}},
    "square": {"kind": "square", "steps": 4},
    "smoothed": {"kind": "pgd", "norm": "l2", "steps": 2, "sigma": 0.05, "draws": 2, "votes": 3},
}


@pytest.fixture(scope="module")
def data(shown, tmp_path_factory) -> Path:
    """The 24 questions as a study's data folder, all of them in test."""
    folder = tmp_path_factory.mktemp("suite-data")
    shown.save_to_disk(folder / "questions")
    (folder / "questions" / "data-00000-of-00001.arrow").rename(folder / "questions" / "part-00000.arrow")
    pd.DataFrame({"question_id": shown["question_id"], "split": "test"}).to_csv(folder / "splits.csv", index=False)
    return folder


def arguments(data: Path, weights: Path | str, out: Path, attack: str, *eps) -> list:
    """How the workflow calls scripts/attack.py on a thinking model."""
    told = ["--data", data, "--weights", weights, "--model", "sft-think", "--method", "sft", "--variant", "think"]
    return [*told, "--attack", attack, "--eps", *eps, "--out", out]


def settings(attack: str, **changes) -> dict:
    plan = {attack: ATTACKS.get(attack)}
    return {"questions": 24, "batch_size": 9, "amp": False, "max_new_tokens": {"think": 24}} | plan | changes


@pytest.fixture(scope="module")
def folder(data, skilled, tmp_path_factory) -> Path:
    """The folders of clean and all of ATTACKS at eps 8; apgd on what pgd left."""
    root = tmp_path_factory.mktemp("suite")
    weights = skilled.model.name_or_path
    here("attack.py", *arguments(data, weights, root / "clean", "clean", 0), settings=settings("clean"))
    for attack, plan in ATTACKS.items():
        eps = {"cw": "inf"}.get(attack, 0.5 if plan.get("norm") == "l2" else 8)
        before = ["--before", root / "pgd"] if plan.get("survivors") else []
        here("attack.py", *arguments(data, weights, root / attack, attack, eps), *before, settings=settings(attack))
    return root


@pytest.mark.parametrize("attack", ATTACKS)
def test_each_attack_stores_images_of_its_ball_that_show_what_its_rows_say(folder, skilled, shown, attack):
    rows = pd.read_parquet(folder / attack / "rows.parquet")
    images = np.load(folder / attack / "images.npz")
    stored = torch.from_numpy(images[f"eps{rows.eps.iloc[0]:g}"])
    exam = Exam(skilled, shown, "think", 24)
    if attack == "smoothed":
        exam = SmoothedExam(skilled, shown, "think", 24, 0.05, 2, 3)
    assert rows.question_id.tolist() == shown["question_id"]
    assert l2_levels(stored, exam.images).tolist() == pytest.approx(rows.l2.tolist())
    assert (rows.outcome == "right").tolist() == exam.is_right(stored, EVERYTHING).tolist()
    assert rows.attacked.any() and (rows.steps[~rows.attacked] == 0).all()
    tables.check_attack_rows(rows)
    cost = json.loads((folder / attack / "cost.json").read_text())
    assert cost["attack"] == attack and cost["forward_passes"] > 0
    assert (cost["backward_passes"] == 0) == (attack == "square")
    assert not (folder / attack / "shards").exists()


def test_only_survivors_are_attacked_on_and_what_fell_keeps_its_image(folder):
    before, after = (pd.read_parquet(folder / name / "rows.parquet") for name in ("pgd", "apgd"))
    fell = before.outcome != "right"
    assert 0 < fell.sum() < len(fell)
    assert (after.outcome[fell] != "right").all() and not after.attacked[fell].any()
    assert after.attacked[~fell].all()
    images = [np.load(folder / name / "images.npz")["eps8"] for name in ("pgd", "apgd")]
    assert (images[0][fell] == images[1][fell]).all()


def test_the_suites_table_counts_by_hand(folder):
    names = ["clean", "pgd", "apgd", "reasoning", "square", "pgd-l2", "cw"]
    rows = pd.concat([pd.read_parquet(folder / name / "rows.parquet") for name in names], ignore_index=True)
    costs = pd.DataFrame([json.loads((folder / name / "cost.json").read_text()) for name in names])
    table = suite.suite(rows, costs, 8).set_index("attack")
    assert list(table.index) == names
    linf = rows[rows.norm == "linf"]
    robust = linf.groupby("question_id").outcome.apply(lambda outcomes: (outcomes == "right").all()).mean()
    assert table.worst["square"] == robust and table.worst["pgd-l2":].isna().all()
    assert table.worst[:"square"].is_monotonic_decreasing
    assert (table.worst[:"square"] <= table.accuracy[:"square"]).all()
    assert table.attacked["apgd"] == round(24 * table.accuracy["pgd"]) and table.failed.sum() == 0
    spoilt = rows.copy()
    one = (spoilt.attack == "apgd") & (spoilt.question_id == spoilt.question_id.iloc[0])
    spoilt.loc[one, ["outcome", "answer"]] = [FAILED, ""]
    spoilt = suite.suite(spoilt, costs, 8).set_index("attack")
    assert spoilt.failed["apgd"] == 1 and np.isnan(spoilt.accuracy["apgd"]) and spoilt.worst.isna().all()


def test_a_replay_gives_the_same_rows_and_refuses_other_images_or_another_model(folder, data, skilled, tmp_path):
    plan = {"questions": 24, "batch_size": 7, "eps": None, "smoothed": {"smoothed": ATTACKS["smoothed"]}}
    plan["max_new_tokens"] = {"think": 24}
    told = arguments(data, skilled.model.name_or_path, tmp_path / "replay", "pgd", 8)
    told = [*told[: told.index("--attack")], "--out", tmp_path / "replay", "--same", "--attacks"]
    folders = [folder / name for name in ("clean", *ATTACKS)]
    here("replay.py", *told, *folders, settings=plan)
    again = pd.read_parquet(tmp_path / "replay" / "rows.parquet")
    before = pd.concat([pd.read_parquet(f / "rows.parquet") for f in folders], ignore_index=True)
    assert again.text.tolist() == before.text.tolist() and set(again.source) == {"sft-think"}
    images = dict(np.load(folder / "pgd" / "images.npz"))
    changed = tmp_path / "pgd"
    changed.mkdir()
    np.savez(changed / "images.npz", **images | {"eps8": images["clean"]})
    pd.read_parquet(folder / "pgd" / "rows.parquet").to_parquet(changed / "rows.parquet")
    with pytest.raises(ValueError, match="are not what the stored images show"):
        here("replay.py", *told, changed, settings=plan)


@pytest.fixture(scope="module")
def not_a_number(skilled, tmp_path_factory) -> Path:
    """The skilled model with a weight of its language model that is not a number."""
    import shutil

    folder = tmp_path_factory.mktemp("nan") / "model"
    shutil.copytree(skilled.model.name_or_path, folder)
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if "language_model" in name and name.endswith("down_proj.weight"))
    weights[name][0, 0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_model_that_returns_nan_has_no_score(not_a_number, data, tmp_path):
    told = arguments(data, not_a_number, tmp_path / "clean", "clean", 0)
    here("attack.py", *told, settings=settings("clean", questions=5))
    rows = pd.read_parquet(tmp_path / "clean" / "rows.parquet")
    assert set(rows.outcome) == {FAILED} and rows.text.str.contains("not finite").all()
    baselines = pd.DataFrame({"kind": ["questions"], "part": ["all"], "n": [5], "chance": [0.25], "blind": [0.3]})
    table = tables.robustness(rows, baselines)
    assert table.status.tolist() == ["incomplete: 5 of 5 not evaluated"] and table.accuracy.isna().all()


def test_one_question_that_cannot_be_attacked_fails_alone(data, skilled, tmp_path, monkeypatch):
    climb, spoilt = attacks.climb, 3

    def out_of_memory_above_four_and_nan_for_one(objective, images, rows, amp=False):
        if len(images) > 4:
            raise torch.OutOfMemoryError("too many")
        if any((image - bad).abs().max() < 9 / 255 for image in images):
            raise FloatingPointError("not a number")
        return climb(objective, images, rows, amp)

    told = arguments(data, skilled.model.name_or_path, tmp_path / "whole", "pgd", 8)
    here("attack.py", *told, settings=settings("pgd"))
    whole = pd.read_parquet(tmp_path / "whole" / "rows.parquet")
    clean = np.load(tmp_path / "whole" / "images.npz")["clean"]
    bad = torch.from_numpy(clean[spoilt]).permute(2, 0, 1).float() / 255
    monkeypatch.setattr(attacks, "climb", out_of_memory_above_four_and_nan_for_one)
    told = arguments(data, skilled.model.name_or_path, tmp_path / "halved", "pgd", 8)
    here("attack.py", *told, settings=settings("pgd"))
    halved = pd.read_parquet(tmp_path / "halved" / "rows.parquet")
    assert (halved.outcome == FAILED).tolist() == [i == spoilt for i in range(24)]
    others = halved.outcome != FAILED  # the same noise and steps in smaller batches: the same verdicts
    assert (halved.outcome[others] == whole.outcome[others]).mean() >= 0.95


def test_a_killed_attack_goes_on_where_it_was_and_ends_with_the_same_rows(folder, data, skilled, tmp_path):
    out, weights = tmp_path / "pgd", skilled.model.name_or_path
    slow = settings("pgd", batch_size=2, pgd={"kind": "pgd", "steps": 60, "restarts": 3})
    line = command_line("attack.py", *arguments(data, weights, out, "pgd", 8), settings=slow)
    job = subprocess.Popen(line, stderr=subprocess.DEVNULL)
    shards = tmp_path / ".pgd.partial" / "shards"
    deadline = time.monotonic() + 120
    while len(list(shards.glob("[0-9]*.json"))) < 2:
        assert job.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    job.send_signal(signal.SIGKILL)
    job.wait()
    done = {path.name: path.stat().st_mtime_ns for path in shards.glob("[0-9]*.json")}
    assert not out.exists() and 2 <= len(done) < 12
    said = command("attack.py", *arguments(data, weights, out, "pgd", 8), settings=slow)
    assert said.count("batches, right in this one") == 12 - len(done)
    whole = tmp_path / "whole"
    command("attack.py", *arguments(data, weights, whole, "pgd", 8), settings=slow)
    first, again = (pd.read_parquet(f / "rows.parquet") for f in (whole, out))
    pd.testing.assert_frame_equal(first, again)
    spent = [json.loads((f / "cost.json").read_text())["backward_passes"] for f in (whole, out)]
    assert spent[0] == spent[1]


def quadratic(images: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A loss with its highest point at 0.52 everywhere, never broken."""
    return -((images - 0.52) ** 2).flatten(1).sum(1), torch.zeros(len(images), dtype=torch.bool)


def test_apgd_comes_nearer_to_the_top_than_pgd_in_as_many_steps():
    clean8 = torch.full((3, 8, 8, 3), 128, dtype=torch.uint8)
    seen = {}

    def judge(images, rows):
        return torch.ones(len(images), dtype=torch.bool)

    for kind in ("pgd", "apgd"):
        losses = []

        def recorded(images, rows, losses=losses):
            loss, broken = quadratic(images, rows)
            losses.append(loss.max().item())
            return loss, broken

        plan = Plan(kind=kind, steps=30)
        attacks.attack([recorded], judge, clean8, list("abc"), 16, plan, torch.device("cpu"))
        seen[kind] = max(losses)
    assert seen["apgd"] > 0.25 * seen["pgd"] and seen["apgd"] > -0.01


def test_patience_gives_up_what_will_not_reach_zero_and_nothing_else():
    clean8 = torch.full((2, 8, 8, 3), 128, dtype=torch.uint8)

    def margin(images, rows):  # the ball of 16 levels moves it by 0.063: enough for the first question, not the second
        found = images.flatten(1).mean(1) - clean8[0, 0, 0, 0] / 255 - torch.tensor([0.03, 1.0])[rows]
        return found, found > 0

    def is_right(images, rows):
        return ~margin(images.permute(0, 3, 1, 2).float() / 255, rows)[1]

    spent = {}
    for patience in (None, 5):
        plan = Plan(kind="pgd", steps=40, patience=patience)
        found = attacks.attack([margin], is_right, clean8, ["a", "b"], 16, plan, torch.device("cpu"))
        assert found.broken.tolist() == [True, False]
        spent[patience] = found.steps[1].item()
    assert spent == {None: 40, 5: 5}


def test_apgd_reviews_its_step_size_at_the_papers_checkpoints():
    assert list(apgd_checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert apgd_checkpoints(100)[41] == 22 and not apgd_checkpoints(1)


def test_carlini_wagner_finds_the_exact_distance_to_a_plane():
    """The nearest point of a half-space is known: |margin| / |w|, in pixels that are not at the edge of [0, 1]."""
    clean8 = torch.full((4, 8, 8, 3), 128, dtype=torch.uint8)
    clean8[2:] = 0  # a black background must move, too
    direction = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)).abs()
    clean = clean8.permute(0, 3, 1, 2).float() / 255
    level = (clean * direction).flatten(1).sum(1) + 1.0 * direction.norm()

    def margin(images, rows):
        found = (images * direction).flatten(1).sum(1) - level[rows]
        return found, found > 0

    def is_right(images, rows):
        return ~margin(images.permute(0, 3, 1, 2).float() / 255, rows)[1]

    plan = Plan(kind="cw", norm="l2", steps=150)
    found = attacks.carlini_wagner(margin, is_right, clean8, plan, torch.device("cpu"), searches=6)
    assert found.broken.all()
    assert (l2_levels(found.images, clean8) >= 0.99).all() and (l2_levels(found.images, clean8) < 1.15).all()


def test_the_expectation_over_noise_is_that_of_the_smoothed_model():
    images = torch.full((6, 3, 4, 4), 0.5)

    def first_pixel(images, rows):
        return images[:, 0, 0, 0] * (rows + 1), images[:, 0, 0, 0] > 0.5

    noisy = objectives.under_noise(first_pixel, sigma=0.1, draws=4000, seed=0)
    loss, _ = noisy(images, torch.arange(6))
    assert torch.allclose(loss, 0.5 * torch.arange(1, 7), atol=0.05)
    above, _ = objectives.under_noise(first_pixel, 0.1, 101, 1)(images + 0.2, torch.arange(6))
    assert (above > loss).all()


def test_bfloat16_first_and_fp32_on_what_survives(skilled, shown):
    exam = Exam(skilled, shown, "instruct", 24)
    words = exam.answers(exam.images, EVERYTHING)
    found = exam.attack(words, EVERYTHING, Plan(steps=3, amp=True), 8, seed=0)
    plain = exam.attack(words, EVERYTHING, Plan(steps=3), 8, seed=0)
    assert (~found.broken).tolist() == exam.is_right(found.images, EVERYTHING).tolist()
    assert found.broken.sum() >= plain.broken.sum()  # fp32 had its turn on all that bfloat16 left
    assert found.steps[~found.broken].tolist() == [6] * int((~found.broken).sum())
