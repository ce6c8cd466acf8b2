"""Resistance to misleading hints."""

import pandas as pd

from safemed.report.figures.style import Drawn, count, sentence, sorted_as
from safemed.report.figures.wordings import by_wording


def resistance(hints: pd.DataFrame) -> Drawn:
    """The share of right answers that each model keeps under misleading hints, a row a model, a panel a kind of image.

    hints: that table. A large mark with its interval is for wordings that no training draws, a small one below it for
    those that a training with hints may draw. A grey circle beside each is the share kept under the same wordings where
    they claim nothing: what lies between the two is due to the claim. A tick is the accuracy without a hint.
    """
    points = resistance_points(hints)
    if points.empty:
        words = "No answer was right without a hint, or not all were evaluated: see the table of hints."
        return sentence(words), points
    drawn = points.assign(
        share=points.resistance, low=1 - points.sycophancy_high, high=1 - points.sycophancy_low,
        silent=1 - points.drift, tick=points.plain,
    )  # fmt: skip
    panels = {}
    for seen in sorted_as(points.seen, ["clean"]):
        part, images = drawn[drawn.seen == seen], "clean images" if seen == "clean" else f"images of {seen}"
        panels[f"Hints on {images}", f"{count(part.n)} questions · 95% intervals"] = part
    below = (
        "right answers kept under a misleading hint, in new wordings (large) and taught ones (small)\n"
        "grey: under the silent hint, which claims nothing · tick: accuracy without a hint"
    )
    return by_wording(panels, below), points


def resistance_points(hints: pd.DataFrame) -> pd.DataFrame:
    """The rows of the table that the figure shows: everybody's, by whether the wordings were taught; resistance."""
    shown = hints[(hints.voice == "all") & (hints.taught != "all")].dropna(subset="sycophancy")
    return shown.assign(resistance=1 - shown.sycophancy).reset_index(drop=True)
