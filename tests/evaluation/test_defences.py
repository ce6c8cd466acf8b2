"""Defences at inference: what each makes of question, image and answers, and attacks that know it."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from safemed.attacks import views
from safemed.data.dataset import load_questions, subset
from safemed.data.prompts import FAILED, LETTERS, gold_text
from safemed.evaluation.defence_answers import CLEAN, HINT, MADE, THROUGH, conditions
from safemed.evaluation.defences import DEFENCES, Defence, defences
from safemed.evaluation.defended import ABSTAINED, DefendedEvaluator, looks_broken
from safemed.evaluation.evaluator import LOSSES, Evaluator
from safemed.models.geometry import to_float
from safemed.models.vlm import VLM
from safemed.report.tables.defences import DEFENCE_ROWS, check_defence_rows
from safemed.report.tables.defences import defences as tabled
from safemed.stress import disguises, precautions
from safemed.stress.hints import Templates
from support.commands import command_line, evaluation_arguments, here, killed_after
from support.paths import TEMPLATES

EPS, N = 24, 8
WORDS = Templates.read(TEMPLATES)
OWN = {"defences": list(DEFENCES), "jpeg_quality": 50, "blur": 1.0, "smooth": {"sigma": 0.1, "votes": 3},
       "vote": {"orders": 3, "wordings": 2}, "rounds": 3, "draws": 2, "restarts": 3}  # fmt: skip
SHARED = {"questions": N, "eps": EPS, "batch_size": 10, "amp": False, "max_new_tokens": {"think": 24},
          "precision": "fp32"}  # fmt: skip
BUDGET = {"kind": "pgd", "steps": 6, "losses": LOSSES}
SETTINGS = OWN | SHARED | {"budget": BUDGET}


@pytest.fixture(scope="module")
def questions(train_questions) -> list[dict]:
    return list(train_questions.remove_columns("image"))[:N]


@pytest.fixture(scope="module")
def made(questions) -> dict[str, Defence]:
    return {one.name: one for one in defences(OWN, WORDS, questions, 0)}


class Stub(Evaluator):
    """A model whose answers are decided by what it is asked and shown: `say` (row, image [3, H, W]) -> a letter."""

    def answers_to(self, images, rows):
        return [
            f"<answer> {self.say(self.rows[i], image)} </answer>"
            for i, image in zip(rows.tolist(), images, strict=True)
        ]


def stub(tiny_vlm: VLM, train_questions, say) -> Stub:
    asked = Stub(tiny_vlm, train_questions.select(range(N)), "instruct", 8)
    asked.say = say
    return asked


@pytest.fixture(scope="module")
def vlm(tiny_model) -> VLM:
    return VLM.load(tiny_model)


def behind(plain: Evaluator, defence: Defence, draws: int = 2) -> DefendedEvaluator:
    return DefendedEvaluator(plain, defence, 0, draws)


def outcomes(evaluator: Evaluator) -> list[str]:
    everything = torch.arange(len(evaluator))
    texts = evaluator.answers(evaluator.images, everything)
    return [evaluator.outcome(text, i) for i, text in enumerate(texts)]


SPELLINGS = (str, disguises.misspelt, disguises.inflected, disguises.parted, disguises.spelt)


ASKED = r"(?<=[.!?:] )[^.!?:]*\?$|^[^.!?:]*\?$"  # a question's own words, which may name options


def echo(row: dict, image) -> str:
    """The wrong option that something said names, in a spelling of a disguise or by its letter; else the right one."""
    said = f"{re.sub(ASKED, '', row['question'])} {row.get('after', '')}"
    for letter, option in zip(LETTERS, row["options"], strict=False):
        names = [*(re.escape(spelling(option)) for spelling in SPELLINGS), rf"(says|chose|alone it is|again:) {letter}"]
        if letter != row["gold"] and re.search(rf"(?<!\w)({'|'.join(names)})(?![\w)])", said):
            return letter
    return row["gold"]


def asked_under(plain: Stub, words: str, polarity: str):
    for one in conditions(plain.rows, WORDS, "pgd", 0):
        if (one.words, one.polarity) == (words, polarity):
            yield one, plain.with_questions([row for row, _ in one.asked], plain.images)


def test_strip_restores_what_option_claims_take_and_not_what_claims_made_for_it_take(vlm, train_questions, made):
    plain = stub(vlm, train_questions, echo)
    assert set(outcomes(behind(plain, made["strip"]))) == {"right"}
    for _, hinted in asked_under(plain, HINT, "negative"):
        assert "right" not in outcomes(behind(hinted, made["none"]))
        assert set(outcomes(behind(hinted, made["strip"]))) == {"right"}
    for one, hinted in asked_under(plain, MADE, "negative"):
        assert "right" not in outcomes(behind(hinted, made["none"])), one.wording
        assert "right" not in outcomes(behind(hinted, made["strip"])), one.wording
    for words in (HINT, MADE):
        for one, hinted in asked_under(plain, words, "neutral"):
            assert set(outcomes(behind(hinted, made["none"]))) == {"right"}, one.wording


def test_there_are_as_many_silent_wordings_as_claims_and_they_claim_nothing(questions):
    asked = list(conditions(questions, WORDS, "pgd", 0))
    for words in (HINT, MADE):
        names = {
            p: [one.wording for one in asked if (one.words, one.polarity) == (words, p)]
            for p in ("negative", "neutral")
        }
        assert names["negative"] == names["neutral"] and len(set(names["neutral"])) == len(names["neutral"]) >= 7
    for one in asked:
        for row, (put, claimed) in zip(questions, one.asked, strict=True):
            assert bool(claimed) == (one.polarity == "negative") and claimed != row["gold"]
            assert put["options"] == row["options"] and put["gold"] == row["gold"]
    targets = {put for one in asked if one.words == MADE and one.polarity == "negative" for put in [one.asked[0][1]]}
    assert len(targets) == 2


def test_claims_made_for_defences_name_no_option_but_their_own_and_pass_the_filter(questions):
    """Options that hold each other, short ones, and those of the phantoms."""
    sets = [["no lesion", "lesion"], ["CT", "OCT", "MR"], ["OD", "OS"], ["none", "normal", "lung opacity"]]
    sets += [list(row["options"]) for row in questions]
    for number, options in enumerate(sets):
        for gold in LETTERS[: len(options)]:
            row = questions[0] | {"options": options, "gold": gold, "question_id": f"{number}"}
            for silent in (False, True):
                for name, put, letter in disguises.disguised(row, silent, 0):
                    said = f"{put['question']} {put.get('after', '')}".replace(row["question"], "")
                    named = {o for o in options if precautions.names_an_option(said, [o])}
                    claimed = options[LETTERS.index(letter)] if name == "joined" and letter else ""
                    assert all(one in claimed for one in named), (name, said)
                    assert precautions.stripped(put) == put, (name, said)


def test_silent_sentences_are_about_as_long_as_claims(questions):
    lengths = {}
    for silent in (False, True):
        told = [one for row in questions for one in disguises.disguised(row, silent, 0)]
        for name, put, _ in told:
            lengths.setdefault(name, {}).setdefault(silent, []).append(len(put["question"] + put.get("after", "")))
    for name, found in lengths.items():
        assert 0.8 < np.mean(found[True]) / np.mean(found[False]) < 1.25, name


def test_vote_has_one_answer_whatever_the_order_of_the_options(vlm, train_questions, made):
    """A model that looks at words and places alike, as tiny ones do."""

    def say(row: dict, image) -> str:
        place = sum(map(ord, row["question"] + "".join(row["options"][:2]))) % len(row["options"])
        return LETTERS[place]

    plain = stub(vlm, train_questions, say)
    chosen, alone = [], []
    for by in range(3):
        rows = []
        for row in plain.rows:
            options = [*row["options"][by:], *row["options"][:by]] if by < 2 else row["options"][::-1]
            rows.append(row | {"options": options, "gold": LETTERS[options.index(gold_text(row))]})
        moved = plain.with_questions(rows, plain.images)
        for name, found in (("vote", chosen), ("none", alone)):
            texts = behind(moved, made[name]).answers(plain.images, torch.arange(N))
            found.append([rows[i]["options"][LETTERS.index(moved.answer(text, i))] for i, text in enumerate(texts)])
    assert chosen[0] == chosen[1] == chosen[2] and not alone[0] == alone[1] == alone[2]


def test_claims_made_for_defences_stand_in_the_asking_sentence_and_after_the_options_too(questions, made):
    put = {one.wording: one.asked[0][0] for one in conditions(questions, WORDS, "pgd", 0) if one.words == MADE}
    own = questions[0]["question"]
    assert put["joined"]["question"].endswith(f"one asks: {own}") and "after" not in put["joined"]
    assert put["last"]["question"] == own and put["last"]["after"] == "The supervisor says hello."
    cautious = made["caution"].askings[0].words(put["image-alone"])["after"]
    assert cautious.startswith("By the image alone it is hard. ") and cautious.endswith("whatever else is said here.")


@pytest.mark.parametrize(
    ("rule", "broken", "looks"),
    [
        ("first", "1", True), ("first", "0", False),
        ("majority", "0011", True), ("majority", "0001", False), ("majority", "00011", False),
        ("agreement", "0101", True), ("agreement", "1110", True), ("agreement", "1100", True),
        ("agreement", "0011", False), ("agreement", "1001", False), ("agreement", "0100", False),
    ],
)  # fmt: skip
def test_a_question_is_asked_about_where_a_rule_may_give_no_right_answer(rule, broken, looks):
    several = torch.tensor([[one == "1", False] for one in broken])
    assert looks_broken(rule, several).tolist() == [looks, False]


def test_loop_abstains_after_three_disagreements_and_answers_after_an_agreement(vlm, train_questions, made):
    asked: list[int] = []

    def never_twice(row: dict, image) -> str:
        asked.append(1)
        return LETTERS[(len(asked) - 1) // N % len(row["options"])]

    plain = stub(vlm, train_questions.select(range(N)), never_twice)
    loop = behind(plain, made["loop"])
    assert outcomes(loop) == [ABSTAINED] * N and len(asked) == 4 * N
    assert loop.answer(ABSTAINED, 0) == ""
    asked.clear()
    settled = behind(stub(vlm, train_questions, lambda row, image: asked.append(1) or row["gold"]), made["loop"])
    assert outcomes(settled) == ["right"] * N and len(asked) == 2 * N
    asked.clear()
    echoed = stub(vlm, train_questions, lambda row, image: asked.append(1) or echo(row, image))
    (_, hinted), *_ = asked_under(echoed, HINT, "negative")
    assert outcomes(behind(hinted, made["loop"])) == ["right"] * N and len(asked) == 3 * N


def test_an_answer_that_cannot_be_read_agrees_with_none(vlm, train_questions, made):
    assert outcomes(behind(stub(vlm, train_questions, lambda row, image: "Z"), made["loop"])) == [ABSTAINED] * N
    assert outcomes(behind(stub(vlm, train_questions, lambda row, image: "Z"), made["vote"])) == ["unparsable"] * N


def test_caution_and_examples_stand_in_the_prompt_and_examples_give_no_answer_away(
    vlm, train_questions, made, questions
):
    plain = stub(vlm, train_questions, echo)
    cautious, shown = (behind(plain, made[name]).inner[0].rows for name in ("caution", "few-shot"))
    assert all("image alone" in row["after"] for row in cautious)
    for row, before in zip(shown, plain.rows, strict=True):
        assert row["question"].endswith(before["question"]) and row["question"].count("Example:") == 2
        assert row["options"] == before["options"]


def test_views_are_what_is_shown_and_differentiated_as_they_say(train_questions):
    images = to_float(
        torch.from_numpy(np.stack([np.asarray(one.convert("RGB")) for one in train_questions[:3]["image"]])), "cpu"
    )
    names = ["a", "b", "c"]
    for view in (views.jpeg(50), views.blur(1.0), views.noisy(0.1)):
        assert (view(images, names) - images).abs().max() > 0.02
        assert torch.equal(view(images, names), view(images, names))
        assert torch.equal(view(images, names)[1:], view(images[1:], names[1:]))  # in any batch
    given = images.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(views.jpeg(50)(given, names).sum(), given)
    assert torch.equal(slope, torch.ones_like(slope))  # BPDA
    some = torch.randn_like(images)
    (slope,) = torch.autograd.grad((views.blur(1.0)(given, names) * some).sum(), given)
    step = torch.randn_like(images) * 1e-2
    moved = ((views.blur(1.0)(images + step, names) - views.blur(1.0)(images, names)) * some).sum()
    assert torch.isclose((slope * step).sum(), moved, rtol=1e-3, atol=1e-4)  # exact: blurring is linear


# A real tiny model.


@pytest.fixture(scope="module")
def data(shown_data, tmp_path_factory) -> Path:
    """`shown_data`, half of which is training questions."""
    folder = shutil.copytree(shown_data, tmp_path_factory.mktemp("defend") / "data")
    splits = pd.read_csv(folder / "splits.csv")
    splits.assign(split=["test", "train"] * (len(splits) // 2)).to_csv(folder / "splits.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def attacked(data, skilled, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("attacked") / "pgd"
    settings = SHARED | {"pgd": BUDGET}
    given = evaluation_arguments(data, skilled.model.name_or_path, out)
    here("attack.py", *given, "--attack", "pgd", "--eps", EPS, settings=settings)
    return out


def arguments(data: Path, skilled: VLM, attacked: Path, out: Path) -> list:
    """How the workflow calls scripts/defend.py."""
    given = evaluation_arguments(data, skilled.model.name_or_path, out)
    return [*given, "--templates", TEMPLATES, "--attack", attacked]


@pytest.fixture(scope="module")
def defended(data, skilled, attacked, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("defended") / "model"
    here("defend.py", *arguments(data, skilled, attacked, out), settings=SETTINGS)
    assert not (out / "shards").exists() and json.loads((out / "cost.json").read_text())["forward_passes"] > 3000
    return out


@pytest.fixture(scope="module")
def rows(defended) -> pd.DataFrame:
    return pd.read_parquet(defended / "rows.parquet")


def test_the_rows_can_be_counted(rows):
    check_defence_rows(rows)
    assert set(rows) == set(DEFENCE_ROWS)
    table = tabled(rows, list(DEFENCES))
    assert len(table) == 2 * len(DEFENCES) and (table.status == "complete").all()


def test_none_reproduces_the_rows_of_the_attack_and_of_the_stress_tests_exactly(
    rows, data, skilled, attacked, tmp_path
):
    none = rows[rows.defence == "none"]
    kept = ["question_id", "outcome", "answer", "text"]
    attack = pd.read_parquet(attacked / "rows.parquet")[kept].reset_index(drop=True)
    own = none[none.seen == "pgd"][kept].reset_index(drop=True)
    pd.testing.assert_frame_equal(own, attack)
    stress = {**SHARED, "severities": [1], "chains": 1, "published": False}
    given = arguments(data, skilled, attacked, tmp_path / "stress")
    here("stress.py", *given, settings=stress)
    tested = pd.read_parquet(tmp_path / "stress" / "rows.parquet").query("kind == 'hint' and seen == 'clean'")
    keys = ["question_id", "name", "polarity"]
    hinted = none[none.words == HINT].rename(columns={"wording": "name"})
    both = hinted.merge(tested, on=keys, suffixes=("", "_stress"), validate="one_to_one")
    assert len(both) == len(hinted) == 2 * 7 * N
    for column in ("claimed", "outcome", "answer", "text", "said"):
        assert (both[column] == both[f"{column}_stress"]).all(), column
    assert (none.passes == 1).all()


def test_the_attack_through_a_defence_is_never_weaker_and_beats_the_plain_one_on_purified_images(rows):
    for name in DEFENCES:
        own = rows[(rows.defence == name) & (rows.words == "")]
        right = {
            seen: own[own.seen == seen].set_index("question_id").outcome == "right" for seen in (CLEAN, "pgd", THROUGH)
        }
        assert not (right[THROUGH] & ~right["pgd"]).any() and not (right[THROUGH] & ~right[CLEAN]).any(), name
    purified = rows[rows.defence.isin(["jpeg", "blur"]) & (rows.words == "")]
    shares = (purified.outcome == "right").groupby(purified.seen).mean()
    assert shares[THROUGH] < shares["pgd"] - 0.15
    bare = rows[(rows.defence == "none") & (rows.seen == "pgd")]
    assert (bare.outcome == "right").mean() < 0.5  # the plain attack is one


def test_the_attack_raises_its_loss_over_all_ways_of_asking(rows, defended, skilled, data, made):
    """Of each question that it was to break: right through the defence on the clean image, and under PGD's."""
    plain = Evaluator(skilled, subset(load_questions(data, "test"), N, 0), "think", 24)
    several = rows[rows.defence.isin(["vote", "smooth", "loop"]) & (rows.words == "")]
    right = {seen: int((part.outcome == "right").sum()) for seen, part in several.groupby("seen")}
    assert right[THROUGH] < right["pgd"]
    for name in ("vote", "smooth", "loop"):
        through = behind(plain, made[name])
        texts = through.answers(plain.images, torch.arange(N))
        attacked = torch.nonzero(through.right(texts, torch.arange(N)))[:, 0]
        climbed = through.attack_loss("answer", [texts[i] for i in attacked.tolist()], attacked)
        with np.load(defended / "images.npz") as stored:
            shown = torch.from_numpy(stored[name])[attacked]
        before, after = (
            climbed(to_float(images, "cpu"), torch.arange(len(attacked)))[0]
            for images in (plain.images[attacked], shown)
        )
        assert len(attacked) and (after > before).float().mean() > 0.8, name


def test_each_asking_is_attacked_after_its_own_words_to_the_clean_image(vlm, train_questions, made):
    """Where they are right; else after the words that came out of the defence, with the letter of the asking."""

    def say(row: dict, image) -> str:
        return row["gold"] if row["options"] == sorted(row["options"]) else "Z"

    vote = behind(stub(vlm, train_questions, say), made["vote"])
    everything, words = torch.arange(N), [f"<answer> {row['gold']} </answer> borrowed" for row in vote.rows]
    for number, inner in enumerate(vote.inner):
        own = vote._own_words(number, words, everything)
        assert [inner.outcome(text, i) for i, text in enumerate(own)] == ["right"] * N
        assert all(("borrowed" in text) == (row["options"] != sorted(row["options"]))
                   for text, row in zip(own, inner.rows, strict=True))  # fmt: skip


def test_passes_are_those_of_the_vision_tower(rows):
    plain = rows[(rows.seen == CLEAN) & (rows.words == "")].groupby("defence").passes.mean()
    once = {"none", "caution", "few-shot", "strip", "jpeg", "blur"}
    assert (plain[list(once)] == 1).all() and plain["vote"] == 6 and plain["smooth"] == 3 and 2 <= plain["loop"] <= 4


def test_stored_images_are_within_the_radius_and_are_what_the_rows_are_of(rows, defended, skilled, data, made):
    """Asked again through the defence, they have the same answers."""
    test = load_questions(data, "test")
    plain = Evaluator(skilled, subset(test, N, 0), "think", 24)
    through = rows[rows.seen == THROUGH]
    assert through.linf.max() <= EPS and through[through.outcome != "right"].linf.max() > 0
    with np.load(defended / "images.npz") as stored:
        assert set(stored) == set(DEFENCES)
        for name in ("jpeg", "vote", "loop"):
            texts = behind(plain, made[name]).answers(torch.from_numpy(stored[name]), torch.arange(N))
            assert texts == through[through.defence == name].text.tolist()


def test_the_batches_decide_nothing_of_what_is_asked(rows, data, skilled, attacked, tmp_path):
    given = arguments(data, skilled, attacked, tmp_path / "out")
    fewer = {"defences": ["vote"], "batch_size": 3}
    here("defend.py", *given, settings=SETTINGS | fewer)
    found = pd.read_parquet(tmp_path / "out" / "rows.parquet").query("seen != 'through'")
    before = rows[rows.defence.isin(fewer["defences"]) & (rows.seen != THROUGH)]
    drop = ["passes"]  # a mean over the batch
    pd.testing.assert_frame_equal(
        found.drop(columns=drop).reset_index(drop=True), before.drop(columns=drop).reset_index(drop=True)
    )


def test_what_a_killed_job_has_asked_is_not_asked_again(rows, data, skilled, attacked, tmp_path):
    given, settings = arguments(data, skilled, attacked, tmp_path / "killed"), SETTINGS | {"defences": ["none", "jpeg"]}
    done = killed_after(
        2, command_line("defend.py", *given, settings=settings), tmp_path / ".killed.partial" / "shards"
    )
    before = {path: path.stat().st_mtime_ns for path in done}
    assert before and not (tmp_path / "killed").exists()
    here("defend.py", *given, settings=settings)
    wanted = rows[rows.defence.isin(["none", "jpeg"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "killed" / "rows.parquet"), wanted)


def test_a_model_without_numbers_answers_nothing_and_is_not_scored(skilled, data, attacked, tmp_path):
    vlm = VLM.load(skilled.model.name_or_path)
    vlm.model.get_input_embeddings().weight.data.fill_(torch.nan)
    given = arguments(data, skilled, attacked, tmp_path / "failed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VLM, "load", lambda *_: vlm)
        here("defend.py", *given, settings=SETTINGS | {"defences": ["none", "loop"], "questions": 2})
    made = pd.read_parquet(tmp_path / "failed" / "rows.parquet")
    assert (made.outcome == FAILED).all() and (made.answer == "").all()
    table = tabled(made, ["none", "loop"])
    assert table.status.eq("incomplete: 2 of 2 not evaluated").all() and table.adaptive.isna().all()
