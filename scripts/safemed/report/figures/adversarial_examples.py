"""Adversarial images, their perturbations, and the words they lead to."""

import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from safemed.report.figures.examples import compared
from safemed.report.figures.style import COLOURS, Drawn, label, look, on_one_line, sentence

AMPLIFICATION = 8


def adversarial_examples(clean: pd.DataFrame, attacked: pd.DataFrame, images: dict[str, Path], eps: float) -> Drawn:
    """Clean image, perturbation and adversarial image of a few questions, with the words before and after.

    clean, attacked: ATTACK_ROWS of each model on its clean images and under attack at several radii, of which `eps` is
    shown; images: model -> the images.npz beside its attacked rows. The first model chooses the questions; every model
    is shown on them, with its own adversarial images. The perturbation is drawn AMPLIFICATION times its size about
    mid-grey.
    """
    examples = compared(clean, attacked, eps)
    if examples.empty:
        return sentence("No question was answered right on the clean image and not right under attack."), examples
    asked = attacked[attacked.eps == eps].groupby("model").size()
    stacks = {model: read_images(path, eps, asked[model]) for model, path in images.items()}
    models, questions = list(dict.fromkeys(examples.model)), list(dict.fromkeys(examples.question_id))
    widths = [1.0] + [1.0, 1.0, 1.75] * len(models)
    figure = Figure(figsize=(1.25 * sum(widths) + 0.4, 1.25 * len(questions) + 0.5))
    grid = figure.subplots(len(questions), len(widths), squeeze=False, width_ratios=widths)
    for axes in grid.ravel():
        axes.set_axis_off()
    for line, question in zip(grid, questions, strict=True):
        rows = examples[examples.question_id == question].set_index("model").loc[models]
        _example_line(line, rows, stacks)
    _example_titles(grid[0], examples, models)
    return figure, examples


def read_images(path: Path, eps: float, n: int) -> dict[str, np.ndarray]:
    """The clean and the adversarial images of an archive, uint8 [n, H, W, 3].

    Raises ValueError naming the archive if it lacks the radius or holds not n images of each.
    """
    with np.load(path) as archive:
        if f"eps{eps:g}" not in archive:
            raise ValueError(f"{path}: no images within eps {eps:g}; re-run its attack with that radius")
        images = {"clean": archive["clean"], "images": archive[f"eps{eps:g}"]}
    if any(len(stack) != n for stack in images.values()):
        raise ValueError(f"{path}: {[len(stack) for stack in images.values()]} images for {n} rows; re-run its attack")
    return images


def amplified(clean: np.ndarray, adversarial: np.ndarray) -> np.ndarray:
    """The perturbation as an image: mid-grey where nothing changed, uint8, same shape, clipped to [0, 255]."""
    delta = adversarial.astype(int) - clean.astype(int)
    return np.clip(128 + AMPLIFICATION * delta, 0, 255).astype(np.uint8)


def _example_line(line: np.ndarray, rows: pd.DataFrame, images: dict[str, dict[str, np.ndarray]]) -> None:
    """One question: the clean image, then for each model perturbation, adversarial image and words."""
    for place, (model, row) in enumerate(rows.iterrows()):
        clean, adversarial = images[model]["clean"][row.row], images[model]["images"][row.row]
        delta, attacked, words = line[1 + 3 * place : 4 + 3 * place]
        if place == 0:
            _show(line[0], clean)
            name = f"{on_one_line(row.modality)}, gold {row.gold}"
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
    style = {"transform": axes.transAxes, "va": "top"}
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
        words.set_title(f"{label(model)}, |δ| ≤ {eps}/255", fontsize=8, color=look(model, models)["color"], x=0.02)
