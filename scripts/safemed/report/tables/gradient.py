"""Accuracy and confidence as the evidence is revealed step by step, and which confidence ranks right answers best."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from safemed.data.prompts import FAILED, OUTCOMES
from safemed.report.tables.calibration import discrimination, ece
from safemed.report.tables.rows import COMPLETE, accuracy, check_answers, refuse
from safemed.stress.reveal_orders import SEEDED
from safemed.utils.ranking import auroc, auroc_difference, auroc_interval

OUTCOME_OF = {  # each confidence, and the outcome of the answer that it is in
    "letter": "outcome", "entropy": "outcome", "agreement": "outcome", "noise": "outcome", "p_A": "vote_outcome",
}  # fmt: skip
ESTIMATORS = tuple(OUTCOME_OF)
LETTER = "letter"  # what the others are compared with
REVEAL_ROWS = [
    "question_id", "image_path", "modality", "question_type", "n_options", "gold", "model", "method", "variant",
    "precision", "order", "seen", "share", "cells", "samples", "sigma", "draws", "text", "answer", "said", "outcome",
    "voted", "vote_outcome", *ESTIMATORS,
]  # fmt: skip
CONDITION = ["order", "seen", "share"]
GRADIENT = [
    "model", "seen", "order", "estimator", "share", "n", "accuracy", "ci_low", "ci_high", "seeded", "answered",
    "n_wrong", "confidence", "ece", "auroc", "auroc_low", "auroc_high", "auprc", "beyond", "beyond_low", "beyond_high",
    "pearson", "spearman", "status",
]  # fmt: skip
GRADIENT_SUMMARY = [
    "model", "seen", "order", "estimator", "shares", "n", "n_wrong", "auroc", "auroc_low", "auroc_high", "auprc",
    "beyond", "beyond_low", "beyond_high", "status",
]  # fmt: skip


def gradient(reveal: pd.DataFrame) -> pd.DataFrame:
    """Accuracy against confidence at each share of the image that is shown: one row of GRADIENT for each estimator.

    reveal: REVEAL_ROWS. An estimator is what the confidence in an answer is taken from. The answer is the one that the
    model generates from the image as it is shown; that of p_A is the smoothed model's, which has most votes.

    Columns:
    model: which model.
    seen: the images that are revealed, clean or those of an attack, which was made for the whole image.
    order: of the cells: seeded, by chance, or lesion-last, those of the lesion after all others, of images whose lesion
        has a known place.
    estimator: letter, the probability of the answered letter among those offered, after the words before it; entropy, 1
        minus the entropy of these probabilities over that of equal ones; agreement, the share of texts sampled at
        temperature 1 that give the same answer; noise, the share of the votes under Gaussian noise that do; p_A, the
        share of these votes for the answer that has most, which a certificate bounds from below. The votes that choose
        that answer are among those counted, which flatters it where votes are close.
    share: of the cells that are shown.
    n: the answers.
    accuracy: the share of them that is right.
    ci_low, ci_high: its 95 % Wilson interval clustered by image.
    seeded: the accuracy on the same questions where as many cells are shown in the seeded order.
    answered: the share that names an option; one that names none is wrong, and has no confidence.
    n_wrong: the wrong ones among the answers that name an option, which confidence has to tell from the right ones.
    confidence: its mean over the answers that name an option.
    ece: expected calibration error over ten equal bins of it.
    auroc: the chance that a right answer is surer than a wrong one, of those that name an option, ties counting half;
        0.5 says nothing. Missing where all of them are right, or all are wrong.
    auroc_low, auroc_high: its 95 % interval (Newcombe's method 5), clustered by image.
    auprc: the average precision at finding the right ones; the share of right ones where confidence says nothing.
    beyond: auroc less that of the letter's probability, on the questions of which both answers name an option. That of
        p_A is of other answers: noise has the same votes, and the same answers as the letter.
    beyond_low, beyond_high: its 95 % bootstrap interval over images, both on the same ones; missing where fewer than
        ten images have a wrong answer, or a right one.
    pearson, spearman: correlation of accuracy with confidence over the shares. Of five or six points, which are the
        same questions, they say whether both rise together, and a p-value would mean nothing.
    status: complete, or "incomplete: k of n not evaluated"; then there is no number.

    Raises ValueError if `check_reveal_rows` does.
    """
    check_reveal_rows(reveal)
    records = []
    for keys, estimator, rows in _curves(reveal):
        found = [
            {"share": share, **_ranked(part, estimator), **_seeded(part, estimator, reveal)}
            for share, part in rows.groupby("share")
        ]
        records += [keys | record | _together(found) for record in found]
    return pd.DataFrame(records, columns=GRADIENT)


def gradient_summary(reveal: pd.DataFrame) -> pd.DataFrame:
    """How well each confidence ranks the answers at all shares together: one row of GRADIENT_SUMMARY for each.

    A confidence that knows how much of an image it has not seen ranks answers at different shares, too. Columns have
    the meaning that they have in the table of single shares.

    reveal: REVEAL_ROWS.

    Columns:
    model, seen, order, estimator: as there.
    shares: how many are put together.
    n: the answers, of each question one at each share.
    n_wrong: the wrong ones among those that name an option.
    auroc, auroc_low, auroc_high, auprc: of all of them; the answers about one image depend on each other, and count for
        less than as many about different ones.
    beyond, beyond_low, beyond_high: auroc less that of the letter's probability.
    status: complete, or "incomplete: k of n not evaluated"; then there is no number.

    Raises ValueError if `check_reveal_rows` does.
    """
    check_reveal_rows(reveal)
    records = [
        keys | {"shares": rows.share.nunique()} | _ranked(rows, estimator) for keys, estimator, rows in _curves(reveal)
    ]
    return pd.DataFrame(records, columns=GRADIENT_SUMMARY)


def check_reveal_rows(rows: pd.DataFrame) -> None:
    """Refuse rows of revealed images that cannot be counted.

    Raises ValueError, naming model and condition and the way out, where `rows.check_answers` does; where the outcome of
    the votes is none that is known, or contradicts what they say, or is failed where the text's is not; where an answer
    has no confidence, or one outside [0, 1]; where a question was not asked in the seeded order, too, or not at every
    share. Empty rows pass.
    """
    if rows.empty:
        return
    check_answers(rows, [name for name in REVEAL_ROWS if name not in ESTIMATORS], CONDITION, "rows of revealed images")
    where, known = ["model", *CONDITION], (*OUTCOMES, FAILED)
    refuse(rows, ~rows.vote_outcome.isin(known), where, f"the outcome of the votes is none of {', '.join(known)}")
    contradicted = (rows.vote_outcome == "right") != (rows.voted == rows.gold)
    refuse(rows, contradicted, where, "the outcome of the votes contradicts them")
    refuse(rows, (rows.outcome == FAILED) != (rows.vote_outcome == FAILED), where, "text or votes alone failed")
    for estimator in ESTIMATORS:
        answer = rows.voted if estimator == "p_A" else rows.answer
        unsure = (answer != "") & ~rows[estimator].between(0, 1)
        refuse(rows, unsure, where, f"an answer without a {estimator} in [0, 1]")
    asked = pd.MultiIndex.from_frame(rows[["model", "seen", "share", "question_id"]])
    alone = pd.Series(~asked.isin(asked[rows.order == SEEDED]), rows.index)
    refuse(rows, alone, where, "not asked in seeded order, too")
    times = rows.groupby(["model", "seen", "order", "question_id"]).share.transform("size")
    refuse(rows, times < rows.share.nunique(), where, "a question that was not asked at every share")


def _curves(reveal: pd.DataFrame) -> Iterator[tuple[dict, str, pd.DataFrame]]:
    """The rows of each model, kind of image and order, once for each estimator: what a record says of them, and its
    name, with the outcome of the answer that it is in.
    """
    names = ["model", "seen", "order"]
    for keys, group in reveal.groupby(names, sort=False):
        for estimator in ESTIMATORS:
            named = dict(zip(names, keys, strict=True)) | {"estimator": estimator}
            yield named, estimator, _judged(group, estimator)


def _judged(rows: pd.DataFrame, estimator: str) -> pd.DataFrame:
    """The rows with the outcome of the answer that an estimator is a confidence in, and that of the text as `text_`."""
    return rows.assign(outcome=rows[OUTCOME_OF[estimator]], text_outcome=rows.outcome)


def _ranked(rows: pd.DataFrame, estimator: str) -> dict:
    """The numbers of one estimator on the rows of one curve, at one share or at all."""
    record = accuracy(rows)
    if record["status"] != COMPLETE:
        return record
    there = rows[rows[estimator].notna()]
    right = (there.outcome == "right").to_numpy()
    record |= {"answered": len(there) / len(rows), "n_wrong": int((~right).sum())}
    if there.empty:
        return record
    confidence = there[estimator].to_numpy(float)
    low, high = auroc_interval(right, confidence, there.image_path)
    record |= {"confidence": confidence.mean(), "ece": ece(confidence, right), "auroc_low": low, "auroc_high": high}
    return record | discrimination(confidence, right) | _beyond(there, estimator)


def _beyond(there: pd.DataFrame, estimator: str) -> dict:
    """An estimator against the letter's probability, each a confidence in its own answer to the same questions."""
    both = there[there[LETTER].notna()]
    if estimator == LETTER or both.empty:
        return {}
    own, letter = (
        ((both[outcome] == "right").to_numpy(), both[name].to_numpy(float))
        for outcome, name in (("outcome", estimator), ("text_outcome", LETTER))
    )
    low, high = auroc_difference(own, letter, both.image_path)
    return {"beyond": auroc(*own) - auroc(*letter), "beyond_low": low, "beyond_high": high}


def _seeded(part: pd.DataFrame, estimator: str, reveal: pd.DataFrame) -> dict:
    """The accuracy on the questions of a part in the seeded order, at the same share."""
    first = part.iloc[0]
    same = (reveal.model == first.model) & (reveal.seen == first.seen) & (reveal.share == first.share)
    beside = reveal[same & (reveal.order == SEEDED) & reveal.question_id.isin(part.question_id)]
    return {"seeded": accuracy(_judged(beside, estimator))["accuracy"]}


def _together(found: list[dict]) -> dict:
    """The correlations of accuracy with confidence over the records of all shares; none where either is constant."""
    pairs = np.array([[record.get("accuracy", np.nan), record.get("confidence", np.nan)] for record in found], float)
    if len(pairs) < 3 or np.isnan(pairs).any() or (np.ptp(pairs, axis=0) == 0).any():
        return {}
    points = pd.DataFrame(pairs)
    return {name: points.corr(method=name).iloc[0, 1] for name in ("pearson", "spearman")}
