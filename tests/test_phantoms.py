"""Phantoms: true masks, disjoint sizes, balanced and reproducible studies whose text alone tells nothing."""

import json
import math
import re
import subprocess
import sys
from collections import Counter, defaultdict
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion

from safemed.phantoms import FINDINGS, HALO, MIN_IMAGES, MODALITIES, RADII, WORDINGS, cases, render, write_study

ROOT = Path(__file__).resolve().parents[1]
LESIONS = FINDINGS[1:]
ANATOMIES = [(modality, anatomy) for modality in MODALITIES for anatomy in MODALITIES[modality].anatomies]
CHANCE = {"Modality Recognition": 1 / 4, "Anatomy Identification": 1 / 2, "Disease Diagnosis": 1 / 4}
CHANCE["Lesion Grading"] = 1 / 3
IMAGES = 1500


def records_of(study: Path) -> list[dict]:
    """All records of a study, dataset by dataset."""
    files = sorted((study / "QA_information" / "Open-access").glob("*.json"))
    return [record for file in files for record in json.loads(file.read_text())]


def options_of(record: dict) -> list[str]:
    """The options of a record in their order."""
    return [record[f"option_{letter}"] for letter in "ABCD" if f"option_{letter}" in record]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by its relative path."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """A study of IMAGES phantoms."""
    folder = tmp_path_factory.mktemp("study")
    write_study(folder, IMAGES, seed=7)
    return folder


@pytest.fixture(scope="module")
def records(study) -> list[dict]:
    """Its records."""
    return records_of(study)


def test_same_seed_same_bytes_and_another_seed_differs(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_study(tmp_path / name, MIN_IMAGES, seed)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a") != contents(tmp_path / "c")


def test_a_longer_study_starts_with_the_shorter_one(tmp_path):
    write_study(tmp_path / "short", MIN_IMAGES, seed=3)
    write_study(tmp_path / "long", MIN_IMAGES + 20, seed=3)
    short, long = contents(tmp_path / "short"), contents(tmp_path / "long")
    assert all(long[path] == data for path, data in short.items() if path.endswith(".png"))
    long_records = {record["question_id"]: record for record in records_of(tmp_path / "long")}
    assert all(long_records[record["question_id"]] == record for record in records_of(tmp_path / "short"))


@pytest.mark.parametrize("finding", LESIONS)
@pytest.mark.parametrize("modality, anatomy", ANATOMIES)
def test_the_lesion_is_where_the_mask_says_and_stands_out(modality, anatomy, finding):
    for seed, size in enumerate(RADII):
        without, nothing = render(modality, anatomy, "normal", None, np.random.default_rng(seed))
        image, truth = render(modality, anatomy, finding, size, np.random.default_rng(seed))
        change = np.abs(image.astype(int) - without.astype(int)).max(-1)  # [side, side]
        assert not nothing.mask.any() and nothing.box is None and nothing.place is None
        y, x = np.indices(truth.mask.shape)
        away = np.hypot((x + 0.5) / 64 - truth.centre[0], (y + 0.5) / 64 - truth.centre[1])
        radius = away[truth.mask].max()
        assert not change[away > radius + HALO + 0.04].any()
        assert change[truth.mask].mean() > 60
        core, edge = binary_erosion(truth.mask), binary_dilation(truth.mask, iterations=2)
        halo = image[(away < radius + HALO - 0.01) & ~edge].mean(0)
        assert np.abs(image[core].mean(0) - halo).max() > 100
        x0, y0, x1, y1 = truth.box
        assert truth.mask[y0:y1, x0:x1].sum() == truth.mask.sum()
        assert truth.mask[[y0, y1 - 1]].any(1).all() and truth.mask[:, [x0, x1 - 1]].any(0).all()


@pytest.mark.parametrize("finding", LESIONS)
def test_sizes_are_disjoint_in_extent(finding):
    extents = defaultdict(list)
    for size in RADII:
        for seed in range(60):
            modality, anatomy = ANATOMIES[seed % len(ANATOMIES)]
            mask = render(modality, anatomy, finding, size, np.random.default_rng(seed))[1].mask
            points = np.argwhere(mask)
            extents[size].append(np.linalg.norm(points[:, None] - points[None], axis=-1).max())
    assert max(extents["small"]) + 2 < min(extents["moderate"])
    assert max(extents["moderate"]) + 2 < min(extents["large"])


@pytest.mark.parametrize("side", [32, 64, 128])
def test_render_at_any_side(side):
    for modality, anatomy in ANATOMIES:
        image, truth = render(modality, anatomy, "cyst", "small", np.random.default_rng(0), side)
        assert image.shape == (side, side, 3) and image.dtype == np.uint8 and truth.mask.shape == (side, side)


def test_place_names_where_the_centre_lies():
    for seed in range(50):
        _, truth = render("Dermoscopy", "trunk", "nodule", "small", np.random.default_rng(seed))
        x, y = truth.centre
        assert ("left" in truth.place) == (x < 3 / 7) and ("right" in truth.place) == (x > 4 / 7)
        assert ("upper" in truth.place) == (y < 3 / 7) and ("lower" in truth.place) == (y > 4 / 7)
        rows, columns = np.nonzero(truth.mask)
        assert abs((columns.mean() + 0.5) / 64 - x) < 0.01 and abs((rows.mean() + 0.5) / 64 - y) < 0.01


@pytest.mark.parametrize("arguments", [("sonar", "chest", "cyst", "small"), ("X-Ray", "head", "cyst", "small")])
def test_render_refuses_unknown_names(arguments):
    with pytest.raises(KeyError):
        render(*arguments, np.random.default_rng(0))


def test_records_are_whole(study, records):
    identifiers = [record["question_id"] for record in records]
    assert len(set(identifiers)) == len(identifiers)
    for record in records:
        options = options_of(record)
        assert 2 <= len(options) <= 4 and len(set(options)) == len(options)
        assert options.count(record["gt_answer"]) == 1
        assert record["question"] in WORDINGS[record["question_type"]]
        assert (record["size"] is None) == (record["finding"] == "normal") == (record["box"] is None)
        assert record["modality_type"] in MODALITIES
        assert (study / record["image_path"]).is_file()
    per_image = Counter(record["image_path"] for record in records)
    assert len(per_image) == IMAGES
    assert all(per_image[r["image_path"]] == (3 if r["finding"] == "normal" else 4) for r in records)


def test_grey_modalities_are_stored_grey(study, records):
    colour = {"Dermoscopy", "Fundus Photography", "Microscopy Images"}
    for record in records[::50]:
        with Image.open(study / record["image_path"]) as image:
            assert image.mode == ("RGB" if record["modality_type"] in colour else "L")


def test_wordings_are_short_and_name_no_answer():
    answers = {*FINDINGS, *RADII, *(m.answer for m in MODALITIES.values()), *(a for _, a in ANATOMIES)} - {"large"}
    for question in (question for wordings in WORDINGS.values() for question in wordings):
        assert len(question.split()) <= 7
        assert not any(re.search(rf"\b{answer}\b", question, re.IGNORECASE) for answer in answers)


@pytest.mark.parametrize("kind", WORDINGS)
def test_text_alone_answers_at_chance(records, kind):
    """A random half of the images teaches which option is most often right, the modality known unless asked for."""
    right, seen, hits, asked = Counter(), Counter(), 0, 0
    rows = [record for record in records if record["question_type"] == kind]
    taught = np.random.default_rng(0).permutation(IMAGES) < IMAGES // 2  # [images]

    def group(record):
        return "" if kind == "Modality Recognition" else record["modality_type"]

    def is_taught(record):
        return taught[int(Path(record["image_path"]).stem)]

    for record in filter(is_taught, rows):
        for option in options_of(record):
            seen[group(record), option] += 1
        right[group(record), record["gt_answer"]] += 1
    for record in rows:
        if not is_taught(record):
            rate = {o: right[group(record), o] / max(seen[group(record), o], 1) for o in options_of(record)}
            hits += max(rate, key=rate.get) == record["gt_answer"]
            asked += 1
    chance = CHANCE[kind]
    assert asked > 500
    assert abs(hits / asked - chance) < 3.5 * math.sqrt(chance * (1 - chance) / asked)


@pytest.mark.parametrize("kind", WORDINGS)
def test_letters_wordings_and_distractors_tell_nothing(records, kind):
    rows = [record for record in records if record["question_type"] == kind]
    letters = Counter(options_of(record).index(record["gt_answer"]) for record in rows)
    assert chi_square(letters) < 25
    by_answer = defaultdict(Counter)
    for record in rows:
        by_answer[record["gt_answer"]][record["question"]] += 1
    assert all(set(counts) == set(WORDINGS[kind]) and chi_square(counts) < 25 for counts in by_answer.values())
    if kind in ("Modality Recognition", "Disease Diagnosis"):
        assert chi_square(Counter(o for r in rows for o in options_of(r) if o != r["gt_answer"])) < 30


def chi_square(counts: Counter) -> float:
    """Pearson's statistic of the counts against equal shares."""
    mean = sum(counts.values()) / len(counts)
    return sum((count - mean) ** 2 for count in counts.values()) / mean


@pytest.mark.parametrize("images", [80, 100, 161, 400])
def test_cases_are_balanced_early(images):
    drawn = list(islice(cases(np.random.default_rng(1)), images))
    findings = Counter(case.finding for case in drawn)
    sizes = Counter(case.size for case in drawn if case.size)
    anatomies = Counter((case.modality.answer, case.anatomy) for case in drawn)
    assert len(findings) == 5 and max(findings.values()) - min(findings.values()) <= 5
    assert len(sizes) == 3 and max(sizes.values()) - min(sizes.values()) <= 12
    assert len(anatomies) == 16 and max(anatomies.values()) - min(anatomies.values()) <= 1


def test_cases_are_a_full_factorial():
    lots = Counter(
        (c.modality.answer, c.anatomy, c.finding, c.size) for c in islice(cases(np.random.default_rng(1)), 480)
    )
    assert len(lots) == 16 * (1 + 4 * 3)
    assert all(count == (6 if finding == "normal" else 2) for (_, _, finding, _), count in lots.items())


def test_every_finding_is_equally_often_the_diagnosis(records):
    golds = Counter(r["gt_answer"] for r in records if r["question_type"] == "Disease Diagnosis")
    assert set(golds) == set(FINDINGS) and max(golds.values()) - min(golds.values()) <= 5


def run_script(*arguments: str) -> subprocess.CompletedProcess:
    """Run make_phantoms.py."""
    command = [sys.executable, str(ROOT / "scripts" / "make_phantoms.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_script_leaves_a_whole_study_and_no_partial_one(tmp_path):
    arguments = ("--out", str(tmp_path / "study"), "--images", str(MIN_IMAGES), "--seed", "3", "--side", "32")
    assert run_script(*arguments).returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["study"]
    write_study(tmp_path / "again", MIN_IMAGES, seed=3, side=32)
    assert contents(tmp_path / "study") == contents(tmp_path / "again")
    again = run_script(*arguments)
    assert again.returncode == 2 and "exists already" in again.stderr


def test_script_and_library_refuse_too_few_images(tmp_path):
    refused = run_script("--out", str(tmp_path / "study"), "--images", "79")
    assert refused.returncode == 2 and "at least 80" in refused.stderr
    with pytest.raises(ValueError, match="at least 80"):
        write_study(tmp_path / "study", 79, seed=0)
    assert not list(tmp_path.iterdir())
