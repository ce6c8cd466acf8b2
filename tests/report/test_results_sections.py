"""Sections of the results page: each number is its table's, beside the silent one; without a table there is none."""

import math
import re

import pandas as pd
import pytest

from safemed.report import inputs
from safemed.report.results_page.page import FIGURES, page
from safemed.report.results_page.study import Study
from support.finished_study import COMMIT, MODELS, provenance, tables

PUBLISHED = "47.3 (35.1 to 59.8) | 9.4 | 54.8 (44.4 to 64.7) | 88.7 | 5.9 (3.2 to 10.7) | 2.7"  # but EchoBench's first
# Table -> the heading of its section, and how its rows begin there.
SECTIONS = {
    "groups": (
        "Groups of questions",
        [
            "question type | 4 | 21 | MR: 51.2 (1.1 to 88.8) | 12.3 | 0.046 | "
            + "CT: 21.2 (1.1 to 88.8) | 23.4 | < 0.001",
        ],
    ),
    "towers": (
        "Vision towers",
        [
            "modality | 87 | 97.2 | 61.4 (2.6 to 90.6) | 0.012 | 1.46 | 96.7 | 24.7 | 1,234,567",
            "finding | 87 | 71.8 | 3.6 (2.6 to 90.6) | – | 1.46 | 96.7 | 24.7 | 1,234,567",
        ],
    ),
    "calibration": ("Calibration", ["95.3 | 93.4 | 0.04 | 0.91 | 0.61 | 0.78 | 87.1"]),
    "published": (
        "Published measures",
        [
            f"before the question | 95.1 | 47.5 (35.3 to 60.1) | 9.6 | +37.9 (+26.0 to +49.0) | {PUBLISHED}",
            f"after the options | 95.1 | 51.2 (35.3 to 60.1) | 15.3 | +35.9 (+26.0 to +49.0) | {PUBLISHED}",
        ],
    ),
    "turns": (
        "Second turns",
        [
            "doubts it | 118 of 124 | 6.4 (0.8 to 40.2) | 3.6 | – | – | 20.7 (10.7 to 90.3) | 10.6",
            "claims a wrong option | 118 of 124 | 30.5 (0.8 to 40.2) | 3.6 | 28.4 | 1.3 | – | –",
            "claims the right option | 118 of 124 | 2.7 (0.8 to 40.2) | 3.6 | – | – | 81.8 (10.7 to 90.3) | 11.6",
        ],
    ),
    "adaptive_turns": (
        "Second turns",
        ["94.4 | 65.5 | 32.1 | 28.7 | 10.4 (5.3 to 19.5) | -18.3 (-27.1 to -9.4) | 0.002"],
    ),
    "rag": (
        "Retrieved reports",
        [
            "clean | fare-instruct | retrieved | 93.5 | 61.5 | 92.5 (84.5 to 96.5) | 0.012",
            "fare-instruct | conflict | 5 a question | 83.5 | 59.5 | 34.5 (25.5 to 45.5) | 58 | 11.5 | 7.5 | 88.5 | "
            "< 0.001",
            "fare-instruct | text | 1 (0.1 % of the corpus, at least one) | 1.6 | 91.5 | 0 (0.0 to 79.3) | "
            "1 | – | – | – | 1.000",
        ],
    ),
    "defences": (
        "Defences at inference",
        [
            "loop | 94.7 | 42.1 | 21.1 (11.1 to 36.3) | +18.4 (+7.9 to +31.6) | 0.031 | 15.8 | 2.2",
            "loop | -5.3 | 0.500 | 78.9 | 52.6 (11.1 to 36.3) | 55.3 | -2.7 (-9.2 to +3.7) | 0.840 | 44.7 | "
            "10.5 (7.9) | +18.4 (+7.9 to +31.6) | 0.620 | 13.2",
        ],
    ),
    "redteam": (
        "Red team",
        [
            "silent | 57 of 60 | 37.5 | 37.5 (30.5 to 86.3) | – | – | 9.5",
            "adaptive | 57 of 60 | 37.5 | 62.5 (30.5 to 86.3) | 0.031 | 44.4 | 7.2",
        ],
    ),
    "gradient": ("Revealed evidence", ["clean | seeded | 61 | 41.7 | 95.3 | 0.99"]),
    "gradient_summary": (
        "Revealed evidence",
        [
            "clean | letter | 40 of 122 | 0.86 (0.73 to 0.94) | – | 7 | 0.88 | 0.07",
            "clean | p_A | 42 of 122 | 0.81 (0.66 to 0.91) | -0.05 (-0.10 to +0.00) | 8 | 0.77 | 0.12",
        ],
    ),
}

WITH = {"turns": ("adaptive_turns", "turn_comparisons"), "gradient": ("gradient_summary",)}  # further in its section


@pytest.fixture
def study() -> Study:
    return Study(tables(), provenance(COMMIT))


def section(written: str, heading: str) -> str:
    """The text below a heading of the page; "" without it."""
    return re.split(r"^## ", written.partition(f"\n## {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_has_the_numbers_of_its_table_and_no_others(study, name):
    heading, rows = SECTIONS[name]
    kept = {other: study.tables[other] for other in ("robustness", "cost", "turns", "gradient", name)}
    written = page(study._replace(tables=kept), [])
    shown = [line for line in section(written, heading).splitlines() if line.startswith(f"| {MODELS[0]} |")]
    assert shown[-len(rows) :] == [f"| {MODELS[0]} | {row} |" for row in rows]
    assert "98.7" not in written  # of taught wordings, of single voices, and of attacked images


def beneath_the_claims(written: str) -> str:
    """The sections of a page below that of the claims, which are of many tables."""
    return written[written.index("## Robustness") :]


@pytest.mark.parametrize("name", SECTIONS)
def test_a_study_without_the_table_has_the_same_page_but_for_what_is_about_it(study, name):
    whole, (heading, rows) = beneath_the_claims(page(study, [])), SECTIONS[name]
    gone = {name, *WITH.get(name, ())}
    without = page(study._replace(tables={kept: one for kept, one in study.tables.items() if kept not in gone}), [])
    without = beneath_the_claims(without)
    assert all(row in whole and row not in without for row in rows)
    assert (f"## {heading}\n" in without) == (name in ("adaptive_turns", "gradient_summary"))
    left = iter(whole.splitlines())
    assert all(line in left for line in without.splitlines())  # in this order


@pytest.mark.parametrize(
    ("name", "columns", "row"),
    [
        ("groups", ["worst_accuracy", "gap", "p_holm"], "question type | 4 | 21 | – | – | – | – | – | –"),
        ("calibration", ["accuracy", "auroc"], "– | 93.4 | 0.04 | – | – | – | 87.1"),
        (
            "published",
            ["plain", "echo_rate", "echo_silent", "anti_sycophancy", "faithfulness"],
            "after the options | – | – | – | +35.9 (+26.0 to +49.0) | 47.3 (35.1 to 59.8) | 9.4 | – | 88.7 | – | 2.7",
        ),
        (
            "turns",
            ["n_right", "flipped", "followed", "flipped_silent"],
            "claims a wrong option | – of 124 | – | – | – | 1.3 | – | –",
        ),
        ("adaptive_turns", ["both", "adaptive", "difference", "p"], "94.4 | 65.5 | 32.1 | – | – | – | –"),
        ("gradient", ["accuracy", "pearson"], "clean | seeded | 61 | – | – | –"),
        (
            "gradient_summary",
            ["n_wrong", "auroc", "auroc_low", "beyond", "beyond_low"],
            "clean | p_A | – of 122 | – | – | 8 | 0.77 | 0.12",
        ),
        ("towers", ["knn_clean", "knn_pgd", "shift"], "finding | 87 | – | – | – | – | 96.7 | 24.7 | 1,234,567"),
        ("redteam", ["n_right", "fooled", "silent", "queries"], "adaptive | – of 60 | – | – | 0.031 | 44.4 | –"),
    ],
)
def test_a_number_that_was_not_evaluated_to_the_end_is_missing(study, name, columns, row):
    gone = dict.fromkeys(columns, math.nan)
    study.tables[name] = study.tables[name].assign(status="incomplete: 1 of 9 not evaluated", **gone)
    assert f"| {MODELS[0]} | {row} |" in page(study, []).splitlines()


def test_pairs_of_methods_in_second_turns_are_told_of_clean_images_wrong_claims_and_new_wordings(study):
    written = section(page(study, []), "Second turns")
    row = "111 | 23.4 | 1.2 | +22.2 (+10.1 to +34.3) | 0.006 | +21.2 (+9.0 to +33.4)"
    assert f"\n| {MODELS[0]} | {MODELS[1]} | {row} |\n" in written and "98.7" not in written


def test_the_number_of_questions_stands_before_shares_of_all_of_them(study):
    written = page(study, [])
    for name, said in {
        "calibration": "122 questions: ",
        "adaptive_turns": "123 questions: ",
        "published": "40 questions ",
    }.items():
        assert f"\n{said}" in section(written, SECTIONS[name][0]), name


def test_models_stand_in_the_order_of_the_studied_methods_in_every_section(study):
    for name in SECTIONS:
        other = study.tables[name].assign(model=MODELS[2])
        study.tables[name] = pd.concat([other, study.tables[name]], ignore_index=True)
    written = page(study, [])
    for heading, _ in SECTIONS.values():
        begun = [line.split(" | ")[0].removeprefix("| ") for line in section(written, heading).splitlines()]
        models = [name for name in begun if name in MODELS]
        assert set(models) == {MODELS[0], MODELS[2]}
        assert models.index(MODELS[0]) < models.index(MODELS[2]), heading


def test_a_figure_stands_below_the_heading_of_its_section(study):
    written, bare = page(study, FIGURES), page(study, [])
    drawn = ("groups", "published", "turns", "redteam", "defences", "gradient", "towers", "rag")
    assert all(f"({name}.png)" in section(written, SECTIONS[name][0]) for name in drawn) and ".png" not in bare


def test_the_page_shows_tables_as_their_functions_make_them(report):
    made = {path.stem: inputs.read_table(path) for path in (report / "tables").glob("*.csv")}
    known = provenance(COMMIT)
    known["config"] |= {"variants": ["think", "instruct"]}
    written = page(Study(made, known), [])
    for heading in (heading for heading, _ in SECTIONS.values()):
        assert "\n| " in section(written, heading), heading
    (found,) = made["redteam"][made["redteam"].strategy == "adaptive"].itertuples()
    assert f"adaptive | {found.n_right} of {found.n} | {100 * found.silent:.0f} | {100 * found.fooled:.0f} (" in written
