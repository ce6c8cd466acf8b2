"""Published records become questions with their repairs, or drops with a reason; Med-R1's files parse whole."""

import json

import pytest

from safemed.data.records import MODALITIES, BadRecord, parse_med_r1, parse_record, read_records
from safemed.data.splits import read_published
from support.records import QA, record

real = pytest.mark.skipif(not QA.is_dir(), reason="no real questions here: set OMNIMEDVQA_QA to their folder")


@pytest.mark.parametrize(
    "changes, gold, options, repair",
    [
        ({}, "B", 4, None),
        ({"gt_answer": "cyst."}, "B", 4, "written otherwise"),
        ({"gt_answer": " CYST "}, "B", 4, "written otherwise"),
        ({"option_B": "x_ray.", "gt_answer": "X ray"}, "B", 4, "written otherwise"),
        ({"option_D": None, "gt_answer": "Fissure"}, "C", 3, None),
        ({"option_D": "", "gt_answer": "Fissure"}, "C", 3, None),
        ({"option_C": None, "option_D": None, "gt_answer": "Nodule"}, "A", 2, None),
        ({"option_B": None, "gt_answer": "Fissure"}, "B", 3, "moved up"),
        ({"modality_type": None, "modality": "CT(Computed Tomography)"}, "B", 4, "key modality"),
        ({"option_D": "nodule."}, "B", 3, "one kept"),
        ({"option_A": "CYST."}, "A", 3, "one kept"),
    ],
)
def test_published_irregularities_are_repaired_and_told(changes, gold, options, repair):
    row, repairs = parse_record(record(**changes))
    assert (row["gold"], len(row["options"]), row["modality"]) == (gold, options, "CT")
    assert len(repairs) == (repair is not None) and all(repair in told for told in repairs)


def test_of_options_that_mean_the_same_the_answers_own_writing_is_kept():
    row, _ = parse_record(record(option_A="CYST.", option_B="Cyst"))
    assert row["options"] == ["Cyst", "Fissure", "No finding"]


def test_a_question_that_tells_its_answer_no_longer_does():
    row, repairs = parse_record(record(question="Is it normal? (Answer: Cyst)"))
    assert row["question"] == "Is it normal?" and repairs == ["the question told its answer"]


@pytest.mark.parametrize("key, other", [("box", "organ"), ("organ", "box")])
def test_a_box_that_is_none_is_left_out_and_the_other_one_kept(key, other):
    for wrong in ([5, 5, 5, 9], [0, 9, 5, 5], [1, 2, 3], "1234", [1, 2, 3, "4"], [-1, 0, 5, 5]):
        row, repairs = parse_record(record(**{key: wrong, other: [1, 2, 3.5, 4]}))
        assert (row[key], row[other]) == ([], [1, 2, 3.5, 4])
        assert [told.partition(": ")[0] for told in repairs] == [f"{key} left out"]
    row, repairs = parse_record(record(**{other: [1, 2, 3, 4]}))
    assert (row[key], row[other]) == ([], [1, 2, 3, 4]) and not repairs


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"gt_answer": "Tumour"}, "none of the options"),
        ({"option_A": None, "option_C": None, "option_D": None}, "1 options"),
        ({"option_A": "cyst", "option_C": "Cyst.", "option_D": None}, "1 options"),
        ({"modality_type": "PET"}, "PET"),
        ({"modality_type": None}, "modality"),
        ({"gt_answer": None}, "gt_answer"),
        ({"question": "  "}, "question"),
        ({"image_path": "../secret.png"}, "below Images"),
        ({"image_path": "/etc/secret.png"}, "below Images"),
        ({"question": "(Answer: Cyst)"}, "no question but its answer"),
        ({"modality_type": ["CT"]}, "unknown modality"),
        ({"image_path": ["Images/a.png"]}, "not one below Images/"),
        ({"image_path": "QA_information/a.png"}, "not one below Images/"),
    ],
)
def test_a_record_that_is_no_question_is_refused_with_the_reason(changes, reason):
    with pytest.raises(BadRecord, match=reason):
        parse_record(record(**changes))


@pytest.mark.parametrize("text, reason", [("{", "not JSON"), ('{"a": 1}', "list"), ("[1]", "some.json:0")])
def test_a_file_that_is_no_list_of_records_is_named(tmp_path, text, reason):
    file = tmp_path / "QA_information" / "Open-access" / "some.json"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    with pytest.raises(ValueError, match=reason) as error:
        list(read_records(tmp_path))
    assert str(file) in str(error.value)


def test_a_folder_in_another_layout_is_refused_with_the_way_out(tmp_path):
    with pytest.raises(FileNotFoundError, match="data.source"):
        list(read_records(tmp_path))


def asked(problem: str, solution: str = "<answer> B </answer>", image: str = "Images/Mura/a.png") -> dict:
    """A record of Med-R1."""
    return {"image": image, "problem": problem, "solution": solution}


def test_options_with_commas_and_letters_in_brackets_are_whole():
    row = parse_med_r1(asked("Which one? Say it. A)Mass, T2 N0, stage B, B)Echogram (ECG), C)CT (A)"))
    assert row["question"] == "Which one? Say it."
    assert row["options"] == ["Mass, T2 N0, stage B", "Echogram (ECG)", "CT (A)"]
    assert (row["gold"], row["dataset"]) == ("B", "Mura")


@pytest.mark.parametrize(
    "changed, reason",
    [
        (asked("What? Mass, cyst"), "no options"),
        (asked("What? A)mass"), "lettered A"),
        (asked("What? A)mass, C)cyst"), "lettered AC"),
        (asked("What? A)mass, B)cyst", "<answer> D </answer>"), "answer D is none"),
        (asked("What? A)mass, B)cyst", "B"), "no answer"),
        (asked("What? A)mass, B)cyst", image="../a.png"), "below Images"),
        (asked(""), "no problem"),
    ],
)
def test_med_r1s_records_are_refused_with_the_reason(changed, reason):
    with pytest.raises(BadRecord, match=reason):
        parse_med_r1(changed)


@real
def test_every_real_test_question_parses():
    rows = read_published(QA / "test")
    assert len(rows) == 17_662
    assert {row["modality_file"] for row in rows} == set(MODALITIES)
    assert all(len(set(row["options"])) >= 2 and row["gold"] in "ABCD" for row in rows)
    assert len({(row["image_path"], row["question"]) for row in rows}) == len(rows)


@real
def test_every_known_edge_case_parses_as_expected():
    cases = json.loads((QA / "edge_cases.json").read_text())
    assert len(cases) >= 20
    for name, records in cases.items():
        for case in records:
            row, expected = parse_med_r1(case), case["expected"]
            assert row["question"] == expected["question"], name
            assert dict(zip("ABCD", row["options"], strict=False)) == expected["options"], name
            assert row["gold"] == expected["answer"], name
            assert row["options"]["ABCD".index(row["gold"])] == expected["gt"], name
