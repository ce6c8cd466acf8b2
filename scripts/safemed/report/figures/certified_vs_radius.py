"""Certified accuracy against the radius."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation

from safemed.report.figures.style import Drawn, count, handle, legend, look, needed, ordered, percent_axis, title

DASHES = ["-", (0, (5, 1.5)), (0, (1, 1)), (0, (7, 1.5, 1, 1.5)), (0, (3, 1, 1, 1, 1, 1)), (0, (9, 3))]
DODGE = 5.0  # points between the marks of two models at one radius


def certified_vs_radius(certified: pd.DataFrame) -> Drawn:
    """Certified accuracy against the L2 radius, a row a function, a column a sigma, a step curve a model.

    certified: that table. Between two radii of the table the curve takes the value at the larger one, so that it is
    nowhere above what was certified. Each model has a line style and a marker of its own, which stands on its curve
    once between two radii. Crosses over that marker are what an L2 attack of that radius left of the same smoothed
    model, where it was attacked, side by side: a curve belongs below its crosses.
    """
    complete = needed(certified.dropna(subset="certified_accuracy"), "complete certificate table")
    sigmas, functions = sorted(complete.sigma.unique()), sorted(complete.function.unique())
    figure = Figure(figsize=(max(7.0, 3.6 * len(sigmas)), 0.9 + 3.3 * len(functions)))
    panels = figure.subplots(len(functions), len(sigmas), sharey=True, squeeze=False)
    models = ordered(complete.model)
    for line, function in zip(panels, functions, strict=True):
        for axes, sigma in zip(line, sigmas, strict=True):
            table = complete[(complete.sigma == sigma) & (complete.function == function)].sort_values("radius")
            _panel(axes, table, models)
            title(axes, f"{function}, σ = {sigma:g}", _note(table))
        line[0].set_ylabel("certified accuracy")
    figure.supxlabel(
        "certified L2 radius (pixels in [0, 1]) · small marks with ×: under an L2 attack of that radius", fontsize=9
    )
    legend(figure, [handle(model, models, markersize=6, **_look(model, models)) for model in models])
    return figure, certified


def _look(model: str, models: list[str]) -> dict:
    """A model's colour, marker, and line style, which no other of up to six models has."""
    return look(model, models) | {"linestyle": DASHES[models.index(model) % len(DASHES)], "linewidth": 1.6}


def _panel(axes: Axes, table: pd.DataFrame, models: list[str]) -> None:
    """The step curves of one function and sigma."""
    for place, model in enumerate(models):
        line = table[table.model == model]
        if line.empty:
            continue
        style = _look(model, models)
        axes.fill_between(
            line.radius, line.ci_low, line.ci_high, step="pre", color=style["color"], alpha=0.10, linewidth=0
        )
        bare = {key: style[key] for key in ("color", "linestyle", "linewidth")}
        axes.plot(line.radius, line.certified_accuracy, drawstyle="steps-pre", clip_on=False, zorder=3, **bare)
        marks = style | {"linestyle": "", "clip_on": False}
        x = _between(line.radius.to_numpy(), (place + 0.5) / len(models))
        axes.plot(x, line.certified_accuracy, markersize=6, zorder=4, **marks)
        _attacked(axes, line, DODGE * (place - (len(models) - 1) / 2), marks)
    axes.set_xlim(0, table.radius.max() or 1)  # a lone radius 0 still needs an axis
    axes.xaxis.set_major_locator(MaxNLocator(4))
    percent_axis(axes)


def _between(radii: np.ndarray, share: float) -> np.ndarray:
    """Where the marks of a curve stand: at the smallest radius, then a share of the way to each next one."""
    return np.concatenate([radii[:1], radii[:-1] + share * np.diff(radii)])


def _attacked(axes: Axes, line: pd.DataFrame, shift: float, marks: dict) -> None:
    """The accuracy under L2 attacks, `shift` points beside the radius: the model's mark, small, under a cross."""
    beside = axes.transData + ScaledTranslation(shift / 72, 0, axes.figure.dpi_scale_trans)
    axes.plot(line.radius, line.empirical_accuracy, markersize=4, zorder=5, transform=beside, **marks)
    cross = {"marker": "x", "color": "black", "linestyle": "", "markersize": 4.5, "markeredgewidth": 0.8}
    axes.plot(line.radius, line.empirical_accuracy, zorder=6, clip_on=False, transform=beside, **cross)


def _note(table: pd.DataFrame) -> str:
    """n, alpha and the mean number of draws, of one function and sigma."""
    alphas = ", ".join(f"{alpha:g}" for alpha in sorted(table.alpha.unique()))
    return f"{count(table.n)}, α = {alphas}, {table.samples.mean():.0f} draws a question"
