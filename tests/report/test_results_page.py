"""The results page and the README's rows: every number comes from a table, of this code, or is visibly missing."""

import json
import shutil
from pathlib import Path

import pytest

import write_results
from safemed.report.results_page import readme
from safemed.report.results_page.front import front
from safemed.report.results_page.page import page
from safemed.report.results_page.study import Study
from safemed.utils.files import content_hash
from safemed.utils.provenance import checked
from support.finished_study import COMMIT, provenance, tables, tables_of_seeds
from support.hostile import MARKUP


@pytest.fixture
def study() -> Study:
    return Study(tables(), provenance(COMMIT, COMMIT))


@pytest.fixture
def folder(tmp_path) -> Path:
    """A finished study on disk, with a figure, beside a docs folder and a README that has the markers."""
    made = tmp_path / "results" / "small"
    (made / "tables").mkdir(parents=True)
    (made / "figures").mkdir()
    for name, table in tables().items():
        table.to_csv(made / "tables" / f"{name}.csv", index=False)
    draw(made, "accuracy_vs_eps", b"drawn")
    draw(made, "sanity", b"as a table is named")
    (made / "figures" / "sanity.csv").write_text("the numbers drawn\n")
    keep(made, provenance(COMMIT))
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(f"before\n{readme.BEGIN}\nold\n{readme.END}\nafter\n")
    return made


def draw(folder: Path, name: str, drawn: bytes) -> None:
    """Put a figure into a study's folder."""
    for suffix in ("png", "pdf"):
        (folder / "figures" / f"{name}.{suffix}").write_bytes(drawn)


def keep(folder: Path, known: dict) -> None:
    """Put what is known of a study into its folder, with the hashes of its tables and figures as they are there."""
    known = known | {"products": checked(known["products"], folder)}
    (folder / "tables" / "provenance.json").write_text(json.dumps(known))


def run(*folders: Path) -> tuple[str, str]:
    """Run the script; the page of study small and the README that it wrote."""
    root = folders[0].parents[1]
    write_results.main([*map(str, folders), "--docs", str(root / "docs"), "--readme", str(root / "README.md")])
    return (root / "docs" / "results" / "small" / "index.md").read_text(), (root / "README.md").read_text()


def test_the_page_shows_the_numbers_of_each_table(study):
    written = page(study, ["accuracy_vs_eps"])
    for shown in (
        "91 (77.7 to 88.8)", "3 (66.6 to 99.9)", "33.3 %", "34.5 %",  # robustness, worst case, chance, blind
        "| model | pgd | apgd-t | cw (L2) |", "| sft-instruct | 44.4 | 22.2 | 11.1 |", "1 of 2 | more steps",
        "0.6 | 1.4 | 72.5 (57.1 to 83.9) | 70 | 77.5",  # radius, as L_inf, certified, sure, attacked
        "96 | 37.1 | 9.1 | 63.2 | 41.3 | 8.1 | 2.1 | 1.7", "1.4 (n = 100) | 20 (n = 40)", "86.7 (70.0 to 90.0)",
        "2.5 hours", "2,345,678", COMMIT, "2026-01-01 to 2026-01-02", "Some CPU, 2 cores, 8 GB, no GPU", "torch 2.13.0",
    ):  # fmt: skip
        assert shown in written, shown
    # the table has them the other way round
    assert "| at-grpo-no-reward | instruct | -1 (-4.3 to +2.2) | 0.444 | +5 (-1.3 to +9.2) | 0.031 |" in written
    assert "| sft | instruct |" not in written
    assert "(accuracy_vs_eps.png)" in written and "chain.png" not in written


def test_the_readme_has_a_row_for_the_paper_and_for_each_method_and_what_the_rewards_add(study):
    block = readme.block([study])
    assert "≈ 25 → 84.45" in block and "2512.19317" in block
    for row in ("| sft | 91 | 12 | 3 |", "| at-grpo-no-reward | 92 | 83 | 81 |", "| at-grpo | 93 | 87 | 86 |"):
        assert row in block
    assert "clean images and +5 (-1.3 to +9.2) in the worst" in block  # the table has it the other way round
    assert COMMIT[:12] in block and "seed 7" in block


def test_over_several_seeds_the_page_and_the_readme_tell_means_with_their_range():
    known = provenance(COMMIT)
    known["config"]["further_seeds"] = [8, 9]
    several = Study(tables() | tables_of_seeds(), known)
    written, block = page(several, []), readme.block([several])
    assert all("seeds 7, 8, 9, one training of each model a seed" in text for text in (written, block))
    assert "| sft-instruct | 90.5 (2.1 to 96.2; 1.1 to 97.3) | 12.5 (2.1" in written
    assert (
        "| sft-instruct less at-grpo-instruct | worst case | -83.5 (-91.0 to -78.0) | -93 to -74 | -95 to -72 |"
        in written
    )
    assert "| sft | 90.5 | 12.5 | 3.5 |" in block and "| at-grpo | 93.5 | 87.5 | 86.5 |" in block
    assert "+6.5 (+1.5 to +11.5) points to AT-GRPO's accuracy on clean images" in block
    assert "+5.5 (+0.5 to +10.5) in the worst case of 2 attacks" in block  # over images and seeds: 3 and 4 make 5


def test_a_number_that_is_missing_is_shown_as_missing(study):
    attacked = study.tables["robustness"]
    attacked.loc[(attacked.model == "sft-instruct") & (attacked.attack == "pgd"), "status"] = "incomplete: 3 of 100"
    study.tables["suite"].loc[study.tables["suite"].model == "at-grpo-no-reward-instruct", "worst"] = float("nan")
    block = readme.block([study])
    assert "| sft | 91 | – | 3 |" in block and "| at-grpo-no-reward | 92 | 83 | – |" in block


def test_sections_of_evaluations_that_the_study_lacks_are_left_out(study):
    kept = {name: study.tables[name] for name in ("robustness", "cost")}
    written = page(study._replace(tables=kept), [])
    assert [line for line in written.splitlines() if line.startswith("## ")] == [
        "## Robustness",
        "## Cost",
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"script": "audit.py"},
        {"script": "no_such.py"},
        {"code": {"commit": "f" * 40, "hash": "0" * 32}},
        {"arguments": {"alterations": "safemed.training.alterations"}},  # and the hash is that of the script alone
    ],
)
def test_results_of_other_code_than_the_checkout_has_are_refused_and_nothing_is_written(folder, changes):
    known = provenance(COMMIT, "e" * 40)
    known["results"]["results/small/1"] |= changes
    keep(folder, known)
    with pytest.raises(
        SystemExit, match="^not computed by the scripts as they are here: results/small/1 .*Run the study again"
    ):
        run(folder)
    root = folder.parents[1]
    assert not list((root / "docs").iterdir()) and "old" in (root / "README.md").read_text()


@pytest.mark.parametrize("place", ["tables/suite", "figures/accuracy_vs_eps"])
def test_a_table_or_figure_that_other_code_made_is_refused(folder, place):
    known = provenance(COMMIT)
    known["products"][place] = "0" * 32
    keep(folder, known)
    with pytest.raises(SystemExit, match=f"{place}: not made by the code as it is here. Run the study again"):
        run(folder)
    (folder / "tables" / "provenance.json").write_text(json.dumps(known))  # as it was written once, without files
    with pytest.raises(SystemExit, match="not made by the code as it is here"):
        run(folder)


@pytest.mark.parametrize("name", ["tables/suite.csv", "figures/accuracy_vs_eps.pdf"])
def test_a_table_or_figure_that_another_study_has_replaced_is_refused(folder, name):
    (folder / name).write_bytes((folder / name).read_bytes() + b"\n")
    with pytest.raises(SystemExit, match=f"{name[:-4]}: changed since tables/provenance.json. Run the study again"):
        run(folder)


def test_a_folder_that_the_script_has_not_written_is_not_replaced(folder):
    root = folder.parents[1]
    with pytest.raises(SystemExit, match="small: no page of a study, and its folder would be replaced"):
        write_results.main([str(folder), "--docs", str(root), "--readme", str(root / "README.md")])
    assert (folder / "tables" / "provenance.json").exists() and "old" in (root / "README.md").read_text()


def test_results_of_several_commits_with_the_same_code_name_all_of_them(folder):
    keep(folder, provenance("e" * 40, COMMIT))
    results, rows = run(folder)
    assert f"| Commit | `{'e' * 40}`, `{COMMIT}` |" in results and COMMIT[:12] in rows


def test_the_script_writes_the_page_its_figures_and_the_rows_between_the_markers(folder):
    results, rows = run(folder)
    assert results == page(write_results.read_study(folder), ["accuracy_vs_eps", "sanity"])
    beside = folder.parents[1] / "docs" / "results" / "small"
    assert (beside / "accuracy_vs_eps.png").read_bytes() == (beside / "accuracy_vs_eps.pdf").read_bytes() == b"drawn"
    told = write_results.read_tables(beside)
    assert (page(told, ["accuracy_vs_eps", "sanity"]), "node" in f"{told.provenance}") == (results, False)
    assert set(told.tables) == set(tables())
    known = {name: one for made in told.provenance["products"].values() for name, one in made["files"].items()}
    there = [path for path in beside.iterdir() if path.name not in ("index.md", "provenance.json")]
    assert known == {path.name: content_hash(path) for path in there}
    assert (beside.parents[1] / "results.md").read_text() == front([told])
    assert rows.startswith("before\n") and rows.endswith("after\n") and "old" not in rows
    assert "| at-grpo | 93 | 87 | 86 |" in rows
    assert run(folder) == (results, rows)


def further(folder: Path, name: str, *lacks: str) -> Path:
    """A study of another name beside one, which has a figure of its own and lacks some tables."""
    other = folder.with_name(name)
    shutil.copytree(folder, other)
    for table in lacks:
        (other / "tables" / f"{table}.csv").unlink()
    draw(other, "accuracy_vs_eps", b"another")
    known = provenance(COMMIT)
    known["config"]["study"] = name
    keep(other, known)
    return other


def test_each_study_has_a_page_with_its_own_tables_and_figures(folder):
    other = further(folder, "other", "redteam")
    alone, rows = run(folder)
    assert run(folder, other) == (alone, rows)
    docs = folder.parents[1] / "docs"
    assert (docs / "results" / "small" / "accuracy_vs_eps.png").read_bytes() == b"drawn"
    assert (docs / "results" / "other" / "accuracy_vs_eps.png").read_bytes() == b"another"
    written = (docs / "results" / "other" / "index.md").read_text()
    assert "## Robustness" in written and "## Red team" in alone and "## Red team" not in written
    assert "(results/small/index.md)" in (docs / "results.md").read_text().partition("## Claims")[0]
    run(folder)
    assert not (docs / "results" / "other").exists()


def test_two_studies_of_one_name_and_a_first_one_without_attacks_are_refused(folder):
    with pytest.raises(SystemExit, match="several studies are named small"):
        run(folder, folder)
    other = further(folder, "other", "robustness")
    with pytest.raises(SystemExit, match="study other has no attacks"):
        run(other, folder)
    run(folder, other)
    assert "Chance is" not in (folder.parents[1] / "docs" / "results" / "other" / "index.md").read_text()
    shutil.rmtree(folder.parents[1] / "docs" / "results")
    known = provenance(COMMIT)
    known["config"]["study_methods"] = ["at-grpo"]
    keep(folder, known)
    with pytest.raises(SystemExit, match="study small has no attacks, or not on both sft and at-grpo"):
        run(folder)
    assert not (folder.parents[1] / "docs" / "results").exists()


@pytest.mark.parametrize(
    "changed",
    [
        {"data": {"source": "mine", "image_size": 64}},
        {"seed": 8},
        {"attack": {"headline_eps": 4}},
    ],
)
def test_claims_are_not_held_against_studies_of_other_data_models_radii_or_seeds(folder, changed):
    other = further(folder, "other")
    known = json.loads((other / "tables" / "provenance.json").read_text())
    known["config"] |= changed
    (other / "tables" / "provenance.json").write_text(json.dumps(known))
    with pytest.raises(SystemExit, match=f"study other has another .*{next(iter(changed))}.* than small"):
        run(folder, other)


def test_what_the_first_study_has_no_number_of_is_that_of_the_next(study):
    lacks = {name: table for name, table in tables().items() if name not in ("comparisons", "published")}
    known = provenance(COMMIT)
    known["config"] |= {"study": "first"}
    first = Study(lacks, known)
    both = readme.block([first, study])
    lead = "The rewards add -1 (-4.3 to +2.2) points to AT-GRPO's accuracy on clean images and +5 (-1.3 to +9.2)"
    added = f"{lead} in the worst case of 2 attacks (instruct, study [small](docs/results/small/index.md))."
    assert added in both
    assert "add" not in readme.block([first])
    failed = tables()["comparisons"].assign(difference=float("nan"))
    assert added in readme.block([Study(tables() | {"comparisons": failed}, known), study])
    study.tables["suite"] = study.tables["suite"].query("attack == 'pgd'")
    bare = Study({name: table for name, table in tables().items() if name != "suite"}, provenance(COMMIT))
    assert " in the worst case at 8/255" in readme.block([bare])
    assert added.replace("in the worst case of 2 attacks", "under pgd alone") in readme.block([study])


def test_a_readme_without_markers_and_a_folder_without_tables_are_refused(folder):
    (folder.parents[1] / "README.md").write_text("no markers")
    with pytest.raises(SystemExit, match="markers"):
        run(folder)
    shutil.rmtree(folder / "tables")
    with pytest.raises(SystemExit, match="finished study"):
        run(folder)


def test_a_study_without_an_attack_that_knows_the_hint_has_no_number_for_it(study):
    with_it = page(study, []).splitlines()
    del study.tables["adaptive"]
    without = page(study, []).splitlines()
    ((before, after),) = (pair for pair in zip(with_it, without, strict=True) if pair[0] != pair[1])
    assert before.endswith("| 1.7 |") and after == before.removesuffix("| 1.7 |") + "| – |"


def test_the_results_page_shows_markup_and_does_not_hold_it():
    known = provenance(COMMIT)
    known["environments"][0]["hardware"]["cpu"] = MARKUP
    known["config"]["data"]["source"] = MARKUP
    known["config"]["model"]["name"] = MARKUP
    made = tables()
    made["sanity"] = made["sanity"].assign(check=MARKUP)
    made["suite"]["attack"] += MARKUP
    written = page(Study(made, known), [])
    outside = "".join(written.split("``")[::2])  # what is not code
    assert "<script" not in outside and "<img" not in outside and "&lt;script>" in outside
    assert "[link]" not in outside.replace("\\[link\\]", "")
    rows = [line.replace("\\|", "") for line in written.splitlines() if "alert(1)" in line]
    assert len(rows) >= 5 and all(line.startswith("| ") and line.endswith(" |") for line in rows)
