"""Compute every table of the study from rows: robustness, the attack suite and whether it is sound, certificates, cost.

Writes robustness.csv, robustness_by_part.csv, suite.csv, comparisons.csv, transfer.csv, sanity.csv, certified.csv,
smoothing.csv, those of misled models (hints, changes, visuals, pixels_and_words, adaptive, calibration, abstention,
chain, chain_summary) and cost.csv into --out, each whole or not at all; a table without rows is a header alone.
What the rows came from goes into provenance.json.
"""

import argparse
import json
from pathlib import Path

import pandas as pd

from safemed.evaluation import diagnostics
from safemed.report.tables import (
    chain,
    comparisons,
    cost,
    robustness,
    rows,
    sanity,
    stress,
    suite,
    transfer,
)
from safemed.utils import files, provenance


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)
    baselines = pd.read_csv(args.baselines)
    attacks = read_rows(args.attack_rows, rows.ATTACK_ROWS)
    everything = pd.concat([attacks, read_rows(args.suite_rows, rows.ATTACK_ROWS)], ignore_index=True)
    certificates = read_rows(args.certificate_rows, rows.CERTIFICATE_ROWS)
    on_smoothed = read_rows(args.smoothed_rows, rows.ATTACK_ROWS)
    stress_rows = read_rows(args.stress_rows, stress.STRESS_ROWS)
    knowing = read_rows(args.adaptive_rows, rows.ATTACK_ROWS)
    evidence = stress.chained(stress_rows)
    costs = read_costs(args.costs)
    made = {
        "robustness": robustness.robustness(attacks, baselines),
        "robustness_by_part": robustness.robustness_by_part(attacks, baselines),
        "suite": suite.suite(everything, costs, args.eps),
        "comparisons": comparisons.comparisons(everything, args.eps),
        "transfer": transfer.transfer(read_rows(args.transfer_rows, transfer.TRANSFER_ROWS)),
        "sanity": sanity.sanity(read_rows(args.sanity_rows, diagnostics.PROBE_ROWS), everything, args.eps),
        "certified": certificates.certified(certificates, args.radii, on_smoothed[on_smoothed.sigma > 0]),
        "smoothing": certificates.smoothing(on_smoothed, args.eps),
        "hints": stress.hints(stress_rows),
        "question_edits": stress.question_edits(stress_rows),
        "image_edits": stress.image_edits(stress_rows),
        "pixels_and_words": stress.pixels_and_words(stress_rows),
        "adaptive": stress.adaptive(knowing, stress_rows, args.eps),
        "calibration": stress.calibration(stress_rows),
        "abstention": stress.abstention(stress_rows),
        "chain": chain.chain_table(evidence),
        "chain_summary": chain.chain_summary(evidence),
        "cost": cost.cost(costs),
    }
    args.out.mkdir(parents=True, exist_ok=True)
    for name, table in made.items():
        files.write_csv(table, args.out / f"{name}.csv")
    with files.atomic_file(args.out / provenance.FILE) as file:
        file.write_text(json.dumps(provenance.collected(args.costs, args.config), indent=1) + "\n")


def parser() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = arguments.add_argument
    add(
        "--attack-rows",
        nargs="*",
        type=Path,
        default=[],
        metavar="PARQUET",
        help="attacks/*/*/rows.parquet of the sweeps",
    )
    add(
        "--suite-rows",
        nargs="*",
        type=Path,
        default=[],
        metavar="PARQUET",
        help="those of attacks on survivors, and l2",
    )
    add("--transfer-rows", nargs="*", type=Path, default=[], metavar="PARQUET", help="transfer/*/rows.parquet")
    add("--sanity-rows", nargs="*", type=Path, default=[], metavar="PARQUET", help="sanity/*/rows.parquet")
    add("--eps", type=float, required=True, help="the suite's linf radius in 1/255")
    add(
        "--certificate-rows",
        nargs="*",
        type=Path,
        default=[],
        metavar="PARQUET",
        help="certificates/*/*/*/rows.parquet",
    )
    add(
        "--smoothed-rows",
        nargs="*",
        type=Path,
        default=[],
        metavar="PARQUET",
        help="of the certified models: clean, pgd and the attacks on smoothed models",
    )
    add("--stress-rows", nargs="*", type=Path, default=[], metavar="PARQUET", help="misled/*/rows.parquet")
    add(
        "--adaptive-rows",
        nargs="*",
        type=Path,
        default=[],
        metavar="PARQUET",
        help="attacks/*/*/rows.parquet of the attack that knows the hint",
    )
    add("--config", type=json.loads, default={}, help="the study's config, as JSON, for provenance.json")
    add("--costs", nargs="*", type=Path, default=[], metavar="JSON", help="the stages' cost.json")
    add("--baselines", required=True, type=Path, metavar="CSV", help="data/audit/baselines.csv")
    add("--radii", nargs="+", type=float, default=[0.0], help="L2 radii in [0, 1] pixel units")
    add("--out", required=True, type=Path, metavar="DIR", help="where the tables go")
    return arguments


def read_rows(paths: list[Path], columns: list[str]) -> pd.DataFrame:
    """The rows of all files, in order; ValueError naming the file if one is empty or lacks a column."""
    frames = [pd.read_parquet(path) for path in paths]
    for path, frame in zip(paths, frames, strict=True):
        rows.require_columns(frame, columns, path)
        if frame.empty:
            raise ValueError(f"{path}: no rows; a failed evaluation is not a score, re-run its rule")
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)


def read_costs(paths: list[Path]) -> pd.DataFrame:
    """One row a cost.json; ValueError naming the file if it lacks a key."""
    frames = [pd.DataFrame([json.loads(path.read_text())]) for path in paths]
    for path, frame in zip(paths, frames, strict=True):
        rows.require_columns(frame, rows.COST_RECORD, path)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=rows.COST_RECORD)


if __name__ == "__main__":
    main()
