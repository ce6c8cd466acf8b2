"""The certified curve is nowhere above the certificates, and tells its models apart without colour."""

import pandas as pd
import pytest

from safemed.report.figures.certified_vs_radius import certified_vs_radius
from safemed.report.tables.certified import CERTIFIED, certified
from support.report_rows import certificate_rows, smoothed_rows

SIDE = 32


def certificates(models=("at-grpo-think",)) -> pd.DataFrame:
    """The table of some models with equal certificates, each attacked."""
    rows = pd.concat([certificate_rows(model) for model in models])
    attacks = pd.concat([smoothed_rows({0: "abd", 0.25: "abd"}, model) for model in models])
    return certified(rows, [0.0, 0.25, 0.5, 1.0], SIDE, attacks)


def test_the_curve_takes_the_value_at_the_larger_of_two_radii():
    table = certificates()
    figure, drawn = certified_vs_radius(table)
    curve, crosses, marks = figure.axes[0].lines
    assert curve.get_drawstyle() == "steps-pre" and curve.get_xdata()[1:].tolist() == table.radius.tolist()
    assert curve.get_ydata()[1:].tolist() == marks.get_ydata().tolist() == table.certified_accuracy.tolist()
    steps = list(zip(curve.get_xdata(), curve.get_xdata()[1:], strict=False))
    assert all(low < x <= high for x, (low, high) in zip(marks.get_xdata(), steps, strict=True))
    assert crosses.get_ydata()[:2].tolist() == [0.6, 0.6] and pd.isna(crosses.get_ydata()[2:]).all()
    assert (crosses.get_xdata() == marks.get_xdata()).all()
    pd.testing.assert_frame_equal(drawn, table)
    below = [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
    assert below == ["0\n0", "0.25\n1.2", "0.5\n2.3", "1\n4.6"]  # the linf radius, in 1/255, under the L2 radius


def test_models_differ_in_marker_and_line_style_and_hide_no_mark():
    models = [f"{method}-{variant}" for method in ("sft", "noisy-grpo", "at-grpo") for variant in ("instruct", "think")]
    figure, _ = certified_vs_radius(certificates(models))
    lines = figure.axes[0].lines  # for each model its curve, crosses and marks
    assert len({str(line.get_linestyle()) + str(line._dash_pattern) for line in lines[::3]}) == len(models)
    looks = {(line.get_marker(), line.get_markerfacecolor() == "white") for line in lines[2::3]}
    assert len(looks) == len(models)
    places = [tuple(place) for line in lines[2::3] for place in line.get_xydata()]
    assert len(set(places)) == len(places)
    legend = figure.legends[0].get_lines()
    assert [(mark.get_marker(), mark.get_label()) for mark in legend][:2] == [
        ("o", "SFT, instruct"), ("o", "SFT, think"),
    ]  # fmt: skip


def test_certificates_have_a_row_a_function_and_a_column_a_sigma():
    kinds = [(function, sigma) for function in ("generate", "choice") for sigma in (0.25, 0.5, 0.12)]
    rows = pd.concat([certificate_rows(sigma=sigma, function=function) for function, sigma in kinds])
    figure, _ = certified_vs_radius(certified(rows, [0.0, 0.25], SIDE))
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == [f"{function}, σ = {sigma}" for function in ("choice", "generate") for sigma in (0.12, 0.25, 0.5)]
    assert figure.axes[0].get_gridspec().get_geometry() == (2, 3)


def test_incomplete_certificates_are_not_drawn():
    rows = certificate_rows()
    spoilt = rows.assign(model="sft-think", stopped="failed", prediction="", certified=False, radius=0.0)
    table = certified(pd.concat([rows, spoilt]), [0.0, 0.25], SIDE)
    assert len(certified_vs_radius(table)[0].axes[0].lines) == 3  # a curve, crosses and marks of the other model
    for nothing in (table[table.model == "sft-think"], pd.DataFrame(columns=CERTIFIED)):
        with pytest.raises(ValueError, match="nothing to draw"):
            certified_vs_radius(nothing)
