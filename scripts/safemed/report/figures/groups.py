"""The worst and the best group of questions of each model."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from safemed.report.figures.style import Drawn, count, label, legend, look, needed, ordered, sorted_as, title
from safemed.report.tables.groups import KINDS

CONDITIONS = {"clean": 0.16, "pgd": -0.16}  # -> of the row, where its line stands
ALPHA = 0.05


def groups(groups: pd.DataFrame) -> Drawn:
    """From the worst group's accuracy to the best's: a panel a kind of group, a row a model, clean above, PGD below.

    groups: that table. Solid where two groups differ as much in fewer than 5 % of random divisions, adjusted for all
    models and kinds, else pale. A tick is the accuracy on all.
    """
    drawn = needed(groups[groups.condition.isin(list(CONDITIONS))].dropna(subset="gap"), "complete row of groups")
    models, kinds = ordered(drawn.model)[::-1], sorted_as(drawn.kind, list(KINDS))
    figure = Figure(figsize=(1.8 + 2.4 * len(kinds), 1.6 + 0.44 * len(models)))
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for axes, kind in zip(panels, kinds, strict=True):
        part = drawn[drawn.kind == kind]
        for row in part.itertuples():
            _line(axes, models.index(row.model) + CONDITIONS[row.condition], row, look(row.model, models)["color"])
        axes.set_yticks(range(len(models)), map(label, models))
        axes.set(xlim=(0, 1), ylim=(-0.6, len(models) - 0.4))
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        title(axes, KINDS[kind].capitalize(), f"{count(part.groups).replace('n =', 'groups:')} · {count(part.n)}")
    figure.supxlabel("accuracy of the worst and of the best group · tick: all questions", fontsize=9)
    legend(figure, _handles())
    return figure, drawn


def _line(axes: Axes, y: float, row, colour: str) -> None:
    """One model under one condition: from its worst group to its best."""
    ends, certain = np.array([row.worst_accuracy, row.best_accuracy]), row.p_holm < ALPHA
    face = colour if row.condition == "clean" else "white"
    axes.plot(
        ends, [y, y], color=colour, marker="o" if row.condition == "clean" else "s", markersize=4, clip_on=False,
        markerfacecolor=face, linewidth=2 if certain else 1, alpha=1 if certain else 0.35, zorder=3,
    )  # fmt: skip
    axes.plot(row.accuracy, y, marker="|", color=colour, markersize=8, markeredgewidth=1.4, clip_on=False, zorder=4)


def _handles() -> list[Line2D]:
    grey = {"color": "#444444", "markersize": 4}
    return [
        Line2D([], [], label="clean", marker="o", **grey),
        Line2D([], [], label="PGD", marker="s", markerfacecolor="white", **grey),
        Line2D([], [], label=f"adjusted p at least {ALPHA:g}", alpha=0.35, linewidth=1, color="#444444"),
    ]
