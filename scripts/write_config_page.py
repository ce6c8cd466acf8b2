"""Write docs/config.md, which describes every configuration key, from the schema and the default configuration."""

import argparse
from pathlib import Path

import yaml
from snakemake.utils import update_config

from safemed.report import config_page
from safemed.utils import files

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = ROOT / "workflow" / "schemas" / "config.schema.yaml"
DEFAULTS = (ROOT / "workflow" / "defaults.yaml", ROOT / "config.yaml")  # in the order in which Snakemake reads them


def main(argv: list[str] | None = None) -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--out", type=Path, default=ROOT / "docs" / "config.md", help="the page")
    args = arguments.parse_args(argv)
    config: dict = {}
    for path in DEFAULTS:
        update_config(config, yaml.safe_load(path.read_text()))
    with files.atomic_file(args.out) as file:
        file.write_text(config_page.page(yaml.safe_load(SCHEMA.read_text()), config))


if __name__ == "__main__":
    main()
