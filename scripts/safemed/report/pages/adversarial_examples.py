"""Questions that an attack breaks: the image before and after, the difference, and the models' words."""

import base64
import io
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from safemed.data.prompts import FAILED, LETTERS
from safemed.report import html
from safemed.report.figures.adversarial_examples import AMPLIFICATION, amplified, read_images
from safemed.report.figures.examples import compare_examples
from safemed.report.figures.style import label

MOST = 40  # questions, which are some megabytes
LOOKS = {"right": "right", FAILED: "failed"}  # outcome -> its class on the page; all others are wrong
SIDE = 192  # pixels at which an image is shown


def adversarial_examples(
    clean: pd.DataFrame, attacked: pd.DataFrame, images: dict[str, Path], texts: pd.DataFrame, eps: float
) -> str:
    """A page that shows one question after another: its words, and for each model the clean image, the difference times
    AMPLIFICATION about mid-grey, the adversarial image, and the words before and after.

    clean, attacked: ATTACK_ROWS of each model on its clean images and under attack at several radii, of which `eps` is
    shown; images: model -> the images.npz beside its attacked rows; texts: the prepared questions. The questions are
    the first MOST by id that the attack breaks of any model.
    """
    after = attacked[attacked.eps == eps]
    pairs = {model: (clean[clean.model == model], after[after.model == model]) for model in dict.fromkeys(clean.model)}
    fell = broken(clean, after)
    chosen = fell[:MOST]
    if not chosen:
        return html.text_page(
            "Adversarial examples", "No question was answered right on the clean image and not right under attack."
        )
    rows = {model: compare_examples(chosen, *pair).set_index("question_id") for model, pair in pairs.items()}
    stacks = {model: read_images(path, eps, len(pairs[model][1])) for model, path in images.items()}
    asked = texts.set_index("question_id")
    shown = [
        _question(asked.loc[question], {model: rows[model].loc[question] for model in rows}, stacks)
        for question in chosen
    ]
    said = (
        f"The first {len(chosen)} of {len(fell)} questions that the attack breaks, of one of these models or of all. "
        f"|δ| ≤ {eps:g}/255; the difference is "
        f"drawn {AMPLIFICATION} times its size. Arrow keys page."
    )
    return html.paged("Adversarial examples", said, shown)


def broken(clean: pd.DataFrame, attacked: pd.DataFrame) -> list[str]:
    """The question_ids, in order, that some model answers rightly on the clean image, and not under attack."""
    before = clean[clean.outcome == "right"][["model", "question_id"]]
    fell = attacked[attacked.outcome.isin(["wrong", "unparsable"])][["model", "question_id"]]
    return sorted(set(before.merge(fell, on=["model", "question_id"]).question_id))


def _question(
    asked: pd.Series, rows: dict[str, pd.Series], stacks: dict[str, dict[str, np.ndarray]]
) -> tuple[str, str]:
    """The heading of a question, and what is shown of it. asked: of the prepared questions."""
    first = next(iter(rows.values()))
    heading = f"{asked.name} · {first.modality} · {first.question_type} · right answer {first.gold}"
    models = "".join(_model(model, row, stacks[model]) for model, row in rows.items())
    options = ", ".join(f"{letter}) {option}" for letter, option in zip(LETTERS, asked.options, strict=False))
    return heading, f"<p>{escape(f'{asked.question} {options}')}</p>{models}"


def _model(model: str, row: pd.Series, images: dict[str, np.ndarray]) -> str:
    clean, adversarial = images["clean"][row.row], images["images"][row.row]
    pictures = {
        "clean": clean,
        f"difference × {AMPLIFICATION}": amplified(clean, adversarial),
        "adversarial": adversarial,
    }
    shown = "".join(
        f"<figure>{picture(image, name)}<figcaption>{escape(name)}</figcaption></figure>"
        for name, image in pictures.items()
    )
    words = _words("before", row.clean_answer, row.clean_outcome, row.clean_text) + _words(
        "after", row.answer, row.outcome, row.text
    )
    return f'<h3>{escape(label(model))}</h3><div class="row">{shown}<div class="words">{words}</div></div>'


def _words(when: str, answer: str, outcome: str, text: str) -> str:
    said = f"{answer}, {outcome}" if answer else outcome
    return f'<p class="{LOOKS.get(outcome, "wrong")}">{when}: {escape(said)}</p><pre>{escape(text)}</pre>'


def picture(image: np.ndarray, name: str) -> str:
    """An image, uint8 [H, W, 3], as an element of a page that loads nothing."""
    held = io.BytesIO()
    Image.fromarray(image).save(held, "PNG")
    data = base64.b64encode(held.getvalue()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{escape(name, quote=True)}" width="{SIDE}" height="{SIDE}">'
