"""Who abstains, by topic and by what of the image is erased."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from safemed.report.figures.style import Drawn, count, label, needed, ordered, share_cells, sorted_as, title

ERASED = {
    "sound": "nothing",
    "elsewhere": "beside\nlesion",
    "normal": "no lesion\nthere",
    "lesion": "lesion",
    "organ": "organ",
    "blank": "all",
    "mismatch": "other\nimage",
}
FEW = 6  # questions: of so few a share says next to nothing, so their count is written


def abstention(abstention: pd.DataFrame) -> Drawn:
    """The share of questions on which each model (row) abstains, by what is erased (column), a panel a topic.

    abstention: that table. A cell of at most FEW questions has no colour; it says how many of them. Where the image
    lacks what is asked for, so that to abstain is right, a column has a frame.
    """
    drawn = needed(abstention.dropna(subset="abstained"), "complete row of abstention")
    topics, models = sorted_as(drawn.about, ["lesion", "finding", "context"]), ordered(drawn.model)
    columns = {topic: sorted_as(drawn.image[drawn.about == topic], list(ERASED)) for topic in topics}
    widths = [len(images) for images in columns.values()]
    figure = Figure(figsize=(max(6.0, 2.4 + 0.62 * sum(widths)), 2.2 + 0.36 * len(models)))
    panels = figure.subplots(1, len(topics), sharey=True, squeeze=False, width_ratios=widths)[0]
    for axes, topic in zip(panels, topics, strict=True):
        part = drawn[drawn.about == topic]
        mesh = _panel(axes, part, models, columns[topic])
        title(axes, f"About the {topic}", f"{count(part.n)} questions")
    figure.colorbar(mesh, ax=panels, format=PercentFormatter(1), label="abstains", pad=0.01, aspect=25)
    figure.supxlabel(f"what is erased · framed: to abstain is right · counts: {FEW} questions or fewer", fontsize=9)
    return figure, drawn


def _panel(axes: Axes, part: pd.DataFrame, models: list[str], images: list[str]):
    """One topic; returns the mesh for the colour bar."""
    shares, n = (
        part.pivot(index="model", columns="image", values=name).reindex(models, columns=images).to_numpy(float)
        for name in ("abstained", "n")
    )
    many = np.where(n > FEW, shares, np.nan)
    mesh = share_cells(axes, many, list(map(label, models)), [ERASED[image] for image in images])
    axes.set_xticks(range(len(images)), [ERASED[image] for image in images], rotation=0, ha="center", fontsize=8)
    for (i, j), k in np.ndenumerate(shares * n):
        if n[i, j] <= FEW:
            axes.text(j, i, f"{k:.0f} of {n[i, j]:.0f}", ha="center", va="center", fontsize=7.5)
    for image in set(part.image[part.lacks == "yes"]):
        corner = (images.index(image) - 0.48, -0.48)
        axes.add_patch(Rectangle(corner, 0.96, len(models) - 0.04, fill=False, edgecolor="black", linewidth=1.6))
    return mesh
