"""Shares by model and kind of wording, as the figures of hints and of second turns show them."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from safemed.report.figures.style import GREY, label, look, ordered, title

BESIDE = {"new": 0.14, "taught": -0.2}  # of the row, where the mark of each kind of wording stands
BARE = {"linestyle": "", "clip_on": False}
SILENT = {"marker": "o", "color": GREY, "markerfacecolor": "white"}
TICK = {"marker": "|", "markersize": 14, "markeredgewidth": 1.6}


def by_wording(panels: Mapping[tuple[str, str], pd.DataFrame], below: str) -> Figure:
    """A row a model: a large mark with its interval for new wordings, a small one below it for taught ones.

    panels: title and small print -> rows with model, taught, share, low, high, and silent, the share under wordings
    that claim nothing, which is a grey circle joined to the mark; tick, where there is one, is a share of the model's.
    below: what stands under the panels.
    """
    models = ordered(pd.concat(panels.values()).model)[::-1]
    figure = Figure(figsize=(max(7.0, 1.8 + 3.6 * len(panels)), 1.4 + 0.42 * len(models)))
    several = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (titles, rows) in zip(several, panels.items(), strict=True):
        for row in rows.itertuples():
            _mark(axes, models.index(row.model) + BESIDE[row.taught], row, look(row.model, models))
        if "tick" in rows:
            for model, tick in rows.groupby("model").tick.first().items():
                color = look(model, models)["color"]
                axes.plot([tick], [models.index(model)], zorder=2, color=color, **TICK | BARE)
        axes.set_yticks(range(len(models)), map(label, models))
        axes.set(xlim=(0, 1), ylim=(-0.6, len(models) - 0.4))
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        title(axes, *titles)
    figure.supxlabel(below, fontsize=9)
    return figure


def _mark(axes: Axes, y: float, row, style: dict) -> None:
    """One model under one kind of wording, beside the silent one."""
    mark = {key: style[key] for key in ("color", "marker", "markerfacecolor")}
    low, high = max(row.share - row.low, 0), max(row.high - row.share, 0)
    size = {"markersize": 7.5, "elinewidth": 1.2} if row.taught == "new" else {"markersize": 4, "elinewidth": 0.6}
    axes.hlines(y, row.share, row.silent, color=GREY, linewidth=0.8, zorder=2)
    axes.plot([row.silent], [y], zorder=2, markersize=0.7 * size["markersize"], **SILENT | BARE)
    axes.errorbar(row.share, y, xerr=[[low], [high]], zorder=3, **mark | size | BARE)
