"""Every table and figure is declared with a function, a caption and defined columns, and is made by its script."""

import hashlib
import inspect
import json
import re
from pathlib import Path

import pandas as pd
import pytest

import collect_provenance
import make_figure
import make_table
from safemed.report import inputs as reading
from safemed.report import products
from safemed.report.products import FIGURES, PAGES, TABLES
from support.paths import ROOT
from support.report_files import CONFIG, arguments
from support.report_rows import attack_rows, study

PRODUCTS = (*TABLES, *FIGURES, *PAGES)


def test_every_function_takes_what_its_declaration_gives_it_and_every_caption_is_shown():
    for product in PRODUCTS:
        parameters = inspect.signature(reading.function(product.dotted)).parameters
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            continue  # it takes whatever it is given
        kinds = (*product.inputs, *product.optional)
        given = [kind.rpartition("/")[2] for kind in kinds] + list(products.parameters(product, CONFIG))
        assert sorted(given) == sorted(parameters), product.name
        required = {name for name, parameter in parameters.items() if parameter.default is parameter.empty}
        assert required.isdisjoint(kind.rpartition("/")[2] for kind in product.optional)
    captions = {path.stem for path in (ROOT / "workflow" / "report").glob("*.rst")} - {"audit"}
    assert captions == {product.caption for product in PRODUCTS}
    assert len({product.rule for product in PRODUCTS}) == len(PRODUCTS)


def test_every_column_of_every_table_is_defined_where_it_is_made(report):
    for table in TABLES:
        text = inspect.getdoc(reading.function(table.dotted)).split("Columns:\n")[1].split("\n\n")[0]
        defined = [name for names in re.findall(r"^((?:\w+, )*\w+): ", text, re.M) for name in names.split(", ")]
        made = pd.read_csv(table.outputs(report)[0])
        assert sorted(defined) == sorted(made.columns), table.name
        assert len(made), table.name  # a table of the whole study


def without(inputs: dict[str, list[str]], *kinds: str) -> dict[str, list[str]]:
    """What a study has that lacks these kinds of rows, and the tables that are made of them."""
    files = {kind: paths for kind, paths in inputs.items() if not kind.startswith("tables/")}
    return products.with_tables(files | {kind: [] for kind in kinds}, "results")


def left_out(files: dict[str, list[str]]) -> set[str]:
    """The rules of what is not made of some files."""
    return {product.rule for product in PRODUCTS} - {product.rule for product in products.made(files)}


def test_a_product_is_made_where_none_of_its_inputs_is_lacking(inputs):
    assert products.made(inputs) == list(PRODUCTS)
    unpublished = without(inputs, *(kind for kind in inputs if kind.startswith("published/")))
    assert left_out(unpublished) == {f"{verb}_{name}" for verb in ("make", "draw") for name in ("published", "groups")}
    uncertified = without(inputs, "certificates", "certified/attacks", "smoothing/plain")
    assert left_out(uncertified) == {
        "make_certified", "draw_certified_vs_radius", "make_smoothing", "draw_smoothed_attack",
    }  # fmt: skip
    unattacked = without(inputs, "certified/attacks")
    assert not left_out(unattacked)
    (certified,) = (product for product in products.made(unattacked) if product.name == "certified")
    assert "attacks" not in " ".join(certified.options(unattacked))
    (tables,) = (page for page in PAGES if page.name == "tables")
    assert "results/tables/groups.csv" not in tables.needs(unpublished) and tables.needs(unpublished)


def test_rules_make_a_table_and_the_folders_of_all_other_inputs():
    (table,) = (product for product in TABLES if product.name == "adaptive")
    (figure,) = (product for product in FIGURES if product.name == "chain")
    files = {"hint_attacks": ["a/x/rows.parquet", "a/y/rows.parquet"], "stress": ["s/rows.parquet"]}
    assert table.needs(files) == ["a/x", "a/y", "s"]
    assert figure.needs({"tables/chain": ["t/chain.csv"]}) == ["t/chain.csv"]
    (groups,) = (product for product in TABLES if product.name == "groups")
    given = {"published/sweeps": ["a/x/rows.parquet"], "data/texts": ["d/texts.parquet"], "published/certificates": []}
    assert groups.needs(given) == ["a/x", "d/texts.parquet"]  # no rule makes the folder of the data


@pytest.mark.filterwarnings("error")
def test_figures_are_the_same_bytes_every_time(report, inputs, tmp_path):
    for figure in FIGURES:
        make_figure.main(arguments(figure, inputs, tmp_path))
        for one, two in zip(figure.outputs(report), figure.outputs(tmp_path), strict=True):
            assert Path(one).read_bytes() == Path(two).read_bytes() and Path(one).stat().st_size > 100
    assert len(list((tmp_path / "figures").iterdir())) == 3 * len(FIGURES)  # and no temporary file
    assert b"CreationDate" not in (tmp_path / "figures" / "chain.pdf").read_bytes()


def test_a_table_is_written_to_the_last_digit(report):
    from safemed.report.tables.robustness import robustness
    from support.report_rows import BASELINES

    made = pd.read_csv(report / "tables" / "robustness.csv")
    pd.testing.assert_frame_equal(made, robustness(study(), BASELINES), check_exact=True, check_dtype=False)
    assert not list((report / "tables").glob(".*"))


def test_an_empty_or_stale_file_of_rows_is_refused_by_its_name(tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "failed").mkdir()
    attack_rows().to_parquet(tmp_path / "whole" / "rows.parquet")
    for rows, message in ((attack_rows()[:0], "no rows"), (attack_rows().drop(columns="hint"), "column.s. hint")):
        rows.to_parquet(tmp_path / "failed" / "rows.parquet")
        line = f"--function safemed.report.tables.comparisons.comparisons --out {tmp_path}/table.csv --input attacks"
        files = [f"{tmp_path}/{name}/rows.parquet" for name in ("whole", "failed")]
        with pytest.raises(ValueError, match=f"failed/rows.parquet: .*{message}.*re-run"):
            make_table.main([*line.split(), *files, "--settings", '{"eps": 8}'])
        assert not (tmp_path / "table.csv").exists()


@pytest.mark.parametrize(
    "name", ["comparisons", "safemed.report.tables.nothing.nothing", "safemed.report.tables.cost.no"]
)
def test_an_unknown_function_is_refused_by_its_name(name):
    with pytest.raises(ValueError, match=f"--function {name}: .*package.module.function"):
        reading.function(name)


def test_provenance_is_collected_with_each_environment_once(tmp_path):
    made_on = {"python": "3", "packages": {"torch": "2"}}
    for name, gpus in (("a", []), ("b", []), ("c", ["A"])):
        (tmp_path / name).mkdir()
        record = {"script": f"{name}.py", "hardware": {"gpus": gpus}, **made_on}
        (tmp_path / name / "provenance.json").write_text(json.dumps(record))
    costs = [f"{tmp_path}/{name}/cost.json" for name in "abc"]
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "suite.csv").write_text("model\n")
    out = tmp_path / "tables" / "provenance.json"
    collect_provenance.main(
        [
            "--costs",
            *costs,
            "--config",
            '{"seed": 7}',
            "--products",
            '{"tables/suite": "ab"}',
            "--out",
            str(out),
        ]
    )
    collected = json.loads(out.read_text())
    of_file = hashlib.sha256(b"model\n").hexdigest()
    assert collected["products"] == {"tables/suite": {"code": "ab", "files": {"suite.csv": of_file}}}
    assert collected["config"] == {"seed": 7} and len(collected["environments"]) == 2
    found = [(result["script"], result["environment"]) for result in collected["results"].values()]
    assert found == [("a.py", 0), ("b.py", 0), ("c.py", 1)]
    assert collected["environments"][1]["hardware"] == {"gpus": ["A"]}
