"""The table and figure of vision towers, against cases counted by hand."""

import math

import pandas as pd
import pytest

from safemed.data.prompts import FAILED
from safemed.report.figures.towers import towers as draw
from safemed.report.tables.towers import TOWERS, towers
from safemed.utils.stats import sign_flip, wilson
from support.report_rows import attack_rows
from support.tower_rows import METHODS, tower_costs, tower_rows

WHERE = ["model", "level"]
SEEDS = ("", "-seed1", "-seed2")  # the ends of models' names


def table(rows: pd.DataFrame, **more) -> pd.DataFrame:
    return towers(rows, tower_costs(), 8, METHODS, **more)


def changed(question: str, seen: str, **changes) -> pd.DataFrame:
    """The rows with those of sft on findings, of one image, changed."""
    rows = tower_rows()
    one = (rows.model == "sft-think") & (rows.level == "finding") & (rows.question_id == question) & (rows.seen == seen)
    assert one.sum() == 1
    rows.loc[one, list(changes)] = list(changes.values())
    return rows


def test_votes_are_counted_clean_and_under_attack():
    found = table(tower_rows()).set_index(WHERE)
    assert list(found.reset_index().columns) == [*WHERE, *[name for name in TOWERS if name not in WHERE]]
    sft = found.loc["sft-think", "finding"]
    assert (sft.n, sft.knn_clean, sft.knn_pgd, sft.k, sft.classes) == (4, 3 / 4, 2 / 4, 3, 2)
    assert (sft.knn_pgd_low, sft.knn_pgd_high) == pytest.approx(wilson(2, 4))
    assert sft["shift"] == (0.25 + 0.5 + 0.75 + 1) / 4 and sft.status == "complete"
    assert found.loc["base-think", "modality"].knn_pgd == 1 / 4


def test_each_tower_is_compared_with_the_bases_on_the_same_images_and_level():
    found = table(tower_rows()).set_index(WHERE)
    ours, bases = [True, True, True, False], [True, False, False, False]
    assert found.p_base["sft-think", "modality"] == sign_flip(ours, bases, range(4)) == 0.5
    assert found.p_base_holm["sft-think", "modality"] == 1 and found.p_base["base-think"].isna().all()
    alone = tower_rows()[lambda rows: rows.method == "sft"]
    assert table(alone).p_base.isna().all()


def test_further_seeds_do_not_change_what_is_adjusted_of_the_first():
    """They are families of their own, held against the base of their seed."""
    names = [(f"-{n}", tower_rows()) for n in range(6)]  # so many images that p is not 1 as soon as it is adjusted
    first = pd.concat(
        rows.assign(question_id=rows.question_id + end, image_path=rows.image_path + end) for end, rows in names
    )
    more = [first.assign(model=first.model + seed) for seed in SEEDS[1:]]
    costs = pd.concat([tower_costs().assign(model=lambda table, seed=seed: table.model + seed) for seed in SEEDS])
    found = towers(pd.concat([first, *more]), costs, 8, METHODS).set_index(WHERE)
    alone = table(first).set_index(WHERE)
    pd.testing.assert_frame_equal(found.loc[alone.index], alone)
    assert alone.p_base_holm.min() == 2 * alone.p_base.min() < 0.01
    for seed in SEEDS[1:]:
        assert found.p_base_holm["sft-think" + seed].equals(alone.p_base_holm["sft-think"])


def test_passes_are_those_of_the_training_and_of_all_that_it_goes_on_from():
    found = table(tower_rows()).set_index(WHERE).passes
    assert (found["sft-think"] == 100 + 10 + 1000 + 500).all() and (found["base-think"] == 0).all()
    with pytest.raises(ValueError, match="^fare-think: no cost of its training; re-run"):
        towers(tower_rows(), tower_costs()[lambda costs: costs.stage == "sft"], 8, METHODS)


def test_what_the_model_answers_stands_beside_its_tower():
    sweeps = pd.concat([
        attack_rows("sft-think"), attack_rows("sft-think", "pgd", 8, ["right"] + ["wrong"] * 7),
        attack_rows("sft-think", "pgd", 4, ["wrong"] * 8),
    ])  # fmt: skip
    found = table(tower_rows(), sweeps=sweeps).set_index(WHERE)
    clean = (attack_rows("sft-think").outcome == "right").mean()
    assert (found.vqa_clean["sft-think"] == clean).all() and (found.vqa_pgd["sft-think"] == 1 / 8).all()
    assert (found.vqa_n["sft-think"] == 8).all() and found.vqa_pgd["base-think"].isna().all()


def test_a_failure_is_no_score():
    rows = changed("q1", "pgd", outcome=FAILED, answer="", shift=math.nan)
    found = table(rows).set_index(WHERE)
    row = found.loc["sft-think", "finding"]
    assert row.status == "incomplete: 1 of 4 not evaluated" and math.isnan(row.knn_clean) and math.isnan(row.knn_pgd)
    assert found.status["sft-think", "modality"] == "complete"
    lost = tower_rows()
    lost.loc[(lost.question_id == "q1") & (lost.model == "sft-think"), "shift"] = math.nan
    kept = table(lost).set_index(WHERE)
    assert kept["shift"]["sft-think"].isna().all() and kept.knn_pgd.notna().all()


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (changed("q2", "pgd", outcome="right", answer="a"), "an attack made an image right: model sft-think"),
        (changed("q1", "pgd", outcome="right", answer="b"), "the outcome contradicts the answer: model sft-think"),
        (
            tower_rows()[lambda rows: (rows.seen == "clean") | (rows.question_id != "q3")],
            "was not seen clean and attacked",
        ),
        (tower_rows().drop(columns="gold"), "rows of the probe of towers: missing column"),
        (
            tower_rows()[lambda rows: (rows.model != "sft-think") | (rows.question_id != "q3")],
            "models base-think and sft-think answered different questions under level ",
        ),
    ],
    ids=["right under attack", "contradiction", "half", "column", "other images"],
)
def test_rows_that_cannot_be_counted_are_refused(rows, why):
    with pytest.raises(ValueError, match=why):
        table(rows)


def test_the_figure_draws_votes_and_answers_of_every_model():
    made = table(tower_rows(), sweeps=pd.concat([attack_rows("sft-think"), attack_rows("sft-think", "pgd", 8)]))
    figure, drawn = draw(made)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "Vote on modality",
        "Vote on finding",
        "Model's answers",
    ]
    assert len(drawn) == 2 * 2 + 1
    with pytest.raises(ValueError, match="no complete row of towers"):
        draw(made.assign(knn_clean=math.nan))
