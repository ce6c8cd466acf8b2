"""What is written as CSV is read again as it was: text as text, numbers to the last digit."""

import logging

import pandas as pd
import pytest

from safemed.utils import cli
from safemed.utils.files import read_csv, write_csv
from support.hostile import IDS, MARKUP

TEXTS = [*IDS, "None", "NaN", "inf", "-", "1.0", "False", "a,b", '"q"', " spaced ", "a\rb", "a\nb", "#N/A", "0x1F"]


def test_text_comes_back_as_it_was_whatever_it_looks_like(tmp_path):
    written = pd.DataFrame({"name": TEXTS, "x": [0.1 + 0.2] * len(TEXTS), "y": [None, *[1.0] * (len(TEXTS) - 1)]})
    write_csv(written.assign(good=True), tmp_path / "a.csv")
    read = read_csv(tmp_path / "a.csv", {"name", "absent"})
    assert read["name"].tolist() == TEXTS
    assert read["x"].tolist() == written["x"].tolist() and read["y"].isna().tolist() == written["y"].isna().tolist()
    assert read["good"].dtype == bool


def test_missing_text_is_empty_and_a_table_may_have_no_row(tmp_path):
    write_csv(pd.DataFrame({"name": [None, "a"], "x": [1, 2]}), tmp_path / "a.csv")
    assert read_csv(tmp_path / "a.csv", {"name"})["name"].tolist() == ["", "a"]
    write_csv(pd.DataFrame({"name": [], "x": []}), tmp_path / "b.csv")
    assert read_csv(tmp_path / "b.csv", {"name"}).columns.tolist() == ["name", "x"]


def test_a_column_of_text_that_nobody_declared_is_refused_by_name(tmp_path):
    write_csv(pd.DataFrame({"name": ["a"], "other": ["NA"]}), tmp_path / "a.csv")
    with pytest.raises(ValueError, match="a.csv: the column other"):
        read_csv(tmp_path / "a.csv", {"name"})


def test_what_a_log_line_quotes_makes_no_line_of_its_own():
    line = cli.OneLine(cli.LOG_FORMAT).format(logging.makeLogRecord({"msg": "read %s", "args": (MARKUP,)}))
    assert line.splitlines() == [line] and "\x1b" not in line and "\\x1b" in line and "\\r\\n" in line
