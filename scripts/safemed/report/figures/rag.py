"""Accuracy beside retrieved reports: sound ones, poisoned ones, and what is left of these once they are checked."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from safemed.report.figures.style import GREY, Drawn, count, label, legend, ordered, sentence, title
from safemed.report.tables.rag import NONE

PANELS = 6  # models
LOOKS = (("#D55E00", "o"), ("#0072B2", "s"), ("#009E73", "^"), ("#B8578F", "D"))  # of the retrievers, in their order
SOUND_ROWS = {(NONE, "retrieved"): "retrieved", (NONE, "shuffled"): "another question's"}
POISONS = {"text": "text poisons", "image": "image poisons", "conflict": "conflicts"}
GIVEN = {"retrieved": "", "unclaimed": ", no claim", "checked": ", checked"}


def rag(rag: pd.DataFrame) -> Drawn:
    """Accuracy of each model (panels, the first six) on clean images, a mark a retriever; the line is without reports.

    rag: that table. Poisons are the most for each question that the study makes. What is not complete has no mark.
    """
    most = rag.per_question.max() if len(rag) else 0
    wanted = (rag.shown == "clean") & ((rag.poison == NONE) | (rag.per_question == most)) & rag.accuracy.notna()
    points = rag[wanted].copy()
    names = _names(set(points.poison))
    points["row"] = [names.get(key) for key in zip(points.poison, points.reports, strict=True)]
    points = points.dropna(subset="row").reset_index(drop=True)
    if (points.reports == NONE).all():
        return sentence(
            "No question was evaluated to the end beside reports: see the table of retrieved reports."
        ), points
    models = ordered(points.model)[:PANELS]
    rows, columns = [name for name in names.values() if name in set(points.row)], min(len(models), 3)
    lines = -(-len(models) // columns)
    figure = Figure(figsize=(1.9 + 2.7 * columns, 1.2 + lines * (0.7 + 0.22 * len(rows))))
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).flatten()
    retrievers = _retrievers(points)
    for axes, model in zip(panels, models, strict=False):
        _panel(axes, points[points.model == model], rows, retrievers)
    for axes in panels[len(models) :]:
        axes.set_axis_off()
    marks = [Line2D([], [], linestyle="", color=c, marker=m, label=name) for name, (c, m) in retrievers.items()]
    legend(figure, [*marks, Line2D([], [], color=GREY, linestyle=(0, (4, 2)), label="no reports")])
    return figure, points


def _names(poisons: set[str]) -> dict[tuple[str, str], str]:
    """(poison, reports) -> the name of its row, from top to bottom."""
    kinds = {kind: name for kind, name in POISONS.items() if kind in poisons}
    poisoned = {(kind, given): f"{name}{after}" for kind, name in kinds.items() for given, after in GIVEN.items()}
    return {(NONE, NONE): "no reports"} | SOUND_ROWS | poisoned


def _retrievers(points: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """How each retriever is drawn: a model's own tower, and then the others by the method that has them."""
    used = points[points.retriever != NONE]
    kinds = dict.fromkeys(_kind(*pair) for pair in zip(used.retriever, used.model, strict=True))
    return {kind: LOOKS[i % len(LOOKS)] for i, kind in enumerate(kinds)}


def _kind(retriever: str, model: str) -> str:
    """The name of a retriever beside a model's name."""
    return "own tower" if retriever == model else f"{label(retriever).partition(',')[0]}'s tower"


def _panel(axes: Axes, points: pd.DataFrame, rows: list[str], retrievers: dict[str, tuple[str, str]]) -> None:
    """One model's marks, a row a condition."""
    rows = [row for row in rows if row != "no reports"]
    beside = points[points.reports != NONE]
    kinds = [_kind(*pair) for pair in zip(beside.retriever, beside.model, strict=True)]
    for kind, part in beside.groupby(kinds, sort=False):
        shift = 0.22 * (list(retrievers).index(kind) - (len(retrievers) - 1) / 2)
        colour, marker = retrievers[kind]
        places = [rows.index(row) + shift for row in part.row]
        axes.hlines(places, part.ci_low, part.ci_high, color=colour, alpha=0.35, linewidth=1.2)
        axes.plot(part.accuracy, places, linestyle="", color=colour, marker=marker)
    for accuracy in points.accuracy[points.reports == NONE]:
        axes.axvline(accuracy, color=GREY, linestyle=(0, (4, 2)), linewidth=1.2)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 1.02)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_xlabel("accuracy")
    title(axes, label(points.model.iloc[0]), count(points.n))
