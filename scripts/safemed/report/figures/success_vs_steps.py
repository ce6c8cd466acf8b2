"""Success of PGD against its gradient steps."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from safemed.report.figures.style import Drawn, count, label_ends, look, ordered, percent_axis, sentence, title


def success_vs_steps(probes: pd.DataFrame) -> Drawn:
    """Share of broken questions against the gradient steps spent, a line a model. probes: rows of scripts/sanity.py."""
    success = success_by_steps(probes)
    if success.empty:
        return sentence("No question was answered right on the clean image: there was nothing to break."), success
    figure = Figure(figsize=(8, 4.4))
    axes, models = figure.subplots(), ordered(success.model)
    for model in models:
        line = success[success.model == model]
        axes.plot(line.step, line.success, drawstyle="steps-post", **look(model, models, markers=False))
    axes.set_xlim(0, success.step.max())
    percent_axis(axes)
    axes.set_xlabel("gradient steps")
    axes.set_ylabel("broken, of those right when clean")
    label_ends(axes, success, "step", "success", models)
    note = f"one restart, ε = {success.eps.max():g}/255 · {count(success.n)}"
    title(axes, "Success of PGD against its steps", note)
    return figure, success


def success_by_steps(probes: pd.DataFrame) -> pd.DataFrame:
    """For each model and step count s: the share of the questions it was right on that are broken within s steps.

    probes: rows of scripts/sanity.py; those of the longest single-restart attack are used. Columns model, n, eps, step,
    success; no rows where no model was right on a clean image.
    """
    direct = probes[(probes.probe == "steps") & (probes.steps == probes.steps.max())]
    records = []
    for model, part in direct.groupby("model", sort=False):
        spent = part.spent.where(part.broken.astype(bool), np.inf)
        record = {"model": model, "n": len(part), "eps": part.eps.iloc[0]}
        records += [record | {"step": s, "success": (spent <= s).mean()} for s in range(int(part.steps.max()) + 1)]
    return pd.DataFrame(records, columns=["model", "n", "eps", "step", "success"])
