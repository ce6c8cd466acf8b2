"""Words before and after the attack."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from safemed.report.figures.examples import compared
from safemed.report.figures.style import COLOURS, GREY, Drawn, label, on_one_line, sentence


def thoughts(clean: pd.DataFrame, attacked: pd.DataFrame, eps: float) -> Drawn:
    """The words before and after the attack, from the first word that differs on in colour.

    clean, attacked: ATTACK_ROWS of each model on its clean images and under attack at several radii, of which `eps` is
    shown. A question whose words did not change has none coloured.
    """
    examples = compared(clean, attacked, eps)
    if examples.empty:
        return sentence("No question was answered right on the clean image and not right under attack."), examples
    figure = Figure(figsize=(10, 0.75 * len(examples) + 0.5))
    panels = figure.subplots(len(examples), 1, squeeze=False)[:, 0]
    for axes, (_, row) in zip(panels, examples.iterrows(), strict=True):
        axes.set_axis_off()
        axes.set(xlim=(0, 1), ylim=(0, 1))
        before, after = row.clean_text.split(), row.text.split()
        same = first_difference(before, after)
        heading = f"{label(row.model)} · {on_one_line(row.modality)} · gold {row.gold} · {on_one_line(row.question_id)}"
        axes.text(0, 0.98, heading, va="top", fontsize=7, color=GREY)
        _marked_words(axes, 0.6, "clean", before, same, COLOURS["at-grpo"])
        _marked_words(axes, 0.22, f"ε {row.eps:g}", after, same, COLOURS["sft"])
    return figure, examples


def first_difference(before: list[str], after: list[str]) -> int:
    """How many words two texts have in common at their beginning."""
    pairs = zip(before, after, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(before), len(after)))


def _marked_words(axes: Axes, y: float, when: str, words: list[str], same: int, colour: str) -> None:
    """One line of words: grey up to the first that differs, which is bold, then in colour.

    Of a text too long for the line, what stands around the first difference is shown.
    """
    axes.text(0, y, when, va="center", fontsize=7.5, weight="bold", color=colour)
    widest = 128  # characters that the line has room for
    first = 0 if len(" ".join(words)) <= widest else max(0, same - 6)
    x, shown = 0.06, 0
    for i, word in enumerate(words):
        if i < first:
            continue
        shown += len(word) + 1
        word = "…" if shown > widest or (i == first and first) else word
        style = {"color": GREY if i < same else colour, "weight": "bold" if i == same else "normal"}
        axes.text(x, y, word, va="center", fontsize=7.5, family="DejaVu Sans Mono", **style)
        if shown > widest:
            break
        x += 0.0072 * (len(word) + 1)
