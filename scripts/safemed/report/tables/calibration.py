"""Whether a model's confidence tells its right answers from its wrong ones."""

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score

from safemed.report.tables.rows import COMPLETE, accuracy
from safemed.report.tables.stress_rows import check_stress_rows

CALIBRATION = [
    "model", "kind", "polarity", "seen", "n", "accuracy", "ci_low", "ci_high", "answered", "confidence", "ece", "auroc",
    "auprc", "selective", "status",
]  # fmt: skip
BINS = 10  # of the calibration error
COVERAGE = 0.8  # of the selective accuracy


def calibration(stress: pd.DataFrame) -> pd.DataFrame:
    """Confidence against accuracy, plain, under hints and on blank images: one row of CALIBRATION for each condition.

    stress: STRESS_ROWS. Of the hints, those whose wordings no training draws.

    Columns:
    model: which model.
    kind: plain, hint, or erasure, where the whole image has one colour.
    polarity: of the hint.
    seen: the images shown, clean or those of an attack.
    n: the answers.
    accuracy: the share of them that is right.
    ci_low, ci_high: its 95 % Wilson interval clustered by image.
    answered: the share that names an option.
    confidence: mean probability, among the letters offered, of the letter answered, over the share answered.
    ece: expected calibration error over ten equal bins of it (Guo et al. 2017).
    auroc, auprc: how well it tells right answers from wrong ones, over the answers that name an option (MedConf's
        measures, arXiv 2601.15645): the chance that a right answer is surer than a wrong one, ties counting half; and
        the average precision at finding the right ones, which is the share of right ones among them where confidence
        says nothing. Missing where all of them are right, all are wrong, or none names an option.
    selective: accuracy on the 80 % of all answers with the greatest confidence, those that name no option last: what a
        model gains by abstaining on the rest.
    status: complete, or "incomplete: k of n not evaluated"; then there is no number.

    Raises ValueError if `check_stress_rows` does.
    """
    check_stress_rows(stress)
    new = (stress.kind == "hint") & ~stress.taught.astype(bool)
    blank = (stress.kind == "erasure") & (stress.name == "blank")
    keys = ["model", "kind", "polarity", "seen"]
    records = []
    for key, group in stress[(stress.kind == "plain") | new | blank].groupby(keys):
        record = dict(zip(keys, key, strict=True)) | accuracy(group)
        if record["status"] == COMPLETE:
            record |= _calibrated(group.confidence.to_numpy(float), (group.outcome == "right").to_numpy())
        records.append(record)
    return pd.DataFrame(records, columns=CALIBRATION)


def _calibrated(confidence: np.ndarray, right: np.ndarray) -> dict:
    """The shares of `calibration`, of confidences [n], nan where there is no answer, and outcomes [n]."""
    answered = ~np.isnan(confidence)
    record = {"answered": answered.mean(), "selective": selective(np.nan_to_num(confidence), right)}
    if answered.any():
        record |= {"confidence": confidence[answered].mean(), "ece": ece(confidence[answered], right[answered])}
        record |= discrimination(confidence[answered], right[answered])
    return record


def discrimination(confidence: np.ndarray, right: np.ndarray) -> dict:
    """auroc and auprc of confidence [n] in right answers against wrong ones; neither where there is one kind alone."""
    if right.all() or not right.any():
        return {}
    return {"auroc": roc_auc_score(right, confidence), "auprc": average_precision_score(right, confidence)}


def ece(confidence: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error: |accuracy - confidence| of BINS equal bins of confidence [n], by their sizes."""
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = [abs(right[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).sum() for b in np.unique(bins)]
    return float(sum(gaps) / len(right))


def selective(confidence: np.ndarray, right: np.ndarray) -> float:
    """Accuracy on the COVERAGE of the answers [n] with the greatest confidence; ties in the order given."""
    kept = np.argsort(-confidence, kind="stable")[: max(1, round(COVERAGE * len(right)))]
    return float(right[kept].mean())
