"""Records become questions or drops with a reason, no image is in two splits, the audit sees what text tells."""

import json
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset
from PIL import Image

from helpers import ROOT, SPLIT, command
from safemed import audit, data
from safemed.data import BadRecord, assign_splits, image_keys, parse_record, prepare, subset, write_arrow

MINI = Path(os.environ.get("OMNIMEDVQA_MINI", ROOT / "../shared/data/omnimedvqa-mini"))


def record(**changes) -> dict:
    """A record as OmniMedVQA publishes it; a key changed to None is absent."""
    made = {
        "dataset": "Chest CT Scan", "question_id": "c1", "question_type": "Disease Diagnosis", "question": "What?",
        "gt_answer": "Cyst", "image_path": "Images/a.png", "option_A": "Nodule", "option_B": "Cyst",
        "option_C": "Fissure", "option_D": "No finding", "modality_type": "CT(Computed Tomography)",
    } | changes  # fmt: skip
    return {key: value for key, value in made.items() if value is not None}


def write_source(folder: Path, records: list[dict], images: dict[str, np.ndarray]) -> Path:
    """A folder in OmniMedVQA's layout."""
    for name, pixels in images.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name)
    file = folder / "QA_information" / "Open-access" / "some.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(records))
    return folder


def picture(seed: int, side: int = 16) -> np.ndarray:
    """Random pixels."""
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "changes, gold, options",
    [
        ({}, "B", 4),
        ({"gt_answer": "cyst."}, "B", 4),
        ({"gt_answer": " CYST "}, "B", 4),
        ({"option_B": "cyst.", "gt_answer": "Cyst"}, "B", 4),
        ({"option_D": None, "gt_answer": "Fissure"}, "C", 3),
        ({"option_C": None, "option_D": None, "gt_answer": "Nodule"}, "A", 2),
        ({"modality_type": None, "modality": "CT(Computed Tomography)"}, "B", 4),
    ],
)
def test_published_irregularities_are_repaired(changes, gold, options):
    row = parse_record(record(**changes))
    assert (row["gold"], len(row["options"]), row["modality"]) == (gold, options, "CT")


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"gt_answer": "Tumour"}, "matches 0 options"),
        ({"option_A": "CYST."}, "matches 2 options"),
        ({"option_A": None, "option_C": None, "option_D": None}, "1 options"),
        ({"modality_type": "PET"}, "PET"),
        ({"modality_type": None}, "modality"),
        ({"gt_answer": None}, "gt_answer"),
        ({"question": None}, "question"),
    ],
)
def test_a_record_that_is_no_question_is_refused_with_the_reason(changes, reason):
    with pytest.raises(BadRecord, match=reason):
        parse_record(record(**changes))


def test_prepare_lists_every_record_as_a_question_or_as_a_drop_with_its_reason(tmp_path):
    records = [
        record(),
        record(question_id="c1", question="Again?"),
        record(question_id="c2", gt_answer="Tumour"),
        record(question_id="c3", image_path="Images/gone.png"),
        record(question_id="c4", image_path="Images/broken.png"),
        record(question_id="c5", image_path="Images/a & b (1)%#..png"),
    ]
    source = write_source(tmp_path, records, {"Images/a.png": picture(0), "Images/a & b (1)%#..png": picture(1)})
    (source / "Images" / "broken.png").write_bytes(b"no image")
    drops = []
    rows = list(prepare(source, 8, drops))
    assert [row["question_id"] for row in rows] == ["c1", "c5"]
    assert all(row["image"].size == (8, 8) and row["image"].mode == "RGB" for row in rows)
    reasons = {(drop["record"], drop["question_id"]): drop["reason"] for drop in drops}
    assert list(reasons) == [(f"some.json:{i}", f"c{n}") for i, n in ((1, 1), (2, 2), (3, 3), (4, 4))]
    for reason, words in zip(reasons.values(), ("already seen", "matches 0", "gone.png", "broken.png"), strict=True):
        assert words in reason


def test_the_drops_file_and_the_failure_without_any_question(tmp_path):
    source = write_source(tmp_path / "source", [record(gt_answer="Tumour")], {"Images/a.png": picture(0)})
    out = ["--questions", tmp_path / "questions", "--drops", tmp_path / "drops.csv"]
    said = command("prepare.py", "--source", source, *out, settings={"image_size": 8}, fails=True)
    assert "no usable record" in said and "matches 0 options" in said
    assert not (tmp_path / "questions").exists()


def test_stored_images_are_the_resized_ones(source, study_data):
    questions = Dataset.load_from_disk(str(study_data / "questions"))
    for question in questions.select(range(0, len(questions), 50)):
        with Image.open(source / question["image_path"]) as image:
            expected = np.asarray(image.convert("RGB"))  # the phantoms have the study's side already
        assert (np.asarray(question["image"]) == expected).all()


@pytest.fixture
def copies(tmp_path) -> pd.DataFrame:
    """60 pictures, each under two file names and in two formats."""
    names = [(f"Images/{n}/{i}.{suffix}", i) for n, suffix in enumerate(("png", "bmp")) for i in range(60)]
    records = [record(question_id=f"q{n}", image_path=path) for n, (path, _) in enumerate(names)]
    source = write_source(tmp_path / "source", records, {path: picture(i) for path, i in names})
    write_arrow(prepare(source, 16, []), tmp_path / "questions")
    table = image_keys(Dataset.load_from_disk(str(tmp_path / "questions")))
    return table.assign(picture=[i for _, i in names])


def test_the_same_pixels_under_two_names_are_one_image(copies):
    assert copies.groupby("picture").image_key.nunique().eq(1).all()
    assert copies.image_key.nunique() == 60
    copies["split"] = assign_splits(copies, SPLIT, seed=0)
    assert copies.groupby("picture").split.nunique().eq(1).all()
    assert set(copies.split) == set(SPLIT)
    assert audit.leaks(copies).empty


def many_images(seed: int = 0) -> pd.DataFrame:
    """2,000 images of four modalities, one to three questions each."""
    rng = np.random.default_rng(seed)
    modality = rng.choice(["CT", "MR", "OCT", "X-ray"], 2000, p=[0.5, 0.3, 0.15, 0.05])
    rows = [
        {"image_key": f"{i}", "modality": m, "question_type": kind}
        for i, m in enumerate(modality)
        for kind in rng.choice(["a", "b", "c"], rng.integers(1, 4), replace=False)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize("seed", range(3))
def test_every_modality_has_its_shares_of_images_and_no_image_has_two_splits(seed):
    questions = many_images(seed)
    questions["split"] = assign_splits(questions, SPLIT, seed)
    assert questions.groupby("image_key").split.nunique().eq(1).all()
    images = questions.drop_duplicates("image_key")
    for _, part in [("all", images), *images.groupby("modality")]:
        for name, share in SPLIT.items():
            strata = 7  # the sets of question types; each may be off by a little more than one image
            assert abs((part.split == name).sum() - share * len(part)) <= min(2 * strata, 0.1 * len(part))


def test_each_stratums_shares_are_right_to_within_some_two_images():
    worst = 0.0
    for seed in range(5):
        questions = many_images(seed)
        questions["split"] = assign_splits(questions, SPLIT, seed)
        images = questions.groupby("image_key").agg(
            modality=("modality", "first"), split=("split", "first"), types=("question_type", lambda t: str(sorted(t)))
        )
        for _, part in images.groupby(["modality", "types"]):
            worst = max(worst, *(abs((part.split == name).sum() - s * len(part)) for name, s in SPLIT.items()))
    assert worst <= 2.5


def test_splits_depend_on_the_seed_and_on_nothing_else():
    questions = many_images()
    first = assign_splits(questions, SPLIT, 0)
    assert first.equals(assign_splits(questions.copy(), SPLIT, 0))
    assert (first != assign_splits(questions, SPLIT, 1)).mean() > 0.2


def test_subset_is_the_same_whatever_the_order_and_changes_with_the_seed(train_questions):
    n = 40
    chosen = subset(train_questions, n, 0)["question_id"]
    assert len(set(chosen)) == n
    assert list(chosen) == list(subset(train_questions, n, 0)["question_id"])
    assert set(chosen) == set(subset(train_questions.shuffle(seed=3), n, 0)["question_id"])
    assert set(chosen) != set(subset(train_questions, n, 1)["question_id"])
    assert set(subset(train_questions, n // 2, 0)["question_id"]) < set(chosen)
    fewer = train_questions.filter(lambda question: question["question_id"] != chosen[0])
    assert set(chosen[1:]) < set(subset(fewer, n, 0)["question_id"])
    assert len(set(subset(train_questions, n, 0)["modality"])) >= 6
    assert len(subset(train_questions, 10**6, 0)) == len(train_questions)


def test_load_questions_gives_the_split_of_splits_csv(study_data):
    splits = pd.read_csv(study_data / "splits.csv")
    for name in SPLIT:
        expected = splits.question_id[splits.split == name].tolist()
        assert list(data.load_questions(study_data, name)["question_id"]) == expected and expected
    with pytest.raises(ValueError, match="split"):
        data.load_questions(study_data, "dev")


def questions_of(*rows: tuple[str, list[str], str]) -> pd.DataFrame:
    """Questions as baselines wants them."""
    return pd.DataFrame(rows, columns=["modality", "options", "gold"])


def test_chance_and_blind_as_counted_by_hand():
    train = questions_of(("CT", ["x", "y"], "A"), ("CT", ["z", "X."], "B"), ("CT", ["y", "w"], "A"))  # x 2, y 1
    test = questions_of(
        ("CT", ["y", "x"], "B"),  # the prior says x: right
        ("CT", ["y", "z"], "B"),  # it says y: wrong
        ("MR", ["z", "w"], "A"),  # it cannot tell: 1/2
        ("MR", ["x.", "y", "z"], "B"),  # it says x: wrong
    )
    table = audit.baselines(train, test).set_index("modality")
    assert table.loc["all"].tolist() == pytest.approx([4, (1 / 2 + 1 / 2 + 1 / 2 + 1 / 3) / 4, 1.5 / 4])
    assert table.loc["CT"].tolist() == pytest.approx([2, 1 / 2, 1 / 2])
    assert table.loc["MR"].tolist() == pytest.approx([2, 5 / 12, 1 / 4])


def test_phantoms_cannot_be_answered_blind_and_a_planted_leak_can(study_data):
    found = pd.read_csv(study_data / "audit" / "baselines.csv").set_index("modality").loc["all"]
    assert abs(found.blind - found.chance) < 0.1
    rng = np.random.default_rng(0)
    leaky = [("CT", ["yes", *rng.choice(["a", "b", "c", "d"], 3, replace=False)], "A") for _ in range(200)]
    table = audit.baselines(questions_of(*leaky[:100]), questions_of(*leaky[100:])).set_index("modality")
    assert table.chance["all"] == 0.25 and table.blind["all"] == 1.0


def test_composition_counts_every_question_once(study_data):
    splits = pd.read_csv(study_data / "splits.csv")
    table = pd.read_csv(study_data / "audit" / "composition.csv")
    assert table.groupby("split").questions.sum().to_dict() == Counter(splits.split)


def test_the_audit_fails_where_an_image_is_in_two_splits(study_data, tmp_path):
    shutil.copytree(study_data / "questions", tmp_path / "questions")
    splits = pd.read_csv(study_data / "splits.csv")
    leaked = splits.image_key[splits.split == "train"].iloc[0]
    splits.loc[splits.index[splits.image_key == leaked][0], "split"] = "test"
    splits.to_csv(tmp_path / "splits.csv", index=False)
    said = command("audit.py", "--data", tmp_path, "--out", tmp_path / "audit", fails=True)
    assert "two splits" in said and leaked in said
    assert not (tmp_path / "audit").exists()


@pytest.mark.skipif(not MINI.is_dir(), reason="no real images here: set OMNIMEDVQA_MINI to their folder")
def test_every_real_question_is_kept_or_dropped_with_a_reason(tmp_path):
    out = ["--questions", tmp_path / "questions", "--drops", tmp_path / "drops.csv"]
    command("prepare.py", "--source", MINI, *out, settings={"image_size": 32})
    questions, drops = Dataset.load_from_disk(str(tmp_path / "questions")), pd.read_csv(tmp_path / "drops.csv")
    assert len(questions) + len(drops) == 2664
    assert drops.reason.notna().all() and len(drops) < 20
    assert set(questions["modality"]) == set(data.MODALITIES.values())
    rows = questions.remove_columns("image").to_pandas()
    assert rows.question_id.is_unique
    texts = {r["question_id"]: r["gt_answer"] for _, r in data.read_records(MINI)}
    for row in rows.to_dict("records"):
        gold = row["options"]["ABCD".index(row["gold"])]
        assert data.normalise(gold) == data.normalise(texts[row["question_id"]])
