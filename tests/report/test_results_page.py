"""The results page and the README's rows: every number comes from a table, of one commit, or is visibly missing."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

import write_results
from safemed.report import results_page
from safemed.report.tables import (
    abstention,
    adaptive,
    certified,
    chain,
    comparisons,
    hints,
    pixels_and_words,
    robustness,
    sanity,
    suite,
)
from support.hostile import MARKUP

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODELS = ("sft-instruct", "at-grpo-no-reward-instruct", "at-grpo-instruct")
ACCURACY = {
    "sft-instruct": (0.91, 0.12, 0.03),
    "at-grpo-no-reward-instruct": (0.92, 0.83, 0.81),
    "at-grpo-instruct": (0.93, 0.87, 0.86),
}


def rows(columns: list[str], *records: dict, **common) -> pd.DataFrame:
    """A table as its function returns it; what is not given is missing."""
    return pd.DataFrame([common | record for record in records]).reindex(columns=columns)


def tables() -> dict[str, pd.DataFrame]:
    """Tables of a small study whose numbers are all different."""
    attacks = (("clean", 0, 0), ("pgd", 8, 1))
    return {
        "robustness": rows(
            robustness.ROBUSTNESS,
            *(
                {"model": m, "attack": a, "eps": eps, "accuracy": ACCURACY[m][i]}
                for m in MODELS
                for a, eps, i in attacks
            ),
            n=100,
            ci_low=0.777,
            ci_high=0.888,
            status="complete",
            chance=0.333,
            blind=0.345,
        ),
        "suite": rows(
            suite.SUITE,
            *({"model": m, "attack": "pgd", "norm": "linf", "worst": 0.5, "accuracy": 0.444} for m in MODELS),
            *(
                {"model": m, "attack": "apgd-t", "norm": "linf", "worst": ACCURACY[m][2], "accuracy": 0.222}
                for m in MODELS
            ),
            *({"model": m, "attack": "cw", "norm": "l2", "accuracy": 0.111} for m in MODELS),
            ci_low=0.666,
            ci_high=0.999,
        ),
        "comparisons": rows(
            comparisons.COMPARISONS,
            {"images": "clean", "difference": 0.01, "ci_low": -0.022, "ci_high": 0.043, "p_holm": 0.444},
            {"images": "worst case", "difference": -0.05, "ci_low": -0.092, "ci_high": 0.013, "p_holm": 0.0314},
            family="methods",
            first="at-grpo-no-reward-instruct",
            second="at-grpo-instruct",
        ),
        "sanity": rows(
            sanity.SANITY, {"check": "eps 0", "passed": True}, {"check": "more steps", "passed": False}, model=MODELS[0]
        ),
        "certified": rows(
            certified.CERTIFIED,
            {},
            model=MODELS[2],
            function="choice",
            sigma=0.25,
            radius=0.6,
            linf_equivalent=1.38,
            n=40,
            certified_accuracy=0.725,
            ci_low=0.571,
            ci_high=0.839,
            sure=0.7,
            empirical_accuracy=0.775,
            alpha=0.001,
        ),
        "hints": rows(
            hints.HINTS,
            {},
            model=MODELS[0],
            seen="clean",
            voice="all",
            taught="new",
            n=100,
            plain=0.96,
            negative=0.371,
            sycophancy=0.632,
            drift=0.413,
        ),
        "pixels_and_words": rows(
            pixels_and_words.PIXELS_AND_WORDS,
            {"seen": "clean", "words": "worst", "accuracy": 0.091},
            {"seen": "pgd", "words": "none", "accuracy": 0.081},
            {"seen": "pgd", "words": "worst", "accuracy": 0.021},
            model=MODELS[0],
        ),
        "adaptive": rows(adaptive.ADAPTIVE, {}, model=MODELS[0], adaptive=0.017),
        "abstention": rows(
            abstention.ABSTENTION,
            {"image": "sound", "lacks": "no", "n": 100, "abstained": 0.014},
            {"image": "blank", "lacks": "yes", "n": 30, "abstained": 0.1},
            {"image": "lesion", "lacks": "yes", "n": 10, "abstained": 0.5},
            model=MODELS[0],
        ),
        "chain_summary": rows(
            chain.CHAIN_SUMMARY, {}, model=MODELS[0], condition="plain", n=60, joint=0.867, ci_low=0.7, ci_high=0.9
        ),
        "cost": pd.DataFrame(
            {
                "stage": ["sft", "attack"],
                "model": MODELS[:2],
                "wall_s": [3600.0, 5400.0],
                "forward_passes": [1, 2_345_678],
                "backward_passes": [1, 2],
                "peak_rss_mb": [900, 1100],
            }
        ),
    }


def provenance(*commits: str | None) -> dict:
    """What a study's provenance.json holds of what the page says."""
    hardware = {"host": "node", "cpu": "Some CPU", "cores": 2, "memory_mb": 8192, "gpus": []}
    return {
        "config": {
            "study": "small",
            "seed": 7,
            "variants": ["instruct"],
            "study_methods": ["sft", "at-grpo-no-reward", "at-grpo"],
            "methods": {"at-grpo": {}, "at-grpo-no-reward": {}, "sft": {}},
            "attack": {"headline_eps": 8},
            "stress": {"attack": "pgd"},
            "model": {"name": "tiny"},
            "data": {"source": None, "image_size": 64},
        },
        "environments": [{"python": "3.11.7", "packages": {"torch": "2.13.0"}, "hardware": hardware}],
        "results": {
            f"results/small/{i}": {"code": {"commit": commit}, "finished": f"2026-01-0{i + 1}T00:00:00+00:00"}
            for i, commit in enumerate(commits)
        },
    }


@pytest.fixture
def study() -> results_page.Study:
    return results_page.Study(tables(), provenance(COMMIT, COMMIT))


@pytest.fixture
def folder(tmp_path) -> Path:
    """A finished study on disk, with a figure, beside a docs folder and a README that has the markers."""
    made = tmp_path / "results" / "small"
    (made / "tables").mkdir(parents=True)
    (made / "figures").mkdir()
    for name, table in tables().items():
        table.to_csv(made / "tables" / f"{name}.csv", index=False)
    (made / "tables" / "provenance.json").write_text(json.dumps(provenance(COMMIT)))
    (made / "figures" / "accuracy_vs_eps.png").write_bytes(b"drawn")
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(f"before\n{results_page.BEGIN}\nold\n{results_page.END}\nafter\n")
    return made


def run(folder: Path) -> tuple[str, str]:
    """Run the script; the results page and the README that it wrote."""
    root = folder.parents[1]
    write_results.main([str(folder), "--docs", str(root / "docs"), "--readme", str(root / "README.md")])
    return (root / "docs" / "results.md").read_text(), (root / "README.md").read_text()


def test_the_page_shows_the_numbers_of_each_table(study):
    page = results_page.page(study, ["accuracy_vs_eps"])
    for shown in (
        "91 (77.7 to 88.8)", "3 (66.6 to 99.9)", "33.3 %", "34.5 %",  # robustness, worst case, chance, blind
        "| model | pgd | apgd-t | cw (L2) |", "| sft-instruct | 44.4 | 22.2 | 11.1 |", "1 of 2 | more steps",
        "0.6 | 1.4 | 72.5 (57.1 to 83.9) | 70 | 77.5",  # radius, as L_inf, certified, sure, attacked
        "96 | 37.1 | 9.1 | 63.2 | 41.3 | 8.1 | 2.1 | 1.7", "1.4 (n = 100) | 20 (n = 40)", "86.7 (70.0 to 90.0)",
        "2.5 hours", "2,345,678", COMMIT, "2026-01-01 to 2026-01-02", "Some CPU, 2 cores, 8 GB, no GPU", "torch 2.13.0",
    ):  # fmt: skip
        assert shown in page, shown
    # the table has them the other way round
    assert "| at-grpo-no-reward | instruct | -1 (-4.3 to +2.2) | 0.444 | +5 (-1.3 to +9.2) | 0.031 |" in page
    assert "| sft | instruct |" not in page
    assert "(accuracy_vs_eps.png)" in page and "chain.png" not in page


def test_the_readme_has_a_row_for_the_paper_and_for_each_method_and_what_the_rewards_add(study):
    block = results_page.readme_block(study)
    assert "≈ 25 → 84.45" in block and "2512.19317" in block
    for row in ("| sft | 91 | 12 | 3 |", "| at-grpo-no-reward | 92 | 83 | 81 |", "| at-grpo | 93 | 87 | 86 |"):
        assert row in block
    assert "+5 (-1.3 to +9.2) points" in block  # the table has it the other way round
    assert COMMIT[:12] in block and "seed 7" in block


def test_a_number_that_is_missing_is_shown_as_missing(study):
    attacked = study.tables["robustness"]
    attacked.loc[(attacked.model == "sft-instruct") & (attacked.attack == "pgd"), "status"] = "incomplete: 3 of 100"
    study.tables["suite"].loc[study.tables["suite"].model == "at-grpo-no-reward-instruct", "worst"] = float("nan")
    block = results_page.readme_block(study)
    assert "| sft | 91 | – | 3 |" in block and "| at-grpo-no-reward | 92 | 83 | – |" in block


def test_sections_of_evaluations_that_the_study_lacks_are_left_out(study):
    kept = {name: study.tables[name] for name in ("robustness", "cost")}
    page = results_page.page(study._replace(tables=kept), [])
    assert "## Robustness" in page and "## Certificates" not in page and "## Stress tests" not in page


@pytest.mark.parametrize(
    ("commits", "said"),
    [((COMMIT, "f" * 40), "2 commits"), ((f"{COMMIT}+",), "changed files"), ((None,), "no git commit")],
)
def test_results_that_are_not_of_one_commit_are_refused_and_nothing_is_written(folder, commits, said):
    (folder / "tables" / "provenance.json").write_text(json.dumps(provenance(*commits)))
    with pytest.raises(SystemExit, match=said):
        run(folder)
    root = folder.parents[1]
    assert not list((root / "docs").iterdir()) and "old" in (root / "README.md").read_text()


def test_the_script_writes_the_page_its_figures_and_the_rows_between_the_markers(folder):
    page, readme = run(folder)
    assert page == results_page.page(write_results.read_study(folder), ["accuracy_vs_eps"])
    assert (folder.parents[1] / "docs" / "accuracy_vs_eps.png").read_bytes() == b"drawn"
    assert readme.startswith("before\n") and readme.endswith("after\n") and "old" not in readme
    assert "| at-grpo | 93 | 87 | 86 |" in readme
    assert run(folder) == (page, readme)


def test_a_readme_without_markers_and_a_folder_without_tables_are_refused(folder):
    (folder.parents[1] / "README.md").write_text("no markers")
    with pytest.raises(SystemExit, match="markers"):
        run(folder)
    shutil.rmtree(folder / "tables")
    with pytest.raises(SystemExit, match="finished study"):
        run(folder)


def test_a_study_without_an_attack_that_knows_the_hint_has_no_number_for_it(study):
    with_it = results_page.page(study, []).splitlines()
    del study.tables["adaptive"]
    without = results_page.page(study, []).splitlines()
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
    page = results_page.page(results_page.Study(made, known), [])
    outside = "".join(page.split("``")[::2])  # what is not code
    assert "<script" not in outside and "<img" not in outside and "&lt;script>" in outside
    assert "[link]" not in outside.replace("\\[link\\]", "")
    rows = [line.replace("\\|", "") for line in page.splitlines() if "alert(1)" in line]
    assert len(rows) >= 5 and all(line.startswith("| ") and line.endswith(" |") for line in rows)
