"""Rows of a probe of vision towers, made by hand."""

import pandas as pd

# model -> level -> image -> what is voted for, clean and attacked; the label is "a" of the classes a and b.
VOTED = {
    "base-think": {
        "modality": {"q1": "aa", "q2": "ab", "q3": "ab", "q4": "ab"},
        "finding": {"q1": "ab", "q2": "bb", "q3": "ab", "q4": "ab"},
    },
    "sft-think": {
        "modality": {"q1": "aa", "q2": "aa", "q3": "aa", "q4": "bb"},
        "finding": {"q1": "aa", "q2": "bb", "q3": "ab", "q4": "aa"},
    },
}
SHIFTS = {"q1": 0.25, "q2": 0.5, "q3": 0.75, "q4": 1.0}


def tower_rows(**changes) -> pd.DataFrame:
    """The rows of VOTED; image and question are one."""
    rows = []
    for model, found in VOTED.items():
        for level, votes in found.items():
            for question, voted in votes.items():
                for seen, answer in zip(("clean", "pgd"), voted, strict=True):
                    rows.append({
                        "question_id": question, "image_path": question, "level": level, "seen": seen, "gold": "a",
                        "answer": answer, "outcome": "right" if answer == "a" else "wrong", "k": 3, "classes": 2,
                        "eps": 8 if seen == "pgd" else 0, "shift": SHIFTS[question], "model": model,
                        "method": model.removesuffix("-think"), "variant": "think", "precision": "fp32",
                    })  # fmt: skip
    return pd.DataFrame(rows).assign(**changes)


def tower_costs() -> pd.DataFrame:
    """The costs of trainings: sft goes on from fare."""
    return pd.DataFrame(
        {
            "stage": ["sft", "fare"],
            "model": ["sft-think", "fare-think"],
            "wall_s": [1.0, 2.0],
            "forward_passes": [100, 1000],
            "backward_passes": [10, 500],
            "peak_rss_mb": [9, 9],
        }
    )


METHODS = {"sft": {"trainer": "sft", "start": "fare"}, "fare": {"trainer": "tower", "start": "base"}}
