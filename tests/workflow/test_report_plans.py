"""One rule a table and one a figure: what a figure needs, and what a change of one of them makes again."""

import json
import re

import pytest

from safemed.report.products import FIGURES, PAGES, TABLES
from support.paths import ROOT, SMALLEST_STUDY
from support.settings import SMALLEST
from support.snakemake_runs import checkout, plan

RESULTS = f"results/{SMALLEST['study']}"
REPORT = "scripts/safemed/report"

# The smallest study's start model is never right, so that it has no answers of its own to be taught; it has one seed.
LACKING = ("targets", "seeds", "seed_comparisons")
AFTER = {"collect_provenance", "write_report", "all"}  # what is made after any table or figure
MADE = [product for product in (*TABLES, *FIGURES, *PAGES) if product.name not in LACKING]


def remade(study, module: str) -> set[str]:
    """The rules that run again after an edit of a module of the report, which is undone."""
    path = study / REPORT / module
    before = path.read_text()
    try:
        path.write_text(f"{before}\nEDITED = 1\n")
        return set(plan("--configfile", SMALLEST_STUDY, cwd=study))
    finally:
        path.write_text(before)


def test_one_figure_from_nothing_needs_what_it_is_drawn_from_alone(tmp_path):
    jobs = plan("results/phantoms/figures/accuracy_vs_eps.png", cwd=checkout(tmp_path / "repository"))
    assert sum(jobs.values()) <= 30 and jobs["attack_model"] == 12  # four models, clean and under two attacks
    assert {name for name in jobs if name.startswith(("draw_", "make_"))} == {
        "make_phantoms", "make_base", "make_robustness", "draw_accuracy_vs_eps",
    }  # fmt: skip
    assert not {"certify_model", "stress_model", "probe_attacks", "transfer_images"} & set(jobs)


@pytest.mark.parametrize(
    "module, rules",
    [
        ("tables/robustness.py", {"make_robustness", "make_robustness_by_part", "draw_accuracy_vs_eps",
                                  "draw_success_vs_eps", "draw_modality_heatmap", "draw_question_type_heatmap",
                                  "write_tables"}),
        ("tables/comparisons.py", {"make_comparisons", "write_tables"}),
        ("figures/chain.py", {"draw_chain"}),
        ("products.py", None),
    ],
)  # fmt: skip
def test_a_change_of_one_table_or_figure_makes_it_its_figures_and_the_report_again(module, rules, study):
    assert remade(study, module) == (rules | AFTER if rules else set())


def test_what_all_tables_share_makes_all_of_them_again_and_evaluates_nothing(study):
    again = remade(study, "tables/rows.py")
    assert {table.rule for table in MADE if table in TABLES} <= again and again >= AFTER
    assert all(name.startswith(("make_", "draw_", "write_")) for name in again - AFTER)


def test_a_figure_is_drawn_again_by_its_rules_name(study):
    again = plan("--forcerun", "draw_chain", "--configfile", SMALLEST_STUDY, cwd=study)
    assert set(again) == {"draw_chain"} | AFTER


def test_the_report_shows_every_table_and_figure_with_its_caption(study):
    page = (study / RESULTS / "report.html").read_text()
    for product in MADE:
        caption = (ROOT / "workflow" / "report" / f"{product.caption}.rst").read_text()
        first = json.dumps(re.split(r"[.:,;(]", caption)[0])[1:-1]
        path = re.escape(product.outputs(RESULTS)[0])
        assert re.search(rf'"{path}": {{"name": [^{{]*"caption": "<p>{re.escape(first)}', page), product.name
