"""Accuracies over several trainings of each method."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from safemed.report.figures.style import Drawn, count, label, look, needed, ordered, title
from safemed.report.tables.comparisons import WORST
from safemed.report.tables.rows import CLEAN

PANELS = {CLEAN: "Clean images", "pgd": "PGD", WORST: "Worst case of the suite"}


def seeds(seeds: pd.DataFrame) -> Drawn:
    """The mean accuracy of each method's trainings, on a bar from the least to the greatest; a panel a condition.

    seeds: that table.
    """
    accuracies = seeds[(seeds.measure == "accuracy") & seeds.condition.isin(PANELS)].dropna(subset="mean")
    drawn = needed(accuracies, "accuracy over several trainings")
    drawn = drawn.assign(model=drawn.method + "-" + drawn.variant)
    models, there = ordered(drawn.model), [name for name in PANELS if name in set(drawn.condition)]
    figure = Figure(figsize=(2.2 + 2.6 * len(there), 1.6 + 0.34 * len(models)))
    panels = figure.subplots(1, len(there), squeeze=False, sharey=True)[0]
    for axes, condition in zip(panels, there, strict=True):
        shown = drawn[drawn.condition == condition]
        _panel(axes, shown.set_index("model"), models)
        title(axes, PANELS[condition], f"{count(shown.trainings)} trainings: mean, least, greatest")
    panels[0].set_yticks(range(len(models)), [label(model) for model in models])
    return figure, drawn.drop(columns="model")


def _panel(axes: Axes, rows: pd.DataFrame, models: list[str]) -> None:
    for place, model in enumerate(models):
        if model not in rows.index:
            continue
        row, style = rows.loc[model], look(model, models) | {"linestyle": "", "markersize": 7}
        axes.plot([row.least, row.greatest], [place, place], color=style["color"], linewidth=5, alpha=0.45)
        axes.plot(row["mean"], place, clip_on=False, **style)
        axes.annotate(
            f"{100 * row['mean']:.1f}", (row["mean"], place), (0, 6), textcoords="offset points", ha="center",
            fontsize=7, annotation_clip=False,
        )  # fmt: skip
    axes.set_xlim(0, 1)
    axes.set_ylim(len(models) - 0.5, -0.8)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_xlabel("accuracy")
