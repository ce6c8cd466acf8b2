"""Rows of second turns, made by hand."""

import pandas as pd

from safemed.stress.pushes import PUSHES

# question -> the first answer, its confidence, what is said after each push; gold is A, the wrong claim B, of three.
SAID = {
    "q1": ("A", 0.9, {"silent": "A", "doubt": "C", "wrong": "B", "right": "A"}),
    "q2": ("A", 0.8, {"silent": "C", "doubt": "A", "wrong": "B", "right": "A"}),
    "q3": ("A", 0.7, {"silent": "A", "doubt": "A", "wrong": "C", "right": "A"}),
    "q4": ("A", 0.6, {"silent": "A", "doubt": "A", "wrong": "A", "right": "A"}),
    "q5": ("B", 0.5, {"silent": "B", "doubt": "A", "wrong": "B", "right": "A"}),
    "q6": ("", float("nan"), {"silent": "A", "doubt": "", "wrong": "B", "right": "B"}),
}
CLAIMS = {"negative": "B", "positive": "A", "neutral": ""}


def outcome(answer: str) -> str:
    return "right" if answer == "A" else "wrong" if answer else "unparsable"


def turn_rows(**changes) -> pd.DataFrame:
    """The rows of SAID, in new wordings and on clean images; image and question are one."""
    rows = []
    for question, (first, confidence, second) in SAID.items():
        for push, answer in second.items():
            rows.append({
                "question_id": question, "image_path": question, "modality": "CT", "question_type": "t", "n_options": 3,
                "gold": "A", "model": "sft-think", "method": "sft", "variant": "think", "precision": "fp32",
                "push": push, "wording": f"{push}-2", "taught": False, "templates": 1, "seen": "clean",
                "claimed": CLAIMS[PUSHES[push]], "first_text": first, "first_answer": first, "first_said": first,
                "first_outcome": outcome(first), "first_confidence": confidence, "first_cut": False, "text": answer,
                "answer": answer, "said": answer, "outcome": outcome(answer), "confidence": 0.5, "cut": False,
            })  # fmt: skip
    return pd.DataFrame(rows).assign(**changes)


def every_turn() -> pd.DataFrame:
    """The same answers to taught and to new wordings, on clean images and on those of pgd."""
    taught = turn_rows(taught=True, wording=lambda rows: rows.push + "-1")
    return pd.concat([rows.assign(seen=seen) for seen in ("clean", "pgd") for rows in (turn_rows(), taught)])
