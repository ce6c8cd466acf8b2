"""The figures: one style, one function a figure; each draws every row it is given and returns a matplotlib Figure.

What is drawn is chosen by the small functions `pgd_sweep`, `heatmap_cells`, `long_curves` and `compare_examples`, so
that `save` can write the very numbers beside the picture. Figures are deterministic: the same numbers give the same
bytes, whatever the time. Nothing here uses pyplot's global state or a display.
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator, PercentFormatter
from scipy.optimize import isotonic_regression

from safemed.data.clinical_stages import STAGES
from safemed.utils.files import atomic_file, write_csv
from safemed.utils.stats import floor_to

STYLE = {
    "figure.dpi": 150,  # 8 inches are 1200 pixels
    "savefig.dpi": 150,
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",  # ships with matplotlib, so the bytes do not depend on the machine's fonts
    "font.size": 9,
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
    "grpo": "GRPO",
    "noisy-sft": "noisy SFT",
    "noisy-grpo": "noisy GRPO",
    "at-sft": "AT-SFT",
    "at-grpo": "AT-GRPO",
}
LINES = {"instruct": (0, (4, 1.6)), "think": "-", "": (0, (1, 1.2))}
ABLATION_MARKERS = "DvXP^s"
GREY = "#777777"

MODALITIES = ["CT", "MR", "X-ray", "ultrasound", "dermoscopy", "fundus photography", "OCT", "microscopy"]
QUANTITIES = {
    "loss": "training loss",
    "reward_accuracy": "accuracy reward",
    "reward_format": "format reward",
    "clean_accuracy": "accuracy, clean images",
    "robust_accuracy": "accuracy, adversarial images",
    "frac_reward_zero_std": "share of equal-reward groups",
    "anchor_kl": "KL to the clean reference (nats)",
    "attack_loss": "loss after the attack",
    "hint_loss": "loss after the worst hint",
    "completion_length": "completion length (tokens)",
    "entropy": "entropy of the policy (nats)",
    "eps": "ε in training (1/255)",
}
AMPLIFICATION = 8


def pgd_sweep(robustness: pd.DataFrame) -> pd.DataFrame:
    """The rows of the robustness table that make up the PGD sweep: attack "pgd", and "clean" as eps 0."""
    sweep = robustness[robustness.attack.isin(["clean", "pgd"])].dropna(subset="accuracy")  # incomplete: no point
    return _needed(sweep, "clean or pgd row").sort_values(["model", "eps"], ignore_index=True)


def accuracy_vs_eps(sweep: pd.DataFrame) -> Figure:
    """Accuracy against the eps of the attack (in 1/255), a line a model, with its 95 % intervals as a band.

    sweep: rows of `pgd_sweep`. Chance and the text-only prior are labelled lines; the title states n.
    """
    figure = Figure(figsize=(8, 4.9))
    axes = figure.subplots()
    models = _ordered(sweep.model)
    band = {"alpha": 0.13 if len(models) <= 8 else 0.07, "linewidth": 0}  # many bands at full strength are a fog
    for model in models:
        line = sweep[sweep.model == model]
        style = _style(model, models)
        axes.fill_between(line.eps, line.ci_low, line.ci_high, color=style["color"], **band)
        axes.plot(line.eps, line.accuracy, clip_on=False, zorder=3, **style)
    axes.set_xscale("function", functions=(lambda e: np.log2(1 + np.maximum(e, 0)), lambda u: 2**u - 1))
    axes.set_xticks(sorted(sweep.eps.unique()))
    axes.set_xlim(0, sweep.eps.max() * 1.02)
    _percent(axes)
    axes.set_xlabel("attack budget ε (1/255); 0 is the clean image")
    axes.set_ylabel("accuracy")
    _baseline_lines(axes, sweep)
    _label_ends(axes, sweep, "eps", "accuracy", models)
    _title(axes, "Accuracy under PGD", f"{_count(sweep.n)} questions a point · 95% intervals, clustered by image")
    return figure


def certified_vs_radius(certified: pd.DataFrame) -> Figure:
    """Certified accuracy against the L2 radius, a row a function, a column a sigma, a step curve a model.

    certified: the table of `tables.certified`. Between two radii of the table the curve takes the value at the larger
    one, so that it is nowhere above what was certified; the dot is the value at the smallest radius. Crosses are what
    an L2 attack of that radius left of the same smoothed model, where it was attacked: a curve belongs below its
    crosses.
    """
    told = _needed(certified.dropna(subset="certified_accuracy"), "complete certificate table")
    sigmas, functions = sorted(told.sigma.unique()), sorted(told.function.unique())
    figure = Figure(figsize=(max(6.0, 3.0 * len(sigmas)), 0.9 + 3.0 * len(functions)))
    panels = figure.subplots(len(functions), len(sigmas), sharey=True, squeeze=False)
    models = _ordered(told.model)
    for line, function in zip(panels, functions, strict=True):
        for axes, sigma in zip(line, sigmas, strict=True):
            table = told[(told.sigma == sigma) & (told.function == function)].sort_values("radius")
            _certified_panel(axes, table, models)
            _title(axes, f"{function}, σ = {sigma:g}", _certificate_note(table))
        line[0].set_ylabel("certified accuracy")
    figure.supxlabel("certified L2 radius (pixels in [0, 1]) · crosses: under an L2 attack of that radius", fontsize=9)
    _legend(figure, panels[0, 0], len(models))
    return figure


def smoothed_attack(smoothing: pd.DataFrame) -> Figure:
    """Accuracy under the linf attack, of each model (hollow) and of its smoothed model (full), each attacked for
    itself.

    smoothing: the table of `suite.smoothing`. A panel a function and sigma; a tick is the accuracy without an attack.
    """
    told = _needed(smoothing.dropna(subset="attacked_smoothed"), "complete attack on a smoothed model")
    kinds, models = list(dict.fromkeys(zip(told.function, told.sigma, strict=True))), _ordered(told.model)[::-1]
    figure = Figure(figsize=(max(6.0, 1.6 + 3.6 * len(kinds)), 1.5 + 0.33 * len(models)))
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for axes, (function, sigma) in zip(panels, kinds, strict=True):
        part = told[(told.function == function) & (told.sigma == sigma)].set_index("model")
        for y, model in enumerate(models):
            if model in part.index:
                _dumbbell(axes, y, part.loc[model], _style(model, models)["color"])
        axes.set_yticks(range(len(models)), map(label, models))
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        _title(axes, f"{function}, σ = {sigma:g}", f"ε = {part.eps.max():g}/255, {_count(part.n)}")
    figure.supxlabel("accuracy under PGD: model (hollow), smoothed model (full); ticks: unattacked", fontsize=9)
    return figure


def _dumbbell(axes: Axes, y: int, row: pd.Series, colour: str) -> None:
    """One model: its accuracy under attack, joined to that of its smoothed model."""
    axes.plot([row.attacked, row.attacked_smoothed], [y, y], color=colour, linewidth=1.2, zorder=2)
    ends = {"color": colour, "linestyle": "", "clip_on": False, "zorder": 3}
    axes.plot(row.attacked, y, marker="o", markerfacecolor="white", **ends)
    axes.plot(row.attacked_smoothed, y, marker="o", **ends)
    axes.plot(row.clean, y, marker="|", markersize=9, alpha=0.5, **ends)
    axes.plot(row.clean_smoothed, y, marker="|", markersize=9, **ends)


def resistance_points(hints: pd.DataFrame) -> pd.DataFrame:
    """The rows of the table of hints that the plane shows: everybody's, by whether the wordings were taught."""
    told = hints[(hints.voice == "all") & (hints.taught != "all")].dropna(subset="sycophancy")
    return told.assign(resistance=1 - told.sycophancy).reset_index(drop=True)


def resistance(points: pd.DataFrame) -> Figure:
    """Resistance to misleading hints against the accuracy without a hint, a mark a model, a panel a kind of image.

    points: `resistance_points`. Full marks are wordings that no training drew; a thin line leads to the taught ones.
    """
    if points.empty:
        return _sentence("No answer was right without a hint, or not all were evaluated: see the table of hints.")
    models = _ordered(points.model)
    kinds = _sorted_as(points.seen, ["clean"])
    figure = Figure(figsize=(max(6.0, 4.2 * len(kinds)), 4.4))
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for axes, seen in zip(panels, kinds, strict=True):
        part = points[points.seen == seen]
        for model in models:
            _resistance_mark(axes, part[part.model == model], _style(model, models), label(model))
        axes.set_xlim(0, 1.02)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        _percent(axes)
        images = "clean images" if seen == "clean" else f"images of {seen}"
        _title(axes, f"Hints on {images}", f"{_count(part.n)} questions · 95% intervals, clustered by image")
    panels[0].set_ylabel("resistance: right answers kept under a misleading hint")
    figure.supxlabel("accuracy without a hint · small marks: wordings that training may draw", fontsize=9)
    _legend(figure, panels[0], len(models))
    return figure


def _resistance_mark(axes: Axes, rows: pd.DataFrame, style: dict, name: str) -> None:
    """One model: its new wordings with their interval, joined to the taught ones."""
    at = {row.taught: row for row in rows.itertuples()}
    if "new" in at:
        new = at["new"]
        ends = [[max(new.resistance - 1 + new.sycophancy_high, 0)], [max(1 - new.sycophancy_low - new.resistance, 0)]]
        look = {key: style[key] for key in ("color", "marker", "markerfacecolor")}
        axes.errorbar(
            new.plain, new.resistance, ends, label=name, markersize=8, linestyle="", elinewidth=1, clip_on=False, **look
        )
    if "taught" in at:
        axes.plot(
            at["taught"].plain, at["taught"].resistance, clip_on=False, **style | {"linestyle": "", "markersize": 4}
        )
    if len(at) == 2:
        axes.plot(rows.plain, rows.resistance, color=style["color"], linewidth=0.7)


WORDS = {
    "none": "no hint",
    "positive": "right",
    "neutral": "silent",
    "negative": "misleading",
    "worst": "worst misleading",
}


def pixels_and_words(table: pd.DataFrame) -> Figure:
    """Accuracy of each model (rows) under hints (columns), on clean images and on attacked ones (panels)."""
    told = _needed(table.dropna(subset="accuracy"), "complete row of pixels and words")
    models, kinds = _ordered(told.model), _sorted_as(told.seen, ["clean"])
    figure = Figure(figsize=(2.2 + 3.6 * len(kinds), 1.7 + 0.42 * len(models)))
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for axes, seen in zip(panels, kinds, strict=True):
        part = told[told.seen == seen].pivot(index="model", columns="words", values="accuracy")
        values = part.reindex(models, columns=list(WORDS)).to_numpy(float)
        mesh = _accuracies(axes, values, list(map(label, models)), list(WORDS.values()))
        axes.set_title("Clean images" if seen == "clean" else f"Images of {seen}")
    figure.colorbar(mesh, ax=panels, format=PercentFormatter(1), label="accuracy", pad=0.01, aspect=30)
    return figure


def drawn_image_edits(image_edits: pd.DataFrame) -> pd.DataFrame:
    """The rows of the table of altered images that the figure shows, with `panel`, its heading, and x, its place."""
    told = _needed(image_edits.dropna(subset="accuracy"), "complete row of altered images")
    steps = told[(told.kind == "corruption") & (told.about == "all")]
    cues = told[(told.kind == "mark") & (told.about == "all")]
    cues = cues.assign(x=cues.name + cues.polarity.map({"positive": " true", "negative": " lying"}).fillna(""))
    erased = told[(told.kind == "erasure") & (told.about != "all")]
    return pd.concat(
        [
            steps.assign(panel=steps.name, x=steps.severity.astype(str)),
            cues.assign(panel="marks"),
            *(part.assign(panel=f"erased, {topic}", x=part.name) for topic, part in erased.groupby("about")),
        ],
        ignore_index=True,
    )


def image_edits(drawn: pd.DataFrame) -> Figure:
    """Accuracy on altered images: a panel a corruption against its severity, then marks, then erasures by topic.

    drawn: `drawn_image_edits`. In grey, each model's accuracy on the clean images of the same questions.
    """
    names, models = list(dict.fromkeys(drawn.panel)), _ordered(drawn.model)
    columns = min(5, len(names))
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(2.7 * columns, 0.5 + 2.6 * lines))
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False)
    for axes, name in zip(panels.ravel(), names, strict=False):
        part = drawn[drawn.panel == name]
        places = list(dict.fromkeys(part.x))
        joined = (part.kind == "corruption").all()
        for model in models:
            line = part[part.model == model].set_index("x").reindex(places)
            style = _style(model, models) | ({} if joined else {"linestyle": ""})
            axes.plot(range(len(places)), line.accuracy, label=label(model), clip_on=False, zorder=3, **style)
            axes.plot(range(len(places)), line.plain, color=style["color"], linewidth=0.6, alpha=0.5, linestyle=":")
        axes.set_xticks(range(len(places)), places, fontsize=8, rotation=0 if joined else 90)
        axes.set_xlim(-0.3, len(places) - 0.7)
        _percent(axes)
        _title(axes, name, _count(part.n))
    for axes in panels.ravel()[len(names) :]:
        axes.remove()
    for line in panels:
        line[0].set_ylabel("accuracy")
    figure.supxlabel("severity of a corruption, or kind of cue · dotted: the same questions, clean", fontsize=9)
    _legend(figure, panels[0, 0], len(models))
    return figure


ERASED = {
    "sound": "nothing",
    "elsewhere": "beside\nlesion",
    "normal": "no lesion\nthere",
    "lesion": "lesion",
    "organ": "organ",
    "blank": "all",
}


def abstention(table: pd.DataFrame) -> Figure:
    """The share of questions on which each model abstains, a panel a topic, by what of the image is erased.

    Short lines are the same questions' shares on the image as it is. Where the image lacks what is asked for, to
    abstain is right: those places have a grey ground.
    """
    drawn = _needed(table.dropna(subset="abstained"), "complete row of abstention")
    topics, models = _sorted_as(drawn.about, ["lesion", "finding", "context"]), _ordered(drawn.model)
    figure = Figure(figsize=(max(6.0, 4.6 * len(topics)), 4.4))
    panels = figure.subplots(1, len(topics), sharey=True, squeeze=False)[0]
    for axes, topic in zip(panels, topics, strict=True):
        part = drawn[drawn.about == topic]
        images = _sorted_as(part.image, list(ERASED))
        for place, model in enumerate(models):
            _abstention_marks(axes, part[part.model == model].set_index("image").reindex(images), place, models)
        for x in {images.index(image) for image in part.image[part.lacks == "yes"]}:
            axes.axvspan(x - 0.5, x + 0.5, color="#eeeeee", zorder=0)
        axes.set_xticks(range(len(images)), [ERASED[image] for image in images])
        axes.set_xlim(-0.5, len(images) - 0.5)
        _percent(axes)
        _title(axes, f"Questions about the {topic}", f"{_count(part.n)} questions · 95% intervals")
    panels[0].set_ylabel("abstains, where that is offered")
    figure.supxlabel(
        "what is erased · grey: to abstain is right · short lines: the same questions, nothing erased", fontsize=9
    )
    _legend(figure, panels[0], len(models))
    return figure


def _abstention_marks(axes: Axes, line: pd.DataFrame, place: int, models: list[str]) -> None:
    """One model's shares, beside those of the other models."""
    model = models[place]
    style = {key: value for key, value in _style(model, models).items() if key != "linestyle"}
    reach = [(line.abstained - line.abstained_low).clip(lower=0), (line.abstained_high - line.abstained).clip(lower=0)]
    x = np.arange(len(line)) + 0.6 * ((place + 0.5) / len(models) - 0.5)
    axes.errorbar(x, line.abstained, reach, label=label(model), linestyle="", elinewidth=1, clip_on=False, **style)
    axes.plot(x, line.sound, color=style["color"], marker="_", markersize=7, linestyle="", clip_on=False)


def chain(table: pd.DataFrame) -> Figure:
    """The chain of evidence, a panel a condition: accuracy of each stage (marks) and share of images right so far."""
    if table.empty:
        return _sentence("No image has questions of two stages of the chain of evidence.")
    told = _needed(table.dropna(subset="accuracy"), "complete chain of evidence")
    conditions = _sorted_as(told.condition, ["plain"])
    stages, models = _sorted_as(told.stage, list(STAGES)), _ordered(told.model)
    figure = Figure(figsize=(max(6.0, 4.4 * len(conditions)), 4.2))
    panels = figure.subplots(1, len(conditions), sharey=True, squeeze=False)[0]
    for axes, condition in zip(panels, conditions, strict=True):
        part = told[told.condition == condition]
        for model in models:
            line = part[part.model == model].set_index("stage").reindex(stages)
            style = _style(model, models)
            axes.plot(range(len(stages)), line.accuracy, clip_on=False, zorder=3, **style | {"linestyle": ""})
            axes.plot(
                range(len(stages)), line.reached, label=label(model), drawstyle="steps-mid", **style | {"marker": ""}
            )
        axes.set_xticks(range(len(stages)), stages, rotation=20)
        _percent(axes)
        _title(
            axes, "No hint" if condition == "plain" else f"{condition} hints".capitalize(), f"{_count(part.n)} images"
        )
    panels[0].set_ylabel("marks: right at the stage · line: right so far")
    _legend(figure, panels[0], len(models))
    return figure


def heatmap_cells(by_part: pd.DataFrame, kind: str, eps: int) -> pd.DataFrame:
    """The rows of the table by part that a heat map shows: parts of one kind, clean, and PGD at eps (in 1/255)."""
    of_kind = by_part[by_part.kind == kind]
    shown = (of_kind.attack == "clean") | ((of_kind.attack == "pgd") & (of_kind.eps == eps))
    cells = of_kind[shown].sort_values(["attack", "model", "part"], ignore_index=True)
    _needed(cells[cells.attack == "pgd"], f"pgd row at eps {eps}")
    return cells


def heatmap(cells: pd.DataFrame) -> Figure:
    """Accuracy by model (rows) and modality or question type (columns), clean and under PGD: accuracy in % and n.

    cells: rows of `heatmap_cells`. The last two rows are the text-only prior and chance.
    """
    models, parts = _ordered(cells.model), _sorted_as(cells.part, MODALITIES)
    figure = Figure(figsize=(1.9 + 1.24 * len(parts), 1.3 + 0.37 * (len(models) + 2)))
    panels = figure.subplots(1, 2, sharey=True)
    attacks = {"clean": "Clean images", "pgd": f"PGD, ε = {cells.eps.max():g}/255"}
    for axes, (attack, title) in zip(panels, attacks.items(), strict=True):
        mesh = _heatmap_panel(axes, cells[cells.attack == attack], models, parts)
        axes.set_title(title)
    figure.colorbar(mesh, ax=panels, format=PercentFormatter(1), label="accuracy", pad=0.01, aspect=30)
    return figure


def long_curves(curves: pd.DataFrame) -> pd.DataFrame:
    """Training curves as one row a model, quantity and step, with the running mean that the figure draws.

    curves: columns model, step and any of QUANTITIES; missing columns and values are left out. Returns columns model,
    quantity, step, value, running_mean (centred, over a 25th of the points, at least one).
    """
    known = [quantity for quantity in QUANTITIES if quantity in curves]
    long = curves.melt(["model", "step"], known, "quantity").dropna(subset="value")
    long = _needed(long, "training value").sort_values(["model", "quantity", "step"], ignore_index=True)
    smooth = long.groupby(["model", "quantity"]).value.transform(_running_mean)
    return long[["model", "quantity", "step", "value"]].assign(running_mean=smooth)


def training_curves(long: pd.DataFrame) -> Figure:
    """Small multiples of the training, one a quantity, a line a model: values faint, their running mean strong.

    long: rows of `long_curves`.
    """
    quantities, models = _sorted_as(long.quantity, list(QUANTITIES)), _ordered(long.model)
    columns = min(4, len(quantities))
    lines = -(-len(quantities) // columns)
    figure = Figure(figsize=(max(2.6 * columns, 6), 1.8 * lines + 0.3 * (2 + len(models) // 5)))
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, quantity in zip(panels, quantities, strict=False):
        _curve_panel(axes, long[long.quantity == quantity], models)
        axes.set_title(QUANTITIES[quantity], fontsize=9)
    for axes in panels[len(quantities) :]:
        axes.remove()
    figure.supxlabel("training step", fontsize=9)
    handles = [Line2D([], [], label=label(model), **_style(model, models, markers=False)) for model in models]
    figure.legend(handles=handles, loc="outside upper left", ncols=min(len(models), 5), handlelength=3)
    return figure


def choose_examples(clean: pd.DataFrame, attacked: pd.DataFrame, most: int = 6) -> list[str]:
    """The question_ids shown: right when clean, wrong or unparsable under attack, the first by id of each modality.

    A question that could not be evaluated is none. clean, attacked: attack rows of ONE model, clean and under attack.
    May be empty.
    """
    right = clean.loc[clean.outcome == "right", "question_id"]
    broken = attacked[attacked.question_id.isin(right) & attacked.outcome.isin(["wrong", "unparsable"])]
    firsts = broken.sort_values("question_id").drop_duplicates("modality").set_index("modality").question_id
    return [firsts[modality] for modality in _sorted_as(firsts.index, MODALITIES)][:most]


def compare_examples(question_ids: Sequence[str], clean: pd.DataFrame, attacked: pd.DataFrame) -> pd.DataFrame:
    """One row a question for the model of these rows, its words before and after the attack.

    clean, attacked: attack rows of ONE model. Returns the attacked rows, with `row`, their index in the image
    archive, and clean_outcome, clean_answer and clean_text.

    Raises ValueError if the two are not of one model or a question is not among them.
    """
    models = sorted(set(clean.model) | set(attacked.model))
    if len(models) != 1:
        raise ValueError(f"clean and attacked rows must be of one model, got {', '.join(models)}; pair the files")
    if unknown := sorted(set(question_ids) - (set(clean.question_id) & set(attacked.question_id))):
        raise ValueError(
            f"model {models[0]} was not asked {', '.join(unknown)} both clean and attacked; re-run its attack"
        )
    before = clean.set_index("question_id")[["outcome", "answer", "text"]].add_prefix("clean_")
    shown = attacked.assign(row=np.arange(len(attacked))).set_index("question_id").loc[list(question_ids)]
    return shown.join(before).reset_index()


def adversarial_examples(examples: pd.DataFrame, images: dict[str, dict[str, np.ndarray]]) -> Figure:
    """Clean image, perturbation and adversarial image of a few questions, with the words before and after.

    examples: rows of `compare_examples` for one model or several, the same questions for each. images: for each model,
    "clean" and "images", uint8 [n, H, W, 3], indexed by the column `row`. The perturbation is drawn AMPLIFICATION times
    its size about mid-grey.
    """
    if examples.empty:
        return _sentence("No question was answered right on the clean image and not right under attack.")
    models, questions = list(dict.fromkeys(examples.model)), list(dict.fromkeys(examples.question_id))
    widths = [1.0] + [1.0, 1.0, 1.75] * len(models)
    figure = Figure(figsize=(1.25 * sum(widths) + 0.4, 1.25 * len(questions) + 0.5))
    grid = figure.subplots(len(questions), len(widths), squeeze=False, width_ratios=widths)
    for axes in grid.ravel():
        axes.set_axis_off()
    for line, question in zip(grid, questions, strict=True):
        rows = examples[examples.question_id == question].set_index("model").loc[models]
        _example_line(line, rows, images)
    _example_titles(grid[0], examples, models)
    return figure


def success_by_eps(robustness: pd.DataFrame) -> pd.DataFrame:
    """The rows of the robustness table that are attacks; `success`: share of ALL n questions not right any more."""
    attacked = _needed(robustness[robustness.attack != "clean"].dropna(subset="accuracy"), "attack row")
    return attacked.assign(success=1 - attacked.accuracy).reset_index(drop=True)


def success_vs_eps(success: pd.DataFrame) -> Figure:
    """Share of questions not right against eps, a panel an attack, a line a model. success: `success_by_eps`."""
    attacks, models = list(dict.fromkeys(success.attack)), _ordered(success.model)
    figure = Figure(figsize=(max(6.0, 3.0 * len(attacks)), 3.9))
    panels = figure.subplots(1, len(attacks), sharey=True, squeeze=False)[0]
    for axes, attack in zip(panels, attacks, strict=True):
        part = success[success.attack == attack]
        for model in models:
            line = part[part.model == model].sort_values("eps")
            axes.plot(line.eps, line.success, label=label(model), clip_on=False, zorder=3, **_style(model, models))
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted(part.eps.unique()), [f"{eps:g}" for eps in sorted(part.eps.unique())])
        _percent(axes)
        _title(axes, attack, _count(part.n))
    panels[0].set_ylabel("not right")
    figure.supxlabel("attack budget ε (1/255)", fontsize=9)
    _legend(figure, panels[0], len(models))
    return figure


def success_by_steps(probes: pd.DataFrame) -> pd.DataFrame:
    """For each model and step count s: the share of the questions it was right on that are broken within s steps.

    probes: rows of scripts/sanity.py; those of the longest single-restart attack are told. Columns model, n, eps, step,
    success; no rows where no model was right on a clean image.
    """
    direct = probes[(probes.probe == "steps") & (probes.steps == probes.steps.max())]
    records = []
    for model, part in direct.groupby("model", sort=False):
        spent = part.spent.where(part.broken.astype(bool), np.inf)
        told = {"model": model, "n": len(part), "eps": part.eps.iloc[0]}
        records += [told | {"step": s, "success": (spent <= s).mean()} for s in range(int(part.steps.max()) + 1)]
    return pd.DataFrame(records, columns=["model", "n", "eps", "step", "success"])


def success_vs_steps(success: pd.DataFrame) -> Figure:
    """Share of broken questions against the gradient steps spent, a line a model. success: `success_by_steps`."""
    if success.empty:
        return _sentence("No question was answered right on the clean image: there was nothing to break.")
    figure = Figure(figsize=(8, 4.4))
    axes, models = figure.subplots(), _ordered(success.model)
    for model in models:
        line = success[success.model == model]
        axes.plot(line.step, line.success, drawstyle="steps-post", **_style(model, models, markers=False))
    axes.set_xlim(0, success.step.max())
    _percent(axes)
    axes.set_xlabel("gradient steps")
    axes.set_ylabel("broken, of those right when clean")
    _label_ends(axes, success, "step", "success", models)
    note = f"one restart, ε = {success.eps.max():g}/255 · {_count(success.n)}"
    _title(axes, "Success of PGD against its steps", note)
    return figure


def transfer_matrix(transfer: pd.DataFrame) -> Figure:
    """Accuracy of every model (columns) on the adversarial images of every model (rows). transfer: that table."""
    models = _ordered(pd.concat([_needed(transfer, "transfer row").source, transfer.target]))
    values = transfer.pivot(index="source", columns="target", values="accuracy").reindex(models, columns=models)
    figure = Figure(figsize=(2.6 + 0.95 * len(models), 1.8 + 0.55 * len(models)))
    axes = figure.subplots()
    mesh = _accuracies(axes, values.to_numpy(float), *[list(map(label, models))] * 2)
    axes.set_xlabel("scored on")
    axes.set_ylabel("images made against")
    figure.colorbar(mesh, ax=axes, format=PercentFormatter(1), label="accuracy", pad=0.02, aspect=30)
    _title(axes, f"Transfer of {transfer.attack.iloc[0]}, ε = {transfer.eps.max():g}/255", _count(transfer.n))
    return figure


def sanity_table(sanity: pd.DataFrame) -> Figure:
    """Every check (rows) of every model (columns) with its value, red where it is not passed. sanity: that table."""
    models, checks = _ordered(_needed(sanity, "check").model), list(dict.fromkeys(sanity.check))
    told = sanity.set_index(["check", "model"])
    figure = Figure(figsize=(max(8.6, 3.6 + 1.25 * len(models)), 1.1 + 0.3 * len(checks)))
    axes = figure.subplots()
    axes.set(xlim=(-0.5, len(models) - 0.5), ylim=(len(checks) - 0.5, -0.5))
    for (j, model), (i, check) in ((a, b) for a in enumerate(models) for b in enumerate(checks)):
        if (check, model) not in told.index:
            continue
        value, passed = told.loc[(check, model), ["value", "passed"]]
        colour = "#d9efe6" if passed else "#d62728"
        axes.add_patch(Rectangle((j - 0.48, i - 0.46), 0.96, 0.92, color=colour))
        axes.text(j, i, f"{value:.3f}", ha="center", va="center", fontsize=8, color="black" if passed else "white")
    bounds = [told.loc[check].bound.max() for check in checks]
    axes.set_yticks(range(len(checks)), [f"{c}  (≤ {b:g})" for c, b in zip(checks, bounds, strict=True)], fontsize=8)
    axes.set_xticks(range(len(models)), map(label, models), fontsize=8, rotation=20, ha="right")
    axes.grid(False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    broken = int((~sanity.passed).sum())
    verdict = "all checks passed" if not broken else f"{broken} of {len(sanity)} checks BROKEN"
    _title(axes, f"Can the attacks be believed? {verdict}", f"shares of {_count(sanity.n)} questions")
    return figure


def thoughts(examples: pd.DataFrame) -> Figure:
    """The words before and after the attack, from the first word that differs on in colour.

    examples: rows of `compare_examples`. A question whose words did not change has none coloured.
    """
    if examples.empty:
        return _sentence("No question was answered right on the clean image and not right under attack.")
    figure = Figure(figsize=(10, 0.75 * len(examples) + 0.5))
    panels = figure.subplots(len(examples), 1, squeeze=False)[:, 0]
    for axes, (_, row) in zip(panels, examples.iterrows(), strict=True):
        axes.set_axis_off()
        axes.set(xlim=(0, 1), ylim=(0, 1))
        before, after = row.clean_text.split(), row.text.split()
        same = first_difference(before, after)
        heading = f"{label(row.model)} · {row.modality} · gold {row.gold} · {row.question_id}"
        axes.text(0, 0.98, heading, va="top", fontsize=7, color=GREY, parse_math=False)
        _marked_words(axes, 0.6, "clean", before, same, COLOURS["at-grpo"])
        _marked_words(axes, 0.22, f"ε {row.eps:g}", after, same, COLOURS["sft"])
    return figure


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
        axes.text(x, y, word, va="center", fontsize=7.5, family="DejaVu Sans Mono", parse_math=False, **style)
        if shown > widest:
            break
        x += 0.0072 * (len(word) + 1)


def amplified(clean: np.ndarray, adversarial: np.ndarray) -> np.ndarray:
    """The perturbation as an image: mid-grey where nothing changed, uint8, same shape, clipped to [0, 255]."""
    delta = adversarial.astype(int) - clean.astype(int)
    return np.clip(128 + AMPLIFICATION * delta, 0, 255).astype(np.uint8)


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
    name = NAMES.get(family, family) + method.removeprefix(family).replace("-", " ")
    return f"{name}, {variant}" if variant else name


def _split(model: str) -> tuple[str, str]:
    """A model's name as (method, variant); the variant is "" for a name without one."""
    method, _, variant = model.rpartition("-")
    return (method, variant) if variant in LINES and variant else (model, "")


def _family(method: str) -> str:
    """The method that `method` is or is an ablation of; itself if it is none that we know."""
    known = [name for name in NAMES if method == name or method.startswith(f"{name}-")]
    return max(known, key=len, default=method)


def _ordered(models: pd.Series) -> list[str]:
    """The models, each once: by method in the order of NAMES, ablations after their method, then by variant."""

    def rank(model: str) -> tuple:
        method, variant = _split(model)
        family = _family(method)
        return (list(NAMES).index(family) if family in NAMES else len(NAMES), method, variant)

    return sorted(set(models), key=rank)


def _sorted_as(values: pd.Series, order: list[str]) -> list[str]:
    """The values, each once, in the given order; those it does not have come last, by name."""
    return sorted(set(values), key=lambda value: (order.index(value) if value in order else len(order), value))


def _style(model: str, models: list[str], markers: bool = True) -> dict:
    """How a model among `models` is drawn: colour for its method, line style and open markers for its variant."""
    method, variant = _split(model)
    family = _family(method)
    ablations = sorted({m for m, _ in map(_split, models) if _family(m) == family and m != family})
    rank = ablations.index(method) + 1 if method in ablations else 0
    marker = ABLATION_MARKERS[(rank - 1) % len(ABLATION_MARKERS)] if rank else "o"
    colour = _tint(COLOURS.get(family, GREY), rank / (len(ablations) + 1) * 0.55)
    return {
        "color": colour, "linestyle": LINES[variant], "linewidth": 1.2 if rank else 2.0,
        "marker": marker if markers else "", "markerfacecolor": "white" if variant == "instruct" else colour,
    }  # fmt: skip


def _tint(colour: str, share: float) -> str:
    """The colour mixed with a share of white."""
    return to_hex((1 - share) * np.array(to_rgb(colour)) + share)


def _needed(frame: pd.DataFrame, what: str) -> pd.DataFrame:
    """The frame; ValueError if it has no rows, for an empty picture would pass for a result."""
    if frame.empty:
        raise ValueError(f"nothing to draw: no {what} in the input; evaluate it or leave the figure out of the study")
    return frame


def _title(axes: Axes, title: str, note: str) -> None:
    """A bold title with a grey line of small print under it."""
    axes.set_title(title, pad=18)
    axes.annotate(note, (0, 1), (0, 6), "axes fraction", "offset points", fontsize=8, color=GREY, annotation_clip=False)


def _count(n: pd.Series) -> str:
    """`n = 256`, or a range where the points differ."""
    return f"n = {n.min():,}" if n.min() == n.max() else f"n = {n.min():,}–{n.max():,}"


def _percent(axes: Axes) -> None:
    """A share in [0, 1] as per cent on the y axis."""
    axes.set_ylim(0, 1)
    axes.set_yticks(np.arange(0, 1.01, 0.2))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))


def _baseline_lines(axes: Axes, sweep: pd.DataFrame) -> None:
    """Chance and the text-only prior, the higher one labelled above its line and the lower below."""
    levels = sweep.groupby("eps")[["chance", "blind"]].mean()  # equal for all models: they answer the same questions
    higher = levels.mean().idxmax()
    for name, words, dashes in (("chance", "chance", (1, 2)), ("blind", "text only", (5, 2))):
        axes.plot(levels.index, levels[name], color=GREY, linewidth=1, linestyle=(0, dashes), zorder=1)
        value = levels[name].iloc[0]
        offset, align = ((4, 3), "bottom") if name == higher else ((4, -3), "top")
        axes.annotate(
            f"{words} {100 * value:.1f}%", (levels.index[0], value), offset, textcoords="offset points", va=align,
            fontsize=8, color="#444444", zorder=5, path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )  # fmt: skip


def _label_ends(axes: Axes, table: pd.DataFrame, x: str, y: str, models: list[str]) -> None:
    """Each model's name right of the axes beside the end of its line, moved up or down until no two overlap."""
    ends = table.sort_values(x).groupby("model")[[x, y]].last().loc[models]
    heights = _spread(ends[y].to_numpy(), gap=min(0.052, 1 / len(models)))
    for (model, end), height in zip(ends.iterrows(), heights, strict=True):
        style = _style(model, models)
        axes.annotate(
            label(model), (end[x], end[y]), (1.045, height), textcoords=axes.get_yaxis_transform(), va="center",
            color=style["color"], fontsize=8.5, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": style["color"], "linewidth": 0.7, "shrinkA": 1, "shrinkB": 4,
                        "relpos": (0, 0.5)},
        )  # fmt: skip


def _spread(heights: np.ndarray, gap: float) -> np.ndarray:
    """Heights in [0, 1] moved apart to at least `gap`, in the same order, as little as possible in least squares."""
    order = np.argsort(heights, kind="stable")
    steps = gap * np.arange(len(heights))
    placed = np.clip(isotonic_regression(heights[order] - steps).x, 0, 1 - steps[-1]) + steps
    return placed[np.argsort(order)]


def _certified_panel(axes: Axes, table: pd.DataFrame, models: list[str]) -> None:
    """The step curves of one sigma."""
    for model in models:
        line = table[table.model == model]
        style = _style(model, models)
        axes.fill_between(
            line.radius, line.ci_low, line.ci_high, step="pre", color=style["color"], alpha=0.13, linewidth=0
        )
        axes.plot(
            line.radius, line.certified_accuracy, drawstyle="steps-pre", label=label(model), markevery=[0],
            clip_on=False, zorder=3, **style,
        )  # fmt: skip
        crosses = {"marker": "x", "linestyle": "", "color": style["color"], "markersize": 6, "zorder": 4}
        axes.plot(line.radius, line.empirical_accuracy, clip_on=False, **crosses)
    axes.set_xlim(0, table.radius.max() or 1)  # a lone radius 0 still needs an axis
    axes.xaxis.set_major_locator(MaxNLocator(4))
    _percent(axes)


def _certificate_note(table: pd.DataFrame) -> str:
    """n, alpha and the mean number of draws, of one sigma."""
    alphas = ", ".join(f"{alpha:g}" for alpha in sorted(table.alpha.unique()))
    return f"{_count(table.n)}, α = {alphas}, {table.samples.mean():.0f} draws a question"


def _legend(figure: Figure, axes: Axes, entries: int) -> None:
    """One legend for all panels, above them, in as many columns as the figure is wide enough for."""
    handles, labels = axes.get_legend_handles_labels()
    widest = 0.65 + 0.07 * max(map(len, labels))  # inches: the mark, and the longest name at the legend's size
    columns = min(entries, int(figure.get_figwidth() // widest))
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, handlelength=3)


def _heatmap_panel(axes: Axes, cells: pd.DataFrame, models: list[str], parts: list[str]):
    """One panel; returns the mesh for the colour bar."""
    accuracy = cells.pivot(index="model", columns="part", values="accuracy").reindex(models, columns=parts)
    n = cells.pivot(index="model", columns="part", values="n").reindex(models, columns=parts)
    priors = cells.groupby("part")[["blind", "chance"]].mean().T.reindex(columns=parts)
    values = np.vstack([accuracy.to_numpy(float), priors.to_numpy(float)])  # [models + 2, parts]
    counts = np.vstack([n.to_numpy(float), np.full((2, len(parts)), np.nan)])
    mesh = _accuracies(axes, values, [*map(label, models), "text only", "chance"], parts, counts)
    axes.axhline(len(models) - 0.5, color="white", linewidth=4)
    return mesh


def _accuracies(axes: Axes, values: np.ndarray, rows: list[str], columns: list[str], counts: np.ndarray | None = None):
    """Accuracies [rows, columns] as coloured cells, their numbers over their n; returns the mesh for a colour bar."""
    mesh = axes.imshow(values, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        _heatmap_cell(axes, j, i, value, float("nan") if counts is None else counts[i, j])
    axes.set_xticks(range(len(columns)), columns, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    return mesh


def _heatmap_cell(axes: Axes, x: int, y: int, value: float, n: float) -> None:
    """Accuracy in per cent, rounded down to a tenth so that 100 means all, over n; nothing where there is none."""
    if np.isnan(value):
        return
    ink = "white" if value < 0.46 else "black"
    words = f"{floor_to(100 * value, 1):.1f}"
    axes.text(x, y + (0 if np.isnan(n) else -0.17), words, ha="center", va="center", fontsize=7.5, color=ink)
    if not np.isnan(n):
        axes.text(x, y + 0.24, f"n {n:.0f}", ha="center", va="center", fontsize=5.5, color=ink)


def _running_mean(values: pd.Series) -> pd.Series:
    """Centred running mean over a 25th of the points, at least one."""
    return values.rolling(max(1, len(values) // 25), center=True, min_periods=1).mean()


def _curve_panel(axes: Axes, long: pd.DataFrame, models: list[str]) -> None:
    """One quantity of the training."""
    for model in models:
        line = long[long.model == model]
        style = _style(model, models, markers=False)
        axes.plot(line.step, line.value, color=style["color"], linewidth=0.6, alpha=0.25)
        axes.plot(line.step, line.running_mean, **style | {"linewidth": 1.5})
    axes.tick_params(labelsize=8)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))


def _example_line(line: np.ndarray, rows: pd.DataFrame, images: dict[str, dict[str, np.ndarray]]) -> None:
    """One question: the clean image, then for each model perturbation, adversarial image and words."""
    for place, (model, row) in enumerate(rows.iterrows()):
        clean, adversarial = images[model]["clean"][row.row], images[model]["images"][row.row]
        delta, attacked, words = line[1 + 3 * place : 4 + 3 * place]
        if place == 0:
            _show(line[0], clean)
            name = f"{row.modality}, gold {row.gold}"
            line[0].text(0.5, -0.04, name, transform=line[0].transAxes, ha="center", va="top", fontsize=7)
        _show(delta, amplified(clean, adversarial))
        _show(attacked, adversarial)
        _words(words, 1.0, "clean", row.clean_answer, row.clean_outcome, row.clean_text)
        _words(words, 0.48, "attacked", row.answer, row.outcome, row.text)


def _show(axes: Axes, image: np.ndarray) -> None:
    """An image, its pixels as they are."""
    axes.imshow(image, interpolation="nearest")


def _words(axes: Axes, top: float, when: str, answer: str, outcome: str, text: str) -> None:
    """A heading with the outcome, in words and in colour, over the model's text."""
    colour = COLOURS["at-grpo"] if outcome == "right" else COLOURS["sft"]
    heading = f"{when}: {answer}, {outcome}" if answer else f"{when}: {outcome}"
    style = {"transform": axes.transAxes, "va": "top", "parse_math": False}  # a model may well write a dollar sign
    axes.text(0.02, top, heading, fontsize=7, color=colour, weight="bold", **style)
    axes.text(0.02, top - 0.12, textwrap.fill(_shortened(text), 43), fontsize=5.8, linespacing=1.15, **style)


def _shortened(text: str, longest: int = 150) -> str:
    """The text on one line, words of its middle left out if it is long: the answer stands at the end."""
    text = " ".join(text.split())
    if len(text) <= longest:
        return text
    return f"{text[: longest - 55].rsplit(' ', 1)[0]} … {text[-50:].split(' ', 1)[-1]}"


def _example_titles(line: np.ndarray, examples: pd.DataFrame, models: list[str]) -> None:
    """The columns' titles, over the first line."""
    line[0].set_title("clean", fontsize=8, loc="center")
    for place, model in enumerate(models):
        eps = examples[examples.model == model].eps.max()
        delta, attacked, words = line[1 + 3 * place : 4 + 3 * place]
        delta.set_title(f"δ × {AMPLIFICATION}", fontsize=8, loc="center")
        attacked.set_title("clean + δ", fontsize=8, loc="center")
        words.set_title(f"{label(model)}, |δ| ≤ {eps}/255", fontsize=8, color=_style(model, models)["color"], x=0.02)


def _sentence(words: str) -> Figure:
    """A figure that says why it is empty."""
    figure = Figure(figsize=(6, 1))
    figure.text(0.5, 0.5, words, ha="center", va="center")
    return figure
