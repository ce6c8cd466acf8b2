"""Success of each attack against its radius."""

import pandas as pd
from matplotlib.figure import Figure

from safemed.report.figures.style import Drawn, count, handle, legend, look, needed, ordered, percent_axis, title


def success_vs_eps(robustness: pd.DataFrame) -> Drawn:
    """Share of questions not right against eps, a panel an attack, a line a model. robustness: that table."""
    success = success_by_eps(robustness)
    attacks, models = list(dict.fromkeys(success.attack)), ordered(success.model)
    figure = Figure(figsize=(max(6.0, 3.0 * len(attacks)), 3.9))
    panels = figure.subplots(1, len(attacks), sharey=True, squeeze=False)[0]
    for axes, attack in zip(panels, attacks, strict=True):
        part = success[success.attack == attack]
        for model in ordered(part.model):
            line = part[part.model == model].sort_values("eps")
            axes.plot(line.eps, line.success, clip_on=False, zorder=3, **look(model, models))
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted(part.eps.unique()), [f"{eps:g}" for eps in sorted(part.eps.unique())])
        percent_axis(axes)
        title(axes, attack, count(part.n))
    panels[0].set_ylabel("not right")
    figure.supxlabel("attack budget ε (1/255)", fontsize=9)
    legend(figure, [handle(model, models) for model in models])
    return figure, success


def success_by_eps(robustness: pd.DataFrame) -> pd.DataFrame:
    """The rows of the robustness table that are attacks; `success`: share of ALL n questions not right any more."""
    attacked = needed(robustness[robustness.attack != "clean"].dropna(subset="accuracy"), "attack row")
    return attacked.assign(success=1 - attacked.accuracy).reset_index(drop=True)
