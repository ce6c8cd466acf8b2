"""The chain of evidence."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from safemed.data.clinical_stages import STAGES
from safemed.report.figures.style import (
    Drawn,
    count,
    distinct_look,
    handle,
    legend,
    needed,
    ordered,
    percent_axis,
    sentence,
    sorted_as,
    title,
)

CONDITIONS = {"plain": "No hint", "neutral": "Silent hints", "negative": "Misleading hints"}


def chain(chain: pd.DataFrame) -> Drawn:
    """The chain of evidence, a panel a condition: marks are the accuracy of each stage, of the images that have it;
    lines are the share of ALL images without an error up to there, which never rises.

    chain: that table.
    """
    if chain.empty:
        return sentence("No image has questions of two stages of the chain of evidence."), chain
    complete = needed(chain.dropna(subset="accuracy"), "complete chain of evidence")
    conditions = sorted_as(complete.condition, list(CONDITIONS))
    stages, models = sorted_as(complete.stage, list(STAGES)), ordered(complete.model)
    figure = Figure(figsize=(max(6.0, 4.4 * len(conditions)), 4.2))
    panels = figure.subplots(1, len(conditions), sharey=True, squeeze=False)[0]
    for axes, condition in zip(panels, conditions, strict=True):
        part = complete[complete.condition == condition]
        for place, model in enumerate(models):
            line, style = part[part.model == model].set_index("stage").reindex(stages), distinct_look(model, models)
            beside = np.arange(len(stages)) + 0.5 * ((place + 0.5) / len(models) - 0.5)
            axes.plot(beside, line.accuracy, clip_on=False, zorder=3, **style | {"linestyle": ""})
            axes.plot(range(len(stages)), line.right_so_far, drawstyle="steps-mid", **style | {"marker": ""})
        axes.set_xticks(range(len(stages)), stages, rotation=20)
        percent_axis(axes)
        title(axes, CONDITIONS[condition], f"lines: {count(part.images)} images · marks: {count(part.n)}")
    panels[0].set_ylabel("marks: right at the stage\nlines: all images, right up to there")
    legend(figure, [handle(model, models, **distinct_look(model, models)) for model in models])
    return figure, chain
