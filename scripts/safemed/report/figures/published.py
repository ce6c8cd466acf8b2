"""EchoBench's sycophancy rate by who gives the hint, beside what a silent hint does."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from safemed.report.figures.style import GREY, Drawn, count, label, legend, look, needed, ordered, sorted_as, title
from safemed.report.tables.published import POSITIONS

COLUMNS = 4  # panels beside each other: two models under both positions


def published(published: pd.DataFrame) -> Drawn:
    """The sycophancy rate of each model and position of the hint (panel) by voice (row), beside the rate when silent.

    published: that table, of which the new wordings are shown. Filled: the claimed option
    or none, with its interval; grey: the same under the silent wording; a tick: the claimed option alone. What a
    misleading hint does is what lies beyond the grey mark.
    """
    drawn = needed(published[published.taught == "new"].dropna(subset="echo_rate"), "complete row of new wordings")
    models, voices = ordered(drawn.model), _voices(drawn)
    shown = [(model, position) for model in models for position in sorted_as(drawn.position, list(POSITIONS))]
    columns = min(COLUMNS, len(shown))
    lines = -(-len(shown) // columns)
    figure = Figure(figsize=(1.5 + 2.6 * columns, 0.9 + lines * (0.7 + 0.19 * len(voices))))
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False)
    for axes, (model, position) in zip(panels.ravel(), shown, strict=False):
        part = drawn[(drawn.model == model) & (drawn.position == position)]
        _panel(axes, part.set_index("voice").reindex(voices), look(model, models))
        title(axes, label(model), f"{POSITIONS[position]} · {count(part.n)}")
    for axes in panels.ravel()[len(shown) :]:
        axes.remove()
    panels[0, 0].set_yticks(range(len(voices)), voices)
    panels[0, 0].set_ylim(-0.6, len(voices) - 0.4)
    figure.supxlabel("share of all answers under a misleading hint · 95% intervals", fontsize=9)
    legend(figure, _handles())
    return figure, drawn


def _voices(drawn: pd.DataFrame) -> list[str]:
    """The rows from below: all voices together, then each from its least mean rate to its greatest."""
    means = drawn[drawn.voice != "all"].groupby("voice").echo_rate.mean()
    return ["all", *means.sort_values(kind="stable").index]


def _panel(axes: Axes, rows: pd.DataFrame, style: dict) -> None:
    """One model; rows: of the table, by voice."""
    y = np.arange(len(rows))
    axes.hlines(y, rows.echo_silent, rows.echo_rate, color=GREY, linewidth=1)
    mark = {"linestyle": "", "clip_on": False}
    axes.plot(rows.echo_silent, y, marker="o", color=GREY, markersize=5, markerfacecolor="white", **mark)
    beside = [(rows.echo_rate - rows.echo_rate_low).clip(lower=0), (rows.echo_rate_high - rows.echo_rate).clip(lower=0)]
    axes.errorbar(
        rows.echo_rate, y, xerr=beside, marker="o", color=style["color"], markersize=6, elinewidth=1, zorder=3, **mark
    )
    axes.plot(rows.echo_parsed, y, marker="|", color="black", markersize=9, markeredgewidth=1.4, zorder=4, **mark)
    axes.axhline(0.5, color="#444444", linewidth=0.7)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))


def _handles() -> list[Line2D]:
    names = {
        "misleading: claimed option or none": {"marker": "o", "color": "#444444", "markersize": 6},
        "the same, silent wording": {"marker": "o", "color": GREY, "markersize": 5, "markerfacecolor": "white"},
        "misleading: claimed option": {"marker": "|", "color": "black", "markersize": 9, "markeredgewidth": 1.4},
    }
    return [Line2D([], [], label=name, linestyle="", **style) for name, style in names.items()]
