"""Curves of the training."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from safemed.report.figures.style import Drawn, handle, look, needed, ordered, sorted_as

QUANTITIES = {
    "loss": "training loss",
    "reward_accuracy": "accuracy reward",
    "reward_format": "format reward",
    "clean_accuracy": "accuracy, clean images",
    "robust_accuracy": "accuracy, adversarial images",
    "frac_reward_zero_std": "share of equal-reward groups",
    "anchor_kl": "KL to the clean reference (nats)",
    "attack_loss": "loss after the attack",
    "hint_loss": "loss after the worst hint",
    "completion_length": "completion length (tokens)",
    "entropy": "entropy of the policy (nats)",
    "eps": "ε in training (1/255)",
}


def training_curves(curves: pd.DataFrame) -> Drawn:
    """Small multiples of the training, one a quantity, a line a model: values faint, their running mean strong.

    curves: columns model, step and any of QUANTITIES.
    """
    long = long_curves(curves)
    quantities, models = sorted_as(long.quantity, list(QUANTITIES)), ordered(long.model)
    columns = min(4, len(quantities))
    lines = -(-len(quantities) // columns)
    figure = Figure(figsize=(max(2.6 * columns, 6), 1.8 * lines + 0.3 * (2 + len(models) // 5)))
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, quantity in zip(panels, quantities, strict=False):
        _curve_panel(axes, long[long.quantity == quantity], models)
        axes.set_title(QUANTITIES[quantity], fontsize=9)
    for axes in panels[len(quantities) :]:
        axes.remove()
    figure.supxlabel("training step", fontsize=9)
    handles = [handle(model, models, marker="") for model in models]
    figure.legend(handles=handles, loc="outside upper left", ncols=min(len(models), 5), handlelength=3)
    return figure, long


def long_curves(curves: pd.DataFrame) -> pd.DataFrame:
    """Training curves as one row a model, quantity and step, with the running mean that the figure draws.

    curves: columns model, step and any of QUANTITIES; missing columns and values are left out. Returns columns model,
    quantity, step, value, running_mean (centred, over a 25th of the points, at least one).
    """
    known = [quantity for quantity in QUANTITIES if quantity in curves]
    long = curves.melt(["model", "step"], known, "quantity").dropna(subset="value")
    long = needed(long, "training value").sort_values(["model", "quantity", "step"], ignore_index=True)
    smooth = long.groupby(["model", "quantity"]).value.transform(_running_mean)
    return long[["model", "quantity", "step", "value"]].assign(running_mean=smooth)


def _running_mean(values: pd.Series) -> pd.Series:
    """Centred running mean over a 25th of the points, at least one."""
    return values.rolling(max(1, len(values) // 25), center=True, min_periods=1).mean()


def _curve_panel(axes: Axes, long: pd.DataFrame, models: list[str]) -> None:
    """One quantity of the training."""
    for model in models:
        line = long[long.model == model]
        style = look(model, models, markers=False)
        axes.plot(line.step, line.value, color=style["color"], linewidth=0.6, alpha=0.25)
        axes.plot(line.step, line.running_mean, **style | {"linewidth": 1.5})
    axes.tick_params(labelsize=8)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
