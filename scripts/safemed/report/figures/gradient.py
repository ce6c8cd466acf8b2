"""Accuracy and confidence against the share of the image that is shown."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from safemed.report.figures.style import Drawn, count, label, legend, needed, ordered, percent_axis, sorted_as, title
from safemed.stress.reveal_orders import ORDERS

LOOKS = {  # of the confidences
    "letter": {"color": "#D55E00", "linestyle": "-", "marker": "o"},
    "entropy": {"color": "#CC79A7", "linestyle": (0, (5, 1.5)), "marker": "v"},
    "agreement": {"color": "#009E73", "linestyle": (0, (1, 1)), "marker": "^"},
    "noise": {"color": "#56B4E9", "linestyle": (0, (7, 1.5, 1, 1.5)), "marker": "s"},
    "p_A": {"color": "#0072B2", "linestyle": "-", "marker": "D"},
}
NAMES = {"letter": "letter probability", "agreement": "agreement of samples", "noise": "agreement under noise"}
ACCURACY = {"color": "black", "linestyle": "-", "linewidth": 2.2}
SMOOTHED = {"color": "black", "linestyle": (0, (1, 1.2)), "linewidth": 2.2}  # accuracy of the answer that p_A is of
PANELS = {"seeded": "cells by chance", "lesion-last": "lesion last"}
MODELS = 6  # at most


def gradient(gradient: pd.DataFrame) -> Drawn:
    """Accuracy (black) and mean confidences against the share of the cells that is shown: a model a row, the first six,
    a kind of image and order of the cells a panel.

    gradient: that table. A curve with a share that is incomplete is not drawn.
    """
    keys = ["model", "seen", "order", "estimator"]
    whole = gradient.groupby(keys).accuracy.transform("count") == gradient.groupby(keys).accuracy.transform("size")
    drawn = needed(gradient[whole], "complete curve of revealed images")
    models = ordered(drawn.model)[:MODELS]
    shown = [
        (seen, order)
        for seen in sorted_as(drawn.seen, ["clean"])
        for order in ORDERS
        if len(drawn[(drawn.seen == seen) & (drawn.order == order)])
    ]
    figure = Figure(figsize=(1.0 + 2.7 * len(shown), 1.1 + 2.4 * len(models)))
    panels = figure.subplots(len(models), len(shown), sharex=True, sharey=True, squeeze=False)
    for row, model in zip(panels, models, strict=True):
        for axes, (seen, order) in zip(row, shown, strict=True):
            part = drawn[(drawn.model == model) & (drawn.seen == seen) & (drawn.order == order)]
            _panel(axes, part.sort_values("share"))
            title(axes, label(model), f"{seen}, {PANELS[order]} · {count(part.n) if len(part) else 'not evaluated'}")
        row[0].set_ylabel("accuracy, confidence")
    figure.supxlabel("share of the cells that is shown · bands: 95% intervals of the accuracy", fontsize=9)
    legend(figure, _handles(set(drawn.estimator)))
    return figure, drawn


def _panel(axes: Axes, part: pd.DataFrame) -> None:
    """One model, kind of image and order."""
    for estimator, line in part.groupby("estimator"):
        axes.plot(line.share, line.confidence, markersize=3.5, linewidth=1.3, clip_on=False, **LOOKS[estimator])
    for estimator, style in (("letter", ACCURACY), ("p_A", SMOOTHED)):
        line = part[part.estimator == estimator]
        axes.plot(line.share, line.accuracy, clip_on=False, **style)
        axes.fill_between(line.share, line.ci_low, line.ci_high, color="black", alpha=0.08, linewidth=0)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_xticks(sorted(part.share.unique()))
    percent_axis(axes)


def _handles(estimators: set[str]) -> list[Line2D]:
    lines = [Line2D([], [], label="accuracy", **ACCURACY), Line2D([], [], label="smoothed accuracy", **SMOOTHED)]
    confidences = [name for name in LOOKS if name in estimators]
    return lines + [Line2D([], [], label=NAMES.get(name, name), markersize=4, **LOOKS[name]) for name in confidences]
