"""What README and docs promise: short, true to schema and tables, no measured number typed by hand, no dead link."""

import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
import yaml

import write_reference
import write_results
from safemed.report import products, report_pages
from safemed.report.results_page import readme
from safemed.report.results_page.front import front
from safemed.report.results_page.page import page
from safemed.utils.files import content_hash

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
WRITTEN = ("results.md", "config.md", "tables.md", "figures.md")  # by scripts
PAGES = [README, *(page for page in sorted((ROOT / "docs").glob("*.md")) if page.name not in WRITTEN)]
SHARE = re.compile(r"\d\s?%|\bper ?cent\b|\b\d[\d.]*\s?(?:x|times) (?:fewer|faster|more|less|cheaper)", re.IGNORECASE)
DEFINED = re.compile(r"\d+ % (?:Wilson|paired bootstrap|confidence)?\s*intervals?")


def typed_numbers(text: str) -> list[str]:
    """The paragraphs, list items and table rows that state a share or a factor, but for three kinds.

    Allowed are what a script wrote between the markers, what cites a paper of arXiv, and the level of an interval.
    """
    by_hand = re.sub(f"{readme.BEGIN}.*?{readme.END}", "", text, flags=re.DOTALL)
    by_hand = re.sub(r"^```.*?^```", "", by_hand, flags=re.DOTALL | re.MULTILINE)
    parts = re.split(r"\n\s*\n|\n(?=\s*(?:[*-]|\d+\.|\|) )", by_hand)
    return [part for part in parts if SHARE.search(DEFINED.sub("", " ".join(part.split()))) and "arXiv" not in part]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_states_a_measured_number_by_hand(page):
    assert typed_numbers(page.read_text()) == []


@pytest.mark.parametrize(
    "text",
    [
        "AT-GRPO keeps 87 % of the answers.",
        "Fine-tuning falls\nto 4.5 %\nunder PGD.",
        "* cited (arXiv 2512.19317): 95 %\n* ours: 98 %",
        "Bands are 95 % intervals, and the accuracy is 80 %.",
        "It needs 5.2x fewer passes.",
        f"{readme.BEGIN}\n1 %\n{readme.END}\n2 percent",
    ],
)
def test_a_number_typed_by_hand_is_found(text):
    assert len(typed_numbers(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "The paper reports 84.45 % (arXiv 2512.19317).",
        "Intervals are 95 % Wilson intervals; of differences 95 % paired bootstrap\nintervals.",
        f"{readme.BEGIN}\nAT-GRPO: 87 %\n{readme.END}",
        "Images of 64 pixels, eps 8/255, 6,000 images, n = 1,000.",
    ],
)
def test_written_attributed_and_defined_numbers_are_allowed(text):
    assert typed_numbers(text) == []


def test_the_readme_is_one_screen_and_holds_the_markers():
    text = README.read_text()
    assert len(text.splitlines()) <= 120 and len(text.split()) <= 900
    assert readme.filled(text, "rows").count("rows\n") == 1


def test_the_pages_that_are_made_from_the_code_are_up_to_date():
    made = write_reference.pages()
    assert {name: (ROOT / "docs" / name).read_text() for name in made} == made, "run `make docs`"


def test_the_results_pages_and_the_readmes_rows_hold_what_the_tables_beside_them_hold():
    beside, written = ROOT / "docs" / "results", (ROOT / "docs" / "results.md").read_text()
    names = list(dict.fromkeys(re.findall(r"\(results/([^/]+)/index\.md\)", written)))  # in the order of the page
    assert sorted(names) == sorted(folder.name for folder in beside.iterdir())
    studies = [write_results.read_tables(beside / name) for name in names]
    assert front(studies) == written
    for study, folder in zip(studies, (beside / name for name in names), strict=True):
        drawn = [path.stem for path in folder.glob("*.png")]
        assert page(study, drawn) == (folder / "index.md").read_text() and study.name == folder.name
        known = {name: one for made in study.provenance["products"].values() for name, one in made["files"].items()}
        there = [path for path in folder.iterdir() if path.name not in ("index.md", "provenance.json")]
        assert there and {path.name: content_hash(path) for path in there}.items() == known.items()
    assert readme.filled(README.read_text(), readme.block(studies)) == README.read_text()


@pytest.mark.parametrize("table", products.TABLES, ids=lambda table: table.name)
def test_the_docstring_of_a_table_describes_every_column_and_no_other(table):
    described = report_pages.columns(write_reference.docstring(table.dotted))
    names = [name for names in described for name in names.split(", ")]
    assert sorted(names) == sorted(getattr(import_module(table.module), table.name.upper()))
    assert all(described.values())


def test_the_documentation_builds_without_a_dead_link_and_loads_nothing_from_a_network(tmp_path):
    line = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > len(list((ROOT / "docs").rglob("*.md")))  # 404.html beside them
    loaded = re.compile(
        r"<(?:script|img|iframe)[^>]*src=\"(?:https?:)?//|<link[^>]*rel=\"stylesheet\"[^>]*href=\"(?:https?:)?//"
    )
    assert not [page.name for page in pages if loaded.search(page.read_text())]


@pytest.mark.parametrize(
    "page", [README, ROOT / "CONTRIBUTING.md", ROOT / "results" / "README.md"], ids=lambda page: page.name
)
def test_links_of_pages_outside_the_site_lead_to_files(page):
    links = [link for link in re.findall(r"\]\(([^)#]+)", page.read_text()) if "://" not in link]
    assert links and not [link for link in links if not (page.parent / link).exists()]


def test_the_citation_is_of_this_version_and_licence_and_names_both_papers():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    papers = {one["url"].rpartition("/")[2] for one in citation["references"]}
    assert papers == {"2512.19317", "2605.24492"}
