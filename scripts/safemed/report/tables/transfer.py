"""Each model on the adversarial images of each."""

import pandas as pd

from safemed.data.prompts import FAILED
from safemed.report.tables.rows import ATTACK_ROWS, require_columns
from safemed.utils.stats import clustered_wilson

TRANSFER = ["source", "target", "attack", "eps", "n", "failed", "accuracy", "ci_low", "ci_high"]
TRANSFER_ROWS = ["source", *ATTACK_ROWS]


def transfer(rows: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of each model on the adversarial images of each (TRANSFER). rows: TRANSFER_ROWS of scripts/replay.py.

    Images that were made against a question the source answered wrongly on its clean image are the clean ones. Where
    an attack could not evaluate a question (`failed` of n) there is no accuracy.
    """
    require_columns(rows, TRANSFER_ROWS, "transfer rows")
    records = []
    for (source, target, attack, eps), part in rows.groupby(["source", "model", "attack", "eps"], sort=False):
        right, failed = part.outcome == "right", int((part.outcome == FAILED).sum())
        told = {"source": source, "target": target, "attack": attack, "eps": eps, "n": len(part), "failed": failed}
        if not failed:
            low, high = clustered_wilson(right, part.image_path)
            told |= {"accuracy": right.mean(), "ci_low": low, "ci_high": high}
        records.append(told)
    return pd.DataFrame(records, columns=TRANSFER)
