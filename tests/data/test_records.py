"""Published records become questions with their repairs, or drops with a reason; Med-R1's files parse whole."""

import json
from pathlib import Path

import pytest

from safemed.data.records import MODALITIES, BadRecord, parse_med_r1, parse_record, read_records, unread_files
from safemed.data.splits import read_published
from safemed.models import tiny
from support import qwen
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
        ({"option_D": float("nan"), "gt_answer": "Fissure"}, "C", 3, None),
        ({"option_A": float("nan")}, "A", 3, "moved up"),
        ({"modality_type": float("nan"), "modality": "CT(Computed Tomography)"}, "B", 4, "key modality"),
        ({"modality_type": "CT"}, "B", 4, None),
        ({"modality_type": " ct "}, "B", 4, None),
        ({"option_A": "NA", "option_C": "None", "option_D": "nan"}, "B", 4, None),
        ({"option_I": float("nan"), "option_count": "4"}, "B", 4, None),
        ({"box": float("nan")}, "B", 4, None),
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


def test_a_name_that_data_modalities_gives_is_read_and_no_other():
    named = {"PET scan": "PET", "CT angiography": "CT"}
    found = [parse_record(record(modality_type=name), named)[0]["modality"] for name in ("pet  SCAN", "PET", "X-Ray")]
    assert found == ["PET", "PET", "X-ray"]
    assert parse_record(record(modality_type="CT angiography"), named)[0]["modality"] == "CT"
    assert parse_record(record(modality_type="film"), {"film": "X-Ray"})[0]["modality"] == "X-ray"
    with pytest.raises(BadRecord, match=r"unknown modality 'SPECT'; data\.modalities"):
        parse_record(record(modality_type="SPECT"), named)


@pytest.mark.parametrize("key", ["question", "option_A", "gt_answer", "finding"])
@pytest.mark.parametrize("token", [*qwen.SPECIAL, *qwen.TOKENS, *tiny.SPECIAL, *tiny.TAGS])
def test_a_text_that_holds_a_token_of_the_models_own_is_refused(key, token):
    with pytest.raises(BadRecord, match=f"{key}: .* token of the model's own"):
        parse_record(record(**{key: f"Cyst{token} or not"}))


def test_less_and_greater_than_are_no_tokens():
    row, repairs = parse_record(record(question="Is it < 5 mm | > 3 mm, or <5> cm?", option_A="<unknown>"))
    assert row["question"].startswith("Is it < 5") and row["options"][0] == "<unknown>" and not repairs


@pytest.mark.parametrize("key, other", [("box", "organ"), ("organ", "box")])
def test_a_box_that_is_none_is_left_out_and_the_other_one_kept(key, other):
    for wrong in ([0, 0, 10**400, 5], [5, 5, 5, 9], [0, 9, 5, 5], [1, 2, 3], "1234", [1, 2, 3, "4"], [-1, 0, 5, 5]):
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
        ({"modality_type": ["CT"]}, "modality_type: .* is a list, not text"),
        ({"image_path": ["Images/a.png"]}, "image_path: .* is a list, not text"),
        ({"image_path": "QA_information/a.png"}, "not one below Images/"),
        ({"question_id": 17}, "question_id: 17 is a number, not text"),
        ({"option_C": 2.5}, "option_C: 2.5 is a number, not text"),
        ({"option_C": float("inf")}, "option_C: Infinity is a number, not text"),
        ({"question": True}, "question: true is true or false, not text"),
        ({"gt_answer": ["Cyst"]}, "gt_answer: .* is a list, not text"),
        ({"finding": {"a": 1}}, "finding: .* is an object, not text"),
        ({"dataset": []}, "dataset: .* is a list, not text"),
        ({"gt_answer": float("nan")}, "no gt_answer"),
        ({"question": "What\x00?"}, r"question: U\+0000 is no character"),
        ({"image_path": "Images/a\x00.png"}, r"image_path: U\+0000 is no character"),
        ({"option_A": "Cyst \ud83d"}, r"option_A: U\+D83D is no character"),
        ({"option_I": "Scar"}, "option_I: options are option_A to option_H"),
        ({"question": "See <|image (Answer: no)_pad|>."}, "question: .* is a token of the model's own"),
        ({"option_a": "Scar"}, "option_a: options are option_A to option_H"),
    ],
)
def test_a_record_that_is_no_question_is_refused_with_the_reason(changes, reason):
    with pytest.raises(BadRecord, match=reason):
        parse_record(record(**changes))


def write(tmp_path: Path, content: str | bytes, name: str = "some.json") -> Path:
    """A file of records, in OmniMedVQA's layout."""
    file = tmp_path / "QA_information" / "Open-access" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


@pytest.mark.parametrize(
    "text, reason",
    [
        ("{", "not JSON"),
        ('{"a": 1}', "list"),
        ("[1]", "some.json:0"),
        ("", "empty"),
        ('{"a": 1}\n{"a": 2}\n', "JSON lines.*put \\[ and \\] round them"),
        ('[{"question_id": "c1", "a": 1, "a": 2}]', "question_id 'c1' has the key 'a' twice; mend"),
        ("[" * 100_000, "nested too deeply"),
        ("[]".encode("utf-16"), "not UTF-8 .*save it as UTF-8"),
        (b'[{"question": "caf\xe9"}]', "not UTF-8"),
    ],
)
def test_a_file_that_is_no_list_of_records_is_named(tmp_path, text, reason):
    file = write(tmp_path, text)
    with pytest.raises(ValueError, match=reason) as error:
        list(read_records(tmp_path))
    assert str(file) in str(error.value)


def test_a_byte_order_mark_a_suffix_in_capitals_and_hidden_files_hide_no_record(tmp_path):
    write(tmp_path, b"\xef\xbb\xbf" + json.dumps([record()]).encode())
    write(tmp_path, json.dumps([record(), record()]), "other.JSON")
    hidden, notes = write(tmp_path, b"\0\5\x16\7", "._some.json"), write(tmp_path, "notes", "notes.txt")
    restricted = write(tmp_path, "[]", "../Restricted-access.json")
    assert [name for name, _ in read_records(tmp_path)] == ["other.JSON:0", "other.JSON:1", "some.json:0"]
    assert {path.resolve() for path in unread_files(tmp_path)} == {hidden, notes, restricted.resolve()}


def test_a_link_that_leads_nowhere_is_no_missing_data_set(tmp_path):
    (write(tmp_path, "[]").parent / "gone.json").symlink_to(tmp_path / "unmounted.json")
    with pytest.raises(ValueError, match=r"gone\.json: no file, or a link that leads nowhere"):
        list(read_records(tmp_path))


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
