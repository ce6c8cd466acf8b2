"""Accuracy by modality or question type."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from safemed.report.figures.style import MODALITIES, Drawn, label, needed, on_one_line, ordered, share_cells, sorted_as


def heatmap(robustness_by_part: pd.DataFrame, kind: str, eps: float) -> Drawn:
    """Accuracy by model (rows) and modality or question type (columns), clean and under PGD: accuracy in % and n.

    robustness_by_part: that table; kind: modality or question_type; eps: PGD's radius, in 1/255. The last two rows are
    the text-only prior and chance.
    """
    cells = heatmap_cells(robustness_by_part, kind, eps)
    models, parts = ordered(cells.model), sorted_as(cells.part, MODALITIES)
    figure = Figure(figsize=(max(6.0, 1.9 + 1.24 * len(parts)), 1.3 + 0.37 * (len(models) + 2)))
    panels = figure.subplots(1, 2, sharey=True)
    attacks = {"clean": "Clean images", "pgd": f"PGD, ε = {cells.eps.max():g}/255"}
    for axes, (attack, title) in zip(panels, attacks.items(), strict=True):
        mesh = _heatmap_panel(axes, cells[cells.attack == attack], models, parts)
        axes.set_title(title)
    figure.colorbar(mesh, ax=panels, format=PercentFormatter(1), label="accuracy", pad=0.01, aspect=30)
    return figure, cells


def heatmap_cells(by_part: pd.DataFrame, kind: str, eps: float) -> pd.DataFrame:
    """The rows of the table by part that a heat map shows: parts of one kind, clean, and PGD at eps (in 1/255)."""
    of_kind = by_part[by_part.kind == kind]
    shown = (of_kind.attack == "clean") | ((of_kind.attack == "pgd") & (of_kind.eps == eps))
    cells = of_kind[shown].sort_values(["attack", "model", "part"], ignore_index=True)
    needed(cells[cells.attack == "pgd"], f"pgd row at eps {eps}")
    return cells


def _heatmap_panel(axes: Axes, cells: pd.DataFrame, models: list[str], parts: list[str]):
    """One panel; returns the mesh for the colour bar."""
    accuracy = cells.pivot(index="model", columns="part", values="accuracy").reindex(models, columns=parts)
    n = cells.pivot(index="model", columns="part", values="n").reindex(models, columns=parts)
    priors = cells.groupby("part")[["blind", "chance"]].mean().T.reindex(columns=parts)
    values = np.vstack([accuracy.to_numpy(float), priors.to_numpy(float)])  # [models + 2, parts]
    counts = np.vstack([n.to_numpy(float), np.full((2, len(parts)), np.nan)])
    mesh = share_cells(axes, values, [*map(label, models), "text only", "chance"], [*map(on_one_line, parts)], counts)
    axes.axhline(len(models) - 0.5, color="white", linewidth=4)
    return mesh
