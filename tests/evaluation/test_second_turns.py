"""Second turns: what a model is shown is what it said, what counts is what it says then, and the attack knows both."""

import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from safemed.attacks.losses import letter_margin
from safemed.data import prompts
from safemed.data.dataset import load_questions
from safemed.data.prompts import FAILED, LETTERS
from safemed.evaluation import registry
from safemed.evaluation.evaluator import LOSSES, Evaluator
from safemed.evaluation.turn_answers import SecondTurns
from safemed.models.geometry import to_float
from safemed.models.vlm import VLM
from safemed.report.tables.adaptive import adaptive_turns
from safemed.report.tables.rows import ATTACK_ROWS, check_attack_rows
from safemed.report.tables.turns import TURN_ROWS, check_turn_rows, turns
from safemed.stress.hints import Templates
from safemed.stress.pushes import PUSHES
from support.commands import command_line, evaluation_arguments, here, killed_after
from support.paths import TEMPLATES

EPS, N = 16, 24
SETTINGS = {"questions": N, "eps": EPS, "batch_size": 10, "max_new_tokens": {"instruct": 8, "think": 24},
            "precision": "fp32"}  # fmt: skip
BUDGET = {"kind": "pgd", "steps": 4, "losses": LOSSES}
ATTACKS = {"questions": N, "batch_size": 10, "amp": False, "max_new_tokens": {"think": 24}, "precision": "fp32",
           "pgd": BUDGET, "pgd-turn": BUDGET | {"turn": "wrong"}}  # fmt: skip
READ = Templates.read(TEMPLATES)


def attack(data: Path, weights: str, out: Path, *more) -> Path:
    """Attack the questions by the attack that the folder is named after."""
    given = [*evaluation_arguments(data, weights, out), "--attack", out.name]
    here("attack.py", *given, *more, settings=ATTACKS)
    return out


def arguments(data: Path, weights: str, out: Path, attacked: Path) -> list:
    """How the workflow calls scripts/turns.py."""
    return [*evaluation_arguments(data, weights, out), "--templates", TEMPLATES, "--attack", attacked]


@pytest.fixture(scope="module")
def attacked(shown_data, skilled, tmp_path_factory) -> Path:
    """The folder of an attack on the plain questions."""
    out = tmp_path_factory.mktemp("attacked") / "pgd"
    return attack(shown_data, skilled.model.name_or_path, out, "--eps", EPS)


@pytest.fixture(scope="module")
def asked(shown_data, skilled, attacked, tmp_path_factory) -> tuple[pd.DataFrame, list[str]]:
    """The rows of the skilled model, and every prompt that it was given, decoded."""
    out, heard, generate = tmp_path_factory.mktemp("turns") / "model", [], VLM.generate

    def listening(self, images, encoded, limit):
        heard.extend(self.tokenizer.batch_decode(encoded.prompt_ids))
        return generate(self, images, encoded, limit)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VLM, "generate", listening)
        here("turns.py", *arguments(shown_data, skilled.model.name_or_path, out, attacked), settings=SETTINGS)
    assert not (out / "shards").exists() and json.loads((out / "cost.json").read_text())["forward_passes"] > 500
    return pd.read_parquet(out / "rows.parquet"), heard


@pytest.fixture(scope="module")
def rows(asked) -> pd.DataFrame:
    return asked[0]


def test_every_question_is_pushed_in_every_way_wording_and_kind_of_image(rows):
    check_turn_rows(rows)
    assert set(rows.columns) == set(TURN_ROWS)
    conditions = rows.groupby(["push", "wording", "seen"]).question_id.nunique()
    wanted = {(push, one.name, seen) for push in PUSHES for one in READ.wordings(push) for seen in ("clean", "pgd")}
    assert set(conditions.index) == wanted and (conditions == N).all()
    assert (rows.first_outcome == "right").all() and (rows.first_confidence > 0.5).all()


def test_the_transcript_holds_the_question_the_models_own_answer_and_the_push(asked, skilled, shown):
    """In this order, as the model read it; the first answer is what it wrote to the clean image."""
    rows, heard = asked
    evaluator = Evaluator(skilled, shown, "think", 24)
    own = dict(zip(shown["question_id"], evaluator.answers(evaluator.images, torch.arange(N)), strict=True))
    assert (rows.first_text == rows.question_id.map(own)).all() and rows.first_text.nunique() > 2
    questions = {row["question_id"]: row for row in evaluator.rows}
    after = ("assistant", "user", "assistant")  # who speaks next
    second = [said.replace("\n", "") for said in heard if said.count("<|im_start|>assistant") == 2]
    assert len(second) == len(rows) and len(heard) == len(rows) + N
    for row in rows[rows.seen == "clean"].itertuples():
        question = questions[row.question_id]
        option = question["options"][LETTERS.index(row.claimed)] if row.claimed else ""
        push = READ.pushes[row.wording].text.format(option=option, letter=row.claimed)
        plain = prompts.render(question["question"], question["options"], "think")
        turns = [plain, row.first_text, f"{push} {prompts.INSTRUCTIONS['think']}"]
        whole = "".join(f"{text}<|im_end|><|im_start|>{who}" for text, who in zip(turns, after, strict=True))
        assert any(said.endswith(whole) for said in second)


def test_what_a_killed_job_has_asked_is_not_asked_again(shown_data, skilled, attacked, rows, tmp_path):
    given = arguments(shown_data, skilled.model.name_or_path, tmp_path / "killed", attacked)
    done = killed_after(1, command_line("turns.py", *given, settings=SETTINGS), tmp_path / ".killed.partial" / "shards")
    before = {path: path.stat().st_mtime_ns for path in done}
    assert before and not (tmp_path / "killed").exists()
    here("turns.py", *given, settings=SETTINGS)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "killed" / "rows.parquet"), rows)


class Stub(Evaluator):
    """A model that answers every other question rightly at first, and the others by the option after the right one."""

    def answers(self, images, rows):
        return [f"<answer> {self.letter(self.rows[i])} </answer>" for i in rows.tolist()]

    def confidences(self, images, rows, texts):
        return [0.75] * len(texts)

    def letter(self, row: dict) -> str:
        """The letter that it answers with, whatever is said."""
        wrong = int(row["question_id"] in self.errs)
        return LETTERS[(LETTERS.index(row["gold"]) + wrong) % len(row["options"])]


class Echo(Stub):
    """It answers what is claimed."""

    def letter(self, row: dict) -> str:
        said = row["turns"][-1][1] if "turns" in row else ""
        claims = {wording.text.format(option=option, letter=letter): letter for wording in READ.wordings("wrong")
                  for letter, option in zip(LETTERS, row["options"], strict=False)}  # fmt: skip
        found = [letter for claim, letter in claims.items() if said.startswith(claim)]
        return found[0] if found else super().letter(row)


class Mute(Stub):
    """Of one question, no first answer can be evaluated."""

    def answers(self, images, rows):
        plain = [self.rows[i] for i in rows.tolist() if "turns" not in self.rows[i]]
        if any(row["question_id"] == self.mute for row in plain):
            raise FloatingPointError("no numbers")
        return super().answers(images, rows)


def stubbed(kind: type[Stub], skilled, shown, attacked) -> pd.DataFrame:
    """The rows of a stub."""
    evaluator = kind(skilled, shown, "instruct", 8)
    evaluator.errs, evaluator.mute = set(shown["question_id"][::2]), shown["question_id"][1]
    named = {"model": "stub-instruct", "method": "stub", "variant": "instruct"}
    args = Namespace(attack=attacked, settings=SETTINGS, seed=0, **named)
    return SecondTurns(evaluator, READ, args).asked(torch.arange(N))


def test_a_model_that_echoes_claims_is_corrected_by_right_ones_and_falls_to_all_wrong_ones(skilled, shown, attacked):
    table = turns(stubbed(Echo, skilled, shown, attacked)).set_index("push")
    wrong, right, doubt = (table.loc[push] for push in ("wrong", "right", "doubt"))
    assert len(wrong) == 4 and (table.status == "complete").all() and (table.n_right == N / 2).all()
    assert (wrong[["flipped", "followed"]] == 1).all(axis=None) and (wrong.second_accuracy == 0).all()
    assert (right.corrected_with == 1).all() and (right.flipped == 0).all() and (right.ccs == 0.75).all()
    assert (doubt[["flipped", "corrected_without", "ccs"]] == 0).all(axis=None)
    assert (wrong.retained == 0).all() and (table[["flipped_silent", "ccs_silent"]] == 0).all(axis=None)
    assert (wrong.n_opposed < N).all() and (
        right.n_opposed == N / 2
    ).all()  # a claim of the first answer presses nobody


def test_a_model_that_ignores_words_keeps_all_its_answers(skilled, shown, attacked):
    table = turns(stubbed(Stub, skilled, shown, attacked))
    moved = ["flipped", "flipped_silent", "ccs", "ccs_silent"]
    assert (table[moved] == 0).all(axis=None) and (table[["retained", "retained_silent"]] == 1).all(axis=None)
    by_push = table.set_index("push")
    assert (by_push.corrected_without["doubt"] == 0).all() and (by_push.corrected_with["right"] == 0).all()
    assert (by_push.followed["wrong"] == 0).all() and (table.first_accuracy == table.second_accuracy).all()


def test_what_follows_a_first_answer_that_failed_is_no_answer(skilled, shown, attacked):
    rows = stubbed(Mute, skilled, shown, attacked)
    failed = rows.question_id == shown["question_id"][1]
    assert (rows[failed].outcome == FAILED).all() and not (rows[~failed].outcome == FAILED).any()
    table = turns(rows)
    assert table.status.str.startswith("incomplete").all() and table.flipped.isna().all() and table.ccs.isna().all()


def test_an_image_that_the_attack_could_not_make_has_no_score(skilled, shown, attacked, tmp_path):
    stored = pd.read_parquet(attacked / "rows.parquet")
    stored.loc[3, ["outcome", "answer"]] = FAILED, ""
    (tmp_path / "pgd").mkdir()
    stored.to_parquet(tmp_path / "pgd" / "rows.parquet")
    (tmp_path / "pgd" / "images.npz").write_bytes((attacked / "images.npz").read_bytes())
    table = turns(stubbed(Stub, skilled, shown, tmp_path / "pgd")).set_index("seen")
    assert table.loc["pgd"].flipped.isna().all() and (table.loc["clean"].status == "complete").all()


@pytest.fixture(scope="module")
def knowing(shown_data, skilled, attacked) -> Path:
    """The folder of the same attack, but one that knows the second turn."""
    out = attacked.parent / "pgd-turn"
    return attack(shown_data, skilled.model.name_or_path, out, "--eps", 0, EPS, "--templates", TEMPLATES)


def beside(knowing: Path, rows: pd.DataFrame, eps: int, seen: str) -> pd.DataFrame:
    """The rows of that attack, each beside the one (`..._pushed`) of scripts/turns.py in the same wording."""
    attacked = pd.read_parquet(knowing / "rows.parquet").query("eps == @eps")
    pushed = rows[(rows.push == "wrong") & (rows.seen == seen)].assign(hint=rows.wording)
    both = attacked.merge(pushed, on=["question_id", "hint"], suffixes=("", "_pushed"), validate="one_to_one")
    assert len(both) == len(attacked) == N
    return both


def test_the_attack_is_on_the_answer_to_a_wrong_claim_in_words_that_no_training_draws(knowing, rows, attacked):
    clean, both = beside(knowing, rows, 0, "clean"), beside(knowing, rows, EPS, "pgd")
    assert clean.text.tolist() == clean.text_pushed.tolist() and not clean.taught.any()
    assert (clean.claimed != clean.gold).all() and not clean.attacked.any()
    check_attack_rows(both[ATTACK_ROWS])
    assert (both.attacked == (clean.outcome == "right")).all() and both.attacked.any()
    images = np.load(knowing / "images.npz")
    moved = np.abs(images[f"eps{EPS}"].astype(int) - images["clean"]).max((1, 2, 3))
    assert (moved <= EPS).all() and ((moved > 0) == both.attacked).all()
    (found,) = adaptive_turns(pd.read_parquet(knowing / "rows.parquet"), rows, EPS).to_dict("records")
    assert (found["attack"], found["seen"], found["n"], found["failed"]) == ("pgd-turn", "pgd", N, 0)
    assert found["pushed"] == (clean.outcome == "right").mean()
    assert found["adaptive"] == (both.outcome == "right").mean() < found["pushed"]


def test_the_loss_of_the_attack_sees_the_second_turn(skilled, shown):
    settings = ATTACKS["pgd-turn"]
    evaluator = registry.evaluator_for(skilled, shown, "think", 24, settings, 0, 10, TEMPLATES)
    plain, some = Evaluator(skilled, shown, "think", 24), torch.arange(6)
    firsts = plain.answers(plain.images[some], some)
    assert [row["turns"][0] for row in evaluator.rows[:6]] == [("assistant", text) for text in firsts]
    images, words = to_float(plain.images[some], skilled.device), ["<think> </think><answer> A </answer>"] * 6
    said = [prompts.conversation(evaluator.rows[i], "think") for i in range(6)]
    places = skilled.letter_places(skilled.encode(said, [""] * 6, plain.side), words)
    by_hand = letter_margin(skilled, places, plain.gold[some], plain.n_options[some])(images, some)[0]
    found = evaluator.attack_loss("answer", words, some)(images, some)[0]
    assert torch.allclose(found, by_hand) and not torch.allclose(
        found, plain.attack_loss("answer", words, some)(images, some)[0]
    )


def test_an_attack_on_a_question_without_a_first_answer_is_failed(shown_data, skilled, tmp_path, monkeypatch):
    first, answers = load_questions(shown_data, "test")["question_id"][0], Evaluator.answers

    def failing(self, images, rows):
        if any(self.rows[i]["question_id"] == first and "turns" not in self.rows[i] for i in rows.tolist()):
            raise FloatingPointError("no numbers")
        return answers(self, images, rows)

    monkeypatch.setattr(Evaluator, "answers", failing)
    few = ATTACKS | {"pgd-turn": BUDGET | {"turn": "wrong", "steps": 1}}
    given = [*evaluation_arguments(shown_data, skilled.model.name_or_path, tmp_path / "pgd-turn"), "--eps", 0, EPS]
    here("attack.py", *given, "--attack", "pgd-turn", "--templates", TEMPLATES, settings=few)
    rows = pd.read_parquet(tmp_path / "pgd-turn" / "rows.parquet")
    assert rows[rows.outcome == FAILED].question_id.tolist() == [first] * 2
    assert rows[rows.question_id == first].text.str.contains("the first answer was not evaluated").all()
    monkeypatch.undo()
    replayed = {**SETTINGS, "eps": None, "attacks": {"pgd-turn": few["pgd-turn"]}}
    line = [*evaluation_arguments(shown_data, skilled.model.name_or_path, tmp_path / "replay"), "--same"]
    here("replay.py", *line, "--attacks", tmp_path / "pgd-turn", "--templates", TEMPLATES, settings=replayed)
    again = pd.read_parquet(tmp_path / "replay" / "rows.parquet")
    assert again.text.tolist() == rows.text.tolist() and again.outcome.tolist() == rows.outcome.tolist()
