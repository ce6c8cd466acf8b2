"""Accuracy on edited images."""

import pandas as pd
from matplotlib.figure import Figure

from safemed.report.figures.style import Drawn, count, handle, legend, look, needed, ordered, percent_axis, title


def image_edits(image_edits: pd.DataFrame) -> Drawn:
    """Accuracy on edited images: a panel a corruption against its severity, then marks, then erasures by topic.

    image_edits: that table. Dotted: each model's accuracy on the clean images of the same questions.
    """
    drawn = drawn_image_edits(image_edits)
    names, models = list(dict.fromkeys(drawn.panel)), ordered(drawn.model)
    columns = min(5, len(names))
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(2.7 * columns, 0.5 + 2.6 * lines))
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False)
    for axes, name in zip(panels.ravel(), names, strict=False):
        part = drawn[drawn.panel == name]
        places = list(dict.fromkeys(part.x))
        joined = (part.kind == "corruption").all()
        for model in models:
            line = part[part.model == model].set_index("x").reindex(places)
            style = look(model, models) | ({} if joined else {"linestyle": ""})
            axes.plot(range(len(places)), line.accuracy, clip_on=False, zorder=3, **style)
            axes.plot(range(len(places)), line.plain, color=style["color"], linewidth=0.6, alpha=0.5, linestyle=":")
        axes.set_xticks(range(len(places)), places, fontsize=8, rotation=0 if joined else 90)
        axes.set_xlim(-0.3, len(places) - 0.7)
        percent_axis(axes)
        title(axes, name, count(part.n))
    for axes in panels.ravel()[len(names) :]:
        axes.remove()
    for line in panels:
        line[0].set_ylabel("accuracy")
    figure.supxlabel("severity of a corruption, or kind of edit · dotted: the same questions, clean", fontsize=9)
    legend(figure, [handle(model, models) for model in models])
    return figure, drawn


def drawn_image_edits(image_edits: pd.DataFrame) -> pd.DataFrame:
    """The rows of the table that the figure shows, with `panel`, its heading, and x, its place."""
    complete = needed(image_edits.dropna(subset="accuracy"), "complete row of edited images")
    steps = complete[(complete.kind == "corruption") & (complete.about == "all")]
    marks = complete[(complete.kind == "mark") & (complete.about == "all")]
    marks = marks.assign(
        x=marks.name + marks.polarity.map({"positive": " true", "neutral": " silent", "negative": " lying"}).fillna("")
    )
    erased = complete[(complete.kind == "erasure") & (complete.about != "all")]
    return pd.concat(
        [
            steps.assign(panel=steps.name, x=steps.severity.astype(str)),
            marks.assign(panel="marks"),
            *(part.assign(panel=f"erased, {topic}", x=part.name) for topic, part in erased.groupby("about")),
        ],
        ignore_index=True,
    )
