"""Write docs/config.md, which describes every configuration key, from the schema and the default configuration."""

import argparse
from pathlib import Path

import yaml

from safemed.report import config_page
from safemed.utils import files
from safemed.workflow import config

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = ROOT / "workflow" / "schemas" / "config.schema.yaml"


def main(argv: list[str] | None = None) -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--out", type=Path, default=ROOT / "docs" / "config.md", help="the page")
    args = arguments.parse_args(argv)
    with files.atomic_file(args.out) as file:
        file.write_text(config_page.page(yaml.safe_load(SCHEMA.read_text()), config.read()))


if __name__ == "__main__":
    main()
