"""The red team finds what is there to be found and nothing else; what it finds is what the model answered."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch

from safemed.data.dataset import as_arrays
from safemed.data.prompts import FAILED, LETTERS, parse
from safemed.evaluation.evaluator import Evaluator
from safemed.evaluation.red_team import PLAIN, PRIOR, Asker, RedTeam, asked_alone, learned
from safemed.evaluation.strategies import FEW, FIRST_ROUNDS, MANY, STRATEGIES
from safemed.models.vlm import VLM
from safemed.report.figures.redteam import accuracy_by_queries
from safemed.report.tables.redteam import RED_TEAM_ROWS, check_red_team_rows, redteam
from safemed.stress.changed_questions import ChangedQuestions
from safemed.stress.hints import Templates
from safemed.stress.stress_tests import CLEAN, StressedQuestion, StressInputs
from support.commands import command_line, evaluation_arguments, here, killed_after
from support.paths import TEMPLATES

WORDS = Templates.read(TEMPLATES)
BUDGET, ROUNDS = 20, 5
ALL = list(STRATEGIES)
SEARCH = {"budget": BUDGET, "rounds": ROUNDS, "strategies": ALL}
MODEL = {"model": "sft-think", "method": "sft", "variant": "think", "precision": "fp32", "templates": 2}
SETTINGS = SEARCH | {
    "questions": 12, "prior_questions": 4, "budget": 8, "rounds": 4, "batch_size": 10,
    "max_new_tokens": {"think": 24}, "precision": "fp32",
}  # fmt: skip

Judge = Callable[[StressedQuestion], tuple[str, float]]  # what a stub answers, and the margin of the right letter


@pytest.fixture(scope="module")
def questions(train_questions) -> tuple[ChangedQuestions, ChangedQuestions]:
    """Twelve questions that are attacked, and six on which is learned what operators do."""
    rows = list(train_questions.remove_columns("image"))
    images = torch.from_numpy(as_arrays(train_questions[:18]["image"]))
    inputs = partial(StressInputs, failed=set(), everything=rows, templates=WORDS, seed=0)
    attacked = inputs(rows=rows[:12], images={CLEAN: images[:12]})
    return ChangedQuestions(attacked), ChangedQuestions(inputs(rows=rows[12:18], images={CLEAN: images[12:]}))


LEAST = 2 * 0.5**4  # p of twelve questions about four images, where all four differ one way


@pytest.fixture(scope="module")
def originals(train_questions) -> dict[str, dict]:
    return {row["question_id"]: row for row in train_questions.remove_columns("image")}


def asking(judge: Judge, failing: Callable[[StressedQuestion], bool] = lambda one: False):
    """A stub in the place of a model, which fails on some questions."""

    def row(one: StressedQuestion) -> dict:
        kept = ("question_id", "image_path", "modality", "question_type", "gold", "options")
        about = {name: one.row[name] for name in kept}
        options = about.pop("options")
        letter, margin = judge(one)
        text = f"<answer> {letter} </answer>"
        answer = parse(text, len(options), "instruct").answer or ""
        outcome = "unparsable" if not answer else "right" if answer == one.row["gold"] else "wrong"
        said = options[LETTERS.index(answer)] if answer else ""
        if failing(one):
            text, outcome, answer, said, margin = "no numbers", FAILED, "", "", float("nan")
        answered = {"outcome": outcome, "answer": answer, "said": said, "text": text, "margin": margin}
        return about | {"n_options": len(options), "claimed": one.claimed} | answered

    return lambda asked: [row(one) for one in asked]


def found(questions, judge: Judge, failing=lambda one: False, **changes) -> pd.DataFrame:
    """The rows of a whole red team on a stub."""
    ask, (attacked, trial) = asking(judge, failing), questions
    alone = asked_alone(trial, ask)
    team = RedTeam(attacked, ask, SEARCH | changes, 0, lambda number, make: make())
    rows = pd.concat([alone, team.rows(learned(alone, trial))], ignore_index=True).assign(**MODEL)
    check_red_team_rows(rows, ALL)
    return rows


def steadfast(one: StressedQuestion) -> tuple[str, float]:
    """Whatever is said and shown."""
    return one.row["gold"], 5.0


def wrong(one: StressedQuestion) -> str:
    return next(letter for letter in LETTERS if letter != one.row["gold"])


def of(rows: pd.DataFrame, strategy: str) -> pd.DataFrame:
    return rows[rows.strategy == strategy]


def sets(rows: pd.DataFrame) -> list[list[str]]:
    """The kinds of operators in each row's set."""
    return [[one.split(" ")[0] for one in names.split(" + ")] for names in rows.operators]


def test_a_model_that_ignores_words_is_never_fooled_and_all_strategies_ask_as_often(questions):
    rows = found(questions, steadfast)
    table = redteam(rows, ALL).set_index("strategy")
    assert set(table.index) == set(STRATEGIES) and (table.fooled == 0).all() and (table.n_right == 12).all()
    assert (table.queries == BUDGET).all() and (table.rounds == ROUNDS).all() and (table.top == "").all()
    searched = rows[~rows.strategy.isin([PLAIN, PRIOR])]
    asked = searched.groupby(["strategy", "round", "question_id"]).size()
    assert (asked == BUDGET // ROUNDS).all() and len(asked) == len(STRATEGIES) * ROUNDS * 12


def test_a_budget_that_one_operator_at_a_time_could_not_spend_is_refused(questions):
    attacked, _ = questions
    fewest = min(len(attacked.offered(place, silent)) for place in range(12) for silent in (False, True))
    table = redteam(found(questions, steadfast, budget=fewest), ALL)
    assert (table.queries == fewest).all()
    with pytest.raises(ValueError, match=f"^redteam.budget: {fewest + 1} queries, .* has {fewest} operators"):
        found(questions, steadfast, budget=fewest + 1)


def test_a_model_that_is_never_right_is_not_attacked(questions):
    table = redteam(found(questions, lambda one: (wrong(one), -1.0)), ALL)
    assert table.strategy.tolist() == ALL and (table.n_right == 0).all() and table.fooled.isna().all()


def test_no_set_is_tried_twice_none_conflicts_and_they_are_small_at_first(questions):
    rows = found(questions, steadfast)
    searched = rows[~rows.strategy.isin([PLAIN, PRIOR])]
    assert not searched.duplicated(["strategy", "question_id", "operators"]).any()
    for names, kinds, round_ in zip(searched.operators, sets(searched), searched["round"], strict=True):
        assert len(kinds) <= (FEW if round_ <= FIRST_ROUNDS else MANY)
        assert len(set(kinds)) == len(kinds) and not {"removed", "added"} <= set(kinds), names
    sizes = {name: max(map(len, sets(of(rows, name)))) for name in STRATEGIES}
    assert sizes["best-single"] == 1 and sizes["adaptive"] == sizes["random"] == sizes["silent"] == MANY


def test_what_falls_to_two_operators_together_alone_is_found_by_feedback_and_not_by_one_operator(questions, originals):
    """An examination with its options in another order; either alone lowers the margin."""

    def judge(one: StressedQuestion) -> tuple[str, float]:
        before = originals[one.row["question_id"]]
        moved = before["options"] != one.row["options"] and set(before["options"]) == set(one.row["options"])
        signs = moved + ("examination" in one.row["question"])
        return (wrong(one), -1.0) if signs == 2 else (one.row["gold"], 5.0 - signs)

    rows = found(questions, judge)
    table = redteam(rows, ALL).set_index("strategy")
    assert table.fooled["adaptive"] == table.fooled["silent"] == 1 and table.fooled["best-single"] == 0
    assert table.fooled["random"] < 1 and table.beyond_random_low["adaptive"] > 0
    assert table.p_random["adaptive"] == table.p_sooner_random["adaptive"] == LEAST
    fell = of(rows, "adaptive").query("outcome != 'right'")
    assert all({"order", "paraphrase"} <= set(kinds) for kinds in sets(fell)) and (table.operators["adaptive"] == 2)


def test_what_any_words_upset_is_upset_by_silent_ones_as_soon(questions, originals):
    def judge(one: StressedQuestion) -> tuple[str, float]:
        said = one.row["question"], one.row.get("after", "")
        same = said == (originals[one.row["question_id"]]["question"], "")
        return (one.row["gold"], 5.0) if same else (wrong(one), -3.0)

    table = redteam(found(questions, judge), ALL).set_index("strategy")
    claims, control = table.loc["adaptive"], table.loc["silent"]
    assert claims.fooled == claims.silent == control.fooled == 1 and claims.queries == control.queries
    assert claims.p_silent == claims.p_sooner_silent == 1


def test_what_follows_claims_alone_is_fooled_by_claims_alone(questions):
    def judge(one: StressedQuestion) -> tuple[str, float]:
        return (one.claimed, -3.0) if one.claimed else (one.row["gold"], 5.0)

    table = redteam(found(questions, judge), ALL).set_index("strategy")
    assert table.fooled["adaptive"] == table.followed["adaptive"] == 1 and table.fooled["silent"] == 0
    assert (table.silent == 0).all() and table.top["adaptive"] == "hint" and table.p_silent["adaptive"] == LEAST
    assert table.beyond_silent["adaptive"] == table.beyond_silent_low["adaptive"] == 1
    assert table.queries["adaptive"] < table.queries["random"] and table.unparsable["adaptive"] == 0


def test_what_lowered_the_margin_is_kept_and_random_heeds_no_margin(questions, originals):
    """Nothing is known before; then words after the options, or other options, lower the margin."""
    attacked, _ = questions

    def searched(by: str, strategy: str) -> pd.DataFrame:
        def judge(one: StressedQuestion) -> tuple[str, float]:
            other = originals[one.row["question_id"]]["options"] != one.row["options"]
            return one.row["gold"], 5.0 - 3.0 * ("after" in one.row if by == "words" else other)

        settings = SEARCH | {"strategies": [strategy]}
        return RedTeam(attacked, asking(judge), settings, 0, lambda number, make: make()).rows({})

    def kept(rows: pd.DataFrame) -> float:
        """Of later queries on questions whose margin fell in the first two rounds, the share under which it falls."""
        early = rows[(rows["round"] <= 2) & (rows.margin < 5)].question_id.unique()
        later = rows[(rows["round"] > 2) & rows.question_id.isin(early)]
        assert len(early) >= 4
        return (later.margin < 5).mean()

    for by in ("words", "options"):
        assert kept(searched(by, "adaptive")) > 0.9 > 0.8 > kept(searched(by, "random"))
    words, options = (searched(by, "random") for by in ("words", "options"))
    assert words.operators.tolist() == options.operators.tolist() and words.margin.tolist() != options.margin.tolist()


def test_a_question_on_which_the_model_fails_is_failed_and_never_fooled(questions):
    """And what fell before the failure fell."""

    def judge(one: StressedQuestion) -> tuple[str, float]:
        return (wrong(one), -1.0) if "examination" in one.row["question"] else (one.row["gold"], 5.0)

    rows = found(questions, judge, failing=lambda one: "Look at" in one.row["question"])
    ends = rows[~rows.strategy.isin([PLAIN, PRIOR])].groupby(["strategy", "question_id"]).tail(1)
    assert {FAILED, "wrong"} == set(ends.outcome) - {"right"}
    table = redteam(rows, ALL)
    broken = table[table.status != "complete"]
    assert len(broken) and broken.fooled.isna().all() and broken.queries.isna().all()
    failed = ends[ends.outcome == FAILED].groupby("strategy").size()
    assert {row.strategy: row.status for row in broken.itertuples()} == {
        name: f"incomplete: {n} of 12 not evaluated" for name, n in failed.items()
    }
    first = questions[0].inputs.rows[0]["question_id"]
    rows = found(questions, steadfast, failing=lambda one: one.row["question_id"] == first)
    assert (rows.question_id == first).sum() == 1 and redteam(rows, ALL).status.str.contains("1 of 12").all()


def test_only_what_was_right_is_attacked_and_accuracy_never_rises_with_the_budget(questions):
    first = questions[0].inputs.rows[0]["question_id"]

    def judge(one: StressedQuestion) -> tuple[str, float]:
        falls = one.row["question_id"] == first or len(one.row.get("after", "")) % 3 == 1
        return (wrong(one), -1.0) if falls else (one.row["gold"], 5.0)

    rows = found(questions, judge)
    assert (rows.question_id == first).sum() == 1 and (redteam(rows, ALL).n_right == 11).all()
    lines = accuracy_by_queries(rows)
    for _, line in lines.groupby("strategy"):
        assert line.queries.tolist() == list(range(BUDGET + 1)) and (line.accuracy.diff().dropna() <= 0).all()
        assert line.accuracy.iloc[0] == 11 / 12
    table = redteam(rows, ALL).set_index("strategy")
    ends = lines[lines.queries == BUDGET].set_index("strategy").accuracy
    assert (11 / 12 - ends).sub(table.fooled_of_all).abs().max() < 1e-9 and table.fooled.between(0.1, 1).any()


@pytest.fixture(scope="module")
def data(shown_data, tmp_path_factory) -> Path:
    """`shown_data`, of which a third is val."""
    folder = shutil.copytree(shown_data, tmp_path_factory.mktemp("red") / "data")
    splits = pd.read_csv(folder / "splits.csv")
    splits.assign(split=["test", "test", "val"] * (len(splits) // 3)).to_csv(folder / "splits.csv", index=False)
    return folder


def arguments(data: Path, skilled: VLM, out: Path) -> list:
    """How the workflow calls scripts/redteam.py."""
    return [*evaluation_arguments(data, skilled.model.name_or_path, out), "--templates", TEMPLATES]


@pytest.fixture(scope="module")
def rows(data, skilled, tmp_path_factory) -> pd.DataFrame:
    """The rows of the skilled model."""
    out = tmp_path_factory.mktemp("red-team") / "model"
    here("redteam.py", *arguments(data, skilled, out), settings=SETTINGS)
    assert not (out / "shards").exists() and json.loads((out / "cost.json").read_text())["forward_passes"] > 300
    return pd.read_parquet(out / "rows.parquet")


def test_the_rows_can_be_counted_and_the_plain_ones_are_right(rows):
    check_red_team_rows(rows, ALL)
    assert set(rows) == set(RED_TEAM_ROWS) and (of(rows, PLAIN).outcome == "right").all()
    assert of(rows, PLAIN).margin.min() > 0 and not set(of(rows, PRIOR).question_id) & set(of(rows, PLAIN).question_id)
    answered = rows[rows.outcome != "unparsable"]
    assert ((answered.margin > 0) == (answered.outcome == "right")).mean() > 0.95  # greedy: the letter is the largest
    table = redteam(rows, ALL)
    assert (table.status == "complete").all() and table.fooled.max() > 0.3


@pytest.mark.parametrize("batch_size", [3, 64])
def test_the_batches_decide_nothing(rows, data, skilled, tmp_path, batch_size):
    given = arguments(data, skilled, tmp_path / "out")
    here("redteam.py", *given, settings=SETTINGS | {"batch_size": batch_size})
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out" / "rows.parquet"), rows, rtol=1e-3, atol=1e-3)


def test_what_a_killed_job_has_asked_is_not_asked_again(rows, data, skilled, tmp_path):
    given = arguments(data, skilled, tmp_path / "killed")
    done = killed_after(
        4, command_line("redteam.py", *given, settings=SETTINGS), tmp_path / ".killed.partial" / "shards"
    )
    before = {path: path.stat().st_mtime_ns for path in done}
    assert before and not (tmp_path / "killed").exists()
    here("redteam.py", *given, settings=SETTINGS)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "killed" / "rows.parquet"), rows)


def test_a_model_without_numbers_answers_nothing(skilled, shown):
    vlm = VLM.load(skilled.model.name_or_path)
    vlm.model.get_input_embeddings().weight.data.fill_(torch.nan)
    plain = Evaluator(vlm, shown.select(range(3)), "think", 24)
    asked = [StressedQuestion(row, image.numpy()) for row, image in zip(plain.rows, plain.images, strict=True)]
    made = pd.DataFrame(Asker(plain, 2)(asked))
    assert (made.outcome == FAILED).all() and (made.answer == "").all() and made.margin.isna().all()
