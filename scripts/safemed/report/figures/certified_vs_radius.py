"""Certified accuracy against the radius."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from safemed.report.figures.style import (
    Drawn,
    count,
    distinct_look,
    handle,
    legend,
    needed,
    ordered,
    percent_axis,
    title,
)

STUB = 0.12  # of the largest radius: how far the value at radius 0 is drawn to the left of it


def certified_vs_radius(certified: pd.DataFrame) -> Drawn:
    """Certified accuracy against the L2 radius, a row a function, a column a sigma, a step curve a model.

    certified: that table. Between two radii of the table the curve takes the value at the larger one, so that it is
    nowhere above what was certified; what stands left of 0 is the value at radius 0. Each model has a line style and a
    marker of its own, which stands on each step at a place of its own, so that no two hide each other. A cross above it
    is what an L2 attack of the radius at the end of that step left of the same smoothed model, where it was attacked: a
    marker belongs below its cross.
    """
    complete = needed(certified.dropna(subset="certified_accuracy"), "complete certificate table")
    sigmas, functions = sorted(complete.sigma.unique()), sorted(complete.function.unique())
    figure = Figure(figsize=(max(7.0, 3.8 * len(sigmas)), 0.9 + 3.3 * len(functions)))
    panels = figure.subplots(len(functions), len(sigmas), sharey=True, squeeze=False)
    models = ordered(complete.model)
    for line, function in zip(panels, functions, strict=True):
        for axes, sigma in zip(line, sigmas, strict=True):
            table = complete[(complete.sigma == sigma) & (complete.function == function)].sort_values("radius")
            _panel(axes, table, models)
            title(axes, f"{function}, σ = {sigma:g}", _note(table))
        line[0].set_ylabel("certified accuracy")
    figure.supxlabel(
        "certified L2 radius (pixels in [0, 1]) at the right end of each step, over the largest L∞ radius inside it "
        "(1/255)\n×: accuracy under an L2 attack of that radius",
        fontsize=9,
    )
    legend(figure, [handle(model, models, markersize=6, **distinct_look(model, models)) for model in models])
    return figure, certified


def _panel(axes: Axes, table: pd.DataFrame, models: list[str]) -> None:
    """The step curves of one function and sigma."""
    radii = np.sort(table.radius.unique())
    start = radii[0] - STUB * (radii[-1] or 1)  # a lone radius 0 still needs an axis
    band = 0.1 if len(models) <= 4 else 0.04  # many bands at full strength are a fog
    for place, model in enumerate(models):
        line = table[table.model == model].set_index("radius").reindex(radii)
        style = distinct_look(model, models)
        edges = np.concatenate([[start], radii])  # of the steps, which have the value at their right end
        low, high, held = (
            np.concatenate([line[name][:1], line[name]]) for name in ("ci_low", "ci_high", "certified_accuracy")
        )
        axes.fill_between(edges, low, high, step="pre", color=style["color"], alpha=band, linewidth=0)
        axes.plot(edges, held, drawstyle="steps-pre", clip_on=False, zorder=3, **style | {"marker": ""})
        x = edges[:-1] + (place + 0.5) / len(models) * np.diff(edges)
        _marks(axes, x, line, style)
    axes.set_xlim(start, radii[-1] or STUB)
    inside = table.groupby("radius").linf_equivalent.first()
    axes.set_xticks(radii, [f"{radius:g}\n{inside[radius]:.2g}" for radius in radii])
    percent_axis(axes)


def _marks(axes: Axes, x: np.ndarray, line: pd.DataFrame, style: dict) -> None:
    """A model's marker on each step, joined to a cross at the accuracy under attack."""
    ends = {"color": style["color"], "clip_on": False}
    axes.vlines(x, line.certified_accuracy, line.empirical_accuracy, linewidth=0.8, zorder=4, **ends)
    axes.plot(x, line.empirical_accuracy, marker="x", markersize=5, linestyle="", zorder=5, **ends)
    axes.plot(x, line.certified_accuracy, markersize=5.5, zorder=6, clip_on=False, **style | {"linestyle": ""})


def _note(table: pd.DataFrame) -> str:
    """n, alpha and the mean number of draws, of one function and sigma."""
    alphas = ", ".join(f"{alpha:g}" for alpha in sorted(table.alpha.unique()))
    return f"{count(table.n)}, α = {alphas}, {table.samples.mean():.0f} draws a question"
