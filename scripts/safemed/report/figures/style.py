"""What all figures share: colours, marks, labels, and how they are written.

A figure is a function in a module of this package. It is given its tables or rows by name, and returns a matplotlib
Figure and a data frame of the very numbers drawn, which `save` writes beside the picture. Figures are deterministic:
the same numbers give the same bytes, whatever the time. Nothing here uses pyplot's global state or a display.
"""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter
from scipy.optimize import isotonic_regression

from safemed.utils.files import atomic_file, write_csv

Drawn = tuple[Figure, pd.DataFrame]  # a figure, and the numbers drawn

STYLE = {
    "figure.dpi": 150,  # 8 inches are 1200 pixels
    "savefig.dpi": 150,
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",  # ships with matplotlib, so the bytes do not depend on the machine's fonts
    "font.size": 9,
    "text.parse_math": False,  # names of records and words of models may hold dollar signs
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#444444",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
    "pdf.fonttype": 42,
}
matplotlib.rcParams.update(STYLE)  # once, on import: some of these are read only when the figure is written

# Okabe & Ito's palette, told apart in print and by colour-blind readers; an ablation is a tint of its method.
COLOURS = {
    "base": "#666666",
    "sft": "#D55E00",
    "stepwise-sft": "#882255",
    "fare": "#56B4E9",
    "fare-at-grpo": "#1B2A6B",
    "grpo": "#B8578F",
    "noisy-sft": "#E3B23C",
    "noisy-grpo": "#C98A00",
    "at-sft": "#009E73",
    "at-grpo": "#0072B2",
}
NAMES = {
    "base": "base",
    "sft": "SFT",
    "stepwise-sft": "stepwise SFT",
    "fare": "FARE",
    "fare-at-grpo": "FARE + AT-GRPO",
    "grpo": "GRPO",
    "noisy-sft": "noisy SFT",
    "noisy-grpo": "noisy GRPO",
    "at-sft": "AT-SFT",
    "at-grpo": "AT-GRPO",
}
ACRONYMS = {"hsat": "HSAT", "acl": "ACL", "tecoa": "TeCoA", "rag": "RAG", "AT_GRPO": "AT-GRPO"}  # words of other names
MARKERS = {  # a method has one in every figure, so that grey print tells methods apart, too
    "base": "8",
    "sft": "o",
    "stepwise-sft": "P",
    "fare": "^",
    "fare-at-grpo": "X",
    "grpo": "v",
    "noisy-sft": "<",
    "noisy-grpo": ">",
    "at-sft": "h",
    "at-grpo": "s",
}
LINES = {"instruct": (0, (4, 1.6)), "think": "-", "after": (0, (7, 1.4, 1.4, 1.4)), "": (0, (1, 1.2))}
DASHES = ["-", (0, (5, 1.5)), (0, (1, 1)), (0, (7, 1.5, 1, 1.5)), (0, (3, 1, 1, 1, 1, 1)), (0, (9, 3))]
ABLATION_MARKERS = "D*pdH1"
GREY = "#777777"

MODALITIES = ["CT", "MR", "X-ray", "ultrasound", "dermoscopy", "fundus photography", "OCT", "microscopy"]


def save(figure: Figure, drawn: pd.DataFrame, prefix: Path) -> None:
    """Write prefix.pdf, prefix.png and the numbers drawn, prefix.csv, each whole or not at all, without a timestamp."""
    for suffix, metadata in ((".pdf", {"CreationDate": None}), (".png", {})):
        with atomic_file(prefix.with_name(prefix.name + suffix)) as temporary:
            figure.savefig(temporary, metadata=metadata)
    write_csv(drawn, prefix.with_name(prefix.name + ".csv"))


def label(model: str) -> str:
    """A model's name for the reader: "at-grpo-no-anchor-think" is "AT-GRPO no anchor, think"."""
    method, variant = _split(model)
    family = _family(method)
    name = NAMES.get(family, "")
    rest = method.removeprefix(family) if name else method
    words = rest.replace("-at-grpo", "-+-AT_GRPO").split("-")
    if not name and words[0] not in ACRONYMS:
        words = [method]  # a name that a user chose stays as it is
    name = " ".join(filter(None, [name, *(ACRONYMS.get(word, word) for word in words)]))
    return f"{name}, {variant}" if variant else name


def _split(model: str) -> tuple[str, str]:
    """A model's name as (method, variant); the variant is "" for a name without one."""
    method, _, variant = model.rpartition("-")
    return (method, variant) if variant in LINES and variant else (model, "")


def _family(method: str) -> str:
    """The method that `method` is or is an ablation of; itself if it is none that we know."""
    known = [name for name in NAMES if method == name or method.startswith(f"{name}-")]
    return max(known, key=len, default=method)


def ordered(models: pd.Series) -> list[str]:
    """The models, each once: by method in the order of NAMES, ablations after their method, then by variant."""

    def rank(model: str) -> tuple:
        method, variant = _split(model)
        family = _family(method)
        return (list(NAMES).index(family) if family in NAMES else len(NAMES), method, variant)

    return sorted(set(models), key=rank)


def sorted_as(values: pd.Series, order: list[str]) -> list[str]:
    """The values, each once, in the given order; those it does not have come last, by name."""
    return sorted(set(values), key=lambda value: (order.index(value) if value in order else len(order), value))


def look(model: str, models: list[str], markers: bool = True) -> dict:
    """How a model among `models` is drawn: colour and marker for its method, line style and the marker's filling for
    its variant: open for instruct, pale for after.
    """
    method, variant = _split(model)
    family = _family(method)
    ablations = sorted({m for m, _ in map(_split, models) if _family(m) == family and m != family})
    rank = ablations.index(method) + 1 if method in ablations else 0
    marker = ABLATION_MARKERS[(rank - 1) % len(ABLATION_MARKERS)] if rank else MARKERS.get(family, "o")
    colour = _tint(COLOURS.get(family, GREY), rank / (len(ablations) + 1) * 0.55)
    filling = {"instruct": "white", "after": _tint(colour, 0.6)}.get(variant, colour)
    return {
        "color": colour, "linestyle": LINES[variant], "linewidth": 1.2 if rank else 2.0,
        "marker": marker if markers else "", "markerfacecolor": filling,
    }  # fmt: skip


def distinct_look(model: str, models: list[str]) -> dict:
    """`look` with a line style that no other of up to six models has: for curves that cross, and print in grey."""
    return look(model, models) | {"linestyle": DASHES[models.index(model) % len(DASHES)], "linewidth": 1.6}


def _tint(colour: str, share: float) -> str:
    """The colour mixed with a share of white."""
    return to_hex((1 - share) * np.array(to_rgb(colour)) + share)


def needed(frame: pd.DataFrame, what: str) -> pd.DataFrame:
    """The frame; ValueError if it has no rows, for an empty picture would pass for a result."""
    if frame.empty:
        raise ValueError(f"nothing to draw: no {what} in the input; evaluate it or leave the figure out of the study")
    return frame


def title(axes: Axes, title: str, note: str) -> None:
    """A bold title with a grey line of small print under it."""
    axes.set_title(title, pad=18)
    axes.annotate(note, (0, 1), (0, 6), "axes fraction", "offset points", fontsize=8, color=GREY, annotation_clip=False)


def count(n: pd.Series) -> str:
    """`n = 256`, or a range where the points differ."""
    return f"n = {n.min():,}" if n.min() == n.max() else f"n = {n.min():,}–{n.max():,}"


def percent_axis(axes: Axes) -> None:
    """A share in [0, 1] as per cent on the y axis."""
    axes.set_ylim(0, 1)
    axes.set_yticks(np.arange(0, 1.01, 0.2))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))


def label_ends(axes: Axes, table: pd.DataFrame, x: str, y: str, models: list[str]) -> None:
    """Each model's name right of the axes beside the end of its line, moved up or down until no two overlap."""
    ends = table.sort_values(x).groupby("model")[[x, y]].last().loc[models]
    heights = spread(ends[y].to_numpy(), gap=min(0.052, 1 / len(models)))
    for (model, end), height in zip(ends.iterrows(), heights, strict=True):
        style = look(model, models)
        axes.annotate(
            label(model), (end[x], end[y]), (1.045, height), textcoords=axes.get_yaxis_transform(), va="center",
            color=style["color"], fontsize=8.5, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": style["color"], "linewidth": 0.7, "shrinkA": 1, "shrinkB": 4,
                        "relpos": (0, 0.5)},
        )  # fmt: skip


def spread(heights: np.ndarray, gap: float) -> np.ndarray:
    """Heights in [0, 1] moved apart to at least `gap`, in the same order, as little as possible in least squares."""
    order = np.argsort(heights, kind="stable")
    steps = gap * np.arange(len(heights))
    placed = np.clip(isotonic_regression(heights[order] - steps).x, 0, 1 - steps[-1]) + steps
    return placed[np.argsort(order)]


def handle(model: str, models: list[str], **changes) -> Line2D:
    """A model's entry in a legend."""
    return Line2D([], [], label=label(model), **look(model, models) | changes)


def legend(figure: Figure, handles: list[Line2D]) -> None:
    """One legend for all panels, above them, in as many columns as the figure is wide enough for."""
    widest = 0.65 + 0.07 * max(
        len(entry.get_label()) for entry in handles
    )  # inches: the mark, and the longest name at the legend's size
    columns = min(len(handles), int(figure.get_figwidth() // widest))
    figure.legend(handles=handles, loc="outside upper left", ncols=columns, handlelength=3)


def on_one_line(text: str, longest: int = 40) -> str:
    """A name that comes from a record as a figure has room for it: without line breaks, its end left out if long."""
    text = " ".join(text.split())
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def share_cells(axes: Axes, values: np.ndarray, rows: list[str], columns: list[str], counts: np.ndarray | None = None):
    """Shares [rows, columns] as coloured cells, their numbers over their n; returns the mesh for a colour bar."""
    mesh = axes.imshow(values, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        _cell(axes, j, i, value, float("nan") if counts is None else counts[i, j])
    axes.set_xticks(range(len(columns)), columns, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    return mesh


def _cell(axes: Axes, x: int, y: int, value: float, n: float) -> None:
    """A share in per cent, to a tenth, where 100 means all, over n; nothing where there is none."""
    if np.isnan(value):
        return
    ink = "white" if value < 0.46 else "black"
    words = f"{100 * value if value == 1 else min(100 * value, 99.9):.1f}"
    axes.text(x, y + (0 if np.isnan(n) else -0.17), words, ha="center", va="center", fontsize=7.5, color=ink)
    if not np.isnan(n):
        axes.text(x, y + 0.24, f"n {n:.0f}", ha="center", va="center", fontsize=5.5, color=ink)


def sentence(words: str) -> Figure:
    """A figure that says why it is empty."""
    figure = Figure(figsize=(6, 1))
    figure.text(0.5, 0.5, words, ha="center", va="center")
    return figure
