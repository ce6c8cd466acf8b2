"""No picture, near-duplicate or patient is in two splits, shares are right, published splits are taken as they are."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from safemed.data import dataset, splits
from safemed.data.audit import leaks
from safemed.data.dataset import SPLITS, UNUSED, read_questions
from safemed.data.splits import assign_splits, subject
from support.commands import command
from support.records import MINI, picture, prepared, record, write_source
from support.settings import SPLIT

SHARES = {name: SPLIT[name] for name in SPLITS}


def split_of(source, folder, **settings) -> pd.DataFrame:
    """The keys of the questions of a source, prepared at 32 pixels, with their split by the commands."""
    prepared(source, folder, side=32)
    command("split.py", "--questions", folder / "questions", "--out", folder / "splits.csv", settings=SPLIT | settings)
    made = pd.read_csv(folder / "splits.csv")
    return splits.keys(read_questions(folder / "questions")).merge(made.drop(columns="image_key"), on="question_id")


def scene(seed: int) -> Image.Image:
    """A random picture with large forms."""
    return Image.fromarray(picture(seed, 8)).resize((64, 64), Image.Resampling.BICUBIC)


def records_of(paths: list[str], **changes) -> list[dict]:
    """A record an image."""
    return [record(question_id=f"q{i}", image_path=path, **changes) for i, path in enumerate(paths)]


def test_copies_in_other_names_formats_and_sizes_stay_together(tmp_path):
    images = {f"Images/a/{i}.png": scene(i) for i in range(40)}
    images |= {f"Images/b/{i}.bmp": scene(i) for i in range(40)}
    images |= {f"Images/c/{i}.jpg": scene(i).resize((90, 90)) for i in range(40)}
    table = split_of(write_source(tmp_path / "source", records_of(list(images)), images), tmp_path)
    table["scene"] = table["image_path"].str.extract(r"(\d+)\.")
    assert table.groupby("scene")["group"].nunique().eq(1).all() and table["group"].nunique() == 40
    assert table.groupby("scene")["image_key"].nunique().eq(2).all()  # the JPEG's pixels differ
    assert table.groupby("scene")["split"].nunique().eq(1).all() and set(table["split"]) == set(SPLITS)
    alone = split_of(tmp_path / "source", tmp_path / "exact", near_duplicate_bits=0)
    assert alone["group"].nunique() > 60  # the JPEGs are told apart where only equal hashes are grouped


@pytest.mark.parametrize(
    "first, second, other",
    [
        ("CoronaHack/person1_virus_6.jpeg", "OCT & X-Ray 2017/person1_bacteria_2.jpeg", "X/person11_virus_6.jpeg"),
        ("OCT & X-Ray 2017/CNV-2959614-2.jpeg", "X/DME-2959614-7.jpeg", "X/CNV-295961-2.jpeg"),
        ("OCT & X-Ray 2017/NORMAL2-IM-0086-0001.jpeg", "X/IM-0086-0002.jpeg", "X/IM-0087-0001.jpeg"),
        ("Mura/patient11601/study1_negative/2.png", "Mura/patient11601/study2/1.png", "Mura/patient1160/study1/i.png"),
        ("Diabetic Retinopathy/0/30568_left.jpeg", "X/2/30568_right.jpeg", "X/0/3056_left.jpeg"),
        ("Knee Osteoarthritis/0/9993442L.png", "Knee/val/1/9993442R.png", "Knee/val/1/9993443R.png"),
        ("ISIC2018/val/ISIC_0034344.jpg", "ISBI2016/x/ISIC_0034344.jpg", "ISIC2018/val/ISIC_0034345.jpg"),
        ("X/SOB_B_TA-14-16184CD-100-011.png", "Y/SOB_B_TA-14-16184CD-400-002.png", "Y/SOB_B_TA-14-16184-400-002.png"),
        ("P/C123P84ThinF_IMG_2_cell_198.png", "U/C123P84ThinF_IMG_3_cell_1.png", "P/C123P8ThinF_IMG_2_cell_198.png"),
        (
            "Blood Cell/val/EOSINOPHIL/_0_1616.jpeg",
            "Blood Cell/train/EOSINOPHIL/_0_2.jpeg",
            "Blood Cell/val/MONOCYTE/_0_1.jpeg",
        ),
        ("PAD/p3/PAT_2157_4789_969.png", "PAD/p1/PAT_2157_1_2.png", "PAD/p1/PAT_215_1_2.png"),
        (
            "DeepDRiD/regular-fundus-test/48/48_r2.jpg",
            "DeepDRiD/regular-fundus-test/48/48_l1.jpg",
            "DeepDRiD/regular-fundus-test/4/4_l1.jpg",
        ),
        (
            "OLIVES/Prime_FULL_Prime_FULL_01-020_W28_OD.tif",
            "OLIVES/a_Prime_FULL_01-020_W0_OS.tif",
            "OLIVES/a_Prime_FULL_01-021_W0_OS.tif",
        ),
        (
            "Covid CT/A/2020.02.10.20021584-p6-52%11.png",
            "Covid CT/A/2020.02.10.20021584-p7-5.png",
            "Covid CT/A/2020.02.10.2002158-p7-5.png",
        ),
    ],
)
def test_file_names_tell_whom_an_image_shows(first, second, other):
    told = [subject(f"Images/{path}") for path in (first, second, other)]
    assert all(told) and told[0] == told[1] != told[2]


def test_an_unknown_name_tells_nothing():
    assert subject("Images/Chest/normal/12.png") is None


def test_images_of_one_patient_stay_together(tmp_path):
    paths = [f"Images/Mura/XR_HAND/patient{i % 30:05d}/study{i // 30}/image.png" for i in range(90)]
    images = {path: scene(i) for i, path in enumerate(paths)}
    table = split_of(write_source(tmp_path / "source", records_of(paths), images), tmp_path)
    patients = table["image_path"].str.extract(r"(patient\d+)")[0]
    assert table.groupby(patients)["split"].nunique().eq(1).all()
    assert table["group"].nunique() == 30 and set(table["split"]) == set(SPLITS)


def many_images(seed: int = 0) -> pd.DataFrame:
    """2,000 images of four modalities, one to three questions each, every image its own group."""
    rng = np.random.default_rng(seed)
    modality = rng.choice(["CT", "MR", "OCT", "X-ray"], 2000, p=[0.5, 0.3, 0.15, 0.05])
    rows = [
        {"group": f"{i}", "image_key": f"{i}", "modality": m, "question_type": kind}
        for i, m in enumerate(modality)
        for kind in rng.choice(["a", "b", "c"], rng.integers(1, 4), replace=False)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize("seed", range(3))
def test_every_modality_has_its_shares_of_images_and_no_image_has_two_splits(seed):
    questions = many_images(seed)
    questions["split"] = assign_splits(questions, SHARES, seed)
    assert questions.groupby("image_key").split.nunique().eq(1).all()
    images = questions.drop_duplicates("image_key")
    for _, part in [("all", images), *images.groupby("modality")]:
        for name, share in SHARES.items():
            strata = 7  # the sets of question types; each may be off by a little more than one image
            assert abs((part.split == name).sum() - share * len(part)) <= min(2 * strata, 0.1 * len(part))


def test_each_stratums_shares_are_right_to_within_some_two_images():
    worst = 0.0
    for seed in range(5):
        questions = many_images(seed)
        questions["split"] = assign_splits(questions, SHARES, seed)
        images = questions.groupby("image_key").agg(
            modality=("modality", "first"), split=("split", "first"), types=("question_type", lambda t: str(sorted(t)))
        )
        for _, part in images.groupby(["modality", "types"]):
            worst = max(worst, *(abs((part.split == name).sum() - s * len(part)) for name, s in SHARES.items()))
    assert worst <= 2.5


@pytest.mark.parametrize("seed", range(3))
def test_shares_hold_with_groups_of_many_sizes_and_a_giant_goes_to_train(seed):
    questions = many_images(seed)
    rng = np.random.default_rng(seed)
    sizes = rng.geometric(0.3, 2000)
    questions["group"] = np.repeat(np.arange(2000), sizes)[questions["image_key"].astype(int)].astype(str)
    questions["group"] = questions["modality"] + questions["group"]
    giant = (questions["modality"] == "CT") & (questions["image_key"].astype(int) % 3 == 0)
    questions.loc[giant, "group"] = "giant"
    questions["split"] = assign_splits(questions, SHARES, seed)
    assert questions.groupby("group").split.nunique().eq(1).all()
    assert questions.loc[giant, "split"].eq("train").all()
    images = questions.loc[questions["modality"] == "MR"].drop_duplicates("image_key")
    for name, share in SHARES.items():
        assert (images.split == name).mean() == pytest.approx(share, abs=0.05)


def test_splits_depend_on_the_seed_and_on_nothing_else():
    questions = many_images()
    first = assign_splits(questions, SHARES, 0)
    assert first.equals(assign_splits(questions.copy(), SHARES, 0))
    shuffled = questions.sample(frac=1, random_state=1)
    assert first.equals(assign_splits(shuffled, SHARES, 0).sort_index())
    assert (first != assign_splits(questions, SHARES, 1)).mean() > 0.2


@pytest.fixture
def published(tmp_path):
    """60 images with two questions each, and Med-R1's files, with one question of 20 of the images in either."""
    images = {f"Images/Some set/{i}.png": scene(i) for i in range(60)}
    kinds = ("Is it small?", "Is it large? (Answer: Cyst)")
    records = [
        record(question_id=f"{i}-{k}", image_path=path, question=kind)
        for i, path in enumerate(images)
        for k, kind in enumerate(kinds)
    ]
    files = {"train": [], "test": []}
    for i, path in enumerate(images):
        for k, kind in enumerate(kinds):
            if i < 50:
                name = "train" if k or i >= 20 else "test"
                problem = f"{kind} A)Nodule, B)Cyst, C)Fissure, D)No finding"
                files[name].append({"image": path, "problem": problem, "solution": "<answer> B </answer>"})
    for name, rows in files.items():
        (tmp_path / "med-r1" / name).mkdir(parents=True)
        (tmp_path / "med-r1" / name / f"CT_{name}.json").write_text(json.dumps(rows))
    return write_source(tmp_path / "source", records, images), tmp_path / "med-r1"


def test_published_splits_are_taken_as_they_are_and_their_leaks_counted(published, tmp_path):
    source, folder = published
    table = split_of(source, tmp_path / "data", scheme="med-r1", published=str(folder))
    number, second = table["image_path"].str.extract(r"(\d+)\.")[0].astype(int), table["question_id"].str.endswith("1")
    assert table.loc[(number < 20) & ~second, "split"].eq("test").all()
    assert table.loc[(number < 50) & (second | (number >= 20)), "split"].isin(["train", "val"]).all()
    assert table.loc[number >= 50, "split"].eq(UNUSED).all()
    assert table[table["split"].isin(["train", "val"])].groupby("image_path")["split"].nunique().eq(1).all()
    found = leaks(table).set_index(["splits", "shared"])
    assert found.loc[("train|test", "path"), "images"] + found.loc[("val|test", "path"), "images"] == 20
    assert found.loc[("train|val", "path"), "images"] == 0


def test_files_of_other_questions_are_refused(published, tmp_path):
    source, folder = published
    rows = [{"image": "Images/x/a.png", "problem": "What? A)a, B)b", "solution": "<answer> A </answer>"}]
    for name in ("train", "test"):
        (folder / name / f"CT_{name}.json").write_text(json.dumps(rows))
    prepared(source, tmp_path / "data", side=32)
    settings = SPLIT | {"scheme": "med-r1", "published": str(folder)}
    arguments = ["--questions", tmp_path / "data" / "questions", "--out", tmp_path / "data" / "splits.csv"]
    said = command("split.py", *arguments, settings=settings, fails=True)
    assert "none of its questions" in said and "Traceback" not in said
    (folder / "train" / "CT_train.json").write_text("[]")
    said = command("split.py", *arguments, settings=settings, fails=True)
    assert "none of its questions" in said and "Traceback" not in said
    (folder / "test" / "CT_test.json").write_text('[{"image": "Images/x/a.png", "problem": "What?", "solution": "A"}]')
    said = command("split.py", *arguments, settings=settings, fails=True)
    assert "CT_test.json:0" in said and "no options" in said and "Traceback" not in said


def test_medvlm_r1s_sizes_are_drawn_out_of_disjoint_splits(study_data):
    table = splits.keys(read_questions(study_data / "questions"))
    settings = SPLIT | {"scheme": "medvlm-r1", "train_questions": 20, "test_questions": 4}
    made = splits.split(table, settings, seed=0)
    table = table.assign(split=made["split"], group=made["group"])
    assert table[table["split"] == "train"]["modality"].value_counts().to_dict() == {"MR": 20}
    assert table[table["split"] == "test"]["modality"].value_counts().to_dict() == {"MR": 4, "CT": 4, "X-ray": 4}
    assert set(table[table["split"] == "val"]["modality"]) == {"MR"}
    assert leaks(table)["images"].eq(0).all()
    with pytest.raises(ValueError, match="wants 999 questions of MR in train"):
        splits.split(table, settings | {"train_questions": 999}, seed=0)


def test_the_default_study_reads_what_split_wrote(study_data):
    made = pd.read_csv(study_data / "splits.csv")
    assert set(made["split"]) == set(dataset.SPLITS)
    assert made["group"].nunique() == made["image_key"].nunique()  # phantoms are drawn one by one


def test_splits_do_not_hang_on_what_one_machine_rounds_otherwise(study_data):
    table = splits.keys(read_questions(study_data / "questions"))
    other = table.assign(image_key=[f"{key[::-1]}" for key in table["image_key"]])
    assert splits.split(table, SPLIT, 0)["split"].equals(splits.split(other, SPLIT, 0)["split"])


@pytest.mark.skipif(not MINI.is_dir(), reason="no real images here: set OMNIMEDVQA_MINI to their folder")
def test_groups_of_real_images_are_those_of_their_sources(tmp_path):
    table = split_of(MINI, tmp_path)
    known = pd.read_csv(MINI / "provenance.csv").set_index("image_path")["split_group"]
    table = table.assign(known=table["image_path"].map(known)).drop_duplicates("image_path")
    assert table.groupby("group")["known"].nunique().eq(1).all()  # no strangers
    parted = table.groupby("known")["split"].nunique().gt(1)
    assert parted.sum() <= 20 and parted.size > 1000
