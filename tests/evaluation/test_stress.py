"""Stress tests: each is what it says, and the rows are what the model answers to it."""

import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from safemed.data.dataset import as_arrays, load_questions
from safemed.data.prompts import FAILED, LETTERS
from safemed.evaluation.evaluator import LOSSES
from safemed.evaluation.stress_answers import tests_of_chains as planned_chains
from safemed.report.tables.adaptive import adaptive
from safemed.report.tables.hints import hints
from safemed.report.tables.image_edits import image_edits
from safemed.report.tables.pixels_and_words import pixels_and_words
from safemed.report.tables.published import published
from safemed.report.tables.rows import ATTACK_ROWS, check_attack_rows
from safemed.report.tables.stress_rows import CONDITION, STRESS_ROWS, check_stress_rows
from safemed.stress import erasure
from safemed.stress.erasure import ERASURES, SOUND
from safemed.stress.hints import POLARITIES, Templates, claimed
from safemed.stress.stress_tests import CLEAN, StressInputs, StressTest, stress_tests
from support.commands import command_line, evaluation_arguments, here, killed_after
from support.paths import ROOT

ALL_TEMPLATES = Templates.read(ROOT / "workflow" / "templates.yaml")
# Two voices are enough to see every kind of stress test.
FEW = {
    "version": 1,
    "hints": {name: {key: value for key, value in vars(hint).items() if key != "name"}
              for name, hint in ALL_TEMPLATES.hints.items() if hint.voice in ("patient", "report")},
    "further_hints": {name: {key: value for key, value in vars(hint).items() if key != "name"}
                      for name, hint in ALL_TEMPLATES.further_hints.items() if hint.voice == "student"},
    "paraphrases": {"task": "Your task: {question}"},
    "pushes": {name: {"kind": push.kind, "text": push.text, "train": push.train}
               for name, push in ALL_TEMPLATES.pushes.items()},
    "none_of_these": "none of these",
    "report": "Found: {report}",
    "abstain": ALL_TEMPLATES.abstain,
}  # fmt: skip
EPS = 16
SETTINGS = {
    "questions": 24, "chains": 5, "severities": [1, 5], "eps": EPS, "batch_size": 10, "published": True,
    "max_new_tokens": {"instruct": 8, "think": 24}, "precision": "fp32",
}  # fmt: skip
BUDGET = {"kind": "pgd", "steps": 4, "losses": LOSSES}
ATTACKS = {"questions": 24, "batch_size": 24, "amp": False, "max_new_tokens": {"think": 24}, "precision": "fp32",
           "pgd": BUDGET, "pgd-hint": BUDGET | {"hint": "negative"}}  # fmt: skip


def arguments(data: Path, weights: Path | str, out: Path, attack: Path) -> list:
    """How the workflow calls scripts/stress.py, but with the templates of FEW, which lie beside the attack."""
    return [*evaluation_arguments(data, weights, out), "--templates", attack.parent / "few.yaml", "--attack", attack]


@pytest.fixture(scope="module")
def attacked(shown_data, skilled, tmp_path_factory) -> Path:
    """The folder of an attack on the questions."""
    return attack(shown_data, skilled.model.name_or_path, tmp_path_factory.mktemp("attacked"))


def attack(data: Path, weights: Path | str, root: Path, **changes) -> Path:
    """Attack the questions; the templates of FEW are written beside the folder that is returned."""
    given = [*evaluation_arguments(data, weights, root / "pgd"), "--attack", "pgd", "--eps", EPS]
    here("attack.py", *given, settings=ATTACKS | changes)
    (root / "few.yaml").write_text(json.dumps(FEW))
    return root / "pgd"


@pytest.fixture(scope="module")
def rows(shown_data, skilled, attacked, tmp_path_factory) -> pd.DataFrame:
    """The rows of the skilled model in all stress tests."""
    out = tmp_path_factory.mktemp("stress") / "model"
    here("stress.py", *arguments(shown_data, skilled.model.name_or_path, out, attacked), settings=SETTINGS)
    assert not (out / "shards").exists() and json.loads((out / "cost.json").read_text())["forward_passes"] > 1000
    return pd.read_parquet(out / "rows.parquet")


@pytest.fixture(scope="module")
def knowing(shown_data, skilled, attacked) -> Path:
    """The folder of the same attack, but one that knows the hint."""
    out = attacked.parent / "pgd-hint"
    given = [*evaluation_arguments(shown_data, skilled.model.name_or_path, out), "--attack", "pgd-hint"]
    here("attack.py", *given, "--eps", 0, EPS, "--templates", attacked.parent / "few.yaml", settings=ATTACKS)
    return out


@pytest.fixture(scope="module")
def inputs(study_data) -> StressInputs:
    """The questions of the study, with images that were not attacked."""
    questions = load_questions(study_data, "train").select(range(120))
    images = torch.from_numpy(as_arrays(questions["image"]))
    table = list(questions.remove_columns("image"))
    return StressInputs(table, {CLEAN: images, "pgd": images}, {table[0]["question_id"]}, table, ALL_TEMPLATES, 0)


def clean_images(inputs: StressInputs) -> dict[str, np.ndarray]:
    """question_id -> its clean image."""
    pairs = zip(inputs.rows, inputs.images[CLEAN], strict=True)
    return {row["question_id"]: image.numpy() for row, image in pairs}


def test_rows_of_every_stress_test_can_be_counted(rows, attacked):
    check_stress_rows(rows)
    assert set(rows.columns) == set(STRESS_ROWS)
    few = Templates.read(attacked.parent / "few.yaml")
    wanted = set(stress_tests(few, SETTINGS["severities"], "pgd", published=True))
    assert {one.kind for one in wanted - set(stress_tests(few, SETTINGS["severities"], "pgd"))} == {"protocol"}
    found = {StressTest(*key) for key in rows[CONDITION].itertuples(index=False)}
    some = ["mark", "erasure", "abstention"]  # what only questions about a known lesion are put to
    rare = {one for one in wanted if one.kind in some} | {StressTest("options", "distracted")}
    assert found <= wanted and wanted - found <= rare and {one.kind for one in found} == {one.kind for one in wanted}
    everywhere = ["organ", "blank", "mismatch"]  # every phantom has an organ, and there is one of another modality
    assert {StressTest("erasure", name) for name in everywhere} <= found
    asked = rows[(~rows.kind.isin([*some, "options"]) | rows.name.isin([*everywhere, SOUND])) & (rows.target == 1)]
    asked = asked.groupby(CONDITION).question_id.nunique()
    assert (asked == 24).all()


def test_published_measures_are_of_all_new_wordings_and_agree_with_their_rows(rows):
    """A voice of the further ones, and the second target of questions that have one, are asked like the others."""
    everything = published(rows)
    assert set(everything[everything.taught == "taught"].voice) == {"all", "patient", "report"}
    table = everything[everything.taught == "new"].set_index(["position", "voice"])
    assert set(table.index) == {(p, v) for p in ("first", "last") for v in ("all", "patient", "report", "student")}
    assert (table.n == 24).all() and (table.plain == 1).all() and (table.status == "complete").all()
    assert set(table.loc["first"].targets) == {2} and set(table.loc["last"].targets) == {1}
    second = rows[rows.target == 2]
    assert (second.n_options > 2).all() and set(second.name) == {"patient-2", "report-2", "student-2"}
    last = rows[(rows.position == "last") & (rows.name == "student-2") & (rows.polarity == "negative")]
    followed = (last.answer == last.claimed) | (last.answer == "")
    assert table.loc[("last", "student"), "echo_rate"] == followed.mean()
    first = rows[(rows.kind == "hint") & (rows.name == "report-2") & (rows.seen == CLEAN)].set_index("polarity")
    assert table.loc[("first", "report"), "echo_accuracy"] == (first.loc["negative"].outcome == "right").mean()
    assert table.loc[("first", "report"), "echo_accuracy_silent"] == (first.loc["neutral"].outcome == "right").mean()
    assert (last.text.to_numpy() != rows[rows.kind == "plain"].text[:24].to_numpy()).any()


def test_plain_rows_are_what_the_attack_read(rows, attacked):
    stored = pd.read_parquet(attacked / "rows.parquet").set_index("question_id")
    plain = rows[(rows.kind == "plain") & (rows.seen == "pgd")].set_index("question_id")
    assert (plain.text == stored.text.loc[plain.index]).all() and (plain.outcome != "right").any()
    clean = rows[(rows.kind == "plain") & (rows.seen == CLEAN)]
    assert (clean.outcome == "right").all() and (clean.confidence > 0.5).all()


def test_hints_and_corruptions_do_what_they_are_for(rows):
    """The model has learned one text, so any words before it do something; a lie does not do what the truth does."""
    asked = rows[(rows.kind == "hint") & (rows.seen == CLEAN)].set_index(["polarity", "name", "question_id"])
    lied, helped = (asked.loc[polarity] for polarity in ("negative", "positive"))
    assert (lied.text != helped.text.loc[lied.index]).any()
    by_strength = rows[rows.kind == "corruption"].groupby("severity").agg(
        right=("outcome", lambda outcomes: (outcomes == "right").mean()), ssim=("ssim", "mean")
    )  # fmt: skip
    assert by_strength.right[5] < by_strength.right[1] and by_strength.ssim[5] < 0.6 < by_strength.ssim[1]


def test_a_confidence_is_the_share_of_the_letter_among_those_offered(rows):
    answered = rows[rows.outcome != "unparsable"]
    assert answered.confidence.between(0, 1).all() and rows[rows.outcome == "unparsable"].confidence.isna().all()
    assert (answered.confidence >= 1 / answered.n_options - 1e-6).mean() > 0.9  # greedy: mostly the greatest


def test_what_a_killed_job_has_asked_is_not_asked_again(shown_data, skilled, attacked, rows, tmp_path):
    given = arguments(shown_data, skilled.model.name_or_path, tmp_path / "killed", attacked)
    line = command_line("stress.py", *given, settings=SETTINGS)
    done = killed_after(3, line, tmp_path / ".killed.partial" / "shards")
    before = {path: path.stat().st_mtime_ns for path in done}
    assert before and not (tmp_path / "killed").exists()
    here("stress.py", *given, settings=SETTINGS)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "killed" / "rows.parquet"), rows)


def test_a_model_without_numbers_has_no_score(shown_data, skilled, tmp_path):
    weights = tmp_path / "weights"
    skilled.model.save_pretrained(weights)
    skilled.processor.save_pretrained(weights)
    for file in Path(skilled.model.name_or_path).iterdir():
        if not (weights / file.name).exists():
            (weights / file.name).write_bytes(file.read_bytes())
    state = load_file(weights / "model.safetensors")
    name = next(name for name in state if name.endswith("embed_tokens.weight"))
    state[name] = torch.full_like(state[name], torch.nan)
    save_file(state, weights / "model.safetensors", metadata={"format": "pt"})
    few = SETTINGS | {"severities": [1], "questions": 2}
    images = attack(shown_data, skilled.model.name_or_path, tmp_path, questions=2)
    here("stress.py", *arguments(shown_data, weights, tmp_path / "out", images), settings=few)
    rows = pd.read_parquet(tmp_path / "out" / "rows.parquet")
    assert (rows.outcome == FAILED).all() and (rows.answer == "").all()
    for table in (hints(rows), image_edits(rows), pixels_and_words(rows)):
        assert table.status.str.startswith("incomplete").all()


def test_what_the_attack_could_not_evaluate_is_no_answer(shown_data, skilled, attacked, tmp_path):
    attack_rows = pd.read_parquet(attacked / "rows.parquet")
    attack_rows.loc[3, ["outcome", "answer"]] = FAILED, ""
    (tmp_path / "pgd").mkdir()
    attack_rows.to_parquet(tmp_path / "pgd" / "rows.parquet")
    (tmp_path / "pgd" / "images.npz").write_bytes((attacked / "images.npz").read_bytes())
    (tmp_path / "few.yaml").write_text(json.dumps(FEW))
    given = arguments(shown_data, skilled.model.name_or_path, tmp_path / "out", tmp_path / "pgd")
    here("stress.py", *given, settings=SETTINGS | {"severities": [1]})
    rows = pd.read_parquet(tmp_path / "out" / "rows.parquet")
    failed = rows[rows.outcome == FAILED]
    assert set(failed.seen) == {"pgd"} and set(failed.question_id) == {attack_rows.question_id[3]}
    table = pixels_and_words(rows).set_index("seen")
    assert table.loc["pgd"].accuracy.isna().all() and table.loc[CLEAN].accuracy.notna().all()


def under_the_same_hints(knowing: Path, rows: pd.DataFrame, eps: int, seen: str) -> pd.DataFrame:
    """The rows of an attack that knows the hint, each beside the misled one (`..._misled`) under its wording."""
    attacked = pd.read_parquet(knowing / "rows.parquet").query("eps == @eps")
    asked = rows[(rows.kind == "hint") & (rows.polarity == "negative") & (rows.seen == seen)].assign(hint=rows.name)
    both = attacked.merge(asked, on=["question_id", "hint"], suffixes=("", "_misled"), validate="one_to_one")
    assert len(both) == len(attacked) == 24
    return both


def test_what_an_attack_that_knows_the_hint_is_put_to_is_the_misled_question(knowing, rows):
    """A lie, in words that no training draws: without an attack, it is answered as scripts/stress.py heard it."""
    both = under_the_same_hints(knowing, rows, 0, CLEAN)
    assert (both.claimed != both.gold).all() and not both.taught.any() and both.hint.nunique() == 2
    assert both.text.tolist() == both.text_misled.tolist() and both.outcome.tolist() == both.outcome_misled.tolist()
    assert 8 < (both.outcome == "right").sum() < 24 and not both.attacked.any() and (both.linf == 0).all()


def test_an_attack_that_knows_the_hint_breaks_what_one_that_does_not_left_right(knowing, attacked, rows):
    both = under_the_same_hints(knowing, rows, EPS, "pgd")
    right, left = both.outcome == "right", both.outcome_misled == "right"
    assert (left & ~right).sum() >= 4 and (right & ~left).sum() <= 1
    check_attack_rows(both[ATTACK_ROWS])
    images, before = (np.load(folder / "images.npz") for folder in (knowing, attacked))
    assert (images["clean"] == before["clean"]).all() and (images["eps0"] == images["clean"]).all()
    moved = np.abs(images[f"eps{EPS}"].astype(int) - images["clean"]).max((1, 2, 3))
    assert (moved <= EPS).all() and ((moved > 0) == both.attacked).all() and (moved == both.linf).all()
    assert (both.attacked == (under_the_same_hints(knowing, rows, 0, CLEAN).outcome == "right")).all()


def test_the_table_of_that_attack_counts_what_its_rows_and_the_misled_ones_say(knowing, rows):
    (found,) = adaptive(pd.read_parquet(knowing / "rows.parquet"), rows, EPS).to_dict("records")
    clean, both = under_the_same_hints(knowing, rows, 0, CLEAN), under_the_same_hints(knowing, rows, EPS, "pgd")
    assert (found["attack"], found["seen"], found["n"], found["failed"]) == ("pgd-hint", "pgd", 24, 0)
    assert found["hinted"] == (clean.outcome == "right").mean() > found["adaptive"] == (both.outcome == "right").mean()
    assert found["both"] == (both.outcome_misled == "right").mean() and found["ci_high"] < 0 and found["p"] < 0.05


def test_images_of_other_questions_are_refused(shown_data, skilled, attacked, tmp_path):
    given = arguments(shown_data, skilled.model.name_or_path, tmp_path / "out", attacked)
    with pytest.raises(ValueError, match="other questions than this study's, or none at eps 4; re-run that attack"):
        here("stress.py", *given, settings=SETTINGS | {"eps": 4})
    assert not (tmp_path / "out").exists()


def test_a_hint_claims_what_the_row_says(inputs):
    for polarity in ("positive", "neutral", "negative"):
        for one, row in zip(inputs.stressed(StressTest("hint", "patient-1", polarity)), inputs.rows, strict=True):
            assert one.claimed == claimed(row, polarity, 0)
            assert one.row["question"] != row["question"] and one.row["question"].endswith(row["question"])


def test_distractors_are_never_right_for_the_image(inputs):
    """No name that is true of an image is among the distractors of its questions, nor an option twice."""
    added, right = inputs.stressed(StressTest("options", "distracted")), {}
    for row in inputs.rows:
        right.setdefault(row["image_path"], set()).add(row["options"][LETTERS.index(row["gold"])])
    assert added
    for one in added:
        assert one.row["options"][-1] not in right[one.row["image_path"]] | set(one.row["options"][:-1])


def test_a_question_that_the_attack_failed_on_is_failed_on_its_images_alone(inputs):
    first = inputs.rows[0]["question_id"]
    for seen, wanted in ((CLEAN, []), ("pgd", [first])):
        asked = inputs.stressed(StressTest("plain", "plain", seen=seen))
        assert [one.row["question_id"] for one in asked if one.failed] == wanted


def test_an_erased_lesion_is_gone_and_nothing_else(inputs):
    """Where the lesion was, no pixel is as it was made, and the rest is untouched; beside it, the lesion stays."""
    clean = clean_images(inputs)
    erased = inputs.stressed(StressTest("erasure", "lesion"))
    assert len(erased) > 30
    for one in erased:
        before, (x0, y0, x1, y1) = clean[one.row["question_id"]], one.row["box"]
        inside = np.zeros(before.shape[:2], bool)
        margin = round(0.07 * len(before))
        inside[max(y0 - margin, 0) : y1 + margin, max(x0 - margin, 0) : x1 + margin] = True
        assert (one.image[~inside] == before[~inside]).all() and one.ssim < 1
        lesion = (slice(y0, y1), slice(x0, x1))
        assert (one.image[lesion] != before[lesion]).any(-1).mean() > 0.5
        noise = before.copy()
        noise[inside] = np.random.default_rng(0).integers(0, 256, noise[inside].shape)
        box = (max(x0 - margin, 0), max(y0 - margin, 0), min(x1 + margin, 32), min(y1 + margin, 32))
        assert (erasure.erase(noise, box) == one.image).all()  # nothing of the inside is used
    beside = inputs.stressed(StressTest("erasure", "elsewhere"))
    assert [one.row for one in beside] == [one.row for one in erased]  # the same questions
    for one in beside:
        x0, y0, x1, y1 = one.row["box"]
        assert (one.image[y0:y1, x0:x1] == clean[one.row["question_id"]][y0:y1, x0:x1]).all()


def test_a_mismatched_image_is_a_clean_one_of_another_modality_and_all_questions_of_an_image_see_the_same(inputs):
    asked, shown = inputs.stressed(StressTest("erasure", "mismatch")), {}
    modality = {
        image.tobytes(): row["modality"] for row, image in zip(inputs.rows, inputs.images[CLEAN].numpy(), strict=True)
    }
    assert [one.row for one in asked] == inputs.rows and all(one.ssim < 0.9 for one in asked)
    for one in asked:
        assert modality[one.image.tobytes()] != one.row["modality"]
        shown.setdefault(one.row["image_path"], set()).add(one.image.tobytes())
    assert max(map(len, shown.values())) == 1 and len({bytes(*images) for images in shown.values()}) > 10
    one_modality = [i for i, row in enumerate(inputs.rows) if row["modality"] == inputs.rows[0]["modality"]]
    rows, images = [inputs.rows[i] for i in one_modality], inputs.images[CLEAN][one_modality]
    alone = StressInputs(rows, {CLEAN: images}, set(), rows, ALL_TEMPLATES, 0)
    assert alone.stressed(StressTest("erasure", "mismatch")) == []


def test_every_question_may_abstain_and_its_other_options_stay(inputs):
    plain = {row["question_id"]: row for row in inputs.rows}
    for name in (SOUND, *ERASURES):
        asked = inputs.stressed(StressTest("abstention", name))
        shown = inputs.stressed(StressTest("plain", "plain") if name == SOUND else StressTest("erasure", name))
        assert [one.row["question_id"] for one in asked] == [one.row["question_id"] for one in shown]
        for one, seen in zip(asked, shown, strict=True):
            before = plain[one.row["question_id"]]
            assert one.row["options"] == [*before["options"], ALL_TEMPLATES.abstain]
            assert one.row["gold"] == before["gold"] and (one.image == seen.image).all()


def test_an_erased_organ_is_gone_and_nothing_else(inputs):
    """With a lesion or without: images that differ in the organ alone are the same after it, the rest untouched."""
    noise, places = np.random.default_rng(0), []
    scrambled = inputs.images[CLEAN].clone()
    for row, image in zip(inputs.rows, scrambled.numpy(), strict=True):
        x0, y0, x1, y1 = row["organ"]
        places.append((slice(y0, y1), slice(x0, x1)))
        image[places[-1]] = noise.integers(0, 256, image[places[-1]].shape)
    other = StressInputs(inputs.rows, {CLEAN: scrambled}, set(), inputs.rows, ALL_TEMPLATES, 0)
    erased, again = (one.stressed(StressTest("erasure", "organ")) for one in (inputs, other))
    assert [one.row for one in erased] == [one.row for one in again] == inputs.rows
    for one, same, before, place in zip(erased, again, inputs.images[CLEAN].numpy(), places, strict=True):
        assert (one.image == same.image).all() and one.ssim < 1
        changed = (one.image != before).any(-1)
        assert changed[place].mean() > 0.5 and changed.sum() == changed[place].sum()


def test_an_organ_that_is_not_known_or_is_the_whole_image_is_not_erased(inputs):
    organs, images = ([], [0, 0, 32, 32], [0, 0, 32, 31]), inputs.images[CLEAN][:3]
    rows = [row | {"organ": organ} for row, organ in zip(inputs.rows, organs, strict=False)]
    few = StressInputs(rows, {CLEAN: images}, set(), rows, ALL_TEMPLATES, 0)
    assert images.shape[1:3] == (32, 32)
    assert [one.row for one in few.stressed(StressTest("erasure", "organ"))] == rows[2:]


def test_marks_show_the_lesion_or_no_lesion(inputs):
    made = {place: inputs.stressed(StressTest("mark", f"box-{place}")) for place in ("right", "wrong", "normal")}
    assert [one.row for one in made["right"]] == [one.row for one in made["wrong"]]  # the same questions
    assert made["normal"] and all(one.row["finding"] == "normal" for one in made["normal"])
    clean = clean_images(inputs)
    for place in ("right", "wrong"):
        for one in made[place]:
            x0, y0, x1, y1 = one.row["box"]
            changed = (one.image != clean[one.row["question_id"]]).any(-1)
            rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
            round_it = rows[0] <= y0 and rows[-1] >= y1 - 1 and columns[0] <= x0 and columns[-1] >= x1 - 1
            assert round_it == (place == "right")


def test_a_label_that_claims_nothing_is_put_on_the_same_questions_as_one_that_does(inputs):
    made = {polarity: inputs.stressed(StressTest("mark", "label", polarity)) for polarity in POLARITIES}
    assert made["neutral"] and len({tuple(one.row["question_id"] for one in asked) for asked in made.values()}) == 1
    clean, silent = clean_images(inputs), {}
    for one in made["neutral"]:
        assert one.claimed == "" and (one.image != clean[one.row["question_id"]]).any()
        silent.setdefault(one.row["image_path"], set()).add(one.image.tobytes())
    assert max(map(len, silent.values())) == 1  # whatever its questions' options are
    claims = [(one.claimed, one.row["gold"]) for one in made["negative"]]
    assert all(claimed and claimed != gold for claimed, gold in claims)


def test_chains_are_asked_plainly_and_after_a_silent_and_a_misleading_hint(skilled, study_data):
    args = Namespace(settings=SETTINGS | {"chains": 3}, variant="think", seed=0)
    test = load_questions(study_data, "test")
    parts = {one.polarity: make() for one, make in planned_chains(skilled, test, ALL_TEMPLATES, args)}
    assert list(parts) == ["", "neutral", "negative"]
    hint, *_ = ALL_TEMPLATES.untaught()
    plain, silent, misled = parts.values()
    assert len({one.row["image_path"] for one in plain}) == 3 and len(plain) > 6
    for one, quiet, lied in zip(plain, silent, misled, strict=True):
        assert quiet.row["question"] == f"{hint.neutral} {one.row['question']}" and quiet.claimed == ""
        assert lied.row["question"].endswith(one.row["question"]) and lied.claimed not in ("", one.row["gold"])


def test_all_questions_of_an_image_see_the_same_alteration(inputs):
    seen: dict[str, set] = {}
    for one in inputs.stressed(StressTest("corruption", "noise", severity=3)):
        seen.setdefault(one.row["image_path"], set()).add(one.image.tobytes())
    assert max(map(len, seen.values())) == 1 and len(set.union(*seen.values())) == len(seen)
