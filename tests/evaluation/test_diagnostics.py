"""The sanity table is green for a sound attack and red for each way in which published attacks have failed silently."""

import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from safemed.attacks import engine, losses, threat_model
from safemed.attacks.engine import Attacked
from safemed.attacks.threat_model import l2_levels
from safemed.evaluation import diagnostics
from safemed.evaluation.evaluator import LOSSES, Evaluator
from safemed.models.geometry import to_float, to_uint8
from safemed.models.vlm import VLM
from safemed.report.figures.sanity import sanity as sanity_figure
from safemed.report.tables.sanity import sanity

SETTINGS = {"batch_size": 24, "eps": 24, "radii": [8, 24, 96], "steps": [3, 10, 20], "l2": 0.5}
SETTINGS["restarts"] = {"instruct": 3, "think": 1}
NO_ROWS = pd.DataFrame(columns=["model", "norm", "eps", "attack", "outcome", "question_id", "attacked"])
SHORT, SHORT_L2, FORCED = (
    "survivors whose image does not reach eps",
    "survivors whose image does not reach the l2 radius",
    "teacher-forced verdict differs from generated",
)


def probed(evaluator: Evaluator, **changes) -> pd.DataFrame:
    """The rows of the attack's probes on this evaluator."""
    rows = diagnostics.probe_rows(evaluator, SETTINGS | changes, seed=0)
    return rows.assign(model="sft-instruct").reindex(columns=diagnostics.PROBE_ROWS)


def checked(rows: pd.DataFrame) -> pd.DataFrame:
    """The sanity table of probes, without the suite's part."""
    return sanity(rows, NO_ROWS, 24, {}).set_index("check")


@pytest.fixture(scope="module")
def evaluator(skilled, shown) -> Evaluator:
    return Evaluator(skilled, shown, "instruct", 24)


@pytest.fixture(scope="module")
def sound(evaluator) -> pd.DataFrame:
    """The probes of the attack as it is."""
    return probed(evaluator)


@pytest.mark.parametrize("variant", ["instruct", "think"])
def test_a_sound_attack_passes_every_check(skilled, shown, variant):
    table = checked(probed(Evaluator(skilled, shown, variant, 24)))
    assert len(table) >= 13 and table.passed.all(), table[~table.passed]
    assert set(table.n) == {24}


def in_normalised_space(monkeypatch):
    """eps and the step taken in the units of the normalised image, a fraction of a pixel's."""
    project = threat_model.Ball.project

    def normalised(self, images, clean):
        return project(threat_model.Ball(self.norm, self.eps * 0.25), images, clean)

    monkeypatch.setattr(threat_model.Ball, "project", normalised)


def own_argmax_as_target(monkeypatch):
    """Away from whatever the model says now, not from the gold answer."""

    def away(vlm, places, gold, n_options):
        def attack_loss(images, rows):
            logits = losses.letter_logits(vlm, images, places[rows], n_options[rows])
            own = logits.argmax(1)
            return F.cross_entropy(logits, own, reduction="none"), logits.argmax(1) != own

        return attack_loss

    monkeypatch.setattr(losses, "letter_margin", away)


def rounding_by_truncation(monkeypatch):
    """8-bit images by a cast, which takes the floor."""

    def truncated(images):
        return (images * 255).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)

    monkeypatch.setattr(threat_model, "to_uint8", truncated)


def halving_until_it_fits(monkeypatch):
    """An L2 perturbation that is a little too long once it is rounded loses half of its length."""

    def halved(self, images, clean8):
        stored, clean = to_uint8(images), to_float(clean8, images.device)
        while self.norm == "l2" and (outside := l2_levels(stored, clean8) > self.eps).any():
            images = torch.where(outside[:, None, None, None], (images + clean) / 2, images)
            stored = to_uint8(images)
        return stored

    monkeypatch.setattr(threat_model.Ball, "store", halved)


def first_token_as_target(monkeypatch):
    """The loss of the first generated token, which is that of the format and not of the answer."""

    def first(self, name, words, rows, place=0, seed=0):
        asked = self.asked[rows]

        def attack_loss(images, part):
            logits = self.vlm.completion_logits(images, asked[part])[:, -1]
            loss = F.cross_entropy(logits, logits.argmax(1), reduction="none")
            return loss, torch.zeros(len(part), dtype=torch.bool)

        return attack_loss

    monkeypatch.setattr(Evaluator, "attack_loss", first)


def the_clean_image_returned(monkeypatch):
    """An attack that gives up before its first step."""

    def untouched(attack_losses, is_right, clean8, *given, **more):
        return Attacked.untouched(clean8)

    monkeypatch.setattr(engine, "attack", untouched)


def a_resize_between_attack_and_evaluation(monkeypatch):
    """Scored images pass through a smaller size, which wipes the perturbation out."""
    generate = VLM.generate

    def resized(self, images, encoded, max_new_tokens):
        small = F.interpolate(images, scale_factor=0.5, mode="area")
        return generate(self, F.interpolate(small, scale_factor=2, mode="bilinear"), encoded, max_new_tokens)

    monkeypatch.setattr(VLM, "generate", resized)


BUGS = {
    in_normalised_space: [SHORT, SHORT_L2],
    own_argmax_as_target: ["accuracy gained by more steps", FORCED],
    rounding_by_truncation: ["levels lost in rounding"],
    halving_until_it_fits: [SHORT_L2],
    first_token_as_target: ["accuracy above chance at the largest eps", FORCED],
    the_clean_image_returned: ["accuracy above chance at the largest eps", SHORT, SHORT_L2],
    a_resize_between_attack_and_evaluation: [FORCED],
}


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_each_silent_failure_turns_its_checks_red(evaluator, monkeypatch, bug):
    bug(monkeypatch)
    table = checked(probed(evaluator))
    assert set(BUGS[bug]) <= set(table.index[~table.passed]), table[~table.passed]


def test_a_target_without_a_gradient_is_red_though_the_others_have_one(skilled, shown, monkeypatch):
    margin = losses.letter_margin

    def flat(*given):
        def attack_loss(images, rows):
            loss, broken = margin(*given)(images, rows)
            return loss.detach() + 0 * images.sum((1, 2, 3)), broken

        return attack_loss

    monkeypatch.setattr(losses, "letter_margin", flat)
    rows = probed(Evaluator(skilled, shown, "think", 24), steps=[2, 3])
    measured = rows[rows.probe == "measured"].groupby("loss").zero_gradient.agg(["size", "mean"])
    assert set(measured.index) == set(LOSSES["think"]) and set(measured["size"]) == {24}
    assert measured["mean"]["sequence"] < 0.1 and measured["mean"]["answer"] == measured["mean"]["empty"] == 1
    table = checked(rows)
    assert table.value["questions without any gradient"] == table.value["share of zero gradients"] == 1
    assert not table.passed[["questions without any gradient", "share of zero gradients"]].any()


def test_where_a_question_cannot_be_probed_no_probes_check_passes(evaluator, monkeypatch):
    loss_and_gradient, bad = losses.loss_and_gradient, to_float(evaluator.images[3:4], torch.device("cpu"))

    def not_a_number_for_one(attack_loss, images, rows, amp=False):
        if ((images - bad).abs().flatten(1).amax(1) < 9 / 255).any():
            raise FloatingPointError("not a number")
        return loss_and_gradient(attack_loss, images, rows, amp)

    monkeypatch.setattr(engine, "loss_and_gradient", not_a_number_for_one)
    rows = probed(evaluator, eps=8, radii=[4, 8], steps=[2, 3], l2=0.2)
    failed = rows[rows.probe == "failed"]
    assert failed.question_id.tolist() == [evaluator.rows[3]["question_id"]]
    assert rows.question_id.nunique() == 24 and (rows.question_id == failed.question_id.iloc[0]).sum() == 1
    table = checked(rows)
    assert table.value.isna().all() and not table.passed.any() and set(table.n) == {24}
    table = sanity(rows, suite_rows(fgsm=60, pgd=20).assign(model="sft-instruct"), 8, CONFIGS).set_index("check")
    assert table.passed["accuracy under pgd above fgsm"]  # of other rows, which are whole


def suite_rows(survivors: tuple[str, ...] = (), **accuracies) -> pd.DataFrame:
    """100 questions; each attack leaves the first so many right. survivors: those run on what all before them left."""
    frames, left = [], 100
    for attack, right in accuracies.items():
        tried = left if attack in survivors else 100
        frame = {"model": "m", "norm": "linf", "eps": 8, "attack": attack, "attacked": [i < tried for i in range(100)]}
        frame |= {"outcome": ["right"] * right + ["wrong"] * (100 - right)}
        frames.append(pd.DataFrame(frame | {"question_id": [f"{i:03}" for i in range(100)]}))
        left = min(left, right)
    return pd.concat(frames, ignore_index=True)


ALONE = "broken by gradient-free attacks alone"
CONFIGS = {
    "noise": {"kind": "noise"},
    "fgsm": {"kind": "pgd"},
    "pgd": {"kind": "pgd"},
    "late": {"kind": "pgd"},
    "square": {"kind": "torchattacks", "attack": "Square"},
    "few": {"kind": "torchattacks", "attack": "Square"},  # under whatever name
    "vmi": {"kind": "torchattacks", "attack": "VMIFGSM"},
}


@pytest.mark.parametrize(
    "accuracies, red",
    [
        ({"noise": 95, "fgsm": 60, "pgd": 20, "square": 20}, []),
        ({"noise": 95, "fgsm": 60, "pgd": 70, "square": 60}, ["accuracy under pgd above fgsm"]),
        ({"noise": 50, "fgsm": 60, "pgd": 50}, ["accuracy under fgsm above noise"]),
        ({"noise": 95, "fgsm": 60, "pgd": 20, "square": 19}, [ALONE]),
        ({"noise": 95, "fgsm": 60, "pgd": 20, "few": 19}, [ALONE]),
        ({"noise": 95, "fgsm": 60, "pgd": 20, "vmi": 19}, []),  # sees gradients
        ({"fgsm": 60, "pgd": 20, "square": 19, "late": 19}, [ALONE]),  # what fell to Square is not late's own
        ({"fgsm": 60, "pgd": 20, "late": 10, "square": 10}, []),  # nor is what fell to late Square's
    ],
)
def test_the_order_of_attacks_is_checked(sound, accuracies, red):
    rows = suite_rows(survivors=("square", "late"), **accuracies)
    table = sanity(sound.assign(model="m"), rows, 8, CONFIGS)
    assert table[~table.passed].check.tolist() == red
    assert ("BROKEN" in sanity_figure(table)[0].axes[0].get_title(loc="left")) == bool(red)
    assert set(table.n[table.check.isin(["accuracy under pgd above fgsm", ALONE])]) == {100}
    assert set(table.n[table.check.isin([SHORT, FORCED])]) == {24}


@pytest.mark.parametrize("attack", ["fgsm", "square"])
def test_no_order_of_attacks_is_told_where_one_of_them_failed(sound, attack):
    rows = suite_rows(survivors=("square",), noise=95, fgsm=60, pgd=20, square=20)
    rows.loc[(rows.attack == attack) & (rows.question_id == "007"), "outcome"] = "failed"
    table = sanity(sound.assign(model="m"), rows, 8, CONFIGS).set_index("check")
    untold = {"fgsm": ["accuracy under fgsm above noise", "accuracy under pgd above fgsm", ALONE], "square": [ALONE]}
    assert table.index[~table.passed].tolist() == untold[attack] and table.value[untold[attack]].isna().all()


def test_a_model_that_is_never_right_passes_no_check_for_want_of_rows(untrained, shown):
    table = checked(probed(Evaluator(untrained, shown, "instruct", 4)))
    assert not table.passed["eps 0: images or answers changed"] and table.value.isna().any()


def test_probes_spend_the_steps_they_say(sound):
    budgets = sound[sound.probe.isin(["steps", "eps", "l2"]) & (sound.eps > 0)]
    held = budgets[~budgets.broken.astype(bool)]
    assert (held.spent == held.steps).all() and (budgets.spent <= budgets.steps).all()
    budgets = sound[sound.probe != "measured"].groupby("probe").agg({"eps": set, "steps": set, "climbs": set})
    assert budgets.loc["l2"].tolist() == [{0.5}, {3}, {1}]
    assert budgets.loc["eps"].tolist() == [{0, 8, 24, 96}, {3, 20}, {1}] and budgets.climbs["restarts"] == {1, 3}


def test_probes_do_not_depend_on_the_batches(evaluator, sound):
    """But for a flip where a gradient is all but zero."""
    parts = probed(evaluator, batch_size=9)
    assert len(parts) == len(sound)
    keys = ["probe", "question_id", "loss", "eps", "steps", "climbs"]
    both = sound.merge(parts, on=keys, validate="one_to_one")
    assert len(both) == len(sound) and (both.broken_x == both.broken_y).mean() >= 0.95
