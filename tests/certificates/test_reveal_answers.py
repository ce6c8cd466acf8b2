"""Answers to images that are revealed: the whole image is the plain question, votes are the certificate's."""

import json
import math
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from safemed.certificates.certifier import Certifier
from safemed.certificates.reveal_answers import RevealedAnswers, certainty, said, winner
from safemed.certificates.smoothing import Procedure
from safemed.data.prompts import FAILED, LETTERS
from safemed.evaluation.batching import Failure
from safemed.evaluation.evaluator import LOSSES, UNPARSABLE, Evaluator
from safemed.report.tables.gradient import ESTIMATORS, REVEAL_ROWS, check_reveal_rows, gradient
from safemed.stress.erasure import GREY
from support.commands import command_line, evaluation_arguments, here, killed_after

EPS, N, DRAWS = 16, 24, 12
SETTINGS = {
    "questions": N, "eps": EPS, "batch_size": 10, "max_new_tokens": {"instruct": 8, "think": 24}, "precision": "fp32",
    "shares": [0.25, 1.0], "cells": 4, "samples": 3, "sigma": 0.8, "draws": DRAWS, "draws_at_once": 50,
}  # fmt: skip
ATTACK = {"questions": N, "batch_size": 10, "amp": False, "max_new_tokens": {"think": 24}, "precision": "fp32",
          "pgd": {"kind": "pgd", "steps": 4, "losses": LOSSES}}  # fmt: skip


@pytest.fixture(scope="module")
def attacked(shown_data, skilled, tmp_path_factory) -> Path:
    """The folder of an attack."""
    out = tmp_path_factory.mktemp("attacked") / "pgd"
    given = [*evaluation_arguments(shown_data, skilled.model.name_or_path, out), "--attack", "pgd", "--eps", EPS]
    here("attack.py", *given, settings=ATTACK)
    return out


def arguments(data: Path, weights: str, out: Path, attacked: Path) -> list:
    """How the workflow calls scripts/reveal.py."""
    return [*evaluation_arguments(data, weights, out), "--attack", attacked]


@pytest.fixture(scope="module")
def rows(shown_data, skilled, attacked, tmp_path_factory) -> pd.DataFrame:
    """The rows of a model that can see."""
    out = tmp_path_factory.mktemp("reveal") / "model"
    here("reveal.py", *arguments(shown_data, skilled.model.name_or_path, out, attacked), settings=SETTINGS)
    assert not (out / "shards").exists()
    asked = 2 * (2 * N + known(pd.read_parquet(out / "rows.parquet")))  # whole images are asked in one order alone
    assert json.loads((out / "cost.json").read_text())["forward_passes"] == asked * (1 + 3 + 1 + DRAWS)
    return pd.read_parquet(out / "rows.parquet")


def known(rows: pd.DataFrame) -> int:
    """The number of questions about an image whose lesion has a known place."""
    return rows[rows.order == "lesion-last"].question_id.nunique()


@pytest.fixture(scope="module")
def plain(skilled, shown) -> Evaluator:
    return Evaluator(skilled, shown, "think", 24)


def part(rows: pd.DataFrame, evaluator: Evaluator, **condition) -> pd.DataFrame:
    """The rows under a condition, in the order of the evaluator's questions."""
    for name, value in condition.items():
        rows = rows[rows[name] == value]
    return rows.set_index("question_id").loc[[row["question_id"] for row in evaluator.rows]]


def test_every_question_has_a_row_at_every_share_of_either_kind_of_image(rows):
    check_reveal_rows(rows)
    assert set(rows.columns) == set(REVEAL_ROWS) and 0 < known(rows) < N
    counts = rows.groupby(["order", "seen", "share"]).question_id.nunique()
    assert {key: n for key, n in counts.items() if key[0] == "seeded"} == {
        ("seeded", seen, share): N for seen in ("clean", "pgd") for share in (0.25, 1.0)
    }
    assert (counts["lesion-last"] == known(rows)).all() and len(counts) == 8


def test_the_whole_image_is_the_plain_question(rows, plain, attacked):
    everything = torch.arange(N)
    heard = plain.heard(everything)
    whole = part(rows, plain, order="seeded", seen="clean", share=1.0)
    assert whole.text.tolist() == [text for text, _ in heard] and whole.text.nunique() > 2
    assert whole.letter.tolist() == pytest.approx([sure for _, sure in heard], abs=1e-5)
    stored = pd.read_parquet(attacked / "rows.parquet").set_index("question_id")
    under = part(rows, plain, order="seeded", seen="pgd", share=1.0)
    assert under.text.tolist() == stored.text[under.index].tolist() != whole.text.tolist()
    last = rows[(rows.order == "lesion-last") & (rows.share == 1.0)]
    same = rows[(rows.order == "seeded") & (rows.share == 1.0)].merge(last, on=["seen", "question_id"])
    assert len(same) == len(last) and (same.p_A_x == same.p_A_y).all() and (same.text_x == same.text_y).all()


def test_what_is_shown_decides_the_answer(rows, plain):
    """Of a model that can see: a quarter of the image tells less, and is sure of less."""
    right = rows[rows.order == "seeded"].assign(right=rows.outcome == "right").groupby(["seen", "share"]).right.mean()
    assert right["clean", 1.0] > right["clean", 0.25] and right["clean", 1.0] > right["pgd", 1.0]
    assert rows.groupby("share").letter.mean()[1.0] > rows.groupby("share").letter.mean()[0.25]


def test_the_images_that_are_asked_about_are_nested_and_grey_elsewhere(plain, attacked):
    seen, asked = {}, RevealedAnswers(plain, Namespace(attack=attacked, settings=SETTINGS, seed=0, **NAMED))

    def looking(evaluator, name, batch):
        seen[name] = evaluator.images.clone()
        return [("", dict.fromkeys(("letter", "entropy", "agreement", "noise"), math.nan))] * len(batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RevealedAnswers, "_heard", lambda self, *given: looking(*given))
        patch.setattr(RevealedAnswers, "_votes", lambda self, shown, batch: {int(i): [UNPARSABLE] for i in batch})
        for kind in ("clean", "pgd"):
            for share in (0.25, 0.5, 1.0):
                asked.asked(kind, share)
    whole = {"clean": plain.images, "pgd": asked.images["pgd"]}
    assert not torch.equal(whole["clean"], whole["pgd"])
    for kind, images in whole.items():
        some, more = seen[f"seeded:{kind}:0.25"], seen[f"seeded:{kind}:0.5"]
        assert torch.equal(seen[f"seeded:{kind}:1"], images)
        assert (some == GREY).float().mean() >= 0.75
        assert ((some == GREY) | (some == images)).all()
        assert ((more == images) | (some == GREY)).all()  # what was uncovered stays so
    hidden = [(seen[f"seeded:{kind}:0.25"] == GREY).all(-1) for kind in whole]
    assert (hidden[0] == hidden[1]).float().mean() > 0.95  # the same cells; a pixel may be grey in itself


NAMED = {"model": "stub-think", "method": "stub", "variant": "think"}


def test_votes_are_those_of_the_questions_certificate(rows, plain):
    """p_A of the whole image is the share of the winner among the first draws of a certificate at the same sigma."""
    heard, classes = {}, Evaluator.classes

    def listening(self, function, images, batch):
        said = classes(self, function, images, batch)
        for row, one in zip(batch.tolist(), said, strict=True):
            heard.setdefault(row, []).append(one)
        return said

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Evaluator, "classes", listening)
        procedure = Procedure(sigma=SETTINGS["sigma"], n0=4, n=DRAWS - 4, alpha=0.1, mode="fixed")
        list(Certifier(plain, "generate", procedure, 50, 0).run(list(range(N))))
    whole = part(rows, plain, order="seeded", seen="clean", share=1.0)
    assert {len(votes) for votes in heard.values()} == {DRAWS}
    for row, found in enumerate(whole.itertuples()):
        voted, share = winner(heard[row])
        assert found.voted == voted and (found.p_A == share if voted else math.isnan(found.p_A))
        if found.answer:
            assert found.noise == heard[row].count(found.answer) / DRAWS
    assert whole.p_A.nunique() > 2 and (whole.noise <= whole.p_A.fillna(1)).all()


def test_samples_agree_by_their_letters(rows, plain, monkeypatch):
    answered = rows[rows.answer != ""]
    assert set((answered.agreement * 3).round(6)) <= {0, 1, 2, 3} and answered.agreement.nunique() > 1
    batch, own = torch.arange(4), plain.answers(plain.images[:4], torch.arange(4))
    monkeypatch.setattr(Evaluator, "samples", lambda self, images, rows, seed: [own[0], "", own[2], own[3]])
    asked = RevealedAnswers.__new__(RevealedAnswers)
    asked.settings, asked.seed = SETTINGS, 0
    found = [sure["agreement"] for _, sure in asked._heard(plain, "x", batch)]
    assert found == [1, 0, 1, 1] and all(plain.answer(text, i) for i, text in enumerate(own))


def test_letters_are_probabilities_of_those_offered(plain):
    batch = torch.arange(6)
    texts = plain.answers(plain.images[batch], batch)
    found = plain.letter_probabilities(plain.images[batch], batch, [*texts[:5], "no letter"])
    assert found[5] is None
    confidences = plain.confidences(plain.images[batch], batch, texts)
    for i, letters in enumerate(found[:5]):
        options = len(plain.rows[i]["options"])
        assert letters.sum().item() == pytest.approx(1) and (letters[options:] == 0).all()
        assert letters[LETTERS.index(plain.answer(texts[i], i))].item() == pytest.approx(confidences[i], abs=1e-5)


def test_certainty_is_0_where_letters_are_alike_and_1_where_one_is_sure():
    assert certainty(torch.tensor([0.25] * 4 + [0.0] * 4), 4) == pytest.approx(0)
    assert certainty(torch.tensor([0, 1.0, 0, 0]), 4) == 1
    half = certainty(torch.tensor([0.5, 0.5, 0, 0]), 4)
    assert half == pytest.approx(1 - math.log(2) / math.log(4)) and certainty(torch.tensor([0.5, 0.5]), 2) == 0


def test_the_winner_is_the_first_with_most_votes_and_may_name_no_option():
    assert winner(list("BBACB")) == ("B", 3 / 5) and winner(list("BA")) == ("A", 0.5)
    assert winner([UNPARSABLE, UNPARSABLE, "A"]) == ("", 2 / 3)


@pytest.mark.parametrize("text, votes", [(True, False), (False, True), (True, True)])
def test_a_question_of_which_text_or_votes_failed_was_not_evaluated(plain, text, votes):
    sure = {"letter": 0.9, "entropy": 0.5, "agreement": 1.0, "noise": math.nan}
    heard = Failure("no numbers") if text else ("<think> x </think><answer> A </answer>", sure)
    row = said(plain, 0, heard, Failure("no numbers") if votes else ["A"] * 4)
    assert row["outcome"] == row["vote_outcome"] == FAILED and row["answer"] == row["voted"] == ""
    assert all(math.isnan(row[name]) for name in ESTIMATORS) and row["text"] == "no numbers"


def test_a_model_without_numbers_and_an_image_that_was_not_attacked_have_no_score(
    plain, attacked, tmp_path, monkeypatch
):
    (tmp_path / "pgd").mkdir()
    stored = pd.read_parquet(attacked / "rows.parquet")
    stored.loc[3, ["outcome", "answer"]] = FAILED, ""
    stored.to_parquet(tmp_path / "pgd" / "rows.parquet")
    (tmp_path / "pgd" / "images.npz").write_bytes((attacked / "images.npz").read_bytes())
    broken, classes = plain.rows[5]["question_id"], Evaluator.classes

    def failing(self, function, images, batch):
        if any(self.rows[i]["question_id"] == broken for i in batch.tolist()):
            raise FloatingPointError("no numbers")
        return classes(self, function, images, batch)

    monkeypatch.setattr(Evaluator, "classes", failing)
    few = SETTINGS | {"draws": 2, "samples": 1}
    asked = RevealedAnswers(plain, Namespace(attack=tmp_path / "pgd", settings=few, seed=0, **NAMED))
    found = pd.concat([asked.asked(seen, share) for seen in ("clean", "pgd") for share in (0.25, 1.0)])
    failed = found[found.outcome == FAILED]
    assert set(failed[failed.seen == "clean"].question_id) == {broken}
    assert set(failed[failed.seen == "pgd"].question_id) == {broken, stored.question_id[3]}
    table = gradient(found)
    assert table.accuracy.isna()[table.order == "seeded"].all() and set(table.status[table.seen == "pgd"]) >= {
        f"incomplete: 2 of {N} not evaluated"
    }


def test_what_a_killed_job_has_asked_is_not_asked_again(shown_data, skilled, attacked, rows, tmp_path):
    given = arguments(shown_data, skilled.model.name_or_path, tmp_path / "killed", attacked)
    done = killed_after(
        1, command_line("reveal.py", *given, settings=SETTINGS), tmp_path / ".killed.partial" / "shards"
    )
    before = {path: path.stat().st_mtime_ns for path in done}
    assert before and not (tmp_path / "killed").exists()
    here("reveal.py", *given, settings=SETTINGS)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "killed" / "rows.parquet"), rows)
    assert np.isfinite(rows.share).all()
