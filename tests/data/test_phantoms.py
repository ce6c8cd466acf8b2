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

from safemed.data.phantoms.anatomy import MODALITIES
from safemed.data.phantoms.canvas import Canvas, Room
from safemed.data.phantoms.faults import FAULTS, FAULTY, SOUND, impair
from safemed.data.phantoms.lesions import CENTRE, CORNERS, FINDINGS, HALO, RADII, SIDES, render
from safemed.data.phantoms.study import MIN_IMAGES, PRESENCE, WORDINGS, cases, write_study

ROOT = Path(__file__).resolve().parents[2]
LESIONS = FINDINGS[1:]
ANATOMIES = [(modality, anatomy) for modality in MODALITIES for anatomy in MODALITIES[modality].anatomies]
CHANCE = {"Modality Recognition": 1 / 4, "Anatomy Identification": 1 / 2, "Disease Diagnosis": 1 / 4}
CHANCE["Lesion Grading"] = 1 / 3
BASIC, LADDER = list(CHANCE), list(WORDINGS)[len(CHANCE) :]
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


@pytest.fixture(scope="module")
def ladder(tmp_path_factory) -> Path:
    """The same study with the questions of the ladder."""
    folder = tmp_path_factory.mktemp("ladder")
    write_study(folder, IMAGES, seed=7, questions="ladder")
    return folder


@pytest.fixture(scope="module")
def steps(ladder) -> list[dict]:
    """Its records."""
    return records_of(ladder)


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


def holds(box: list[int] | tuple[int, ...], point) -> bool:
    """Whether a point x, y in pixels lies in a box."""
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]


@pytest.mark.parametrize("modality, anatomy", ANATOMIES)
def test_the_organ_is_the_box_of_its_room_and_holds_the_lesions_centre(modality, anatomy):
    scene = MODALITIES[modality].anatomies[anatomy]
    for seed in range(60):
        side, size = (32, 64, 100)[seed % 3], list(RADII)[seed // 3 % 3]
        _, truth = render(modality, anatomy, LESIONS[seed % 4], size, np.random.default_rng(seed), side)
        _, normal = render(modality, anatomy, "normal", None, np.random.default_rng(seed), side)
        room = scene.paint(Canvas(side, scene.ground, np.random.default_rng(seed)))
        edges = (room.x - room.rx, room.y - room.ry, room.x + room.rx, room.y + room.ry)
        outward = np.subtract(truth.organ, np.multiply(edges, side)) * (-1, -1, 1, 1)
        assert (outward > -1e-9).all() and (outward < 1 + 1e-9).all()  # an edge on a pixel's may be rounded past it
        assert min(truth.organ) >= 0 and max(truth.organ) <= side and normal.organ == truth.organ
        assert holds(truth.organ, np.multiply(truth.centre, side))


def test_a_room_that_leaves_the_image_has_the_box_of_what_is_in_it():
    assert Room(0.5, 0.25, 0.28, 0.3).box(10) == (2, 0, 8, 6)
    assert Room(0.9, 0.75, 0.28, 0.3).box(10) == (6, 4, 10, 10)


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
        assert record["finding"] == "normal" or holds(record["organ"], np.add(record["box"][:2], record["box"][2:]) / 2)
        assert record["modality_type"] in MODALITIES
        assert (study / record["image_path"]).is_file()
    per_image = Counter(record["image_path"] for record in records)
    assert len(per_image) == IMAGES
    assert len({(r["image_path"], *r["organ"]) for r in records}) == IMAGES  # known of all, and one an image
    assert all(per_image[r["image_path"]] == (3 if r["finding"] == "normal" else 4) for r in records)


def test_grey_modalities_are_stored_grey(study, records):
    colour = {"Dermoscopy", "Fundus Photography", "Microscopy Images"}
    for record in records[::50]:
        with Image.open(study / record["image_path"]) as image:
            assert image.mode == ("RGB" if record["modality_type"] in colour else "L")


def test_wordings_are_short_and_name_no_answer():
    # That a lesion is asked about tells nothing: both answers about its presence name it.
    answers = {
        *FINDINGS,
        *RADII,
        SOUND,
        *FAULTS,
        CENTRE,
        *SIDES,
        *(m.answer for m in MODALITIES.values()),
        *(a for _, a in ANATOMIES),
    } - {"large"}
    for question in (question for wordings in WORDINGS.values() for question in wordings):
        assert len(question.split()) <= 7
        assert not any(re.search(rf"\b{answer}\b", question, re.IGNORECASE) for answer in answers)


@pytest.mark.parametrize("kind", BASIC)
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
def test_letters_wordings_and_distractors_tell_nothing(steps, kind):
    rows = [record for record in steps if record["question_type"] == kind]
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


def by_image(records: list[dict]) -> dict[str, dict[str, dict]]:
    """image_path -> question type -> its record."""
    found = defaultdict(dict)
    for record in records:
        found[record["image_path"]][record["question_type"]] = record
    return found


def test_the_ladder_asks_every_step_and_every_gold_agrees_with_the_truth(steps):
    images = by_image(steps)
    assert len(images) == IMAGES and sum(map(len, images.values())) == len(steps)
    assert len({record["question_id"] for record in steps}) == len(steps)
    for asked in images.values():
        told = next(iter(asked.values()))
        golds = {kind: record["gt_answer"] for kind, record in asked.items()}
        expected = {
            "Image Quality": told["quality"],
            "Modality Recognition": MODALITIES[told["modality_type"]].answer,
            "Anatomy Identification": told["anatomy"],
            "Lesion Presence": "no lesion" if told["finding"] == "normal" else "lesion",
            "Disease Diagnosis": told["finding"],
        }
        if told["finding"] != "normal":
            expected |= {"Lesion Localization": told["place"], "Lesion Grading": told["size"]}
        assert golds == expected
        for record in asked.values():
            options = options_of(record)
            assert options.count(record["gt_answer"]) == 1 and len(set(options)) == len(options)
            assert record["question"] in WORDINGS[record["question_type"]]


def test_the_ladder_adds_to_the_basic_study_and_alters_only_images_with_a_fault(study, records, ladder, steps):
    def texts(rows):
        kept = [row for row in rows if row["question_type"] in BASIC]
        return [{key: row[key] for key in row if key not in ("question_id", "quality")} for row in kept]

    assert texts(steps) == texts(records)
    quality = {record["image_path"]: record["quality"] for record in steps}
    for path, fault in quality.items():
        assert ((study / path).read_bytes() == (ladder / path).read_bytes()) == (fault == SOUND)


def test_a_quarter_of_the_images_have_a_fault_whatever_they_show(steps):
    told = [asked["Image Quality"] for asked in by_image(steps).values()]
    assert {record["quality"] for record in told} == {SOUND, *FAULTS}
    assert chi_square(Counter(record["quality"] for record in told if record["quality"] != SOUND)) < 14
    for key in ("finding", "modality_type", "size"):
        for value in {record[key] for record in told}:
            faulty = [record["quality"] != SOUND for record in told if record[key] == value]
            assert abs(np.mean(faulty) - FAULTY) < 3.5 * math.sqrt(FAULTY * (1 - FAULTY) / len(faulty))


def test_text_alone_tells_of_the_steps_no_more_than_how_common_an_answer_is(steps):
    rows = {kind: [record for record in steps if record["question_type"] == kind] for kind in LADDER}
    assert all(set(options_of(record)) == {SOUND, *FAULTS} for record in rows["Image Quality"])
    assert all(set(options_of(record)) == set(PRESENCE) for record in rows["Lesion Presence"])
    golds = {kind: Counter(record["gt_answer"] for record in told) for kind, told in rows.items()}
    assert golds["Image Quality"][SOUND] / IMAGES == pytest.approx(1 - FAULTY, abs=0.04)
    assert golds["Lesion Presence"]["lesion"] == 1200
    # Places: of those offered together each is right about as often, whichever they are.
    offered = defaultdict(Counter)
    for record in rows["Lesion Localization"]:
        others = set(options_of(record)) - {CENTRE}
        assert len(others) == 3 and (others < set(CORNERS) or others < set(SIDES))
        offered[others < set(CORNERS)][record["gt_answer"]] += 1
    seen = Counter(option for record in rows["Lesion Localization"] for option in options_of(record))
    rates = {place: golds["Lesion Localization"][place] / seen[place] for place in (CENTRE, *SIDES, *CORNERS)}
    assert all(0.17 < rate < 0.33 for rate in rates.values())
    assert all(counts[CENTRE] / counts.total() < 0.33 for counts in offered.values())


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("modality, anatomy", ANATOMIES)
def test_a_fault_shows_and_the_lesion_is_still_seen(modality, anatomy, fault):
    for finding in LESIONS:
        image, truth = render(modality, anatomy, finding, "small", np.random.default_rng(0))
        faulty = impair(image, fault, np.random.default_rng(1))
        assert faulty.shape == image.shape and faulty.dtype == np.uint8
        assert stands_out(faulty, truth.mask) > stands_out(image, truth.mask) / 3 > 40
        rougher = roughness(faulty) / roughness(image)
        assert rougher < 0.75 if fault == "blur" else rougher > 1.5
        assert (faulty == faulty[..., :1]).all() == (image == image[..., :1]).all()
    assert (impair(image, SOUND, np.random.default_rng(1)) == image).all()
    with pytest.raises(KeyError):
        impair(image, "fog", np.random.default_rng(1))


def stands_out(image: np.ndarray, mask: np.ndarray) -> float:
    """By how many levels a lesion differs from its halo on average, in the channel where that shows most."""
    halo = binary_dilation(mask, iterations=3) & ~binary_dilation(mask)
    return np.abs(image[mask].mean(0) - image[halo].mean(0)).max()


def roughness(image: np.ndarray) -> float:
    """Mean absolute difference of pixels above each other."""
    return np.abs(np.diff(image.astype(int), axis=0)).mean()


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


def test_script_writes_a_ladder_and_other_questions_are_refused(tmp_path):
    arguments = ("--images", str(MIN_IMAGES), "--seed", "3", "--questions")
    assert run_script("--out", str(tmp_path / "study"), *arguments, "ladder").returncode == 0
    write_study(tmp_path / "again", MIN_IMAGES, seed=3, questions="ladder")
    assert contents(tmp_path / "study") == contents(tmp_path / "again")
    assert "invalid choice" in run_script("--out", str(tmp_path / "other"), *arguments, "steps").stderr
    with pytest.raises(ValueError, match="one of basic, ladder"):
        write_study(tmp_path / "other", MIN_IMAGES, seed=3, questions="steps")


def test_script_and_library_refuse_too_few_images(tmp_path):
    refused = run_script("--out", str(tmp_path / "study"), "--images", "79")
    assert refused.returncode == 2 and "at least 80" in refused.stderr
    with pytest.raises(ValueError, match="at least 80"):
        write_study(tmp_path / "study", 79, seed=0)
    assert not list(tmp_path.iterdir())
