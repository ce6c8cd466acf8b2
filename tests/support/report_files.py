"""The files of a small report, of rows by hand, and the command lines that make its tables and figures."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from safemed.report import products
from safemed.report.products import Product
from support.defence_rows import ANSWERED, defence_rows
from support.rag_rows import rag_rows
from support.report_rows import (
    BASELINES,
    OUTCOMES,
    attack_costs,
    attack_rows,
    certificate_rows,
    probed,
    smoothed_and_plain,
    smoothed_rows,
    study,
    target_rows,
    texts_of,
    trained_again,
)
from support.reveal_rows import every_reveal
from support.stress_rows import (
    ANYWAY,
    SEARCHED,
    attacked_rows,
    every_kind,
    hint_rows,
    protocol_rows,
    red_team_rows,
)
from support.tower_rows import METHODS, tower_costs, tower_rows
from support.turn_rows import every_turn

CONFIG = {
    "attack": {
        "headline_eps": 8,
        "attacks": {"pgd": {"kind": "pgd", "losses": {"think": ["answer"]}, "steps": 20, "restarts": 3}},
    },
    "certify": {"radii": [0.0, 0.25, 0.5]},
    "data": {"image_size": 32},
    "seed": 0,
    "redteam": {"strategies": list(SEARCHED)},
    "defend": {"defences": list(ANSWERED)},
    "methods": METHODS,
}
MODELS = ("sft-think", "at-grpo-think")


def arguments(product: Product, files: dict[str, list[str]], out: Path) -> list[str]:
    """The command line that report.smk gives a product's script, for a study's results in `out`."""
    options = " ".join(product.options(files)).split()
    settings = json.dumps(products.parameters(product, CONFIG))
    return ["--function", product.dotted, *options, "--settings", settings, "--out", product.outputs(out)[0]]


def write_inputs(folder: Path) -> dict[str, list[str]]:
    """Kind -> files of a small study, written, and of the tables that are going to be made of them in the folder."""
    smoothed, plain = smoothed_and_plain()
    rows = {
        "sweeps": study(),
        "attacks": study(),
        "transferred": study().assign(source="sft-think").query("eps == 8 and attack == 'pgd'"),
        "probes": probed(),
        "certificates": certificate_rows(),
        "certified/attacks": smoothed_rows({0: "abd", 0.25: "bd"}),
        "smoothing/smoothed": smoothed,
        "smoothing/plain": plain,
        "stress": pd.concat([every_kind(), hint_rows(seen="pgd")]),
        "published/stress": protocol_rows(lambda question, claimed: claimed or ANYWAY[question]),
        "published/sweeps": study(),
        "published/certificates": certificate_rows(),
        "hint_attacks": attacked_rows(),
        "pushes": pd.concat([every_turn(), every_turn().assign(model="at-grpo-think", method="at-grpo")]),
        "turn_attacks": attacked_rows(attack="pgd-turn", hint="wrong-2"),
        "redteam": red_team_rows(),
        "defend": defence_rows(),
        "reveal": every_reveal(),
        "towers": tower_rows(),
        "retrieved": rag_rows("sft-think"),
        "targets": target_rows(),
        "seeds/attacks": trained_again(study(), 1, 2),
        "seeds/certificates": trained_again(certificate_rows(), 1, 2),
        "seeds/stress": trained_again(every_kind(), 1, 2),
    }
    files = {kind: [_written(frame, folder / kind)] for kind, frame in rows.items()}
    for kind in ("examples", "thoughts"):
        files |= _examples(kind, folder)
    files["costs"] = files["attack_costs"] = _costs(folder, "cost", attack_costs(study()))
    files["trainings"] = _costs(folder, "training", tower_costs())
    files["baselines"] = [f"{folder}/baselines.csv"]
    BASELINES.to_csv(folder / "baselines.csv", index=False)
    files["data/texts"] = [_written(texts_of(pd.concat([study(), certificate_rows()])), folder / "texts")]
    files["curves"] = [f"{folder}/sft-think/curves.csv"]
    (folder / "sft-think").mkdir()
    curves = {"step": range(60), "loss": np.linspace(2, 1, 60), "clean_accuracy": [0.5] + [np.nan] * 59}
    pd.DataFrame(curves).to_csv(files["curves"][0], index=False)
    return products.with_tables(files, folder)


def _written(frame: pd.DataFrame, folder: Path) -> str:
    """The path of rows that are written to a folder."""
    folder.mkdir(parents=True)
    frame.to_parquet(folder / "rows.parquet")
    return f"{folder}/rows.parquet"


def _examples(kind: str, folder: Path) -> dict[str, list[str]]:
    """Rows and images of two models, the second robust; the perturbation is +eps everywhere."""
    files = {f"{kind}/{part}": [] for part in ("clean", "attacked", "images")}
    clean = np.full((8, 4, 4, 3), 100, np.uint8)
    for model, outcomes in zip(MODELS, (["wrong"] * 8, OUTCOMES), strict=True):
        attack = folder / kind / model / "pgd"
        files[f"{kind}/clean"].append(_written(attack_rows(model), folder / kind / model / "clean"))
        files[f"{kind}/attacked"].append(_written(attack_rows(model, "pgd", 8, outcomes), attack))
        files[f"{kind}/images"].append(f"{attack}/images.npz")
        np.savez(attack / "images.npz", clean=clean, eps8=clean + np.uint8(8))
    return files


def _costs(folder: Path, name: str, costs: pd.DataFrame) -> list[str]:
    """A cost.json for each row."""
    paths = []
    for i, record in enumerate(costs.to_dict("records")):
        (folder / f"{name}-{i}").mkdir()
        paths.append(f"{folder}/{name}-{i}/cost.json")
        Path(paths[-1]).write_text(json.dumps(record))
    return paths
