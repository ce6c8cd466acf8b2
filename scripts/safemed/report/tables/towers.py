"""What vision towers tell by themselves, beside what the models that they belong to answer, and what they cost."""

from collections.abc import Mapping

import pandas as pd

from safemed.report.tables.pairing import holm_by_seed
from safemed.report.tables.rows import (
    ATTACK_ROWS,
    CLEAN,
    COMPLETE,
    COST_RECORD,
    accuracy,
    check_answers,
    check_attack_rows,
    refuse,
    require_columns,
    status,
)
from safemed.utils.stats import clustered_wilson, sign_flip

TOWER_ROWS = [
    "question_id", "image_path", "level", "seen", "gold", "answer", "outcome", "k", "classes", "eps", "shift", "model",
    "method", "variant", "precision",
]  # fmt: skip
TOWERS = [
    "model", "level", "k", "classes", "n", "knn_clean", "knn_clean_low", "knn_clean_high", "knn_pgd", "knn_pgd_low",
    "knn_pgd_high", "p_base", "p_base_holm", "shift", "vqa_n", "vqa_clean", "vqa_pgd", "passes", "status",
]  # fmt: skip
PGD = "pgd"
BASE = "base"


def towers(
    towers: pd.DataFrame,
    trainings: pd.DataFrame,
    eps: float,
    methods: Mapping[str, dict],
    sweeps: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Each model's vision tower, by level: one row of TOWERS each. Shares are in [0, 1].

    towers: TOWER_ROWS; trainings: COST_RECORD of every training; eps: the headline radius, in 1/255; methods: the
    config's; sweeps: ATTACK_ROWS of the clean images and of the attacks at all radii, if there are any.

    Columns:
    model: which model.
    level: what is voted on: modality, anatomy or finding; only where the training images have two labels at least.
    k: the number of nearest training images that vote, by the cosine of pooled features.
    classes: how many labels the training images have.
    n: the test images.
    knn_clean: the share of them whose label wins the vote.
    knn_pgd: the share whose label wins it on the clean image and on one attacked within eps: first away from its own
        features, then against the vote.
    knn_clean_low, knn_clean_high, knn_pgd_low, knn_pgd_high: their 95 % Wilson intervals.
    p_base, p_base_holm: exact test of flipped signs of knn_pgd against the base's of the same variant and seed, and
        adjusted by Holm's (1979) method over all models and levels of that seed.
    shift: the mean relative squared distance that the attack away from its own features moves an image's features, in
        each layer by itself. It is small for a tower that tells nothing, too: read it beside knn_clean.
    vqa_n: the questions that the model was asked, and attacked on by pgd at eps.
    vqa_clean, vqa_pgd: the shares of them answered rightly: on the clean image, and under that attack.
    passes: the images, forward and backward, that went through the tower in the model's training, and in the trainings
        of what it started from; without the base's.
    status: complete, or "incomplete: k of n not evaluated"; then there is no number that rests on them.

    Raises ValueError if rows are refused by `check_tower_rows` or `check_attack_rows`, or a training has no cost.
    """
    check_tower_rows(towers)
    sweeps = pd.DataFrame(columns=ATTACK_ROWS) if sweeps is None else sweeps
    check_attack_rows(sweeps)
    require_columns(trainings, COST_RECORD, "cost records")
    spent = trainings.set_index("model")[["forward_passes", "backward_passes"]].sum(axis=1)
    records = []
    for (model, level), part in towers.groupby(["model", "level"], sort=False):
        method = part.method.iloc[0]
        ending = model.removeprefix(method)  # the variant, and the seed of a further training
        record = {"model": model, "level": level, "passes": _passes(method, ending, spent, methods)}
        records.append(record | _probed(part, _right(towers, BASE + ending, level)) | _asked(sweeps, model, eps))
    table = pd.DataFrame(records, columns=TOWERS)
    return table.assign(p_base_holm=holm_by_seed(table.p_base, table.model))


def check_tower_rows(rows: pd.DataFrame) -> None:
    """Refuse rows of the probe of towers that cannot be counted.

    Raises ValueError, naming model, level and what was seen and the way out, where `check_answers` does, an image was
    not seen both clean and attacked, or one that is wrong as it is became right. Empty rows pass.
    """
    if rows.empty:
        return
    check_answers(
        rows, [name for name in TOWER_ROWS if name != "shift"], ["level", "seen"], "rows of the probe of towers"
    )
    where = ["model", "level", "seen"]
    keys = ["model", "level", "question_id"]
    refuse(rows, rows.groupby(keys).seen.transform("nunique") != 2, where, "an image was not seen clean and attacked")
    clean = rows[rows.seen == CLEAN].set_index(keys).outcome
    before = clean.reindex(pd.MultiIndex.from_frame(rows[keys])).to_numpy()
    refuse(rows, (rows.outcome == "right") & (before == "wrong"), where, "an attack made an image right")


def _passes(method: str, ending: str, spent: pd.Series, methods: Mapping[str, dict]) -> int:
    """The images forward and backward of a model's training and of all that it goes on from. spent: of each model."""
    if method == BASE:
        return 0
    own, start = f"{method}{ending}", methods[method]["start"]
    if own not in spent:
        raise ValueError(f"{own}: no cost of its training; re-run that training")
    return int(spent[own]) + _passes(start, ending, spent, methods)


def _right(rows: pd.DataFrame, model: str, level: str) -> pd.Series | None:
    """Whether each image is right under attack, by question_id; None without such rows, or where some are not whole."""
    part = rows[(rows.model == model) & (rows.level == level) & (rows.seen == PGD)].set_index("question_id")
    return None if part.empty or status(part) != COMPLETE else part.outcome == "right"


def _probed(part: pd.DataFrame, base: pd.Series | None) -> dict:
    """The numbers of one model and level. base: the base's, of `_right`."""
    sights = {seen: part[part.seen == seen].set_index("question_id") for seen in (CLEAN, PGD)}
    whole = status(sights[PGD])
    record = {"k": part.k.iloc[0], "classes": part.classes.iloc[0], "n": len(sights[CLEAN]), "status": whole}
    if whole != COMPLETE:
        return record
    for seen, rows in sights.items():
        right = rows.outcome == "right"
        low, high = clustered_wilson(right, rows.image_path)
        record |= {f"knn_{seen}": right.mean(), f"knn_{seen}_low": low, f"knn_{seen}_high": high}
    record["shift"] = sights[CLEAN]["shift"].mean(skipna=False)
    if base is not None and part.method.iloc[0] != BASE:
        right = sights[PGD].outcome == "right"
        record["p_base"] = sign_flip(right, base[right.index], right.index)
    return record


def _asked(sweeps: pd.DataFrame, model: str, eps: float) -> dict:
    """The model's answers to questions, clean and under pgd at eps; nothing where it was not asked."""
    own = sweeps[sweeps.model == model]
    sights = {"vqa_clean": own[own.attack == CLEAN], "vqa_pgd": own[(own.attack == PGD) & (own.eps == eps)]}
    found = {name: accuracy(rows)["accuracy"] for name, rows in sights.items() if len(rows)}
    return found | {"vqa_n": len(sights["vqa_pgd"])}
