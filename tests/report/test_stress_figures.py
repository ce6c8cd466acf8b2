"""Figures of the stress test: every mark is seen, no share is of a handful of questions, no line of a chain rises."""

import numpy as np
import pandas as pd

from safemed.report.figures.abstention import ERASED, FEW, abstention
from safemed.report.figures.chain import chain
from safemed.report.figures.resistance import resistance
from safemed.report.figures.style import GREY
from safemed.report.tables.chain import CHAIN
from safemed.report.tables.hints import HINTS
from safemed.stress.erasure import ERASURES, SOUND


def marks(figure, marker: str) -> list[tuple[float, float]]:
    """Where all marks of a kind stand, panel by panel."""
    lines = [line for axes in figure.axes for line in axes.lines if line.get_marker() == marker]
    return [tuple(place) for line in lines for place in line.get_xydata() if np.isfinite(place).all()]


def test_resistance_has_a_place_for_each_model_and_kind_of_wording(report):
    hints = pd.read_csv(report / "tables" / "hints.csv")
    figure, points = resistance(hints)
    assert points.groupby("taught").resistance.unique().map(list).to_dict() == {"taught": [0.25], "new": [0.75]}
    assert len(figure.axes) == 2  # on clean images, and on those of an attack: the same answers
    twins = pd.concat([hints, hints.assign(model="sft-instruct"), hints.assign(model="at-grpo-think")])
    crowded = resistance(twins)[0].axes[0]
    shown = [line for line in crowded.lines if line.get_marker() in tuple("os")]
    places = [tuple(p) for line in shown if line.get_color() != GREY for p in line.get_xydata()]
    assert len(places) == len(set(places)) == 3 * 2
    assert {round(x, 9) for x, _ in places} == {0.25, 0.75}
    silent = [tuple(p) for line in shown if line.get_color() == GREY for p in line.get_xydata()]
    assert sorted(y for _, y in silent) == sorted(y for _, y in places)
    assert sorted({round(x, 9) for x, _ in silent}) == [0.75, 1]  # one minus drift, of the taught wording and the new
    assert [tick.get_text() for tick in crowded.get_yticklabels()] == ["AT-GRPO, think", "SFT, think", "SFT, instruct"]


def abstained(n: dict[str, int]) -> pd.DataFrame:
    """A row of the table for each image, of which half abstains."""
    rows = [
        {"model": "sft-think", "image": image, "about": "lesion", "lacks": "yes" if image == "lesion" else "no",
         "n": count, "abstained": 0.5}
        for image, count in n.items()
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_a_share_of_few_questions_is_written_as_a_count_and_has_no_colour():
    figure, _ = abstention(abstained({"sound": FEW + 2, "lesion": FEW}))
    axes = figure.axes[0]
    assert sorted(text.get_text() for text in axes.texts if "n = " not in text.get_text()) == ["3 of 6", "50.0"]
    cells = np.ma.getmaskarray(axes.images[0].get_array())
    assert cells.tolist() == [[False, True]] and len(axes.patches) == 1  # framed: there, to abstain is right
    frame = axes.patches[0]
    assert frame.get_x() < 1 < frame.get_x() + frame.get_width() and not frame.get_fill()


def test_every_erasure_has_a_place_in_the_figure_of_who_abstains(report):
    assert set(ERASED) == {SOUND, *ERASURES}
    figure, _ = abstention(pd.read_csv(report / "tables" / "abstention.csv"))
    assert figure.axes[0].get_title(loc="left") == "About the finding"
    names = [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
    assert names == [ERASED["sound"], ERASED["lesion"]]


def test_the_line_of_a_chain_never_rises_though_its_stages_have_different_images(report):
    table = pd.read_csv(report / "tables" / "chain.csv")
    assert table.set_index("stage").loc["size", ["accuracy", "right_so_far"]].tolist() == [0.5, 0.5]
    stages = ["presence", "place", "diagnosis"]
    rising = pd.DataFrame(
        {"model": "sft-think", "condition": "plain", "stage": stages, "n": [10, 4, 10], "accuracy": [0.8, 0.5, 0.9],
         "reached": [0.8, 0.4, 0.6], "images": 10, "right_so_far": [0.8, 0.6, 0.6]}
    )  # fmt: skip
    hinted = pd.concat([rising.assign(condition=condition) for condition in ("negative", "neutral", "plain")])
    headings = [axes.get_title(loc="left") for axes in chain(hinted)[0].axes]
    assert headings == ["No hint", "Silent hints", "Misleading hints"]
    axes = chain(rising)[0].axes[0]
    (line,) = [line for line in axes.lines if line.get_drawstyle() == "steps-mid"]
    assert line.get_ydata().tolist() == [0.8, 0.6, 0.6]
    (points,) = [line for line in axes.lines if line.get_marker() == "o"]
    assert points.get_ydata().tolist() == [0.8, 0.5, 0.9]


def test_where_nothing_was_right_or_linked_the_figures_say_so():
    for figure, _ in (resistance(pd.DataFrame(columns=HINTS)), chain(pd.DataFrame(columns=CHAIN))):
        assert figure.texts and not figure.axes
