"""Pages of the report: examples to page through, and tables to sort, whatever records and models say."""

import base64
import io
import re

import numpy as np
import pandas as pd
from PIL import Image

from safemed.report import html
from safemed.report.figures.adversarial_examples import amplified
from safemed.report.pages import adversarial_examples as examples
from safemed.report.pages.tables import tables
from support.hostile import MARKUP
from support.report_rows import OUTCOMES, attack_rows, failed, texts_of


def images(folder) -> dict:
    """The images.npz of two models, eight questions each; the perturbation is +8 everywhere."""
    clean = np.random.default_rng(0).integers(0, 200, (8, 4, 4, 3), np.uint8)
    found = {}
    for model in ("sft-think", "at-grpo-think"):
        (folder / model).mkdir(exist_ok=True)
        np.savez(folder / model / "images.npz", clean=clean, eps8=clean + np.uint8(8))
        found[model] = folder / model / "images.npz"
    return found


def pixels(page: str, name: str) -> list[np.ndarray]:
    """The images of a page that are called so."""
    found = re.findall(rf'src="data:image/png;base64,([^"]+)" alt="{name}"', page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data in found]


def made(folder, **changed) -> str:
    """The page of two models, of which the attack breaks the first on all questions, and the second on none."""
    clean = pd.concat([attack_rows(), attack_rows("at-grpo-think")]).assign(**changed)
    attacked = [attack_rows(attack="pgd", eps=8, outcomes=["wrong"] * 8), attack_rows("at-grpo-think", "pgd", 8)]
    texts = texts_of(clean).assign(question=changed.get("text", "What is seen?"))
    return examples.adversarial_examples(clean, pd.concat(attacked).assign(**changed), images(folder), texts, 8)


def test_every_broken_question_has_a_part_with_images_and_words_of_all_models(tmp_path):
    page, right = made(tmp_path), OUTCOMES.count("right")
    assert page.count("<section") == right and page.count("<option>") == right
    clean, after, between = (pixels(page, name) for name in ("clean", "adversarial", "difference × 8"))
    assert len(clean) == len(after) == len(between) == 2 * right
    for before, then, delta in zip(clean, after, between, strict=True):
        assert (then.astype(int) - before == 8).all() and (delta == amplified(before, then)).all()
    assert page.count("<p>What is seen? A) cyst, B) nodule, C) fissure, D) normal</p>") == right
    assert page.count("before: B, right") == 2 * right and page.count("after: A, wrong") == right


def test_a_study_whose_attack_breaks_nothing_says_so(tmp_path):
    rows = attack_rows()
    page = examples.adversarial_examples(rows, rows.assign(attack="pgd", eps=8), images(tmp_path), texts_of(rows), 8)
    assert "No question was answered right" in page and "<img" not in page


def test_what_records_and_models_say_is_text(tmp_path):
    page = made(tmp_path, text=MARKUP, modality=MARKUP)
    assert page.count("<script") == 1 and "alert(1)" not in page.replace("&lt;script&gt;alert(1)", "")
    assert "src=x" not in page.replace("&lt;img src=x", "")
    shown = tables(hints=pd.DataFrame({MARKUP: [MARKUP, "a"], "share": [0.25, float("nan")]}))
    assert shown.count("<script") == 1 and "&lt;script&gt;alert(1)" in shown and "<img" not in shown


def test_pages_load_nothing(tmp_path):
    for page in (made(tmp_path), tables(hints=pd.DataFrame({"a": [1]}))):
        assert not re.search(r'(?:src|href)="(?!data:image/png;base64,)', page) and "@import" not in page


def test_a_table_shows_its_first_rows_with_three_decimals_and_nothing_for_what_is_missing():
    table = pd.DataFrame({"model": ["a", None], "share": [1 / 3, float("nan")], "n": [7, 8]})
    page = tables(hints=table, long=pd.DataFrame({"n": range(html.MOST_ROWS + 3)}))
    assert f'<tr><td>a</td><td data-value="{1 / 3!r}">0.333</td><td>7</td></tr><tr><td></td><td></td><td>8' in page
    assert f"The first {html.MOST_ROWS} rows of {html.MOST_ROWS + 3}." in page
    assert ">0.0002<" in tables(p=pd.DataFrame({"p": [0.0002]})) and "<td>8</td>" in tables(
        p=pd.DataFrame({"n": [8.0]})
    )


def test_what_was_not_evaluated_does_not_look_like_a_score(tmp_path):
    clean = pd.concat([attack_rows(), attack_rows("at-grpo-think")])
    attacked = [attack_rows(attack="pgd", eps=8, outcomes=["wrong"] * 8), attack_rows("at-grpo-think", "pgd", 8)]
    attacked[1] = failed(attacked[1], "q0", 8)
    page = examples.adversarial_examples(clean, pd.concat(attacked), images(tmp_path), texts_of(clean), 8)
    assert page.count('class="failed">after: failed') == 1
