"""What vision towers tell by themselves, and what the models that they belong to answer, clean and attacked."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from safemed.report.figures.style import Drawn, count, label, legend, look, needed, sorted_as, title

LEVELS = ("modality", "anatomy", "finding")
ANSWERS = "answers"


def towers(towers: pd.DataFrame) -> Drawn:
    """Clean and under PGD: a panel for the vote on each level, and one for the model's answers; a row a model.

    towers: that table, in the order of whose models the rows stand. Rows that are not complete are left out.
    """
    whole = needed(towers.dropna(subset=["knn_clean", "knn_pgd"]), "complete row of towers")
    drawn = pd.concat([_votes(whole), _answers(whole)], ignore_index=True).dropna(subset=["clean", "pgd"])
    models, panels = list(dict.fromkeys(drawn.model))[::-1], sorted_as(drawn.panel, [*LEVELS, ANSWERS])
    figure = Figure(figsize=(1.9 + 2.2 * len(panels), 1.4 + 0.32 * len(models)))
    for axes, panel in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True):
        part = drawn[drawn.panel == panel]
        for row in part.itertuples():
            _line(axes, models.index(row.model), row, look(row.model, models)["color"])
        axes.set_yticks(range(len(models)), map(label, models))
        axes.set(xlim=(0, 1), ylim=(-0.6, len(models) - 0.4), xticks=(0, 0.5, 1))
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        heading = "Model's answers" if panel == ANSWERS else f"Vote on {panel}"
        title(axes, heading, count(part.n))
    figure.supxlabel("share right", fontsize=9)
    grey = {"color": "#444444", "markersize": 5, "linewidth": 0}
    hollow = Line2D([], [], label="under PGD", marker="s", markerfacecolor="white", **grey)
    legend(figure, [Line2D([], [], label="clean", marker="o", **grey), hollow])
    return figure, drawn


def _votes(table: pd.DataFrame) -> pd.DataFrame:
    columns = {"level": "panel", "knn_clean": "clean", "knn_pgd": "pgd"}
    return table.rename(columns=columns)[["model", "panel", "n", "clean", "pgd"]]


def _answers(table: pd.DataFrame) -> pd.DataFrame:
    columns = {"vqa_n": "n", "vqa_clean": "clean", "vqa_pgd": "pgd"}
    once = table.drop_duplicates("model")[["model", *columns]].rename(columns=columns)
    return once.assign(panel=ANSWERS)[["model", "panel", "n", "clean", "pgd"]]


def _line(axes: Axes, y: int, row, colour: str) -> None:
    """One model: from its share under attack to its clean one."""
    axes.plot([row.pgd, row.clean], [y, y], color=colour, linewidth=1.4, zorder=2)
    axes.plot(row.clean, y, color=colour, marker="o", markersize=5, clip_on=False, zorder=3)
    axes.plot(row.pgd, y, color=colour, marker="s", markersize=5, markerfacecolor="white", clip_on=False, zorder=4)
