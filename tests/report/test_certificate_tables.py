"""Certified accuracy is what one counts by hand, and what contradicts itself or an attack is refused or shown."""

import numpy as np
import pandas as pd
import pytest

from safemed.report.tables.certified import CERTIFIED, certified, linf_equivalent
from safemed.report.tables.smoothing import SMOOTHING, smoothing
from support.report_rows import certificate_rows, failed, smoothed_and_plain, smoothed_rows

SIDE = 32
UNDER_ATTACK = ["empirical_accuracy", "clean_accuracy", "unconfirmed"]


def test_certified_accuracy_by_hand_and_never_increasing():
    table = certified(certificate_rows(), [1.0, 0.0, 0.25, 0.3, 0.9], SIDE)
    assert table.columns.tolist() == CERTIFIED and table.radius.tolist() == [0.0, 0.25, 0.3, 0.9, 1.0]
    assert table.certified_accuracy.tolist() == [0.4, 0.4, 0.2, 0.2, 0.0]  # of all five, also the abstained one
    assert table.sure.tolist() == [0.2, 0.2, 0.0, 0.0, 0.0]  # in five certificates one may be wrong
    alike = ["n", "abstain", "samples", "seconds", "alpha", "mode", "randomised", "status"]
    assert table[alike].drop_duplicates().values.tolist() == [[5, 0.2, 310, 3, 0.001, "sequential", False, "complete"]]
    assert table.mean_radius.unique().tolist() == pytest.approx([(0.9 + 0.25) / 5])
    assert table[UNDER_ATTACK].isna().to_numpy().all()


def test_the_linf_equivalent_of_an_l2_radius_is_the_largest_linf_ball_inside_it():
    assert round(linf_equivalent(0.6, 64), 1) == 1.4 and round(linf_equivalent(1.0, 384), 2) == 0.38
    table = certified(certificate_rows(), [0.0, 0.9], SIDE)
    assert table.linf_equivalent[0] == 0
    corner = np.full((3, SIDE, SIDE), table.linf_equivalent[1] / 255)  # every channel of every pixel is moved so far
    assert np.linalg.norm(corner) == pytest.approx(0.9)


def test_each_function_and_sigma_has_certificates_of_its_own():
    choice = certificate_rows(function="choice").assign(radius=0.5, p_lower=0.9, prediction="B", certified=True)
    quiet = certificate_rows(sigma=0.25).assign(radius=0.0, prediction="", certified=False)
    rows = pd.concat([certificate_rows(), choice, quiet], ignore_index=True)
    table = certified(rows, [0.5], SIDE).set_index(["function", "sigma"])
    expected = {("choice", 0.5): 1.0, ("generate", 0.25): 0.0, ("generate", 0.5): 0.2}
    assert table.certified_accuracy.to_dict() == expected


def test_an_attack_on_the_smoothed_model_stands_beside_its_certificates_and_may_refute_them():
    attacks = smoothed_rows({0: "abd", 0.25: "bd", 0.9: "b"})
    other = smoothed_rows({0: "", 0.25: "", 0.9: ""}, function="choice")  # of another function: says nothing
    table = certified(certificate_rows(), [0.0, 0.25, 0.3, 0.9], SIDE, pd.concat([attacks, other]))
    assert table.empirical_accuracy.fillna(-1).tolist() == [0.6, 0.4, -1, 0.2]  # no attack had a radius of 0.3
    assert set(table.clean_accuracy) == {0.6}
    assert table.unconfirmed.fillna(-1).tolist() == [0, 1, -1, 1]  # a is certified to 0.9, and fell at 0.25
    assert certified(certificate_rows(), [0.25], SIDE, other)[UNDER_ATTACK].isna().to_numpy().all()
    with pytest.raises(ValueError, match="generate.*other questions than the certificates; re-run both"):
        certified(certificate_rows(), [0.25], SIDE, attacks[attacks.question_id != "e"])


@pytest.mark.parametrize("at, missing", [(0.25, ["empirical_accuracy", "unconfirmed"]), (0.0, ["clean_accuracy"])])
def test_an_attack_on_the_smoothed_model_that_failed_gives_no_number(at, missing):
    row = certified(certificate_rows(), [0.25], SIDE, failed(smoothed_rows({0: "abd", 0.25: "bd"}), "c", at)).iloc[0]
    assert row[missing].isna().all() and row.certified_accuracy == 0.4


def test_certificates_that_failed_give_no_number():
    rows = certificate_rows()
    rows.loc[2, ["stopped", "prediction", "certified", "radius"]] = ["failed", "", False, 0.0]
    table = certified(rows, [0.0, 0.25], SIDE, smoothed_rows({0: "abd", 0.25: "bd"}))
    assert set(table.status) == {"incomplete: 1 of 5 not evaluated"}
    missing = ["certified_accuracy", "ci_low", "ci_high", "sure", "mean_radius", "abstain", "samples", "unconfirmed"]
    assert table[missing].isna().to_numpy().all()


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda rows: pd.concat([rows, rows.iloc[:1]]), "appears twice.*sigma 0.5"),
        (lambda rows: rows.assign(certified=True), "certified contradicts"),
        (lambda rows: rows.assign(radius=-1.0), "negative"),
        (lambda rows: rows.assign(radius=1.0), "abstention"),
        (lambda rows: rows.assign(radius=rows.radius * 1.01), "exceeds what p_lower proves"),
        (lambda rows: rows.assign(stopped="tired"), "no known reason"),
        (lambda rows: rows.assign(alpha=[0.1, 0.1, 0.1, 0.1, 0.2]), "more than one alpha"),
        (lambda rows: rows.assign(mode=["fixed"] + ["sequential"] * 4), "more than one mode.*function generate"),
        (lambda rows: rows.assign(randomised=[True] + [False] * 4), "more than one randomised"),
        (lambda rows: rows[rows.shard != "2-of-2"], "at-grpo-think, function generate.*shard 2-of-2 is missing"),
        (lambda rows: rows[rows.shard != "1-of-2"], "shard 1-of-2 is missing.*re-run certify_model"),
        (lambda rows: rows.assign(shard=["1-of-2", "2-of-2", "1-of-1", "1-of-2", "2-of-2"]), "1-of-1"),
        (lambda rows: pd.concat([rows, certificate_rows("sft-think")[1:]]), "answered different.*function generate"),
        (lambda rows: rows.drop(columns="radius"), "missing column"),
    ],
)
def test_certificate_rows_that_cannot_be_counted_are_refused(spoil, message):
    with pytest.raises(ValueError, match=message):
        certified(spoil(certificate_rows()), [0.0], SIDE)


def test_a_negative_radius_and_attacks_that_cannot_be_counted_are_refused():
    with pytest.raises(ValueError, match="radii"):
        certified(certificate_rows(), [-0.1], SIDE)
    with pytest.raises(ValueError, match="linf or l2 exceeds eps"):
        certified(certificate_rows(), [0.25], SIDE, smoothed_rows({0.25: "ab"}).assign(l2=0.3))


def test_what_smoothing_adds_is_counted_by_hand_on_the_questions_it_was_attacked_on():
    (row,) = smoothing(*smoothed_and_plain(), 8).to_dict("records")
    assert (row["model"], row["function"], row["sigma"]) == ("at-grpo-think", "generate", 0.5)
    assert (row["n"], row["failed"], row["eps"]) == (5, 0, 8)
    accuracies = [row[name] for name in ("clean", "clean_smoothed", "attacked", "attacked_smoothed")]
    assert accuracies == [0.8, 0.6, 0.2, 0.4]
    assert row["difference"] == pytest.approx(0.2) and row["ci_low"] <= 0.2 <= row["ci_high"]
    assert row["p"] == pytest.approx(1.0)  # one question, which may have gone either way
    assert list(row) == SMOOTHING


@pytest.mark.parametrize("at", [0, 8])
def test_what_smoothing_adds_has_no_number_where_a_question_failed(at):
    smoothed, plain = smoothed_and_plain()
    (row,) = smoothing(failed(smoothed, "c", at), plain, 8).to_dict("records")
    missing = ["clean", "clean_smoothed", "attacked", "attacked_smoothed", "difference", "ci_low", "ci_high", "p"]
    assert row["failed"] == 1 and all(np.isnan(row[name]) for name in missing)
