"""What each defence keeps right: unattacked, attacked, and attacked by who knows it."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from safemed.report.figures.style import GREY, Drawn, count, label, legend, ordered, sentence, title
from safemed.report.tables.defences import NONE, PIXELS, WORDS

PANELS = {PIXELS: "pixels", WORDS: "words"}
MODELS = 4
LOOKS = {
    "clean": {"color": GREY, "marker": "o", "markerfacecolor": "white", "markersize": 7.5},
    "plain": {"color": "#56B4E9", "marker": "s"},
    "adaptive": {"color": "#D55E00", "marker": "D"},
    "silent": {"color": GREY, "marker": "|", "markersize": 10, "markeredgewidth": 1.6},
}
SAID = {
    "clean": "no attack",
    "plain": "attack that does not know the defence",
    "adaptive": "PGD through the defence; claims that evade filters",
    "silent": "as many silent words (control)",
}


def defences(defences: pd.DataFrame) -> Drawn:
    """Accuracy through each defence (rows) of each model (rows of panels, the first four), against attacks on pixels
    and on words. A dashed line is what is left without a defence.

    defences: that table. A defence without a number under the attack made for it is not drawn.
    """
    drawn = defences.dropna(subset="adaptive")
    if drawn.empty:
        return sentence("No defence was evaluated to the end under an attack made for it."), drawn
    models = ordered(drawn.model)[:MODELS]
    drawn = drawn[drawn.model.isin(models)]
    names = list(dict.fromkeys(drawn.defence))[::-1]
    figure = Figure(figsize=(8.4, 1.2 + len(models) * (0.9 + 0.23 * len(names))))
    panels = figure.subplots(len(models), len(PANELS), sharey=True, squeeze=False)
    for i, model in enumerate(models):
        for axes, against in zip(panels[i], PANELS, strict=True):
            _panel(axes, drawn[(drawn.model == model) & (drawn.against == against)], names)
            title(axes, f"{label(model)} · {PANELS[against]}", count(drawn.n[drawn.model == model]))
    figure.supxlabel("accuracy, of all questions", fontsize=9)
    legend(figure, [Line2D([], [], label=SAID[one], linestyle="", **look) for one, look in LOOKS.items()])
    return figure, drawn


def _panel(axes: Axes, part: pd.DataFrame, names: list[str]) -> None:
    """One model under one kind of attack."""
    for row in part.itertuples():
        y = names.index(row.defence)
        axes.plot([row.plain, row.adaptive], [y, y], color="#999999", linewidth=1, zorder=2)
        for one, look in LOOKS.items():
            axes.plot(getattr(row, one), y, linestyle="", clip_on=False, zorder=3, **{"markersize": 5} | look)
    for without in part.adaptive[part.defence == NONE]:
        axes.axvline(without, color=LOOKS["adaptive"]["color"], linewidth=1, linestyle=(0, (3, 2)), zorder=1)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlim=(0, 1), ylim=(-0.6, len(names) - 0.4))
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
