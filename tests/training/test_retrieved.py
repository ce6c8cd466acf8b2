"""Trainings beside retrieved reports: of other images, and true but for the share that is poisoned."""

import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from safemed.data.prompts import LETTERS
from safemed.retrieval.corpus import Corpus, images_of, neighbours, pooled_features
from safemed.retrieval.entries import entries_of
from safemed.stress.hints import Templates
from safemed.training import alterations
from safemed.utils.dependencies import fingerprint
from support.commands import here
from support.paths import TEMPLATES
from support.settings import GRPO, TRAINING
from support.trainings import plain_rows, training_arguments

WORDS = Templates.read(TEMPLATES)


@pytest.fixture(scope="module")
def corpus(untrained, train_questions, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    entries = entries_of(train_questions)
    made = Corpus(entries, pooled_features(untrained, images_of(train_questions, entries)))
    made.write(folder)
    neighbours(made, train_questions, 0.05).to_parquet(folder / "neighbours.parquet", index=False)
    return folder


@pytest.fixture(scope="module")
def rows(train_questions) -> list[dict]:
    return list(plain_rows(train_questions, "think"))[:80]


def text(row: dict) -> str:
    return row["prompt"][0]["content"][1]["text"]


def wrong_claims(row: dict) -> int:
    """How often the reports before a question give a wrong one of its options for its type."""
    given = [f"{row['question_type']}: {option}." for option in row["options"]]
    del given[LETTERS.index(row["gold"])]
    return sum(row["question"].count(one) for one in given)


def test_sft_puts_none_or_the_nearest_reports_before_each_question_and_keeps_its_target(rows, corpus, train_questions):
    alter = alterations.for_sft({"kind": "clean", "retrieved": 2}, TEMPLATES, 0, corpus)
    entries = entries_of(train_questions)
    found = neighbours(Corpus.read(corpus), train_questions, 0.05).set_index("question_id").entries
    counts = Counter()
    for row in rows:
        altered = alter(row)
        near = [entries[place].report.text for place in found[row["question_id"]][:2]]
        said = ["", *itertools.accumulate(f"{WORDS.report.format(report=one)} " for one in near)]
        assert altered["target"] == row["target"] and altered["question"].endswith(row["question"])
        counts[said.index(altered["question"].removesuffix(row["question"]))] += 1
        assert text(altered).removesuffix(text(row)) == altered["question"].removesuffix(row["question"])
    assert set(counts) == {0, 1, 2} and min(counts.values()) > len(rows) / 6


def test_a_share_of_the_questions_has_one_report_that_claims_a_wrong_answer(rows, corpus):
    plain = alterations.for_sft({"retrieved": 2}, TEMPLATES, 0, corpus)
    alter = alterations.for_sft({"retrieved": 2, "poisoned": 0.5}, TEMPLATES, 0, corpus)
    changed = [row for row in rows if text(alter(row)) != text(plain(row))]
    assert 0.15 < len(changed) / len(rows) < 0.5
    assert all(wrong_claims(alter(row)) >= 1 for row in changed)
    assert np.mean([wrong_claims(alter(row)) for row in changed]) > np.mean(
        [wrong_claims(plain(row)) for row in changed]
    )
    assert [text(alter(row)) for row in rows] == [text(alter(row)) for row in rows]


def test_grpo_shows_poisons_to_the_policy_alone_and_draws_them_anew_at_each_step(rows, corpus, untrained):
    alter = alterations.for_grpo({"retrieved": 2, "poisoned": 0.5}, TEMPLATES, 0, corpus)
    plain = alterations.for_grpo({"retrieved": 2}, TEMPLATES, 0, corpus)(rows, untrained, 1)
    assert plain.anchor is plain.policy
    first, second = (alter(rows, untrained, step) for step in (1, 2))
    assert [text(row) for row in first.anchor] == [*map(text, plain.policy)] != [text(row) for row in second.anchor]
    changed = [[text(a) != text(p) for a, p in zip(one.anchor, one.policy, strict=True)] for one in (first, second)]
    assert all(0.15 < np.mean(one) < 0.5 for one in changed) and changed[0] != changed[1]


def test_reports_go_with_hints_and_second_turns(rows, corpus, untrained):
    alter = alterations.for_grpo({"retrieved": 1, "hints": 2, "turns": 1.0}, TEMPLATES, 0, corpus)
    made = alter(rows[:4], untrained, 1)
    for before, after in zip(made.anchor, made.policy, strict=True):
        assert before["question"] in text(after) and text(after) != text(before)


def test_a_corpus_without_neighbours_is_refused(corpus, tmp_path):
    with pytest.raises(ValueError, match=r"neighbours.parquet: there is none; delete .* run build_corpus again"):
        alterations.for_sft({"retrieved": 2}, TEMPLATES, 0, tmp_path)


@pytest.mark.parametrize("script, method", [("train_sft.py", "sft"), ("train_grpo.py", "at-grpo")])
def test_the_scripts_train_beside_reports(script, method, study_data, tiny_model, corpus, tmp_path):
    settings = TRAINING if method == "sft" else GRPO
    settings = {**settings, "steps": 2, "augmentation": {"kind": "clean", "retrieved": 2, "poisoned": 0.5}}
    given = training_arguments(study_data, tiny_model, tmp_path, altered=True)
    here(script, *given, "--corpus", corpus, settings=settings)
    assert (tmp_path / "model" / "model.safetensors").exists()
    told = json.loads((tmp_path / "model" / "provenance.json").read_text())
    assert told["code"]["hash"] == fingerprint(script, "safemed.training.alterations") != fingerprint(script)
