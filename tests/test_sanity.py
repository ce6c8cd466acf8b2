"""The sanity table is green for a sound attack and red for each way in which published attacks have failed silently."""

import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from safemed import attacks, evaluation, objectives, plots, probes, sanity
from safemed.evaluation import Exam
from safemed.vlm import VLM, to_float

SETTINGS = {"eps": 24, "radii": [8, 24, 96], "steps": [3, 10, 20], "restarts": 3}
NO_ROWS = pd.DataFrame(columns=["model", "norm", "eps", "attack", "outcome", "question_id"])


def checked(exam: Exam) -> pd.DataFrame:
    """The sanity table of the attack on this exam, without the suite's part."""
    rows = probes.probe_rows(exam, SETTINGS, seed=0).assign(model="sft-instruct").reindex(columns=sanity.PROBE_ROWS)
    return sanity.sanity(rows, NO_ROWS, 24).set_index("check")


@pytest.fixture(scope="module")
def exam(skilled, shown) -> Exam:
    return Exam(skilled, shown, "instruct", 24)


@pytest.mark.parametrize("variant", ["instruct", "think"])
def test_a_sound_attack_passes_every_check(skilled, shown, variant):
    table = checked(Exam(skilled, shown, variant, 24))
    assert len(table) >= 10 and table.passed.all(), table[~table.passed]


def in_normalised_space(monkeypatch):
    """eps and the step taken in the units of the normalised image, a fraction of a pixel's."""
    project = attacks.Ball.project

    def normalised(self, images, clean):
        return project(attacks.Ball(self.norm, self.eps * 0.25), images, clean)

    monkeypatch.setattr(attacks.Ball, "project", normalised)


def own_argmax_as_target(monkeypatch):
    """Away from whatever the model says now, not from the gold answer."""

    def away(vlm, prefixes, gold, n_options):
        def objective(images, rows):
            logits = objectives.letter_logits(vlm, images, prefixes[rows], n_options[rows])
            own = logits.argmax(1)
            return F.cross_entropy(logits, own, reduction="none"), logits.argmax(1) != own

        return objective

    monkeypatch.setattr(objectives, "letter_margin", away)


def rounding_by_truncation(monkeypatch):
    """8-bit images by a cast, which takes the floor."""

    def truncated(images):
        return (images * 255).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)

    monkeypatch.setattr(attacks, "to_uint8", truncated)
    monkeypatch.setattr(probes, "to_uint8", truncated)


def first_token_as_target(monkeypatch):
    """The loss of the first generated token, which is that of the format and not of the answer."""

    def first(vlm, prefixes, gold, n_options):
        def objective(images, rows):
            logits = vlm.completion_logits(images, vlm_asked[rows])[:, -1]
            return F.cross_entropy(logits, logits.argmax(1), reduction="none"), torch.zeros(len(rows), dtype=torch.bool)

        vlm_asked = prefixes  # replaced below by the prompts alone
        if CURRENT:
            vlm_asked = CURRENT[0].asked[torch.arange(len(prefixes.prompt_ids))]
        return objective

    monkeypatch.setattr(objectives, "letter_margin", first)


def a_resize_between_attack_and_evaluation(monkeypatch):
    """Scored images pass through a smaller size, which wipes the perturbation out."""
    generate = VLM.generate

    def resized(self, images, encoded, max_new_tokens):
        small = F.interpolate(images, scale_factor=0.5, mode="area")
        return generate(self, F.interpolate(small, scale_factor=2, mode="bilinear"), encoded, max_new_tokens)

    monkeypatch.setattr(VLM, "generate", resized)


CURRENT: list[Exam] = []
BUGS = [
    in_normalised_space,
    own_argmax_as_target,
    rounding_by_truncation,
    first_token_as_target,
    a_resize_between_attack_and_evaluation,
]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_each_silent_failure_turns_a_check_red(exam, monkeypatch, bug):
    CURRENT[:] = [exam]
    bug(monkeypatch)
    table = checked(exam)
    print(table[~table.passed][["value", "bound"]])
    assert not table.passed.all()


def test_an_attack_that_returns_the_clean_image_is_red(exam, monkeypatch):
    monkeypatch.setattr(attacks, "_restart", lambda *args: None)
    broken = checked(exam)
    assert not broken.passed["accuracy above chance at the largest eps"]
    assert not broken.passed["survivors whose image does not reach eps"]


def suite_rows(**accuracies) -> pd.DataFrame:
    """100 questions; each attack leaves the first `accuracy` per cent right."""
    frames = [
        pd.DataFrame(
            {
                "model": "m", "norm": "linf", "eps": 8, "attack": attack,
                "question_id": [f"{i:03}" for i in range(100)],
                "outcome": ["right"] * right + ["wrong"] * (100 - right),
            }
        )
        for attack, right in accuracies.items()
    ]  # fmt: skip
    return pd.concat(frames, ignore_index=True)


@pytest.mark.parametrize(
    "accuracies, red",
    [
        ({"noise": 95, "fgsm": 60, "pgd": 20, "square": 20}, []),
        ({"noise": 95, "fgsm": 60, "pgd": 70, "square": 60}, ["accuracy under pgd above fgsm"]),
        ({"noise": 50, "fgsm": 60, "pgd": 50}, ["accuracy under fgsm above noise"]),
        ({"noise": 95, "fgsm": 60, "pgd": 20, "square": 19}, ["broken by gradient-free attacks alone"]),
    ],
)
def test_the_order_of_attacks_is_checked(exam, accuracies, red):
    rows = probes.probe_rows(exam, SETTINGS, seed=0).assign(model="m").reindex(columns=sanity.PROBE_ROWS)
    table = sanity.sanity(rows, suite_rows(**accuracies), 8)
    assert table[~table.passed].check.tolist() == red
    assert ("BROKEN" in plots.sanity_table(table).axes[0].get_title(loc="left")) == bool(red)


def test_a_model_that_is_never_right_passes_no_check_for_want_of_rows(untrained, shown):
    table = checked(Exam(untrained, shown, "instruct", 4))
    assert not table.passed["eps 0: images or answers changed"] and table.value.isna().any()


def test_the_clean_words_before_the_letter_are_what_the_loss_stands_after():
    assert evaluation.before_letter("<think> a </think><answer> B </answer>") == "<think> a </think><answer>"


def test_probes_spend_the_steps_they_say(exam):
    rows = probes.probe_rows(exam, SETTINGS, seed=0)
    budgets = rows[rows.probe.isin(["steps", "eps"]) & (rows.eps > 0)]
    held = budgets[~budgets.broken.astype(bool)]
    assert (held.spent == held.steps).all() and (budgets.spent <= budgets.steps).all()
    assert to_float(exam.images, torch.device("cpu")).max() <= 1
