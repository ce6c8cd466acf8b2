"""The table and figure of the red team, against cases counted by hand."""

import math

import pandas as pd
import pytest

from safemed.data.prompts import FAILED
from safemed.report.figures.redteam import accuracy_by_queries
from safemed.report.figures.redteam import redteam as draw
from safemed.report.tables.redteam import RED_TEAM_ROWS, REDTEAM, redteam
from safemed.utils.stats import wilson
from support.stress_rows import SEARCHED, red_team_rows

STRATEGIES = list(SEARCHED)


def with_one(strategy: str, question: str, at: int, **changes) -> pd.DataFrame:
    """The rows with one of them changed."""
    rows = red_team_rows()
    one = (rows.strategy == strategy) & (rows.question_id == question) & (rows["query"] == at)
    assert one.sum() == 1
    rows.loc[one, list(changes)] = list(changes.values())
    return rows


def copy_of(rows: pd.DataFrame, n: int) -> pd.DataFrame:
    """The same of other questions about other images."""
    return rows.assign(question_id=rows.question_id + f"-{n}", image_path=rows.image_path + f"-{n}")


def test_what_is_fooled_is_counted_of_what_was_right():
    table = redteam(red_team_rows(), STRATEGIES).set_index("strategy")
    assert list(table.index) == ["adaptive", "random", "silent"] and (table.status == "complete").all()
    found = table.loc["adaptive"]
    assert (found.n, found.n_right, found.fooled, found.fooled_of_all) == (5, 4, 3 / 4, 3 / 5)
    assert (found.fooled_low, found.fooled_high) == wilson(3, 4)
    assert found.followed == 2 / 3 and found.unparsable == 0
    assert found.queries == (1 + 3 + 2 + 4) / 4 and found.rounds == (1 + 2 + 1 + 2) / 4
    assert found.operators == (1 + 2 + 1) / 3 and found.top == "hint"
    assert table.fooled["random"] == 1 / 4 and (table.silent == 2 / 4).all()
    assert table.unparsable["silent"] == 1 / 2 and math.isnan(table.followed["silent"])


def test_an_answer_without_a_letter_follows_no_claim_where_there_is_none():
    """Both are "" in the rows."""
    rows = with_one("adaptive", "q1", 1, claimed="", operators="order 1", answer="", said="", outcome="unparsable")
    found = redteam(rows, STRATEGIES).set_index("strategy").loc["adaptive"]
    assert found.fooled == 3 / 4 and found.followed == found.unparsable == 1 / 3


def test_strategies_are_compared_on_the_same_questions():
    table = redteam(red_team_rows(), STRATEGIES).set_index("strategy")
    assert table.p_random["adaptive"] == 2 * 0.5**2  # q1 and q2, both the same way
    assert table.p_sooner_random["adaptive"] == 2 * 0.5**3  # q3, too, which both fool
    assert table.p_silent["adaptive"] == 1 and table.p_sooner_silent["adaptive"] == 2 * 0.5**2  # q3 as soon
    assert math.isnan(table.p_random["random"]) and math.isnan(table.p_silent["silent"])


def test_p_values_are_adjusted_for_the_number_of_models_and_strategies():
    """Of all rows together; those that compare a strategy with itself are none."""
    rows = pd.concat([red_team_rows(), red_team_rows(model="at-grpo-think")])
    table = redteam(rows, STRATEGIES).set_index(["strategy", "model"])
    assert table.p_random_holm["adaptive"].tolist() == table.p_random_holm["silent"].tolist() == [1, 1]
    assert table.p_random["adaptive"].tolist() == [0.5, 0.5] and table.p_random_holm["random"].isna().all()
    few = redteam(red_team_rows().query("strategy != 'silent'"), ["adaptive", "random"])
    assert few.p_random_holm.dropna().tolist() == few.p_random.dropna().tolist() == [0.5]


def test_further_seeds_do_not_change_what_is_adjusted_of_the_first():
    """Six questions make p small enough that a larger family would tell."""
    rows = pd.concat([copy_of(red_team_rows(), n) for n in range(6)])
    first = redteam(rows, STRATEGIES)
    both = redteam(pd.concat([rows, rows.assign(model="sft-think-seed1")]), STRATEGIES)
    adjusted = ["p_random_holm", "p_silent_holm"]
    for model in ("sft-think", "sft-think-seed1"):
        pd.testing.assert_frame_equal(both[both.model == model].reset_index(drop=True)[adjusted], first[adjusted])
    assert first.p_random_holm.min() == 2 * first.p_random.min() < 0.01


@pytest.mark.parametrize("strategy, query", [("adaptive", 1), ("random", 4), ("silent", 3)])
def test_a_search_that_failed_leaves_no_number_that_rests_on_it(strategy, query):
    rows = with_one(strategy, "q1", query, outcome=FAILED, answer="", said="", margin=math.nan)
    table = redteam(rows, STRATEGIES).set_index("strategy")
    assert table.status[strategy] == "incomplete: 1 of 5 not evaluated"
    assert table.loc[strategy, ["n_right", "fooled", "queries", "silent", "p_random"]].isna().all()
    other = table.drop(index=strategy)
    assert (other.status == "complete").all() and other.fooled.notna().all()
    assert other.silent.isna().all() == (strategy == "silent") and other.p_random.isna().all() == (strategy == "random")
    assert strategy not in set(accuracy_by_queries(rows).strategy)


def test_a_question_that_failed_as_it_is_leaves_no_number_at_all():
    table = redteam(with_one("plain", "q5", 0, outcome=FAILED, answer="", said=""), STRATEGIES)
    assert table.status.eq("incomplete: 1 of 5 not evaluated").all() and table.fooled.isna().all()


def test_of_nothing_right_nothing_is_fooled():
    rows = red_team_rows()
    rows = rows[rows.strategy == "plain"].assign(answer="C", outcome="wrong")
    table = redteam(rows, STRATEGIES)
    assert table.strategy.tolist() == STRATEGIES and (table.n == 5).all() and (table.n_right == 0).all()
    assert table.fooled.isna().all() and table.queries.isna().all() and (table.status == "complete").all()
    figure, drawn = draw(rows, STRATEGIES)
    assert figure.texts and not figure.axes and drawn.empty


def test_accuracy_falls_where_a_query_fools():
    lines = accuracy_by_queries(red_team_rows()).set_index(["strategy", "queries"]).accuracy
    assert lines["adaptive"].tolist() == [0.8, 0.6, 0.4, 0.2, 0.2]
    assert lines["random"].tolist() == [0.8, 0.8, 0.8, 0.8, 0.6]
    assert lines["silent"].tolist() == [0.8, 0.8, 0.6, 0.4, 0.4]


def test_the_control_is_drawn_beside_every_model():
    models = ["sft-think", "at-grpo-think", "sft-instruct"]
    figure, drawn = draw(pd.concat([red_team_rows(model=model) for model in models]), STRATEGIES)
    panels = [axes for axes in figure.axes if axes.lines]
    assert [axes.get_title(loc="left") for axes in panels] == ["SFT, instruct", "SFT, think", "AT-GRPO, think"]
    for axes in panels:
        (control,) = [line for line in axes.lines if line.get_color() == "#777777"]
        assert control.get_ydata().tolist() == drawn[drawn.strategy == "silent"].accuracy[:5].tolist()
    assert len(draw(pd.concat([red_team_rows(model=f"m{i}-think") for i in range(8)]), STRATEGIES)[0].axes) == 6


@pytest.mark.parametrize(
    "rows, message",
    [
        (with_one("adaptive", "q2", 1, answer="C", outcome="wrong"), "asked on.*adaptive"),
        (with_one("adaptive", "q1", 1, answer="A"), "contradicts"),
        (with_one("adaptive", "q2", 2, query=1), "twice"),
        (with_one("adaptive", "q1", 1, question_id="q9"), "q1"),
        (with_one("plain", "q4", 0, answer="C", outcome="wrong"), "not right as it is.*q4"),
        (
            pd.concat([red_team_rows(), red_team_rows(model="m-think").query("question_id != 'q5'")]),
            "different questions",
        ),
        (red_team_rows().query("strategy != 'random'"), "not attacked.*random.*q1"),
        (red_team_rows().query("strategy != 'silent' or query < 4"), "not asked as often as others.*silent.*q2"),
        (red_team_rows().drop(columns="claimed"), "claimed"),
    ],
)
def test_rows_that_cannot_be_counted_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        redteam(rows, STRATEGIES)


def test_no_rows_make_an_empty_table():
    table = redteam(pd.DataFrame(columns=RED_TEAM_ROWS), STRATEGIES)
    assert table.empty and table.columns.tolist() == REDTEAM
