"""A small report, made by the scripts as its declarations say."""

from pathlib import Path

import pytest

import make_figure
import make_page
import make_table
from safemed.report.products import FIGURES, PAGES, TABLES
from support.report_files import arguments, write_inputs


@pytest.fixture(scope="session")
def inputs(tmp_path_factory) -> dict[str, list[str]]:
    """Kind -> files of a small study, and of the tables that are going to be made of them."""
    return write_inputs(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="session")
def report(inputs) -> Path:
    """The study's folder with all of its tables, figures and pages."""
    out = Path(inputs["tables/cost"][0]).parents[1]
    for table in TABLES:
        make_table.main(arguments(table, inputs, out))
    for figure in FIGURES:
        make_figure.main(arguments(figure, inputs, out))
    for page in PAGES:
        make_page.main(arguments(page, inputs, out))
    return out
