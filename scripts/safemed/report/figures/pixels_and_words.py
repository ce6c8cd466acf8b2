"""Accuracy under attacks on pixels, on words, and on both."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from safemed.report.figures.style import Drawn, label, needed, ordered, share_cells, sorted_as

WORDS = {
    "none": "no hint",
    "positive": "right",
    "neutral": "silent",
    "negative": "misleading",
    "worst": "worst misleading",
}


def pixels_and_words(pixels_and_words: pd.DataFrame) -> Drawn:
    """Accuracy of each model (rows) under hints (columns), on clean images and on attacked ones (panels)."""
    complete = needed(pixels_and_words.dropna(subset="accuracy"), "complete row of pixels and words")
    models, kinds = ordered(complete.model), sorted_as(complete.seen, ["clean"])
    figure = Figure(figsize=(2.2 + 3.6 * len(kinds), 1.7 + 0.42 * len(models)))
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for axes, seen in zip(panels, kinds, strict=True):
        part = complete[complete.seen == seen].pivot(index="model", columns="words", values="accuracy")
        values = part.reindex(models, columns=list(WORDS)).to_numpy(float)
        mesh = share_cells(axes, values, list(map(label, models)), list(WORDS.values()))
        axes.set_title("Clean images" if seen == "clean" else f"Images of {seen}")
    figure.colorbar(mesh, ax=panels, format=PercentFormatter(1), label="accuracy", pad=0.01, aspect=30)
    return figure, pixels_and_words
