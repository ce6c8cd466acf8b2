"""The tables of attacks are what one counts by hand; rows that cannot be counted are refused."""

import math

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.multitest import multipletests

from safemed.report.tables import comparisons, cost, robustness, suite, transfer
from safemed.report.tables.comparisons import WORST
from safemed.report.tables.targets import targets
from safemed.utils.stats import clustered_wilson
from support.report_rows import BASELINES, MODALITIES, OUTCOMES, attack_costs, attack_rows, failed, study, target_rows


def test_robustness_counts_by_hand():
    table = robustness.robustness(study(), BASELINES).set_index(["model", "attack", "eps"])
    clean = table.loc[("sft-think", "clean", 0)]
    assert (clean.n, clean.accuracy, clean.unparsable) == (8, 5 / 8, 1 / 8)  # unparsable is not right
    assert (clean.chance, clean.blind) == (pytest.approx(3 / 8), 0.3)
    right = [outcome == "right" for outcome in OUTCOMES]
    assert (clean.ci_low, clean.ci_high) == clustered_wilson(right, [0, 0, 1, 1, 2, 2, 3, 3])
    assert table.loc[("sft-think", "pgd", 4), "accuracy"] == 2 / 8
    assert sorted(table.reset_index()) == sorted(robustness.ROBUSTNESS)


def test_an_unparsable_answer_scores_as_a_wrong_one():
    parsed = attack_rows(outcomes=["right"] * 4 + ["wrong"] * 4)
    garbled = attack_rows(outcomes=["right"] * 4 + ["unparsable"] * 4)
    one, other = (robustness.robustness(rows, BASELINES).iloc[0] for rows in (parsed, garbled))
    assert one.accuracy == other.accuracy == 0.5 and (one.unparsable, other.unparsable) == (0, 0.5)


def test_modalities_add_up_to_the_whole():
    whole, parts = robustness.robustness(study(), BASELINES), robustness.robustness_by_part(study(), BASELINES)
    keys, of_modality = ["model", "attack", "eps"], parts[parts.kind == "modality"]
    summed = of_modality.assign(right=parts.accuracy * parts.n).groupby(keys)[["right", "n"]].sum()
    assert (summed.right / summed.n).to_dict() == pytest.approx(whole.set_index(keys).accuracy.to_dict())
    assert parts.set_index("part").blind["fundus photography"].unique() == [0.2]


def test_an_incomplete_evaluation_has_no_accuracy():
    rows = study()
    spoilt = rows.where(rows.model != "sft-think", failed(rows, "q0", 4))
    table = robustness.robustness(spoilt, BASELINES).set_index(["model", "attack", "eps"])
    row = table.loc[("sft-think", "pgd", 4)]
    assert row.status == "incomplete: 1 of 8 not evaluated" and np.isnan(row.accuracy) and np.isnan(row.ci_low)
    assert (table.drop(("sft-think", "pgd", 4)).status == "complete").all()


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda rows: pd.concat([rows, rows.iloc[:1]]), "appears twice.*model sft-think.*re-run"),
        (lambda rows: rows.assign(outcome="error", answer=""), "outcome is none of"),
        (lambda rows: rows.assign(answer="B"), "contradicts the answer"),
        (lambda rows: rows.assign(linf=9), "linf or l2 exceeds eps"),
        (lambda rows: rows.assign(norm="l2", l2=0.1), "linf or l2 exceeds eps"),
        (lambda rows: rows.assign(variant=None), "value is missing"),
        (lambda rows: rows.drop(columns=["gold", "eps"]), r"missing column\(s\) gold, eps"),
        (lambda rows: pd.concat([rows, attack_rows("base")[1:]]), "models base and sft-think answered different.* q0"),
    ],
)
def test_attack_rows_that_cannot_be_counted_are_refused(spoil, message):
    for table in (robustness.robustness, robustness.robustness_by_part):
        with pytest.raises(ValueError, match=message):
            table(spoil(attack_rows()), BASELINES)


def test_baselines_without_all_questions_are_refused():
    with pytest.raises(ValueError, match="'all'.*re-run the audit"):
        robustness.robustness(attack_rows(), BASELINES[:3])


def test_the_suite_has_the_worst_case_so_far_and_each_attacks_cost():
    rows = study()
    losses = {"instruct": ["answer"], "think": ["sequence", "answer"]}
    configs = {"pgd": {"losses": losses, "steps": 20, "restarts": {"instruct": 3, "think": 1}}, "fgsm": {"steps": 1}}
    table = suite.suite(rows, attack_costs(rows), 8, configs).set_index(["model", "attack"])
    assert table.loc["sft-think"].accuracy.tolist() == [5 / 8, 0, 5 / 8]  # clean, pgd, fgsm
    assert table.loc["sft-think"].worst.tolist() == [5 / 8, 0, 0] and (table.forward_passes == 1).all()
    assert table.broken["sft-think", "pgd"] == 8 and list(table.reset_index()) == suite.SUITE
    budget = table.loc["sft-think", ["losses", "restarts", "steps"]].astype(object).fillna("").T.to_dict("list")
    assert budget == {"clean": [""] * 3, "pgd": ["sequence + answer", 1, 20], "fgsm": ["", 1, 1]}
    with pytest.raises(ValueError, match="no cost of attack fgsm on model sft-think: re-run that attack"):
        suite.suite(rows, attack_costs(rows[rows.attack != "fgsm"]), 8, {})


def test_two_models_are_compared_on_their_worst_case_and_by_modality():
    twin = [study(), study().assign(model=lambda rows: rows.model.str.replace("think", "instruct"), variant="instruct")]
    table = comparisons.comparisons(pd.concat(twin, ignore_index=True), 8)
    pair = table[(table.family == "methods") & (table.images == WORST)].iloc[0]
    assert {pair["first"], pair["second"]} == {"sft-think", "at-grpo-think"}
    assert abs(pair.difference) == 5 / 8 and pair.ci_low <= pair.difference <= pair.ci_high
    assert pair.p == pytest.approx(2 * 0.5**3)  # the five questions that differ, all one way, are about three images
    same = table[table.family == "variants"]
    assert (same.difference == 0).all() and (same.p == 1).all()
    assert set(table[table.family == "variants by modality"].part) == set(MODALITIES)


def test_every_two_variants_of_a_method_are_compared_and_adjusted_together():
    """think keeps 8 questions, after 4 and instruct none; by modality, a method's three pairs are one family."""
    right = {"instruct": 0, "think": 8, "after": 4}
    rows = [
        attack_rows(f"{method}-{name}", outcomes=["right"] * n + ["wrong"] * (8 - n)).assign(
            method=method, variant=name
        )
        for name, n in right.items()
        for method in ("sft", "fare")
    ]
    table = comparisons.comparisons(pd.concat(rows, ignore_index=True), 8)
    found = table[(table.family == "variants") & (table.images == WORST) & table["first"].str.startswith("sft")]
    pairs = zip(found["first"], found["second"], found.difference, strict=True)
    assert list(pairs) == [
        ("sft-after", "sft-think", -0.5), ("sft-after", "sft-instruct", 0.5), ("sft-think", "sft-instruct", 1.0),
    ]  # fmt: skip
    by_modality = table[(table.family == "variants by modality") & (table.images == WORST)]
    for _, part in by_modality.groupby(by_modality["first"].str.split("-").str[0]):
        assert part.p_holm.tolist() == multipletests(part.p, method="holm")[1].tolist()
        assert len(part) == 3 * part.part.nunique()


def test_p_values_are_adjusted_by_holms_method_within_a_family_and_kind_of_images():
    """Four models of one variant, three of which lose 8, 7 and 6 questions that the first keeps."""
    right = {"sft": 8, "fare": 0, "grpo": 1, "at-grpo": 2}
    rows = pd.concat(
        [attack_rows(f"{name}-think", outcomes=["right"] * n + ["wrong"] * (8 - n)) for name, n in right.items()]
    )
    table = comparisons.comparisons(rows, 8)
    for _, part in table.groupby("images"):
        p = part.p.to_numpy()
        steps = np.argsort(p, kind="stable")  # Holm (1979): the k-th smallest of m times m - k + 1, never falling
        by_hand = np.maximum.accumulate(p[steps] * np.arange(len(p), 0, -1)).clip(max=1)[steps.argsort()]
        assert part.p_holm.tolist() == by_hand.tolist() == multipletests(p, method="holm")[1].tolist()
        assert part.p_holm.min() == 0.75 and part.p_holm.max() == 1 and (part.p_holm >= p).all()


def test_models_are_not_compared_on_questions_that_one_of_them_was_not_evaluated_on():
    twin = study().query("model == 'sft-think'").assign(model="sft-instruct", variant="instruct")
    rows = pd.concat([study(), twin], ignore_index=True)
    spoilt = rows.where(rows.model != "at-grpo-think", failed(rows, "q0", 8))
    table = comparisons.comparisons(spoilt, 8)
    numbers = ["first_accuracy", "second_accuracy", "difference", "ci_low", "ci_high", "p", "p_holm"]
    about = (table["first"] == "at-grpo-think") | (table["second"] == "at-grpo-think")
    worst = table.images == WORST
    assert table[about & worst].failed.tolist() == [1] and table[about & worst][numbers].isna().to_numpy().all()
    assert (table[~(about & worst)].failed == 0).all() and table[~(about & worst)][numbers].notna().to_numpy().all()
    assert set(table.n) == {4, 8}


def test_a_question_that_one_attack_broke_is_lost_though_another_failed_on_it():
    """A failure hides no defeat: only what is not known is missing."""
    rows = study()
    rows.loc[(rows.attack == "fgsm") & rows.question_id.isin(["q0", "q1"]), ["outcome", "answer"]] = ["failed", ""]
    answers = comparisons.worst_case(rows, 8).set_index(["model", "question_id"])
    assert answers.worst["sft-think", "q0"] == False  # noqa: E712, not missing: PGD broke it
    spoilt = rows[~((rows.attack == "pgd") & (rows.model == "sft-think"))]
    assert comparisons.worst_case(spoilt, 8).set_index(["model", "question_id"]).worst.isna()["sft-think", "q0"]


def test_a_transferred_attack_that_failed_has_no_accuracy():
    rows = study().assign(source="sft-think").query("eps == 8 and attack == 'pgd'")
    whole = transfer.transfer(rows).set_index("target")
    assert whole.failed.tolist() == [0, 0] and whole.accuracy.to_dict() == {"sft-think": 0, "at-grpo-think": 5 / 8}
    one = (rows.question_id == "q0") & (rows.model == "at-grpo-think")
    spoilt = transfer.transfer(rows.assign(outcome=rows.outcome.mask(one, "failed"))).set_index("target")
    assert spoilt.failed.to_dict() == {"sft-think": 0, "at-grpo-think": 1} and set(spoilt.n) == {8}
    assert spoilt.loc["at-grpo-think", ["accuracy", "ci_low", "ci_high"]].isna().all()
    assert spoilt.accuracy["sft-think"] == 0


def test_cost_sums_runs():
    run = {"stage": "attack", "model": "m", "wall_s": 2.0, "forward_passes": 10, "backward_passes": 5, "peak_rss_mb": 7}
    table = cost.cost(pd.DataFrame([run, run | {"peak_rss_mb": 9}, run | {"stage": "sft"}]))
    assert table.values.tolist() == [["attack", "m", 4.0, 20, 10, 9], ["sft", "m", 2.0, 10, 5, 7]]
    with pytest.raises(ValueError, match="stage sft.*re-run"):
        cost.cost(pd.DataFrame([run | {"stage": "sft", "wall_s": None}]))


def test_own_targets_are_counted_and_an_incomplete_count_is_no_share():
    (found,) = targets(target_rows()).to_dict("records")
    assert (found["n"], found["with_target"], found["share"], found["status"]) == (4, 3, 0.75, "complete")
    assert (found["samples"], found["cut"], found["tokens"], found["longest"]) == (2, 0.5, 20, 60)
    rows = target_rows().assign(why=["", "", "MemoryError", ""])
    (found,) = targets(rows).to_dict("records")
    assert found["status"] == "incomplete: 1 of 4 not evaluated" and math.isnan(found["share"])
    with pytest.raises(ValueError, match="twice"):
        targets(pd.concat([rows, rows]))
