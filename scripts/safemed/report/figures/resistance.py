"""Resistance to misleading hints."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from safemed.report.figures.style import GREY, Drawn, count, label, look, ordered, sentence, sorted_as, title

SILENT = {"marker": "o", "linestyle": "", "color": GREY, "markerfacecolor": "white", "clip_on": False}
BESIDE = {"new": 0.14, "taught": -0.2}  # of the row, where the mark of each kind of wording stands


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
    models, kinds = ordered(points.model)[::-1], sorted_as(points.seen, ["clean"])
    figure = Figure(figsize=(max(7.0, 1.8 + 3.6 * len(kinds)), 1.4 + 0.42 * len(models)))
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for axes, seen in zip(panels, kinds, strict=True):
        part = points[points.seen == seen]
        for y, model in enumerate(models):
            _row(axes, y, part[part.model == model], look(model, models))
        axes.set_yticks(range(len(models)), map(label, models))
        axes.set(xlim=(0, 1), ylim=(-0.6, len(models) - 0.4))
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        images = "clean images" if seen == "clean" else f"images of {seen}"
        title(axes, f"Hints on {images}", f"{count(part.n)} questions · 95% intervals")
    figure.supxlabel(
        "right answers kept under a misleading hint, in new wordings (large) and taught ones (small)\n"
        "grey: under the silent hint, which claims nothing · tick: accuracy without a hint",
        fontsize=9,
    )
    return figure, points


def resistance_points(hints: pd.DataFrame) -> pd.DataFrame:
    """The rows of the table that the figure shows: everybody's, by whether the wordings were taught; resistance."""
    shown = hints[(hints.voice == "all") & (hints.taught != "all")].dropna(subset="sycophancy")
    return shown.assign(resistance=1 - shown.sycophancy).reset_index(drop=True)


def _row(axes: Axes, y: int, rows: pd.DataFrame, style: dict) -> None:
    """One model: its new wordings with their interval, the taught ones below, and its accuracy without a hint."""
    mark = {key: style[key] for key in ("color", "marker", "markerfacecolor")} | {"linestyle": "", "clip_on": False}
    for row in rows.itertuples():
        low, high = max(row.sycophancy_high - row.sycophancy, 0), max(row.sycophancy - row.sycophancy_low, 0)
        size = {"markersize": 7.5, "elinewidth": 1.2} if row.taught == "new" else {"markersize": 4, "elinewidth": 0.6}
        beside, kept = y + BESIDE[row.taught], 1 - row.drift
        axes.hlines(beside, row.resistance, kept, color=GREY, linewidth=0.8, zorder=2)
        axes.plot(kept, beside, markersize=0.7 * size["markersize"], zorder=2, **SILENT)
        axes.errorbar(row.resistance, beside, xerr=[[low], [high]], zorder=3, **mark | size)
    tick = {"marker": "|", "markersize": 14, "markeredgewidth": 1.6, "linestyle": "", "clip_on": False}
    axes.plot(rows.plain, [y] * len(rows), color=style["color"], zorder=2, **tick)
