"""The table, figure and section of defences, against cases counted by hand."""

import math

import pandas as pd
import pytest

from safemed.data.prompts import FAILED
from safemed.report.figures.defences import defences as draw
from safemed.report.results_page.page import page
from safemed.report.results_page.study import Study
from safemed.report.tables.defences import DEFENCES, check_defence_rows, defences
from safemed.utils.stats import wilson
from support.defence_rows import ANSWERED, PASSES, defence_rows
from support.finished_study import COMMIT, provenance, tables

NAMES = list(ANSWERED)


def table(rows: pd.DataFrame | None = None) -> pd.DataFrame:
    return defences(defence_rows() if rows is None else rows, NAMES).set_index(["defence", "against"])


def without(defence: str, **conditions: str) -> pd.DataFrame:
    """The rows without those of a defence under some conditions."""
    rows = defence_rows()
    gone = rows.defence == defence
    for column, value in conditions.items():
        gone &= rows[column] == value
    assert gone.any()
    return rows[~gone]


def changed(defence: str, question: str, seen: str, words: str = "", polarity: str = "", **changes) -> pd.DataFrame:
    rows = defence_rows()
    one = (rows.defence == defence) & (rows.question_id == question) & (rows.seen == seen)
    one &= (rows.words == words) & (rows.polarity == polarity)
    assert one.sum() == 1
    rows.loc[one, list(changes)] = list(changes.values())
    return rows


def test_the_worst_of_all_attacks_counts_and_an_abstention_is_neither_right_nor_wrong():
    found = table()
    assert list(found.reset_index().columns.sort_values()) == sorted(DEFENCES) and (found.status == "complete").all()
    none, strip, loop = (found.loc[(name, "pixels")] for name in NAMES)
    assert (none.clean, none.plain, none.adaptive, none.wrong) == (0.8, 0.2, 0.0, 1.0)
    assert (loop.clean, loop.plain, loop.adaptive) == (0.6, 0.4, 0.2)
    assert (loop.abstained_clean, loop.abstained, loop.wrong) == (0.2, 0.2, 0.6)  # q3; q4 is wrong on PGD's image
    assert (loop.adaptive_low, loop.adaptive_high) == wilson(1, 5)
    assert loop.none == 0.0 and loop.difference == 0.2 and strip.difference == 0.0 and math.isnan(none.difference)
    assert math.isnan(loop.silent) and math.isnan(loop.followed)
    assert [loop.passes, loop.passes_attacked] == pytest.approx([PASSES["loop"]] * 2)


def test_against_words_claims_stand_beside_as_many_silent_sentences():
    none, strip, loop = (table().loc[(name, "words")] for name in NAMES)
    assert (none.plain, none.adaptive, none.silent) == (0.4, 0.4, 0.8)
    assert (none.followed, none.p_silent) == (2 / 5, 2 * 0.5**2)  # q2 and q4
    assert (strip.plain, strip.adaptive, strip.silent, strip.followed) == (0.8, 0.4, 0.6, 0.4)
    assert (none.any_words, strip.any_words, loop.any_words) == (0.4, 0.2, 0.6)  # of strip q1 alone
    assert strip.difference == 0 and strip.p == 1  # q2 gained, q3 lost
    assert (loop.plain, loop.adaptive, loop.wrong, loop.abstained) == (1.0, 0.6, 0.2, 0.2)


def test_what_a_defence_costs_unattacked_is_tested_once_for_both_kinds_of_attack():
    found = table()
    assert found.loc["loop"].clean_difference.round(6).tolist() == [-0.2, -0.2] and found.p_clean.max() == 1
    two = table(pd.concat([defence_rows(), defence_rows(model="at-grpo-think")])).reset_index()
    assert two.p_clean_holm.notna().sum() == 8 and two.p_holm.notna().sum() == 8  # two defences, attacks and models


def test_a_test_on_clean_questions_counts_where_the_attack_on_the_pixels_failed():
    rows = defence_rows()
    lost = (rows.defence == "loop") & (rows.seen == "through") & (rows.question_id == "q1")
    rows.loc[lost, ["outcome", "answer"]] = [FAILED, ""]
    found = defences(rows, NAMES).set_index(["defence", "against"])
    assert math.isnan(found.p_clean["loop", "pixels"]) and found.p_clean["loop", "words"] == 1
    assert found.p_clean_holm["loop", "words"] == 1 and math.isnan(found.p_clean_holm["loop", "pixels"])


def test_p_values_are_adjusted_within_a_seed():
    found = table().p_holm
    both = table(pd.concat([defence_rows(), defence_rows(model="at-grpo-instruct-seed1")])).reset_index()
    assert both.p_holm[both.model.str.endswith("-seed1")].tolist() == pytest.approx(found.tolist(), nan_ok=True)


def test_claims_are_compared_with_the_silent_sentences_in_their_place():
    none, strip, loop = (table().loc[(name, "words")] for name in NAMES)
    assert (none.followed_silent, strip.followed_silent, loop.followed_silent) == (0, 0, 0)  # silent ones get A and C
    assert none.silent_difference == pytest.approx(-0.4) and none.silent_low <= -0.4 <= none.silent_high
    rows = defence_rows()
    rows.loc[(rows.defence == "none") & (rows.polarity == "neutral") & (rows.wording == "made-1")
             & (rows.question_id == "q1"), ["answer", "outcome"]] = ["B", "wrong"]  # fmt: skip
    assert table(rows).loc[("none", "words")].followed_silent == 1 / 5


@pytest.mark.parametrize(
    "gone", [{"seen": "through"}, {"words": "made"}], ids=["no attack through it", "no claims made for it"]
)
def test_a_defence_that_was_not_attacked_adaptively_is_shown_nowhere(gone):
    rows = without("strip", **gone)
    made = defences(rows, NAMES)
    assert set(made.defence) == {"none", "loop"}
    figure, drawn = draw(made)
    assert set(drawn.defence) == {"none", "loop"}
    assert "strip" not in {label.get_text() for axes in figure.axes for label in axes.get_yticklabels()}
    assert "| loop |" in shown(made) and "strip" not in shown(made)


def test_a_defence_whose_attack_failed_has_no_number_and_is_neither_drawn_nor_on_the_page():
    """Not even the numbers under attacks that do not know it."""
    failed = {"outcome": FAILED, "answer": "", "said": "", "passes": math.nan}
    made = defences(changed("strip", "q1", "through", **failed), NAMES)
    strip = made[(made.defence == "strip") & (made.against == "pixels")]
    assert strip.status.tolist() == ["incomplete: 1 of 5 not evaluated"]
    assert strip[["clean", "plain", "adaptive", "difference", "p"]].isna().all(axis=None)
    _, drawn = draw(made)
    assert not ((drawn.defence == "strip") & (drawn.against == "pixels")).any()
    (pixels, _), *_ = [shown(made).split("The same against words")]
    assert "strip" not in pixels and "| loop |" in pixels


def test_where_none_failed_no_defence_has_a_difference():
    failed = {"outcome": FAILED, "answer": "", "said": "", "passes": math.nan}
    found = table(changed("none", "q1", "through", **failed))
    assert found.loc[("loop", "pixels")].adaptive == 0.2 and math.isnan(found.loc[("loop", "pixels")].difference)
    assert "without a defence" in found.loc[("loop", "pixels")].status
    assert found.loc[("loop", "words")].difference == pytest.approx(0.2)
    assert found.loc[("loop", "words")].status == "complete"


def test_of_nothing_evaluated_nothing_is_drawn():
    failed = {"outcome": FAILED, "answer": "", "said": "", "passes": math.nan}
    figure, drawn = draw(defences(defence_rows(**failed), NAMES))
    assert figure.texts and not figure.axes and drawn.empty


def test_the_figure_shows_every_model_without_and_with_each_defence():
    two = pd.concat([defence_rows(), defence_rows(model="at-grpo-think")])
    figure, drawn = draw(defences(two, NAMES))
    assert len(figure.axes) == 4 and len(drawn) == 12
    for axes in figure.axes[::2]:
        assert [label.get_text() for label in axes.get_yticklabels()] == NAMES[::-1]
    dashed = [line for line in figure.axes[0].lines if list(line.get_xdata()) == [0.0, 0.0]]
    assert dashed  # none's accuracy under the attack made for it


@pytest.mark.parametrize(
    "rows, message",
    [
        (changed("strip", "q1", "clean", "made", "negative", claimed="A"), "claim is right"),
        (changed("strip", "q1", "clean", "made", "negative", claimed=""), "claim is right, or missing"),
        (changed("strip", "q1", "clean", "made", "neutral", claimed="B"), "without a claim has one"),
        (changed("loop", "q4", "clean", answer="B"), "abstention has an answer"),
        (changed("strip", "q2", "clean", outcome="wrong"), "contradicts"),
        (without("strip", words="made", polarity="neutral"), "not as many silent wordings"),
        (without("strip", seen="through", question_id="q3"), "not asked"),
    ],
)
def test_rows_that_contradict_themselves_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        check_defence_rows(rows)


def shown(made: pd.DataFrame) -> str:
    """The section of the results page."""
    known = provenance(COMMIT)
    known["config"] |= {"variants": ["think"]}
    kept = {name: one for name, one in tables().items() if name in ("robustness", "cost")}
    return page(Study(kept | {"defences": made}, known), []).partition("## Defences at inference")[2]
