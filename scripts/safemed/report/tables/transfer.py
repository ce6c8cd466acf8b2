"""Each model on the adversarial images of each."""

import pandas as pd

from safemed.data.prompts import FAILED
from safemed.report.tables.rows import ATTACK_ROWS, require_columns
from safemed.utils.stats import clustered_wilson

TRANSFER = ["source", "target", "attack", "eps", "n", "failed", "accuracy", "ci_low", "ci_high"]
TRANSFER_ROWS = ["source", *ATTACK_ROWS]


def transfer(transferred: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of each model on the adversarial images that were made against each: one row of TRANSFER a pair.

    transferred: TRANSFER_ROWS of scripts/replay.py.

    Columns:
    source: the model that the images were made against.
    target: the model that answers them.
    attack, eps: which images, the radius in 1/255; where the source was wrong on the clean image, that image is shown.
    n: the questions.
    failed: those that could not be evaluated; then there is no accuracy.
    accuracy: the share of the n questions that the target answers rightly.
    ci_low, ci_high: 95 % Wilson interval clustered by image.
    """
    require_columns(transferred, TRANSFER_ROWS, "transfer rows")
    records = []
    for (source, target, attack, eps), part in transferred.groupby(["source", "model", "attack", "eps"], sort=False):
        right, failed = part.outcome == "right", int((part.outcome == FAILED).sum())
        record = {"source": source, "target": target, "attack": attack, "eps": eps, "n": len(part), "failed": failed}
        if not failed:
            low, high = clustered_wilson(right, part.image_path)
            record |= {"accuracy": right.mean(), "ci_low": low, "ci_high": high}
        records.append(record)
    return pd.DataFrame(records, columns=TRANSFER)
