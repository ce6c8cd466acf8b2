"""Examples are chosen by rule and shown as they are; training curves keep every value."""

import numpy as np
import pandas as pd
import pytest

from safemed.data.prompts import FAILED
from safemed.report.figures.adversarial_examples import adversarial_examples, amplified
from safemed.report.figures.examples import choose_examples, compare_examples
from safemed.report.figures.thoughts import first_difference, thoughts
from safemed.report.figures.training_curves import training_curves
from support.report_rows import attack_rows

BROKEN = ["right"] + ["unparsable"] * 7


def test_examples_are_chosen_by_rule():
    clean, attacked = attack_rows(), attack_rows(attack="pgd", eps=8, outcomes=BROKEN)
    chosen = choose_examples(clean, attacked)
    assert chosen == ["q1", "q4"]  # q0 stays right, q2 and q3 were not right when clean; one a modality
    lost = attacked.assign(outcome=attacked.outcome.where(attacked.question_id != "q1", FAILED))
    assert choose_examples(clean, lost) == ["q4"]  # what could not be evaluated is not shown as broken
    shown = compare_examples(chosen, clean, attacked)
    assert shown[["row", "clean_outcome", "outcome"]].values.tolist() == [[r, "right", "unparsable"] for r in (1, 4)]
    with pytest.raises(ValueError, match="of one model"):
        compare_examples(chosen, clean, attack_rows("base"))


def test_perturbations_are_amplified_about_grey():
    pixels = np.array([100, 100, 100, 250], np.uint8)
    assert amplified(pixels, np.array([100, 108, 92, 230], np.uint8)).tolist() == [128, 192, 64, 0]


def test_images_of_another_radius_or_number_are_refused(tmp_path):
    clean, attacked = attack_rows(), attack_rows(attack="pgd", eps=8, outcomes=BROKEN)
    archive = tmp_path / "images.npz"
    for stored, message in (({"eps4": 8}, "no images within eps 8"), ({"eps8": 7}, "8, 7. images for 8 rows")):
        np.savez(archive, clean=np.zeros((8, 2, 2, 3)), **{k: np.zeros((n, 2, 2, 3)) for k, n in stored.items()})
        with pytest.raises(ValueError, match=f"images.npz: .*{message}.*re-run its attack"):
            adversarial_examples(clean, attacked, {"sft-think": archive}, 8)


def test_no_example_is_said_and_not_an_error():
    unbroken = attack_rows(attack="pgd", eps=8)
    for figure, drawn in (
        adversarial_examples(attack_rows(), unbroken, {}, 8),
        thoughts(attack_rows(), unbroken, 8),
    ):
        assert "No question" in figure.texts[0].get_text() and drawn.empty


def test_the_first_differing_word_is_found():
    assert first_difference(["a", "b", "c"], ["a", "x", "c"]) == 1
    assert first_difference(["a", "b"], ["a", "b", "c"]) == 2


def test_curves_keep_every_value_and_drop_what_is_missing():
    curves = pd.DataFrame({"model": "sft-think", "step": [2, 1, 3], "loss": [2.0, 3.0, np.nan], "eps": np.nan})
    _, long = training_curves(curves)
    assert long[["quantity", "step", "value"]].values.tolist() == [["loss", 1, 3.0], ["loss", 2, 2.0]]
