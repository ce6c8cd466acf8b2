"""Accuracy against the radius of the attack."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from safemed.report.figures.style import GREY, Drawn, count, label_ends, look, needed, ordered, percent_axis, title


def accuracy_vs_eps(robustness: pd.DataFrame) -> Drawn:
    """Accuracy against the eps of the attack (in 1/255), a line a model, with its 95 % intervals as a band.

    robustness: that table. Chance and the text-only prior are labelled lines; the title states n.
    """
    sweep = pgd_sweep(robustness)
    figure = Figure(figsize=(8, 4.9))
    axes = figure.subplots()
    models = ordered(sweep.model)
    band = {"alpha": 0.13 if len(models) <= 8 else 0.07, "linewidth": 0}  # many bands at full strength are a fog
    for model in models:
        line = sweep[sweep.model == model]
        style = look(model, models)
        axes.fill_between(line.eps, line.ci_low, line.ci_high, color=style["color"], **band)
        axes.plot(line.eps, line.accuracy, clip_on=False, zorder=3, **style)
    axes.set_xscale("function", functions=(lambda e: np.log2(1 + np.maximum(e, 0)), lambda u: 2**u - 1))
    axes.set_xticks(sorted(sweep.eps.unique()))
    axes.set_xlim(0, sweep.eps.max() * 1.02)
    percent_axis(axes)
    axes.set_xlabel("attack budget ε (1/255); 0 is the clean image")
    axes.set_ylabel("accuracy")
    _baseline_lines(axes, sweep)
    label_ends(axes, sweep, "eps", "accuracy", models)
    title(axes, "Accuracy under PGD", f"{count(sweep.n)} questions a point · 95% intervals, clustered by image")
    return figure, sweep


def pgd_sweep(robustness: pd.DataFrame) -> pd.DataFrame:
    """The rows of the robustness table that make up the PGD sweep: attack "pgd", and "clean" as eps 0."""
    sweep = robustness[robustness.attack.isin(["clean", "pgd"])].dropna(subset="accuracy")  # incomplete: no point
    return needed(sweep, "clean or pgd row").sort_values(["model", "eps"], ignore_index=True)


def _baseline_lines(axes: Axes, sweep: pd.DataFrame) -> None:
    """Chance and the text-only prior, the higher one labelled above its line and the lower below."""
    levels = sweep.groupby("eps")[["chance", "blind"]].mean()  # equal for all models: they answer the same questions
    higher = levels.mean().idxmax()
    for name, words, dashes in (("chance", "chance", (1, 2)), ("blind", "text only", (5, 2))):
        axes.plot(levels.index, levels[name], color=GREY, linewidth=1, linestyle=(0, dashes), zorder=1)
        value = levels[name].iloc[0]
        offset, align = ((4, 3), "bottom") if name == higher else ((4, -3), "top")
        axes.annotate(
            f"{words} {100 * value:.1f}%", (levels.index[0], value), offset, textcoords="offset points", va=align,
            fontsize=8, color="#444444", zorder=5, path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )  # fmt: skip
