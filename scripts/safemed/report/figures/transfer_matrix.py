"""Accuracy of every model on the adversarial images of every model."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from safemed.report.figures.style import Drawn, count, label, needed, ordered, share_cells, title


def transfer_matrix(transfer: pd.DataFrame) -> Drawn:
    """Accuracy of every model (columns) on the adversarial images of every model (rows). transfer: that table."""
    models = ordered(pd.concat([needed(transfer, "transfer row").source, transfer.target]))
    values = transfer.pivot(index="source", columns="target", values="accuracy").reindex(models, columns=models)
    figure = Figure(figsize=(2.6 + 0.95 * len(models), 1.8 + 0.55 * len(models)))
    axes = figure.subplots()
    mesh = share_cells(axes, values.to_numpy(float), *[list(map(label, models))] * 2)
    axes.set_xlabel("scored on")
    axes.set_ylabel("images made against")
    figure.colorbar(mesh, ax=axes, format=PercentFormatter(1), label="accuracy", pad=0.02, aspect=30)
    title(axes, f"Transfer of {transfer.attack.iloc[0]}, ε = {transfer.eps.max():g}/255", count(transfer.n))
    return figure, transfer
