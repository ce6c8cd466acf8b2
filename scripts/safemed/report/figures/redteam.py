"""What is left right of a model as a red team asks on."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from safemed.data.prompts import FAILED
from safemed.report.figures.style import GREY, Drawn, count, label, legend, ordered, percent_axis, sentence, title
from safemed.report.tables.redteam import PLAIN, PRIOR, SILENT, check_red_team_rows, ended

LOOKS = {  # silent, the control, in grey
    "adaptive": {"color": "#D55E00", "linestyle": "-"},
    "best-single": {"color": "#0072B2", "linestyle": (0, (5, 1.5))},
    "random": {"color": "#009E73", "linestyle": (0, (1, 1))},
    SILENT: {"color": GREY, "linestyle": (0, (7, 1.5, 1, 1.5))},
}
NAMES = {SILENT: "no claims (control)", "best-single": "best alone"}
PANELS = 6  # models


def redteam(redteam: pd.DataFrame, strategies: list[str]) -> Drawn:
    """Accuracy of each model (panels, the first six) against the queries spent on each question, a line a strategy.

    redteam: rows of scripts/redteam.py, with these strategies. One with a question that was not evaluated has no line.
    """
    check_red_team_rows(redteam, strategies)
    accuracy = accuracy_by_queries(redteam)
    if accuracy.empty:
        return sentence(
            "No question was answered rightly and evaluated to the end: there was nothing to fool."
        ), accuracy
    models = ordered(accuracy.model)[:PANELS]
    columns = min(len(models), 2)
    rows = -(-len(models) // columns)
    figure = Figure(figsize=(1.2 + 3.6 * columns, 1.0 + 2.8 * rows))
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).flatten()
    for axes, model in zip(panels, models, strict=False):
        _lines(axes, accuracy[accuracy.model == model])
    for axes in panels[len(models) :]:
        axes.set_axis_off()
    there = [strategy for strategy in LOOKS if strategy in set(accuracy.strategy)]
    legend(figure, [Line2D([], [], label=NAMES.get(one, one), **LOOKS[one]) for one in there])
    return figure, accuracy


def _lines(axes: Axes, accuracy: pd.DataFrame) -> None:
    """One model's panel."""
    for strategy, line in accuracy.groupby("strategy"):
        axes.plot(line.queries, line.accuracy, drawstyle="steps-post", **LOOKS[strategy])
    title(axes, label(accuracy.model.iloc[0]), count(accuracy.n))
    axes.set_xlim(0, accuracy.queries.max())
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    percent_axis(axes)
    axes.set_xlabel("queries of a question")
    axes.set_ylabel("still right, of all")


def accuracy_by_queries(rows: pd.DataFrame) -> pd.DataFrame:
    """For each model, strategy and q = 0, 1, ...: the share of all n questions that is right as it is and not fooled by
    the first q queries. Columns model, strategy, n, queries, accuracy.

    rows: of scripts/redteam.py. q goes as far as any question was asked. No rows of a strategy with a question that was
    not evaluated.
    """
    records, most = [], int(rows["query"][rows.strategy != PRIOR].max())
    for model, part in rows[rows.strategy != PRIOR].groupby("model", sort=False):
        n = int((part.strategy == PLAIN).sum())
        for strategy in part.strategy[part.strategy != PLAIN].unique():
            last = ended(part, strategy)
            if (last.outcome == FAILED).any():
                continue
            for queries in range(most + 1):
                right = ((last.outcome == "right") | (last["query"] > queries)).sum() / n
                record = {"model": model, "strategy": strategy, "n": n, "queries": queries, "accuracy": right}
                records.append(record)
    return pd.DataFrame(records, columns=["model", "strategy", "n", "queries", "accuracy"])
