"""Figures of attacks draw the numbers of their tables, and nothing that was not evaluated."""

import numpy as np
import pandas as pd
import pytest

from safemed.report.figures.accuracy_vs_eps import accuracy_vs_eps
from safemed.report.figures.heatmap import heatmap
from safemed.report.figures.smoothed_attack import smoothed_attack
from safemed.report.figures.success_vs_eps import success_vs_eps
from safemed.report.figures.success_vs_steps import success_vs_steps
from safemed.report.tables.robustness import robustness, robustness_by_part
from safemed.report.tables.smoothing import smoothing
from support.report_rows import BASELINES, failed, probed, smoothed_and_plain, study


def test_the_sweep_draws_the_numbers_of_its_table(report):
    table = pd.read_csv(report / "tables" / "robustness.csv")
    drawn = pd.read_csv(report / "figures" / "accuracy_vs_eps.csv")
    assert set(drawn.attack) == {"clean", "pgd"} and len(drawn) == len(table) - 1  # all but FGSM
    assert len(drawn.merge(table)) == len(drawn)  # every column equal to the last digit
    figure, again = accuracy_vs_eps(table)
    pd.testing.assert_frame_equal(again, drawn)
    robust = drawn[drawn.model == "at-grpo-think"]
    (line,) = [line for line in figure.axes[0].lines if line.get_marker() == "s"]  # its method's marker
    assert line.get_xdata().tolist() == robust.eps.tolist() and line.get_ydata().tolist() == robust.accuracy.tolist()


def test_an_incomplete_evaluation_has_no_point():
    rows = study()
    table = robustness(rows.where(rows.model != "sft-think", failed(rows, "q0", 4)), BASELINES)
    _, drawn = accuracy_vs_eps(table)
    assert set(drawn[drawn.model == "sft-think"].eps) == {0, 2, 8}


def test_success_is_what_accuracy_lacks_and_is_counted_by_the_step():
    _, by_eps = success_vs_eps(robustness(study(), BASELINES))
    assert "clean" not in set(by_eps.attack) and (by_eps.success == 1 - by_eps.accuracy).all()
    _, by_step = success_vs_steps(probed())
    assert by_step.set_index("step").success[[0, 1, 2, 20]].tolist() == [0, 0, 0.5, 0.5] and set(by_step.n) == {8}


def test_a_heat_map_writes_accuracy_and_n_in_each_cell():
    figure, cells = heatmap(robustness_by_part(study(), BASELINES), "modality", 8)
    assert set(zip(cells.attack, cells.eps, strict=True)) == {("clean", 0), ("pgd", 8)}
    clean, pgd = figure.axes[:2]
    assert [text.get_text() for text in clean.texts][:4] == ["50.0", "n 4", "75.0", "n 4"]  # SFT on CT, on fundus
    assert [text.get_text() for text in pgd.texts][:4] == ["0.0", "n 4", "0.0", "n 4"]
    with pytest.raises(ValueError, match="no pgd row at eps 5"):
        heatmap(robustness_by_part(study(), BASELINES), "modality", 5)


def test_the_smoothed_model_is_drawn_full_and_the_model_itself_hollow():
    figure, _ = smoothed_attack(smoothing(*smoothed_and_plain(), 8))
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    hollow = [line.get_xdata()[0] for line in dots if line.get_markerfacecolor() == "white"]
    full = [line.get_xdata()[0] for line in dots if line.get_markerfacecolor() != "white"]
    ticks = [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_marker() == "|"]
    assert hollow == [0.2] and full == [0.4] and np.allclose(sorted(ticks), [0.6, 0.8])
    smoothed, plain = smoothed_and_plain()
    with pytest.raises(ValueError, match="nothing to draw"):
        smoothed_attack(smoothing(failed(smoothed, "c", 8), plain, 8))
