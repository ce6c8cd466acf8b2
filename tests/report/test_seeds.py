"""Several trainings of a method: their mean and range, and comparisons paired by seed and by question."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

import make_figure
from safemed.report.figures import seeds as figure
from safemed.report.inputs import of_own_seed
from safemed.report.tables.comparisons import WORST, comparisons
from safemed.report.tables.seed_comparisons import seed_comparisons
from safemed.report.tables.seeds import seeds
from safemed.utils.stats import sign_flip
from support.report_rows import attack_rows, certificate_rows, failed, trained_again
from support.stress_rows import hint_rows

RIGHT = {"": 8, "-seed1": 6, "-seed2": 4}  # of eight questions, under pgd
SHOWN = {"eps": 8, "radii": [0.0, 0.25], "side": 32}


def trained(method="at-grpo", right=RIGHT, variant="think") -> pd.DataFrame:
    """Three trainings, which are right on all clean images, and on ever fewer of the attacked."""
    frames = []
    for seed, n in right.items():
        for attack, eps, outcomes in (("clean", 0, ["right"] * 8), ("pgd", 8, ["right"] * n + ["wrong"] * (8 - n))):
            rows = attack_rows(f"{method}-{variant}", attack, eps, outcomes)
            frames.append(rows.assign(model=f"{method}-{variant}{seed}"))
    return pd.concat(frames, ignore_index=True)


def of(table: pd.DataFrame, **values) -> pd.Series:
    """The one row with these values."""
    for column, value in values.items():
        table = table[table[column] == value]
    (row,) = table.to_dict("records")
    return pd.Series(row)


def test_a_measure_has_the_mean_the_range_and_students_interval_of_its_trainings():
    table = seeds(trained(), **SHOWN)
    for condition in ("pgd", WORST):
        row = of(table, measure="accuracy", condition=condition)
        assert (row.trainings, row["mean"], row.least, row.greatest) == (3, 0.75, 0.5, 1)
        half = t.ppf(0.975, 2) * 0.25 / 3**0.5
        assert row.low == pytest.approx(0.75 - half) and row.high == 1  # no share is beyond 1
    clean = of(table, condition="clean")
    assert clean["mean"] == clean.low == clean.high == 1


def test_a_training_that_was_not_evaluated_leaves_no_mean():
    rows = trained()
    lost = rows.model.str.endswith("-seed2")
    table = seeds(pd.concat([rows[~lost], failed(rows[lost], "q0", 8)]), **SHOWN)
    row = of(table, condition="pgd")
    assert row.missing == 1 and np.isnan(row["mean"]) and of(table, condition="clean")["mean"] == 1


def test_certificates_and_hints_are_measured_over_trainings_too():
    attacks = trained()
    table = seeds(
        attacks, **SHOWN, certificates=trained_again(certificate_rows(), 1), stress=trained_again(hint_rows(), 1)
    )
    row = of(table, measure="certified_accuracy", condition="generate, sigma 0.5, radius 0.25")
    assert (row.trainings, row["mean"]) == (2, 0.4)
    assert set(table[table.condition == "hints"].measure) == {"negative", "sycophancy", "followed", "drift"}


def test_methods_are_compared_by_seed_and_question_and_put_together():
    attacks = pd.concat([trained(), trained("sft", {"": 0, "-seed1": 2, "-seed2": 4})])
    row = of(seed_comparisons(attacks, 8), family="methods", images=WORST)
    assert (row["first"], row["second"], row.trainings, row.n) == ("at-grpo-think", "sft-think", 3, 8)
    assert (row.difference, row.least, row.greatest) == (0.5, 0, 1)
    assert row.seeds_low < 0 < row.ci_low < row.difference < row.ci_high < row.seeds_high


def test_p_of_several_seeds_is_that_of_flipped_signs_of_whole_images():
    attacks = pd.concat([trained(), trained("sft", {"": 0, "-seed1": 2, "-seed2": 4})])
    wide = attacks[attacks.attack == "pgd"].assign(right=lambda rows: rows.outcome == "right")
    first, second = (wide[wide.method == method].sort_values(["model", "question_id"]) for method in ("at-grpo", "sft"))
    row = of(seed_comparisons(attacks, 8), family="methods", images=WORST)
    assert row.p == sign_flip(first.right, second.right.to_numpy(), first.image_path)


def test_a_seed_that_one_method_lacks_is_left_out_and_an_answer_that_is_missing_leaves_no_difference():
    other = trained("sft", {"": 0, "-seed1": 0})
    row = of(seed_comparisons(pd.concat([trained(), other]), 8), family="methods", images=WORST)
    assert row.trainings == 2 and row.difference == pytest.approx(7 / 8)
    row = of(seed_comparisons(pd.concat([trained(), failed(other, "q0", 8)]), 8), family="methods", images=WORST)
    assert row.failed == 2 and np.isnan(row.difference)


def test_models_of_two_seeds_are_never_compared_with_each_other():
    attacks = pd.concat([trained(), trained("sft"), trained("sft", variant="instruct")])
    table = comparisons(attacks, 8)
    endings = [table[side].str.extract("(-seed.)$")[0].fillna("") for side in ("first", "second")]
    assert len(table) and endings[0].equals(endings[1])


def test_figures_show_the_studys_own_seed_and_that_of_seeds_all_of_them(tmp_path):
    table = pd.DataFrame(
        {"model": ["sft-think", "sft-think-seed1"], "attack": "pgd", "eps": 8, "n": 8, "accuracy": [0.5, 0.9],
         "ci_low": 0.4, "ci_high": 0.95, "chance": 0.25, "blind": 0.3, "method": "sft", "variant": "think"}
    )  # fmt: skip
    table = pd.concat([table, table.assign(attack="clean", eps=0)])
    table.to_csv(tmp_path / "robustness.csv", index=False)
    name = "safemed.report.figures.accuracy_vs_eps.accuracy_vs_eps"
    given = ["--input", "robustness", f"{tmp_path}/robustness.csv"]
    make_figure.main(["--function", name, *given, "--out", f"{tmp_path}/a.png"])
    assert set(pd.read_csv(tmp_path / "a.csv").model) == {"sft-think"}
    _, drawn = figure.seeds(seeds(trained(), **SHOWN))
    assert set(drawn.condition) == {"clean", "pgd", WORST} and (drawn.trainings == 3).all()
    with pytest.raises(ValueError, match="nothing to draw"):
        figure.seeds(seeds(trained(), **SHOWN).assign(measure="negative"))


def test_a_base_that_is_a_checkpoint_is_compared_with_the_trainings_of_all_seeds():
    attacks = pd.concat([trained(), trained("base", {"": 2})])
    row = of(seed_comparisons(attacks, 8), family="methods", images=WORST)
    assert (row["first"], row["second"], row.trainings) == ("at-grpo-think", "base-think", 3)
    assert row.difference == pytest.approx(0.75 - 0.25)


def test_the_transfer_matrix_of_a_figure_is_of_one_seed():
    rows = pd.DataFrame(
        {"source": ["sft-think", "sft-think-seed1"] * 2, "target": ["sft-think"] * 3 + ["a-think-seed1"]}
    )
    kept = of_own_seed(rows)
    assert kept.to_dict("records") == 2 * [{"source": "sft-think", "target": "sft-think"}]
