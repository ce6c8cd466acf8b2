"""Whether the attacks can be believed."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from safemed.report.figures.style import Drawn, count, label, needed, ordered, title


def sanity(sanity: pd.DataFrame) -> Drawn:
    """Every check (rows) of every model (columns) with its value, red where it is not passed. sanity: that table."""
    models, checks = ordered(needed(sanity, "check").model), list(dict.fromkeys(sanity.check))
    cells = sanity.set_index(["check", "model"])
    figure = Figure(figsize=(max(8.6, 3.6 + 1.25 * len(models)), 1.1 + 0.3 * len(checks)))
    axes = figure.subplots()
    axes.set(xlim=(-0.5, len(models) - 0.5), ylim=(len(checks) - 0.5, -0.5))
    for (j, model), (i, check) in ((a, b) for a in enumerate(models) for b in enumerate(checks)):
        if (check, model) not in cells.index:
            continue
        value, passed = cells.loc[(check, model), ["value", "passed"]]
        colour = "#d9efe6" if passed else "#d62728"
        axes.add_patch(Rectangle((j - 0.48, i - 0.46), 0.96, 0.92, color=colour))
        axes.text(j, i, f"{value:.3f}", ha="center", va="center", fontsize=8, color="black" if passed else "white")
    bounds = [cells.loc[check].bound.max() for check in checks]
    axes.set_yticks(range(len(checks)), [f"{c}  (≤ {b:g})" for c, b in zip(checks, bounds, strict=True)], fontsize=8)
    axes.set_xticks(range(len(models)), map(label, models), fontsize=8, rotation=20, ha="right")
    axes.grid(False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    broken = int((~sanity.passed).sum())
    verdict = "all checks passed" if not broken else f"{broken} of {len(sanity)} checks BROKEN"
    title(axes, f"Can the attacks be believed? {verdict}", f"shares of {count(sanity.n)} questions")
    return figure, sanity
