"""Rows of revealed images, made by hand."""

import math

import pandas as pd

from safemed.report.tables.gradient import ESTIMATORS, REVEAL_ROWS
from safemed.stress.reveal_orders import ORDERS

SHARES = (0.2, 0.6, 1.0)
# share -> question -> what is said of the image, and what most votes say; gold is A, of three options.
SAID = {
    0.2: {"q1": "AB", "q2": "BB", "q3": "CA", "q4": "BA", "q5": ("", "")},
    0.6: {"q1": "AA", "q2": "AB", "q3": "CA", "q4": "BA", "q5": "BB"},
    1.0: {"q1": "AA", "q2": "AA", "q3": "AA", "q4": "BA", "q5": "BB"},
}


def outcome(answer: str) -> str:
    return "right" if answer == "A" else "wrong" if answer else "unparsable"


def sure(estimator: str, share: float, question: str, answer: str) -> float:
    """The letter knows the share alone, noise and p_A what is right, samples nothing, and entropy the opposite."""
    knows = 0.4 + 0.5 * (answer == "A") + int(question[1]) / 100
    return {"letter": share, "entropy": 1 - knows, "agreement": 0.5, "noise": knows, "p_A": knows}[estimator]


def reveal_rows(orders=ORDERS, **changes) -> pd.DataFrame:
    """The rows of SAID; the lesions of the first four images have a known place. Image and question are one."""
    rows = []
    for order in orders:
        for share, answers in SAID.items():
            for question, (answer, voted) in answers.items():
                if order != "seeded" and question == "q5":
                    continue
                given = dict.fromkeys(ESTIMATORS, answer) | {"p_A": voted}
                rows.append({
                    "question_id": question, "image_path": question, "modality": "CT", "question_type": "t",
                    "n_options": 3, "gold": "A", "model": "sft-think", "method": "sft", "variant": "think",
                    "precision": "fp32", "order": order, "seen": "clean", "share": share, "cells": 8, "samples": 10,
                    "sigma": 0.25, "draws": 100, "text": answer, "answer": answer, "said": answer,
                    "outcome": outcome(answer), "voted": voted, "vote_outcome": outcome(voted),
                    **{name: sure(name, share, question, of) if of else math.nan for name, of in given.items()},
                })  # fmt: skip
    return pd.DataFrame(rows)[REVEAL_ROWS].assign(**changes)


def every_reveal() -> pd.DataFrame:
    """The same of clean and of attacked images."""
    return pd.concat([reveal_rows(seen=seen) for seen in ("clean", "pgd")], ignore_index=True)
