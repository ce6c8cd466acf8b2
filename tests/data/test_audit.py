"""The audit sees what text tells, which images two splits share, and what differs from the published counts."""

import shutil
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from safemed.data import audit
from safemed.data.dataset import SPLIT_COLUMNS
from safemed.data.hardening import harden
from safemed.utils.files import read_csv
from support.commands import command
from support.hostile import IDS, MARKUP
from support.records import QA, audited, halves, picture, prepared, real_questions, record, write_source
from support.settings import SPLIT


def questions_of(*rows: tuple[str, list[str], str]) -> pd.DataFrame:
    """Questions as baselines wants them."""
    return pd.DataFrame(rows, columns=["modality", "options", "gold"]).assign(
        question="What is it?", question_type="Disease Diagnosis"
    )


def test_chance_and_option_prior_as_counted_by_hand():
    train = questions_of(("CT", ["x", "y"], "A"), ("CT", ["z", "X."], "B"), ("CT", ["y", "w"], "A"))  # x 2, y 1
    test = questions_of(
        ("CT", ["y", "x"], "B"),  # the prior says x: right
        ("CT", ["y", "z"], "B"),  # it says y: wrong
        ("MR", ["z", "w"], "A"),  # it cannot tell: 1/2
        ("MR", ["x.", "y", "z"], "B"),  # it says x: wrong
    )
    table = audit.baselines(train, test).set_index("part")[["n", "chance", "prior"]]
    assert table.loc["all"].tolist() == pytest.approx([4, (1 / 2 + 1 / 2 + 1 / 2 + 1 / 3) / 4, 1.5 / 4])
    assert table.loc["CT"].tolist() == pytest.approx([2, 1 / 2, 1 / 2])
    assert table.loc["MR"].tolist() == pytest.approx([2, 5 / 12, 1 / 4])


def asked(n: int, seed: int, tell: str) -> pd.DataFrame:
    """Questions whose answer is told by nothing, the option, the question, or a dot."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        options = list(rng.permutation(["liver", "kidney", "lung", "heart"]))
        index = int(rng.integers(4)) if tell != "option" else options.index("lung")
        question = f"What is beside the {options[index]} vein?" if tell == "question" else "What is it?"
        written = [f"{o}." if tell == "dot" and i == index else o for i, o in enumerate(options)]
        rows.append(("CT", written, "ABCD"[index], question))
    return pd.DataFrame(rows, columns=["modality", "options", "gold", "question"]).assign(question_type="t")


@pytest.mark.parametrize(
    "tell, prior, linear",
    [("nothing", 0.25, 0.25), ("option", 1.0, 1.0), ("question", 0.25, 1.0), ("dot", 0.25, 1.0)],
)
def test_each_baseline_sees_what_is_its_own_to_see(tell, prior, linear):
    table = audit.baselines(asked(400, 0, tell), asked(400, 1, tell)).set_index("part").loc["all"]
    assert table["prior"] == pytest.approx(prior, abs=0.08)
    assert table["linear"] == pytest.approx(linear, abs=0.08)
    assert table["blind"] == max(table["prior"], table["linear"])


def test_the_dot_that_ends_the_right_option_is_counted():
    assert audit.dots(asked(50, 0, "dot")) == {"n": 50, "right": 1.0}
    assert audit.dots(asked(50, 0, "nothing"))["n"] == 0


def test_plausible_options_are_those_right_somewhere_in_modality_and_dataset():
    table = questions_of(("CT", ["a", "b", "c"], "A"), ("CT", ["c", "B."], "B"), ("MR", ["c", "a"], "A"))
    assert audit.plausible(table.assign(dataset="d")).tolist() == [2, 1, 1]
    assert audit.plausible(table.assign(dataset=["d", "e", "d"])).tolist() == [1, 1, 1]


def test_phantoms_cannot_be_answered_blind(study_data):
    found = pd.read_csv(study_data / "audit" / "baselines.csv").set_index("part").loc["all"]
    assert abs(found.blind - found.chance) < 0.12


def test_the_page_and_every_table_are_written(study_data):
    page = (study_data / "audit.html").read_text()
    for name in ("baselines", "blind", "tells", "leaks", "nearest", "subjects", "composition", "repairs"):
        assert (study_data / "audit" / f"{name}.csv").exists() and f"{name}.csv" in page
    blind = pd.read_csv(study_data / "audit" / "blind.csv")
    assert set(blind["questions"]) == {"published", "hardened"}
    assert pd.read_csv(study_data / "audit" / "leaks.csv")["images"].eq(0).all()


def test_composition_counts_every_question_once(study_data):
    splits = pd.read_csv(study_data / "splits.csv")
    table = pd.read_csv(study_data / "audit" / "composition.csv")
    assert table.groupby("split").questions.sum().to_dict() == Counter(splits.split)


@pytest.fixture
def leaky(study_data, tmp_path):
    """A study's data of which one question of a training image was moved to test; the table of splits does not tell."""
    shutil.copytree(study_data, tmp_path / "data", ignore=shutil.ignore_patterns("audit"))
    splits = pd.read_csv(study_data / "splits.csv")
    leaked = splits.image_key[splits.split == "train"].iloc[0]
    row = splits.index[splits.image_key == leaked][0]
    splits.loc[row, ["split", "image_key", "group"]] = ["test", "another", "another"]
    splits.to_csv(tmp_path / "data" / "splits.csv", index=False)
    return tmp_path / "data"


def test_the_audit_fails_where_a_stored_image_is_in_two_splits(leaky):
    said = audited(leaky, fails=True)
    assert "two splits" in said and "Traceback" not in said and not (leaky / "audit").exists()


def test_a_method_with_nothing_to_learn_from_is_refused_before_anything_is_trained(leaky):
    parts = {"sft-ct": {"modality": "CT"}, "sft-staging": {"modality": "CT", "question_type": "Staging"}}
    said = audited(leaky, fails=True, scheme="med-r1", train_on=parts)
    assert "methods.sft-staging.train_on" in said and "Traceback" not in said


def test_the_leaks_of_published_splits_are_counted_and_passed(leaky):
    audited(leaky, scheme="med-r1")
    found = pd.read_csv(leaky / "audit" / "leaks.csv").set_index(["splits", "shared"])
    assert found.loc[("train|test", "image")].tolist() == [1, 1]
    assert found.loc[("train|test", "path")].tolist() == [1, 1] and found.loc[("train|val", "image"), "images"] == 0


def test_a_leak_from_train_to_val_fails_under_published_splits_too(leaky):
    splits = pd.read_csv(leaky / "splits.csv")
    splits.loc[splits["group"] == "another", "split"] = "val"
    splits.to_csv(leaky / "splits.csv", index=False)
    assert "train|val" in audited(leaky, fails=True, scheme="med-r1")


def test_drops_are_counted_by_reason_without_their_values():
    reasons = ["no gt_answer", "the answer 'x' is none of the options", 'the answer "y\'s" is none of the options']
    table = audit.repairs(pd.DataFrame({"action": "dropped", "reason": reasons}))
    assert table["n"].tolist() == [2, 1] and table["reason"][0] == "the answer ... is none of the options"


def test_both_wordings_are_of_the_same_questions(study_data):
    blind = pd.read_csv(study_data / "audit" / "blind.csv").set_index("questions")
    counted = blind[blind["part"] == "all"]["n"]
    assert counted["published"] == counted["hardened"] > 0


def test_the_closest_pairs_are_found(study_data):
    rng = np.random.default_rng(0)
    hashes = [rng.bytes(32) for _ in range(60)]
    near = bytearray(hashes[7])
    near[0] ^= 0b101
    hashes[50] = bytes(near)
    table = pd.DataFrame(
        {
            "split": ["train"] * 40 + ["test"] * 20, "modality": "CT", "image_path": [f"{i}.png" for i in range(60)],
            "dhash": [value.hex() for value in hashes],
        }
    )  # fmt: skip
    found = audit.nearest(table)
    assert found.iloc[0].tolist() == ["CT", 2, "50.png", "7.png"] and found["bits"].iloc[1] > 60 and len(found) == 20


def test_the_closest_pairs_do_not_hang_on_an_images_first_question():
    table = pd.DataFrame(
        {
            "split": ["unused", "test", "train", "train"], "modality": "CT", "image_path": ["a", "b", "a", "c"],
            "dhash": ["00" * 32, "00" * 32, "00" * 32, "ff" * 32],
        }
    )  # fmt: skip
    assert audit.nearest(table).iloc[0].tolist() == ["CT", 0, "b", "a"]


def test_counts_are_held_against_the_published_ones():
    found = pd.DataFrame({"dataset": ["a", "b"], "modality": ["CT", "MR"], "questions": [5, 4], "images": [3, 4]})
    published = {"questions": 9, "images": 8, "datasets": 3, "modalities": {"CT": 5, "OCT": 2}}
    table = audit.counts_against(found, published).set_index("what")["difference"].to_dict()
    assert table == {
        "questions": 0, "images": -1, "datasets": -1, "questions: CT": 0, "questions: MR": 4, "questions: OCT": -2,
    }  # fmt: skip


@pytest.mark.skipif(not QA.is_dir(), reason="no real questions here: set OMNIMEDVQA_QA to their folder")
def test_hardening_takes_the_option_prior_of_the_real_questions_down_to_chance():
    rows = real_questions()

    def prior(questions: pd.DataFrame) -> float:
        return audit.baselines(*halves(questions)).set_index("part").loc["four options", "prior"]

    hardened = harden(rows, seed=0)
    assert len(hardened) > 15_000
    assert prior(rows) > 0.85 and prior(hardened) < 0.3
    told = audit.dots(rows)
    assert told["n"] > 1000 and told["right"] > 0.97 and audit.dots(hardened)["n"] == 0


def test_records_whose_texts_look_like_missing_values_numbers_or_markup_are_audited(tmp_path):
    markup = MARKUP.replace("\x1b", "")  # which is no character of a text
    ids = [*(name.replace("\x1b", "") for name in IDS if name), *(f"q{i}" for i in range(33))]
    named = {"question_type": "None", "dataset": "null", "question": markup, "option_A": "NA", "option_B": markup}
    images = {f"Images/{i}.png": picture(i) for i in range(len(ids))}
    records = [
        record(**named, question_id=name, image_path=path, gt_answer="NA" if i % 2 else markup)
        for i, (name, path) in enumerate(zip(ids, images, strict=True))
    ]
    records.append(record(**named, question_id="None", image_path="Images/none.png", gt_answer="<b>"))
    prepared(write_source(tmp_path / "source", records, images), tmp_path / "data")
    command("split.py", "--questions", tmp_path / "data" / "questions", "--out", tmp_path / "data" / "splits.csv",
            settings=SPLIT)  # fmt: skip
    published = {"questions": len(records), "images": len(ids) + 1, "datasets": 1, "modalities": {}}
    audited(tmp_path / "data", published_counts=published)
    splits = read_csv(tmp_path / "data" / "splits.csv", SPLIT_COLUMNS)
    assert set(splits.question_id) == set(ids)
    found = read_csv(tmp_path / "data" / "audit" / "baselines.csv", {"kind", "part"})
    assert found.part[found.kind == "question_type"].tolist() == ["None"]
    page = (tmp_path / "data" / "audit.html").read_text()
    assert page.count("<script") == 1 and "<img" not in page and "<td>None</td>" in page


def test_an_empty_split_of_images_that_stay_together_says_so(tmp_path):
    images = {f"Images/{i}.png": picture(i % 2) for i in range(40)}
    records = [record(question_id=f"q{i}", question=f"{i}?", image_path=path) for i, path in enumerate(images)]
    prepared(write_source(tmp_path / "source", records, images), tmp_path / "data")
    command("split.py", "--questions", tmp_path / "data" / "questions", "--out", tmp_path / "data" / "splits.csv",
            settings=SPLIT)  # fmt: skip
    said = audited(tmp_path / "data", fails=True)
    assert (
        "no question in split 'val'; the 40 images are 2 groups, the largest of 20, whose images are near-dup" in said
    )
    assert "data.split.near_duplicate_bits" in said and "Traceback" not in said
