"""What a model answers beside retrieved reports is what its reports make of it: readers whose answers are known."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from safemed.data.prompts import FAILED, LETTERS, gold_text
from safemed.evaluation.batching import Failure
from safemed.evaluation.evaluator import Evaluator
from safemed.evaluation.retrieved_answers import Reader, RetrievedAnswers, conditions
from safemed.report.tables.rag import RAG_ROWS, check_rag_rows, rag, rag_by_type
from safemed.retrieval.corpus import Corpus, images_of, pooled_features
from safemed.retrieval.entries import entries_of
from safemed.retrieval.library import Library
from safemed.stress.hints import claimed
from support.commands import command_line, here, killed_after
from support.paths import TEMPLATES

SETTINGS = {
    "k": 2, "words": 0.05, "eps": 8, "steps": 5, "restarts": 1, "poisons": ["text", "image", "conflict"],
    "rates": [0.05], "per_question": [1, 3], "batch_size": 16, "questions": 12, "precision": "fp32",
    "max_new_tokens": {"instruct": 8},
}  # fmt: skip
MODEL = {"model": "sft-instruct", "method": "sft", "variant": "instruct", "precision": "fp32"}
KEY = ["shown", "poison", "per_question", "rate", "reports"]
SAY = "Found: {report}"


@pytest.fixture(scope="module")
def plain(untrained, train_questions) -> Evaluator:
    """Questions of twelve images of the corpus, so that random weights find the right reports: their own."""
    return Evaluator(untrained, train_questions.select(range(0, 96, 8)), "instruct", 8)


@pytest.fixture(scope="module")
def library(untrained, plain, train_questions) -> Library:
    entries = entries_of(train_questions)
    corpus = Corpus(entries, pooled_features(untrained, images_of(train_questions, entries)))
    return Library(untrained, corpus, train_questions, shown(plain), plain.rows, SETTINGS, seed=0)


def shown(plain: Evaluator) -> dict[str, torch.Tensor]:
    """Clean images, and those of an attack: any others will do."""
    return {"clean": plain.images, "pgd": plain.images.flip(0)}


def statement(row: dict, letter: str) -> str:
    """What a report says that gives this option for the question's type."""
    return f"{row['question_type']}: {row['options'][LETTERS.index(letter)]}."


def oracle(row: dict, picture) -> str:
    """Right where a report says so, and else what poisons claim."""
    return row["gold"] if statement(row, row["gold"]) in row["question"] else claimed(row, "negative", 0)


def gullible(row: dict, picture) -> str:
    """Right, but where a report says what poisons claim."""
    wrong = claimed(row, "negative", 0)
    return wrong if statement(row, wrong) in row["question"] else row["gold"]


def rows_of(plain: Evaluator, library: Library, judge, failed=frozenset()) -> pd.DataFrame:
    """The rows of a reader that answers as a judge does."""

    def ask(asked):
        found = [judge(row, picture) for row, picture in asked]
        return [one if isinstance(one, Failure) else f"<answer> {one} </answer>" for one in found]

    answers = RetrievedAnswers(plain, ask, shown(plain), set(failed), SAY, 0)
    tables = [answers.without_reports(), *(one(library, "sft-instruct") for one in conditions(answers, SETTINGS))]
    rows = pd.concat(tables, ignore_index=True).assign(**MODEL)
    assert set(rows.columns) == set(RAG_ROWS)
    check_rag_rows(rows)
    return rows


def measured(rows: pd.DataFrame) -> pd.DataFrame:
    return rag(rows).set_index(KEY).sort_index()


def test_an_oracle_of_the_reports_is_right_as_often_as_they_recall(plain, library):
    rows = rows_of(plain, library, oracle)
    table = measured(rows)
    beside = table[table.index.get_level_values("reports") != "none"]
    assert np.allclose(beside.accuracy, beside.recall) and beside.recall.nunique() > 3
    assert table.loc["clean", "none", 0, 0.0, "retrieved"].recall == 1
    assert (table.xs("none", level="reports").accuracy == 0).all()
    types = rag_by_type(rows)
    types = types[types.reports != "none"]
    assert np.allclose(types.accuracy, types.recall) and set(types.question_type) == {
        r["question_type"] for r in plain.rows
    }


def test_shuffled_reports_destroy_the_gain(plain, library):
    table = measured(rows_of(plain, library, oracle))
    sound = ("clean", "none", 0, 0.0)
    assert table.loc[*sound, "shuffled"].accuracy < table.loc[*sound, "retrieved"].accuracy - 0.3


def test_what_is_believed_of_poisons_is_attack_success_and_nothing_where_they_claim_nothing(plain, library):
    table = measured(rows_of(plain, library, gullible))
    conflict = ("clean", "conflict", 3, 0.0)
    assert table.loc[*conflict, "retrieved"].success > 0.8 and table.loc[*conflict, "retrieved"].p_none < 0.05
    assert table.loc[*conflict, "unclaimed"].success == 0
    itself = table.loc["clean", "none", 0, 0.0, "retrieved"]
    assert np.isnan(itself.success) and np.isnan(itself.p_clean)  # it is what others are compared with
    assert table.loc[*conflict, "unclaimed"].poisoned == table.loc[*conflict, "retrieved"].poisoned == 1
    assert (table.xs("retrieved", level="reports").poisoned > 0).sum() >= 3


def test_rows_say_how_many_poisons_are_aimed_at_each_question(plain, library):
    rows = rows_of(plain, library, gullible)
    assert (rows[rows.poison == "none"][["poisons", "aimed"]] == 0).all(axis=None)
    for n in SETTINGS["per_question"]:
        of_each = rows[rows.per_question == n]
        assert set(of_each.aimed) == {n} and set(of_each.poisons) == {n * len(plain.rows)}
        assert set(of_each.reports) == {"retrieved", "unclaimed", "checked"}
    few = rows[rows.rate == 0.05]
    n_poisons = round(0.05 * len(library.corpus.entries))
    assert set(few.poisons) == {n_poisons} and (few.groupby("poison").aimed.sum() == n_poisons).all()
    aimed = {plain.rows[place]["question_id"] for place in library.aims(0.05, 0)}
    assert 0 < len(aimed) < len(plain.rows) and set(few.question_id[few.aimed > 0]) == aimed
    table = measured(rows).xs(0.05, level="rate")
    sound = rows[(rows.shown == "clean") & (rows.poison == "none") & (rows.reports == "retrieved")]
    counted = aimed & set(sound.question_id[sound.outcome == "right"])
    assert counted and (table.n_aimed == len(aimed)).all() and (table.n_right == len(counted)).all()
    for kind, part in few.groupby("poison"):
        own = part[part.question_id.isin(counted)]
        assert table.loc["clean", kind, 0, "retrieved"].success == (own.answer == own.claimed).mean()


def test_a_check_that_fails_leaves_no_score(plain, library):
    """The model can be asked about no picture where no report stands before the question, which is what checks do."""
    bare = {row["question"] for row in plain.rows}

    def judge(row: dict, picture) -> str | Failure:
        return Failure("no memory") if row["question"] in bare else row["gold"]

    rows = rows_of(plain, library, judge)
    checked = rows[rows.reports == "checked"]
    assert (checked[checked.given < 2].outcome == FAILED).all() and (checked.outcome == FAILED).mean() > 0.5
    assert (rows[rows.reports == "unclaimed"].outcome == "right").all()


def test_a_model_that_sees_aright_drops_what_its_own_eyes_contradict(plain, library):
    """It reads each picture rightly, and believes all reports that it is left: checked ones do not mislead it."""
    reports = {entry.image_key: entry.report for entry in library.corpus.entries}
    pictures = images_of(library.train, library.corpus.entries)
    known = {picture.numpy().tobytes(): entry for picture, entry in zip(pictures, library.corpus.entries, strict=True)}

    def judge(row: dict, picture) -> str:
        if "Found" in row["question"] or picture.numpy().tobytes() not in known:
            return gullible(row, picture)
        return reports[known[picture.numpy().tobytes()].image_key].says(row) or "Z"

    rows = rows_of(plain, library, judge)
    table = measured(rows)
    conflict = ("clean", "conflict", 3, 0.0)
    assert table.loc[*conflict, "checked"].success < table.loc[*conflict, "retrieved"].success - 0.5
    assert table.loc[*conflict, "checked"].dropped > 0.5 and table.loc[*conflict, "retrieved"].dropped == 0
    assert table.loc["clean", "none", 0, 0.0, "checked"].dropped == 0
    kept = rows[(rows.reports == "checked") & (rows.poison == "conflict")]
    assert (kept.given + kept.dropped == SETTINGS["k"]).all()


def test_a_corpus_without_poisons_is_the_sound_one(plain, library):
    """No poison is the same reports, and equal questions are asked once: the same answers."""
    for kind in SETTINGS["poisons"]:
        assert library.poisoned("clean", kind, 0.0, 0) == library.sound("clean")
    calls = []

    class Counting(Evaluator):
        def answers(self, images, rows):
            calls.append(len(rows))
            return super().answers(images, rows)

    counting = plain.with_questions(plain.rows, plain.images)
    counting.__class__ = Counting
    reader = Reader(counting, 5)
    asked = [(row, plain.images[i]) for i, row in enumerate(plain.rows)]
    first = reader(asked)
    assert first == reader([*asked]) == plain.answers(plain.images, torch.arange(len(plain)))
    assert sum(calls) == len(asked)


def test_a_question_that_fails_is_no_answer_and_no_number_rests_on_it(plain, library):
    first = plain.rows[0]["question_id"]

    def judge(row: dict, picture):
        return Failure("no numbers") if row["question_id"] == first and "Found" in row["question"] else row["gold"]

    rows = rows_of(plain, library, judge, failed={first})
    assert set(rows.outcome[(rows.question_id == first) & (rows.reports == "retrieved")]) == {FAILED}
    table = measured(rows)
    assert table.loc["clean", "none", 0, 0.0, "none"].accuracy == 1
    beside = table[table.index.get_level_values("reports") == "retrieved"]
    assert beside.accuracy.isna().all() and beside.status.str.contains("1 of 12").all()
    assert np.isnan(table.loc["pgd", "none", 0, 0.0, "none"].accuracy)


@pytest.fixture(scope="module")
def here_attack(tmp_path_factory, study_data, tiny_model) -> Path:
    """An attack's folder, as the workflow makes it."""
    folder = tmp_path_factory.mktemp("attack") / "pgd"
    settings = {
        "batch_size": 16, "amp": False, "questions": 12, "precision": "fp32", "max_new_tokens": {"instruct": 8},
        "pgd": {"kind": "pgd", "steps": 1, "losses": {"instruct": ["answer"]}},
    }  # fmt: skip
    here("attack.py", *model(study_data, tiny_model, folder), "--attack", "pgd", "--eps", 8, settings=settings)
    return folder


def model(data: Path, weights: Path, out: Path) -> list:
    named = ["--weights", weights, "--model", "sft-instruct", "--method", "sft", "--variant", "instruct"]
    return ["--data", data, *named, "--out", out, "--seed", 0]


def test_the_commands_write_a_corpus_and_rows_and_go_on_after_a_kill(study_data, tiny_model, here_attack, tmp_path):
    corpus = tmp_path / "sft-instruct"
    built = {"precision": "fp32", "neighbours": True, "words": 0.05}
    here("build_corpus.py", *model(study_data, tiny_model, corpus), settings=built)
    assert {path.name for path in corpus.iterdir()} >= {"entries.parquet", "features.npy", "neighbours.parquet"}
    out = tmp_path / "rows"
    more = ["--templates", TEMPLATES, "--attack", here_attack, "--towers", tiny_model, "--corpora", corpus]
    line = command_line("retrieve.py", *model(study_data, tiny_model, out), *more, settings=SETTINGS)
    assert killed_after(2, line, tmp_path / ".rows.partial" / "shards")
    here("retrieve.py", *model(study_data, tiny_model, out), *more, settings=SETTINGS)
    whole = tmp_path / "whole"
    here("retrieve.py", *model(study_data, tiny_model, whole), *more, settings=SETTINGS)
    rows, again = (pd.read_parquet(folder / "rows.parquet") for folder in (out, whole))
    check_rag_rows(rows)
    pd.testing.assert_frame_equal(rows, again)
    assert set(rows.retriever) == {"none", "sft-instruct"} and set(rows.model) == {"sft-instruct"}
    shutil.rmtree(out)


def test_gold_said_is_the_right_option(plain, library):
    rows = rows_of(plain, library, oracle)
    texts = {row["question_id"]: gold_text(row) for row in plain.rows}
    assert (rows.gold_said == rows.question_id.map(texts)).all()
