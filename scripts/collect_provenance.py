"""Collect a study's config, what each result came from, and hashes of tables, figures and pages, in one JSON."""

import argparse
import json
from pathlib import Path

from safemed.utils import files, provenance


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--costs", nargs="+", required=True, type=Path, help="the cost.json of all results")
    parser.add_argument("--config", type=json.loads, required=True, help="the study's config, as JSON")
    parser.add_argument(
        "--products", type=json.loads, required=True, help="the hash of the code of tables, figures and pages, as JSON"
    )
    parser.add_argument("--out", required=True, type=Path, help="JSON to write, in the folder tables of the study")
    args = parser.parse_args(argv)
    products = provenance.checked(args.products, args.out.parents[1])
    with files.atomic_file(args.out) as file:
        file.write_text(json.dumps(provenance.collected(args.costs, args.config, products), indent=1) + "\n")


if __name__ == "__main__":
    main()
