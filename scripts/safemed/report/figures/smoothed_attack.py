"""Each model and its smoothed model under attack."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from safemed.report.figures.style import Drawn, count, label, look, needed, ordered, title


def smoothed_attack(smoothing: pd.DataFrame) -> Drawn:
    """Accuracy under the linf attack, of each model (hollow) and of its smoothed model (full), each attacked for
    itself.

    smoothing: that table. A panel a function and sigma; a tick is the accuracy without an attack.
    """
    drawn = needed(smoothing.dropna(subset="attacked_smoothed"), "complete attack on a smoothed model")
    kinds, models = list(dict.fromkeys(zip(drawn.function, drawn.sigma, strict=True))), ordered(drawn.model)[::-1]
    figure = Figure(figsize=(max(6.0, 1.6 + 3.6 * len(kinds)), 1.5 + 0.33 * len(models)))
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for axes, (function, sigma) in zip(panels, kinds, strict=True):
        part = drawn[(drawn.function == function) & (drawn.sigma == sigma)].set_index("model")
        for y, model in enumerate(models):
            if model in part.index:
                _dumbbell(axes, y, part.loc[model], look(model, models)["color"])
        axes.set_yticks(range(len(models)), map(label, models))
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        title(axes, f"{function}, σ = {sigma:g}", f"ε = {part.eps.max():g}/255, {count(part.n)}")
    figure.supxlabel("accuracy under PGD: model (hollow), smoothed model (full); ticks: unattacked", fontsize=9)
    return figure, smoothing


def _dumbbell(axes: Axes, y: int, row: pd.Series, colour: str) -> None:
    """One model: its accuracy under attack, joined to that of its smoothed model."""
    axes.plot([row.attacked, row.attacked_smoothed], [y, y], color=colour, linewidth=1.2, zorder=2)
    ends = {"color": colour, "linestyle": "", "clip_on": False, "zorder": 3}
    axes.plot(row.attacked, y, marker="o", markerfacecolor="white", **ends)
    axes.plot(row.attacked_smoothed, y, marker="o", **ends)
    axes.plot(row.clean, y, marker="|", markersize=9, alpha=0.5, **ends)
    axes.plot(row.clean_smoothed, y, marker="|", markersize=9, **ends)
