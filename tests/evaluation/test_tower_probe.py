"""The probe of vision towers: its rows, that its attacks do something, and what it makes of failures and kills."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from safemed.data.dataset import load_questions
from safemed.data.prompts import FAILED
from safemed.evaluation.tower_probe import Images, Probe
from safemed.models.vlm import VLM
from safemed.report.tables.towers import TOWER_ROWS, check_tower_rows
from support.commands import command_line, evaluation_arguments, here, killed_after

SETTINGS = {
    "images": 12,
    "neighbours": 3,
    "steps": 6,
    "eps": 8,
    "batch_size": 5,
    "precision": "fp32",
    "max_new_tokens": {},
}


@pytest.fixture(scope="module")
def data(shown_data, tmp_path_factory) -> Path:
    """`shown_data`, whose images are half train and half test."""
    folder = shutil.copytree(shown_data, tmp_path_factory.mktemp("probed") / "data")
    splits = pd.read_csv(folder / "splits.csv", dtype=str)
    splits["split"] = ["test" if i % 2 else "train" for i in range(len(splits))]
    splits.to_csv(folder / "splits.csv", index=False)
    return folder


def probed(data: Path, weights: Path | str, out: Path, **changes) -> pd.DataFrame:
    here("probe_towers.py", *evaluation_arguments(data, weights, out), settings=SETTINGS | changes)
    return pd.read_parquet(out / "rows.parquet")


@pytest.fixture(scope="module")
def rows(data, skilled, tmp_path_factory) -> pd.DataFrame:
    """The rows of the skilled model."""
    out = tmp_path_factory.mktemp("towers") / "model"
    made = probed(data, skilled.model.name_or_path, out)
    assert not (out / "shards").exists() and json.loads((out / "cost.json").read_text())["backward_passes"] > 100
    return made


def test_the_rows_can_be_counted_and_the_attack_breaks_votes(rows):
    check_tower_rows(rows)
    assert set(rows) == set(TOWER_ROWS) and {"modality", "finding"} <= set(rows.level)
    right = rows.assign(right=rows.outcome == "right").groupby(["level", "seen"]).right.mean()
    assert right["modality", "clean"] > 0.9  # which the model has learned to tell
    assert right["modality", "pgd"] < right["modality", "clean"]
    assert (rows["shift"] > 0).all() and rows.question_id.nunique() == 12


def test_without_an_attack_nothing_moves(data, skilled, tmp_path):
    still = probed(data, skilled.model.name_or_path, tmp_path / "out", eps=0)
    voted = still.pivot(index=["level", "question_id"], columns="seen", values="answer")
    assert (voted.clean == voted.pgd).all() and still["shift"].max() < 1e-6


def test_the_batches_decide_nothing(rows, data, skilled, tmp_path):
    again = probed(data, skilled.model.name_or_path, tmp_path / "out", batch_size=12)
    keys = ["level", "question_id", "seen"]
    pd.testing.assert_frame_equal(
        again.sort_values(keys, ignore_index=True), rows.sort_values(keys, ignore_index=True), rtol=1e-2, atol=1e-3
    )


def test_what_a_killed_job_has_probed_is_not_probed_again(rows, data, skilled, tmp_path):
    given = evaluation_arguments(data, skilled.model.name_or_path, tmp_path / "killed")
    line = command_line("probe_towers.py", *given, settings=SETTINGS)
    done = killed_after(1, line, tmp_path / ".killed.partial" / "shards")
    assert done and not (tmp_path / "killed").exists()
    here("probe_towers.py", *given, settings=SETTINGS)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "killed" / "rows.parquet"), rows)


def test_an_image_whose_label_no_training_image_has_is_not_asked_about(skilled, shown):
    known = sorted(set(shown["modality"]))[:2]
    train = shown.filter(lambda row: row["modality"] in known)
    probe = Probe(skilled, Images.of(train), Images.of(shown), SETTINGS, 0)
    made = probe.rows(probe.asked())
    voted = made[made.level == "modality"]
    assert set(voted.gold) == set(known) and (voted.classes == 2).all()
    assert FAILED not in set(made.outcome) and set(shown["modality"]) > set(known)


def test_a_level_at_which_all_training_images_are_alike_is_not_voted_on(skilled, shown):
    train = shown.filter(lambda row: row["modality"] == "CT")
    probe = Probe(skilled, Images.of(train), Images.of(shown), SETTINGS, 0)
    made = probe.rows(probe.asked())
    assert set(made.level) == {"finding"} and FAILED not in set(made.outcome) and (made.classes > 1).all()


def test_where_no_level_has_two_labels_there_is_nothing_to_vote_on(skilled, shown):
    one = Images.of(shown.select([0]))
    with pytest.raises(ValueError, match="modality, anatomy, finding: at none of them .* leave towers out of"):
        Probe(skilled, one, one, SETTINGS, 0).asked()


def test_only_images_with_a_label_that_can_be_voted_for_are_asked_about(skilled, shown):
    images = Images.of(shown)
    images.told.loc[1:, "finding"] = None
    probe = Probe(skilled, Images.of(shown.filter(lambda row: row["modality"] == "CT")), images, SETTINGS, 0)
    assert probe.asked().tolist() == [0] and set(probe.rows(probe.asked()).question_id) == {images.names[0]}


def test_a_tower_without_numbers_votes_for_nothing(skilled, shown, data):
    probe = Probe(skilled, *(Images.of(load_questions(data, split)) for split in ("train", "test")), SETTINGS, 0)
    vlm = VLM.load(skilled.model.name_or_path)
    next(vlm.visual.parameters()).data.fill_(torch.nan)
    probe.vlm = vlm
    made = probe.rows(probe.asked()[:3])
    assert (made.outcome == FAILED).all() and (made.answer == "").all() and np.isnan(made["shift"]).all()
    with pytest.raises(FloatingPointError, match="no training image has features that are numbers"):
        Probe(vlm, probe.test, probe.test, SETTINGS, 0)
