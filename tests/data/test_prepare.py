"""Every record becomes a question or a drop with its reason, whatever happens on the way."""

import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from benchmarks import fuzz_prepare
from PIL import Image

from safemed.data import dataset
from safemed.data.prompts import gold_text
from safemed.data.records import BOXES, MODALITIES, normalise, read_records
from support.commands import command_line
from support.records import MINI, picture, prepare_arguments, prepared, record, write_source

SETTINGS = {"image_size": 8, "questions": "published"}


def read(folder) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The questions without pixels, and drops.csv."""
    questions = dataset.read_questions(folder / "questions").remove_columns("image").to_pandas()
    return questions, pd.read_csv(folder / "drops.csv")


def test_every_record_is_a_question_or_a_drop_with_its_reason(tmp_path):
    records = [
        record(),
        record(question_id="c1", question="Again?"),
        record(question_id="c2", gt_answer="Tumour"),
        record(question_id="c3", image_path="Images/gone.png"),
        record(question_id="c4", image_path="Images/broken.png"),
        record(question_id="c5", image_path="Images/a & b (1)%#..png"),
        record(question_id="c6", image_path="Images/empty.png"),
        record(question_id="c7", option_D="cyst."),
    ]
    source = write_source(tmp_path, records, {"Images/a.png": picture(0), "Images/a & b (1)%#..png": picture(1)})
    (source / "Images" / "broken.png").write_bytes(b"no image")
    (source / "Images" / "empty.png").touch()
    prepared(source, tmp_path / "data")
    questions, drops = read(tmp_path / "data")
    assert questions["question_id"].tolist() == ["c1", "c5", "c7"]
    told = drops.set_index("record")[["question_id", "action", "reason"]].agg(list, axis=1).to_dict()
    words = {1: "already seen", 2: "none of the options", 3: "no such file", 4: "cannot identify", 6: "cannot identify"}
    for index, reason in words.items():
        question_id, action, said = told.pop(f"some.json:{index}")
        assert (question_id, action) == (records[index]["question_id"], "dropped") and reason in said
    assert list(told) == ["some.json:7"] and told["some.json:7"][1] == "repaired"
    counts = pd.read_csv(tmp_path / "data" / "counts.csv")
    assert counts["questions"].sum() == len(records) and counts["images"].sum() == 5


def test_damaged_images_and_records_end_nothing_and_change_nothing_without_a_word(tmp_path):
    kinds = len(fuzz_prepare.KINDS)
    faults, outcomes = fuzz_prepare.fuzzed(tmp_path, 3 * kinds, 500, seed=1)
    assert not faults
    assert (outcomes.sum(axis=1) == 3).all() and (outcomes.sum() > 10).all()


def test_a_disk_that_fails_stops_the_run_and_drops_no_image(tmp_path):
    records = [record(), record(question_id="c2", image_path="Images/b.png")]
    source = write_source(tmp_path / "source", records, {"Images/a.png": picture(0)})
    (source / "Images" / "b.png").symlink_to("/proc/self/mem")  # a file whose first byte cannot be read
    said = prepared(source, tmp_path / "data", fails=True)
    assert "Images/b.png: Input/output error" in said and "run again" in said and "Traceback" not in said
    assert not (tmp_path / "data" / "questions").exists()
    (source / "Images" / "b.png").unlink()
    Image.fromarray(picture(1)).save(source / "Images" / "b.png")
    prepared(source, tmp_path / "data")
    questions, drops = read(tmp_path / "data")
    assert len(questions) == 2 and drops.empty


def test_files_that_are_not_read_are_named(tmp_path):
    images = {"Images/a.png": picture(0), "Images/unasked.png": picture(1)}
    source = write_source(tmp_path / "source", [record()], images)
    (source / "QA_information" / "Open-access" / "more.jsonl").write_text("{}")
    said = prepared(source, tmp_path / "data")
    assert "not read: QA_information/Open-access/more.jsonl" in said
    assert "1 files below Images/ are shown by no question, such as Images/unasked.png" in said


def test_links_that_lead_back_are_walked_once(tmp_path):
    asked = [record(), record(question_id="c2", image_path="Images//b.png")]
    source = write_source(tmp_path / "source", asked, {"Images/a.png": picture(0), "Images/b.png": picture(1)})
    for name in ("Images", "again"):
        (source / "Images" / name).symlink_to(source / "Images")
    assert "shown by no question" not in prepared(source, tmp_path / "data")


def test_records_that_the_disk_does_not_give_are_one_clear_line(tmp_path):
    source = write_source(tmp_path / "source", [record()], {"Images/a.png": picture(0)})
    (source / "QA_information" / "Open-access" / "more.json").symlink_to("/proc/self/mem")
    said = prepared(source, tmp_path / "data", fails=True)
    assert "Input/output error. The file may be whole: run again" in said and "Traceback" not in said


def test_no_usable_record_is_an_error_that_says_why(tmp_path):
    source = write_source(tmp_path / "source", [record(gt_answer="Tumour")], {"Images/a.png": picture(0)})
    said = prepared(source, tmp_path / "data", fails=True)
    assert "no usable record" in said and "none of the options" in said and "Traceback" not in said
    assert not (tmp_path / "data").exists()


def test_no_usable_image_is_an_error_too(tmp_path):
    source = write_source(tmp_path / "source", [record()], {})
    said = prepared(source, tmp_path / "data", fails=True)
    assert "no usable image" in said and "no such file" in said and "Traceback" not in said
    assert not (tmp_path / "data" / "questions").exists()


def test_stored_images_are_the_resized_ones(source, study_data):
    questions = dataset.read_questions(study_data / "questions")
    for question in questions.select(range(0, len(questions), 50)):
        with Image.open(source / question["image_path"]) as image:
            expected = np.asarray(image.convert("RGB"))  # the phantoms have the study's side already
        assert (np.asarray(question["image"]) == expected).all()


def test_images_are_resized_by_lanczos_once(tmp_path):
    source = write_source(tmp_path / "source", [record()], {"Images/a.png": picture(0, 40)})
    prepared(source, tmp_path / "data", side=16)
    stored = dataset.read_questions(tmp_path / "data" / "questions")[0]["image"]
    expected = Image.fromarray(picture(0, 40)).resize((16, 16), Image.Resampling.LANCZOS)
    assert (np.asarray(stored) == np.asarray(expected)).all()


def boxes(tmp_path, key: str, *published, side: int = 8, width: int = 30, height: int = 20) -> tuple[list, list[str]]:
    """The prepared boxes of records that publish these under a key of BOXES, and what drops.csv says of them."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    records = [record(question_id=f"c{i}", **{key: box}) for i, box in enumerate(published)]
    prepared(write_source(tmp_path / "source", records, {"Images/a.png": pixels}), tmp_path / "data", side=side)
    questions, drops = read(tmp_path / "data")
    assert all(len(box) == 0 for other in BOXES if other != key for box in questions[other])
    return [box.tolist() for box in questions[key]], drops["reason"].tolist()


@pytest.mark.parametrize("key", BOXES)
def test_boxes_are_scaled_with_the_image_and_rounded_outward(tmp_path, key):
    found, said = boxes(tmp_path, key, [3, 5, 15, 20], [0, 0, 30, 20], [4.5, 1, 4.75, 2], [15, 10, 30, 20])
    # 8 / 30 a column, 8 / 20 a row: 0.8, 2, 4, 8; the whole; 1.2, 0.4, 1.27, 0.8; exact halves.
    assert found == [[0, 2, 4, 8], [0, 0, 8, 8], [1, 0, 2, 1], [4, 4, 8, 8]] and not said


@pytest.mark.parametrize("key", BOXES)
def test_a_box_that_is_not_told_is_empty_and_one_that_is_none_is_left_out(tmp_path, key):
    out, none = f"{key} left out: it reaches out of the image", f"{key} left out: not x0, y0, x1, y1"
    wrong = [
        [0, 0, 31, 20],
        [0, 0, 30, 21],
        [5, 5, 5, 9],
        [9, 5, 5, 9],
        [-1, 0, 5, 5],
        [1, 2, 3],
        "1234",
        [1, 2, 3, "4"],
    ]
    found, said = boxes(tmp_path, key, None, *wrong, [1, 2, 3, float("inf")])
    assert found == [[]] * 10 and len(said) == 9
    assert sum(out in reason for reason in said) == 2 and sum(none in reason for reason in said) == 7


def test_the_phantoms_boxes_are_kept(source, study_data):
    questions = dataset.read_questions(study_data / "questions").remove_columns("image")
    published = {told["question_id"]: told for _, told in read_records(source)}
    for key in BOXES:  # of the study's side already
        assert all(q[key] == (published[q["question_id"]][key] or []) for q in questions)
    assert any(questions["box"]) and not all(questions["box"]) and all(questions["organ"])


def test_hardened_questions_are_those_prepared_and_the_published_texts_stay(tmp_path):
    answers = ["Cyst", "Nodule", "Mass", "Scar", "Fissure"]
    records = [
        record(
            question_id=f"c{i}",
            gt_answer=f"{answer}.",
            option_B=f"{answer}.",
            option_A="a",
            option_C="b",
            image_path=f"Images/{i}.png",
        )
        for i, answer in enumerate(answers * 4)
    ]
    records.append(record(question_id="alone", question_type="Lesion Grading"))
    images = {f"Images/{name}.png": picture(0) for name in ["a", *range(20)]}
    source = write_source(tmp_path / "source", records, images)
    prepared(source, tmp_path / "data", questions="hardened")
    questions, drops = read(tmp_path / "data")
    assert set(questions["options"].explode()) == set(answers)
    for row, published in zip(questions.to_dict("records"), records, strict=False):
        assert normalise(gold_text(row)) == normalise(published["gt_answer"])
    assert drops["question_id"].tolist() == ["alone"] and "pool" in drops["reason"][0]
    texts = pd.read_parquet(tmp_path / "data" / "texts.parquet")
    assert texts["question_id"].tolist() == questions["question_id"].tolist()
    assert texts["options"].map(list).tolist()[0] == ["a", "Cyst.", "b", "No finding"]


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A source of 2,000 large images, that takes some seconds to prepare, and its undisturbed result."""
    folder = tmp_path_factory.mktemp("many")
    large = {f"Images/{i}.png": picture(i, 300) for i in range(40)}
    records = [record(question_id=f"c{i}", image_path=f"Images/{i % 40}.png") for i in range(2000)]
    records[700]["image_path"] = "Images/gone.png"
    source = write_source(folder / "source", records, large)
    prepared(source, folder / "data")
    return source, folder / "data"


def same(first, second) -> None:
    """Assert that two data folders hold the same, byte by byte where that is meant."""
    for name in ("drops.csv", "counts.csv"):
        assert (first / name).read_text() == (second / name).read_text()
    one, other = (dataset.read_questions(folder / "questions") for folder in (first, second))
    assert one.remove_columns("image").to_pandas().equals(other.remove_columns("image").to_pandas())
    assert sorted(p.name for p in (first / "questions").iterdir()) == sorted(
        p.name for p in (second / "questions").iterdir()
    )


def kill_after(process: subprocess.Popen, partial: Path, parts: int) -> None:
    """Kill a run of prepare.py when it has finished so many parts, or after a minute."""
    deadline = time.monotonic() + 60
    while len(list(partial.glob("part-*.json"))) < parts and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()


def test_a_killed_run_goes_on_where_it_was_and_ends_with_the_same(many, tmp_path):
    source, expected = many
    line = command_line("prepare.py", *prepare_arguments(source, tmp_path, workers=1), settings=SETTINGS)
    process = subprocess.Popen(line, stderr=subprocess.DEVNULL)
    partial = tmp_path / ".questions.partial"
    kill_after(process, partial, parts=2)
    finished = {path: path.stat().st_mtime_ns for path in partial.glob("part-*.json")}
    assert 2 <= len(finished) < 8 and not (tmp_path / "questions").exists()
    arrows = {path.stem: (partial / f"{path.stem}.arrow").stat().st_mtime_ns for path in finished}
    prepared(source, tmp_path)
    same(expected, tmp_path)
    for name, written in arrows.items():
        assert (tmp_path / "questions" / f"{name}.arrow").stat().st_mtime_ns == written


def test_what_was_made_of_another_image_is_not_gone_on_with(many, tmp_path):
    shutil.copytree(many[0], tmp_path / "source")
    line = command_line("prepare.py", *prepare_arguments(tmp_path / "source", tmp_path, workers=1), settings=SETTINGS)
    process = subprocess.Popen(line, stderr=subprocess.DEVNULL)
    kill_after(process, tmp_path / ".questions.partial", parts=1)
    Image.fromarray(picture(99, 300)).save(tmp_path / "source" / "Images" / "0.png")
    prepared(tmp_path / "source", tmp_path)
    keys = dataset.read_questions(tmp_path / "questions")["image_key"]
    before = dataset.read_questions(many[1] / "questions")["image_key"]
    assert keys[0] != before[0] and keys[0] == keys[40] and keys[1] == before[1]


def test_the_same_rows_whatever_the_number_of_threads(many, tmp_path):
    line = command_line("prepare.py", *prepare_arguments(many[0], tmp_path, workers=5), settings=SETTINGS)
    subprocess.run(line, check=True, stderr=subprocess.DEVNULL)
    same(many[1], tmp_path)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of half a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small file system needs the right to mount one")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_a_clear_error_and_the_next_run_finishes(many, small_disk):
    said = prepared(many[0], small_disk, fails=True)
    assert "disk is full" in said and "run again" in said and "Traceback" not in said
    assert not (small_disk / "questions").exists()
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    prepared(many[0], small_disk)
    same(many[1], small_disk)


@pytest.mark.skipif(not MINI.is_dir(), reason="no real images here: set OMNIMEDVQA_MINI to their folder")
def test_every_real_question_is_kept_or_dropped_with_a_reason(tmp_path):
    prepared(MINI, tmp_path, side=32)
    questions, drops = read(tmp_path)
    assert len(questions) + (drops["action"] == "dropped").sum() == 2664
    assert drops["reason"].notna().all() and len(drops) < 20
    assert set(questions["modality"]) == set(MODALITIES.values()) and questions["question_id"].is_unique
    texts = {r["question_id"]: r["gt_answer"] for _, r in read_records(MINI)}
    for row in questions.to_dict("records"):
        assert normalise(gold_text(row)) == normalise(texts[row["question_id"]])
