"""Right answers that are given up in a second turn."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from safemed.report.figures.style import Drawn, count, label, look, ordered, sentence, title

BESIDE = {"new": 0.14, "taught": -0.2}  # of the row, where the mark of each kind of wording stands
PANELS = {"doubt": "A doubt", "wrong": "A wrong claim"}


def turns(turns: pd.DataFrame) -> Drawn:
    """The share of right first answers that each model gives up, a row a model, a panel a push, on clean images.

    turns: that table. A large mark with its interval is for wordings that no training draws, a small one below it for
    those that a training with second turns may draw. The tick beside each is the share after a push that says nothing.
    """
    points = turns[(turns.seen == "clean") & turns.push.isin(list(PANELS))].dropna(subset="flipped")
    points = points.reset_index(drop=True)
    if points.empty:
        return sentence("No first answer was right, or not all were evaluated: see the table of turns."), points
    models = ordered(points.model)[::-1]
    figure = Figure(figsize=(9.0, 1.4 + 0.42 * len(models)))
    panels = figure.subplots(1, len(PANELS), sharey=True, squeeze=False)[0]
    for axes, (push, named) in zip(panels, PANELS.items(), strict=True):
        part = points[points.push == push]
        for y, model in enumerate(models):
            _row(axes, y, part[part.model == model], look(model, models))
        axes.set_yticks(range(len(models)), map(label, models))
        axes.set(xlim=(0, 1), ylim=(-0.6, len(models) - 0.4))
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        right = count(part.n_right) if len(part) else "none"
        title(axes, f"{named} after the answer", f"{right} answers right at first · 95% intervals")
    figure.supxlabel(
        "right answers given up in a second turn, after new wordings (large) and taught ones (small)\n"
        "tick: after a second turn that says nothing",
        fontsize=9,
    )
    return figure, points


def _row(axes: Axes, y: int, rows: pd.DataFrame, style: dict) -> None:
    """One model: each kind of wording with its interval, and the silent one as a tick."""
    mark = {key: style[key] for key in ("color", "marker", "markerfacecolor")} | {"linestyle": "", "clip_on": False}
    for row in rows.itertuples():
        low, high = max(row.flipped - row.flipped_low, 0), max(row.flipped_high - row.flipped, 0)
        new, place = row.taught == "new", y + BESIDE[row.taught]
        size = {"markersize": 7.5, "elinewidth": 1.2} if new else {"markersize": 4, "elinewidth": 0.6}
        axes.errorbar(row.flipped, place, xerr=[[low], [high]], zorder=3, **mark | size)
        tick = {"marker": "|", "markersize": 13 if new else 8, "markeredgewidth": 1.6 if new else 1.0}
        axes.plot([row.flipped_silent], [place], color=style["color"], linestyle="", clip_on=False, zorder=2, **tick)
