"""The suite as the workflow runs it: every attack, survivors, failures that are no scores, resuming, replaying."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from safemed.attacks import cw, engine, losses
from safemed.attacks.apgd import apgd_checkpoints
from safemed.attacks.engine import AttackConfig
from safemed.attacks.threat_model import l2_levels
from safemed.data.dataset import subset
from safemed.data.prompts import FAILED
from safemed.evaluation import registry
from safemed.evaluation.batching import Failure, Halving, for_each
from safemed.evaluation.evaluator import LOSSES, Evaluator, SmoothedEvaluator
from safemed.models.geometry import to_float
from safemed.report.tables import robustness, suite, transfer
from safemed.report.tables.rows import ATTACK_ROWS, check_attack_rows
from support.commands import command_line, evaluation_arguments, here, killed_after
from support.paths import ROOT

EVERYTHING = torch.arange(24)
TEMPLATES = ROOT / "workflow" / "templates.yaml"
SMOOTHED = {"sigma": 0.05, "draws": 2, "votes": 3}
ATTACKS = {
    "pgd": {"kind": "pgd", "steps": 5, "losses": LOSSES},
    "mi-fgsm": {"kind": "mi-fgsm", "steps": 3, "losses": {"think": ["answer"]}, "survivors": True},
    "apgd": {"kind": "apgd", "steps": 8, "restarts": {"think": 2}, "losses": {"think": ["other"]}, "survivors": True},
    "reasoning": {"kind": "pgd", "steps": 4, "losses": {"think": ["sampled", "thought", "stop"]}},
    "pgd-l2": {"kind": "pgd", "norm": "l2", "steps": 5, "losses": {"think": ["sequence"]}},
    "cw": {"kind": "cw", "norm": "l2", "steps": 12, "losses": {"think": ["answer"]}},
    "square": {"kind": "torchattacks", "attack": "Square", "steps": 4},
    "vmi-fgsm": {"kind": "torchattacks", "attack": "VMIFGSM", "steps": 2, "survivors": True},
    "pixle": {"kind": "torchattacks", "attack": "Pixle", "norm": "l0", "steps": 2, "restarts": 3},
    "smoothed": {
        "kind": "pgd",
        "norm": "l2",
        "steps": 2,
        "losses": {"think": ["sequence"]},
        "function": "generate",
        **SMOOTHED,
    },
    "smoothed-choice": {"kind": "pgd", "steps": 2, "losses": LOSSES, "function": "choice", **SMOOTHED},
    "pgd-hint": {"kind": "pgd", "steps": 3, "losses": LOSSES, "hint": "negative"},
}
RADII = {
    "pgd-l2": [0.5],
    "cw": ["inf"],
    "pixle": ["inf"],
    "smoothed": [0, 0.2, 0.5],
    "smoothed-choice": [0, 8],
    "pgd-hint": [0, 8],
}
ASKED = {"smoothed": 24, "smoothed-choice": 10}  # a smoothed model is asked as many questions as are certified


def arguments(data: Path, weights: Path | str, out: Path, attack: str, *eps) -> list:
    """How the workflow calls scripts/attack.py on a thinking model."""
    return [*evaluation_arguments(data, weights, out), "--attack", attack, "--eps", *eps]


def settings(attack: str, **changes) -> dict:
    attacks = {attack: ATTACKS.get(attack)}
    asked = {
        "questions": ASKED.get(attack, 24),
        "batch_size": 9,
        "amp": False,
        "max_new_tokens": {"think": 24},
        "precision": "fp32",
    }
    return asked | attacks | changes


@pytest.fixture(scope="module")
def folder(shown_data, skilled, tmp_path_factory) -> Path:
    """The folders of clean and all of ATTACKS at eps 8; apgd on what pgd left."""
    root = tmp_path_factory.mktemp("suite")
    weights = skilled.model.name_or_path
    here("attack.py", *arguments(shown_data, weights, root / "clean", "clean", 0), settings=settings("clean"))
    for attack, own in ATTACKS.items():
        given = arguments(shown_data, weights, root / attack, attack, *RADII.get(attack, [8]))
        before = ["--before", root / "pgd"] if own.get("survivors") else []
        templates = ["--templates", TEMPLATES] if "hint" in own else []
        here("attack.py", *given, *before, *templates, settings=settings(attack))
    return root


@pytest.mark.parametrize("attack", ATTACKS)
def test_each_attack_stores_images_of_its_ball_that_show_what_its_rows_say(folder, skilled, shown, attack):
    rows, images = pd.read_parquet(folder / attack / "rows.parquet"), np.load(folder / attack / "images.npz")
    asked, own = subset(shown, ASKED.get(attack, 24), 0), ATTACKS[attack]
    evaluator = registry.evaluator_for(skilled, asked, "think", 24, own, 0, 10, TEMPLATES)
    assert isinstance(evaluator, SmoothedEvaluator) == ("sigma" in own) and set(rows.columns) == set(ATTACK_ROWS)
    assert (rows.hint != "").all() if "hint" in own else (rows.hint == "").all()
    assert rows.eps.drop_duplicates().tolist() == list(map(float, RADII.get(attack, [8])))
    for eps, part in rows.groupby("eps"):
        stored = torch.from_numpy(images[f"eps{eps:g}"])
        assert part.question_id.tolist() == asked["question_id"]
        assert l2_levels(stored, evaluator.images).tolist() == pytest.approx(part.l2.tolist())
        assert (part.outcome == "right").tolist() == evaluator.is_right(stored, torch.arange(len(asked))).tolist()
        assert part.attacked.any() == (eps > 0) and (part.steps[~part.attacked] == 0).all()
    assert set(rows.sigma) == {own.get("sigma", 0)} and set(rows.function) == {own.get("function", "generate")}
    check_attack_rows(rows)
    cost = json.loads((folder / attack / "cost.json").read_text())
    assert cost["attack"] == attack and cost["forward_passes"] > 0
    assert (cost["backward_passes"] == 0) == (attack in ("square", "pixle"))
    assert not (folder / attack / "shards").exists()


def test_what_an_attack_broke_and_is_right_when_asked_again_is_attacked_again(
    folder, shown_data, skilled, tmp_path, monkeypatch
):
    """In bf16 an answer may change with its batch; here the first attack claims to have broken what it left clean."""
    seeds, really = [], registry.run_attack

    def claiming(evaluator, words, rows, config, eps, seed):
        seeds.append(seed)
        found = really(evaluator, words, rows, config, eps, seed)
        if seed == 0:
            found.images, found.broken = evaluator.images[rows].clone(), torch.ones(len(rows), dtype=torch.bool)
        return found

    monkeypatch.setattr(registry, "run_attack", claiming)
    weights = skilled.model.name_or_path
    here("attack.py", *arguments(shown_data, weights, tmp_path / "pgd", "pgd", 8), settings=settings("pgd"))
    plain, again = (pd.read_parquet(where / "pgd" / "rows.parquet") for where in (folder, tmp_path))
    assert set(seeds) == {0, 1} and again.steps[again.attacked].min() > 0
    assert ((again.outcome == "right").sum() - (plain.outcome == "right").sum()) <= 3  # of other starts
    assert (again.outcome != "right").sum() > (~again.attacked).sum()


def test_a_text_as_long_as_it_may_be_is_told_apart(folder, shown_data, skilled, tmp_path, capfd):
    weights = skilled.model.name_or_path
    short = settings("clean", max_new_tokens={"think": 5})
    here("attack.py", *arguments(shown_data, weights, tmp_path / "clean", "clean", 0), settings=short)
    assert (
        "WARNING" in (said := capfd.readouterr().err)
        and "24 of 24 answers are as long as max_new_tokens.think: 5" in said
    )
    here("attack.py", *arguments(shown_data, weights, tmp_path / "long", "clean", 0), settings=settings("clean"))
    assert "max_new_tokens" not in capfd.readouterr().err
    whole, cut = (pd.read_parquet(where / "clean" / "rows.parquet") for where in (folder, tmp_path))
    assert not whole.cut[whole.outcome == "right"].any()
    assert cut.cut.all() and (cut.outcome == "unparsable").all()


def test_at_radius_0_a_smoothed_model_is_asked_about_its_clean_images(folder, skilled, shown):
    """Larger radii attack what is right there. What fell at a smaller one counts as attacked, and is not again."""
    rows = pd.read_parquet(folder / "smoothed" / "rows.parquet")
    images = np.load(folder / "smoothed" / "images.npz")
    evaluator = registry.evaluator_for(skilled, shown, "think", 24, ATTACKS["smoothed"], 0, 10)
    at = {eps: part.set_index("question_id") for eps, part in rows.groupby("eps")}
    assert (images["eps0"] == images["clean"]).all() and (at[0].linf == 0).all() and not at[0].attacked.any()
    right = {eps: part.outcome == "right" for eps, part in at.items()}
    assert right[0].any() and evaluator.is_right(evaluator.images, EVERYTHING).tolist() == right[0].tolist()
    for eps in (0.2, 0.5):
        assert (at[eps].attacked == right[0]).all()
    assert (at[0.5].steps[~right[0.2]] == 0).all() and (at[0.5].steps[right[0.2]] > 0).all()


def test_only_survivors_are_attacked_on_and_what_fell_keeps_its_image(folder):
    before = pd.read_parquet(folder / "pgd" / "rows.parquet")
    fell = before.outcome != "right"
    assert 0 < fell.sum() < len(fell)
    for later in ("mi-fgsm", "apgd"):
        after = pd.read_parquet(folder / later / "rows.parquet")
        assert (after.outcome[fell] != "right").all() and not after.attacked[fell].any()
        assert after.attacked[~fell].all()
        images = [np.load(folder / name / "images.npz")["eps8"] for name in ("pgd", later)]
        assert (images[0][fell] == images[1][fell]).all()


def test_the_suites_table_counts_by_hand(folder):
    names = ["clean", "pgd", "mi-fgsm", "apgd", "reasoning", "square", "pgd-l2", "cw", "pixle"]
    rows = pd.concat([pd.read_parquet(folder / name / "rows.parquet") for name in names], ignore_index=True)
    costs = pd.DataFrame([json.loads((folder / name / "cost.json").read_text()) for name in names])
    table = suite.suite(rows, costs, 8, ATTACKS).set_index("attack")
    assert list(table.index) == names
    linf = rows[rows.norm == "linf"]
    robust = linf.groupby("question_id").outcome.apply(lambda outcomes: (outcomes == "right").all()).mean()
    assert table.worst["square"] == robust and table.worst["pgd-l2":].isna().all()
    assert table.worst[:"square"].is_monotonic_decreasing
    assert (table.worst[:"square"] <= table.accuracy[:"square"]).all()
    assert table.attacked["apgd"] == round(24 * table.accuracy["pgd"]) and table.failed.sum() == 0
    spoilt = rows.copy()
    one = (spoilt.attack == "apgd") & (spoilt.question_id == spoilt.question_id.iloc[0])
    spoilt.loc[one, ["outcome", "answer"]] = [FAILED, ""]
    spoilt = suite.suite(spoilt, costs, 8, ATTACKS).set_index("attack")
    assert spoilt.failed["apgd"] == 1 and np.isnan(spoilt.accuracy["apgd"]) and spoilt.worst.isna().all()


def replay(
    data: Path, weights: Path | str, out: Path, *folders, eps: float | None = None, same: bool = True,
    templates: Path = TEMPLATES,
):  # fmt: skip
    """The rows of scripts/replay.py on some attacks' folders."""
    given = [*evaluation_arguments(data, weights, out), "--templates", templates]
    given += [*(["--same"] if same else []), "--attacks", *folders]
    longest = {"think": 24}
    wanted = {"batch_size": 7, "eps": eps, "attacks": ATTACKS, "max_new_tokens": longest, "precision": "fp32"}
    here("replay.py", *given, settings=wanted)
    return pd.read_parquet(out / "rows.parquet")


def changed(folder: Path, to: Path, edit) -> Path:
    """A copy of an attack's folder, its rows edited."""
    shutil.copytree(folder, to)
    edit(pd.read_parquet(folder / "rows.parquet")).to_parquet(to / "rows.parquet", index=False)
    return to


def test_a_replay_gives_the_same_rows_and_refuses_other_images(folder, shown_data, skilled, tmp_path):
    """Of all attacks, those with fewer questions, on smoothed models and under hints, too."""
    weights, folders = skilled.model.name_or_path, [folder / name for name in ("clean", *ATTACKS)]
    again = replay(shown_data, weights, tmp_path / "replay", *folders)
    before = pd.concat([pd.read_parquet(f / "rows.parquet") for f in folders], ignore_index=True)
    pd.testing.assert_frame_equal(again[before.columns], before)
    assert set(again.source) == {"sft-think"}
    other = changed(folder / "pgd", tmp_path / "pgd", lambda rows: rows)
    images = dict(np.load(folder / "pgd" / "images.npz"))
    np.savez(other / "images.npz", **images | {"eps8": images["clean"]})
    with pytest.raises(ValueError, match="are not what the stored images show"):
        replay(shown_data, weights, tmp_path / "replay", other)


def test_a_replay_refuses_other_questions_and_a_radius_that_was_not_run(folder, shown_data, skilled, tmp_path):
    weights = skilled.model.name_or_path
    other = changed(folder / "pgd", tmp_path / "pgd", lambda rows: rows[::-1])
    with pytest.raises(ValueError, match="other questions than this study's"):
        replay(shown_data, weights, tmp_path / "replay", other)
    with pytest.raises(ValueError, match="no rows at eps 3; re-run"):
        replay(shown_data, weights, tmp_path / "replay", folder / "pgd", eps=3)
    assert not (tmp_path / "replay").exists()


def one_new_wording(folder: Path, name: str) -> Path:
    """The file of hints, with all but one of those that no training draws left out."""
    known = yaml.safe_load(TEMPLATES.read_text())
    known["hints"] = {key: hint for key, hint in known["hints"].items() if hint["train"] or key == name}
    (folder / "templates.yaml").write_text(json.dumps(known))
    return folder / "templates.yaml"


def test_under_a_hint_there_is_no_attack_and_no_replay_without_its_words(folder, shown_data, skilled, tmp_path):
    weights = skilled.model.name_or_path
    given = arguments(shown_data, weights, tmp_path / "pgd-hint", "pgd-hint", 0, 8)
    with pytest.raises(ValueError, match="needs the file of templates: --templates"):
        here("attack.py", *given, settings=settings("pgd-hint"))
    other = one_new_wording(tmp_path, "report-2")
    with pytest.raises(ValueError, match="pgd-hint: other hints than --templates has now; re-run that attack"):
        replay(shown_data, weights, tmp_path / "replay", folder / "pgd-hint", templates=other)
    assert not (tmp_path / "pgd-hint").exists() and not (tmp_path / "replay").exists()


def test_what_an_attack_could_not_evaluate_stays_failed_in_every_replay(
    folder, shown_data, skilled, untrained, tmp_path
):
    """Its stored image is no adversarial one: an answer to it says nothing, on this model or on another."""

    def spoilt(rows: pd.DataFrame) -> pd.DataFrame:
        rows.loc[5, ["outcome", "answer", "text"]] = [FAILED, "", "RuntimeError: no memory"]
        return rows

    pgd = changed(folder / "pgd", tmp_path / "pgd", spoilt)
    again = replay(shown_data, skilled.model.name_or_path, tmp_path / "same", pgd)
    other = replay(shown_data, untrained.model.name_or_path, tmp_path / "other", pgd, eps=8, same=False)
    for one in (again, other):
        assert (one.outcome == FAILED).tolist() == [i == 5 for i in range(24)]
        assert one.text[5] == "RuntimeError: no memory" and one.answer[5] == ""
    assert (other.outcome[other.outcome != FAILED] == "unparsable").all()  # it has never learned to answer
    table = transfer.transfer(other.assign(model="untrained-think"))
    assert table.failed.tolist() == [1] and table.accuracy.isna().all() and table.n.tolist() == [24]


@pytest.fixture(scope="module")
def not_a_number(skilled, tmp_path_factory) -> Path:
    """The skilled model with a weight of its language model that is not a number."""
    folder = tmp_path_factory.mktemp("nan") / "model"
    shutil.copytree(skilled.model.name_or_path, folder)
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if "language_model" in name and name.endswith("down_proj.weight"))
    weights[name][0, 0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_model_that_returns_nan_has_no_score(not_a_number, shown_data, tmp_path):
    given = arguments(shown_data, not_a_number, tmp_path / "clean", "clean", 0)
    here("attack.py", *given, settings=settings("clean", questions=5))
    rows = pd.read_parquet(tmp_path / "clean" / "rows.parquet")
    assert set(rows.outcome) == {FAILED} and rows.text.str.contains("not finite").all()
    baselines = pd.DataFrame({"kind": ["questions"], "part": ["all"], "n": [5], "chance": [0.25], "blind": [0.3]})
    table = robustness.robustness(rows, baselines)
    assert table.status.tolist() == ["incomplete: 5 of 5 not evaluated"] and table.accuracy.isna().all()


def test_what_a_model_could_not_answer_it_need_not_answer_in_a_replay(not_a_number, shown_data, tmp_path):
    given = arguments(shown_data, not_a_number, tmp_path / "clean", "clean", 0)
    here("attack.py", *given, settings=settings("clean", questions=3))
    assert set(replay(shown_data, not_a_number, tmp_path / "replay", tmp_path / "clean").outcome) == {FAILED}


def out_of_memory() -> None:
    """Ask for more memory than any machine has."""
    torch.empty(2**60)


def test_halving_works_on_halves_where_the_memory_is_short_and_gives_up_on_one_row_alone():
    done = []

    def work(rows: torch.Tensor) -> list[int]:
        if len(rows) > 3:
            out_of_memory()
        if 6 in rows:
            raise FloatingPointError("not a number")
        done.append(rows.tolist())
        return rows.tolist()

    with pytest.raises(RuntimeError, match="DefaultCPUAllocator: can't allocate memory"):
        out_of_memory()
    failure = Failure("FloatingPointError: not a number")
    parts = [(rows.tolist(), found) for rows, found in Halving()(torch.arange(10), work)]
    assert [rows for rows, _ in parts] == [[0, 1, 2], [3, 4], [5], [6], [7], [8, 9]]  # every row once, in order
    assert [found for _, found in parts] == [failure if rows == [6] else rows for rows, _ in parts]
    assert done == [rows for rows, _ in parts if rows != [6]]
    each = for_each(torch.arange(10).split(5), work)
    assert each == {row: failure if row == 6 else row for row in range(10)}


def test_later_batches_begin_at_the_size_that_fitted():
    tried = []

    def work(rows: torch.Tensor) -> list[int]:
        tried.append(len(rows))
        if len(rows) > 3:
            out_of_memory()
        return rows.tolist()

    halving = Halving()
    for batch in torch.arange(30).split(10):  # a call a batch, as sweeps have
        assert for_each([batch], work, halving) == {row: row for row in batch.tolist()}
    assert tried == [10, 5, 3, 2, 5, 3, 2] + 2 * [3, 3, 3, 1]


def test_a_row_that_is_too_large_by_itself_does_not_make_later_batches_small():
    tried = []

    def work(rows: torch.Tensor) -> list[int]:
        tried.append(len(rows))
        if 5 in rows:
            out_of_memory()
        return rows.tolist()

    found = for_each(torch.arange(24).split(8), work)
    assert [row for row, one in found.items() if isinstance(one, Failure)] == [5] and tried[-2:] == [8, 8]


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("eps")])
def test_halving_raises_what_is_neither_short_memory_nor_a_number_that_is_none(error):
    def work(rows: torch.Tensor) -> None:
        raise error

    with pytest.raises(type(error), match=str(error)):
        list(Halving()(torch.arange(4), work))


def test_a_row_alone_that_needs_too_much_memory_is_given_up_with_the_reason():
    found = for_each([torch.arange(1)], lambda rows: out_of_memory())
    assert list(found) == [0] and "can't allocate memory" in found[0].why


def clean_images(folder: Path) -> torch.Tensor:
    """The clean images of an attack's folder as floats."""
    return to_float(torch.from_numpy(np.load(folder / "images.npz")["clean"]), torch.device("cpu"))


def test_one_question_that_cannot_be_attacked_fails_alone(folder, shown_data, skilled, tmp_path, monkeypatch):
    loss_and_gradient, spoilt = losses.loss_and_gradient, 3
    bad = clean_images(folder / "pgd")[spoilt]

    def out_of_memory_above_four_and_nan_for_one(attack_loss, images, rows, amp=False):
        if len(images) > 4:
            out_of_memory()
        if any((image - bad).abs().max() < 9 / 255 for image in images):
            raise FloatingPointError("not a number")
        return loss_and_gradient(attack_loss, images, rows, amp)

    monkeypatch.setattr(engine, "loss_and_gradient", out_of_memory_above_four_and_nan_for_one)
    given = arguments(shown_data, skilled.model.name_or_path, tmp_path / "halved", "pgd", 8)
    here("attack.py", *given, settings=settings("pgd"))
    whole, halved = (pd.read_parquet(f / "rows.parquet") for f in (folder / "pgd", tmp_path / "halved"))
    assert (halved.outcome == FAILED).tolist() == [i == spoilt for i in range(24)]
    assert halved.text[spoilt] == "FloatingPointError: not a number" and halved.answer[spoilt] == ""
    others = halved.outcome != FAILED  # the same noise and steps in smaller batches: the same verdicts
    assert (halved.outcome[others] == whole.outcome[others]).mean() >= 0.95
    check_attack_rows(halved)


def test_a_radius_that_fails_does_not_erase_smaller_ones(folder, shown_data, skilled, tmp_path, monkeypatch):
    weights, loss_and_gradient, clean = (
        skilled.model.name_or_path,
        losses.loss_and_gradient,
        clean_images(folder / "pgd"),
    )
    here("attack.py", *arguments(shown_data, weights, tmp_path / "whole", "pgd", 2, 8), settings=settings("pgd"))

    def not_a_number_far_away(attack_loss, images, rows, amp=False):
        nearest = (images[:, None] - clean).abs().flatten(2).amax(2).amin(1)  # [b], the levels it was moved
        if (nearest > 9 / 255).any():
            raise FloatingPointError("not a number")
        return loss_and_gradient(attack_loss, images, rows, amp)

    monkeypatch.setattr(engine, "loss_and_gradient", not_a_number_far_away)
    here("attack.py", *arguments(shown_data, weights, tmp_path / "part", "pgd", 24, 2, 8), settings=settings("pgd"))
    whole, rows = (pd.read_parquet(tmp_path / name / "rows.parquet") for name in ("whole", "part"))
    smaller, largest = rows[rows.eps < 24], rows[rows.eps == 24].reset_index(drop=True)
    pd.testing.assert_frame_equal(smaller, whole)
    fell = (smaller[smaller.eps == 8].outcome != "right").tolist()
    assert 0 < sum(fell) < 24
    assert (largest.outcome == FAILED).tolist() == [not broken for broken in fell]  # the others fell before
    assert largest[fell].text.tolist() == smaller[smaller.eps == 8].text[fell].tolist()
    assert largest.attacked.all() and (largest.steps == 0).all()
    baselines = pd.DataFrame({"kind": ["questions"], "part": ["all"], "n": [24], "chance": [0.25], "blind": [0.3]})
    table = robustness.robustness(rows, baselines).set_index("eps")
    assert table.accuracy.isna().to_dict() == {2: False, 8: False, 24: True}


def interrupted(monkeypatch, carried_out: list, after: int) -> None:
    """The next attack stops with an error of its own after so many batches; `carried_out` hears of all."""
    carry_out = registry.run_attack

    def counted(*call):
        if len(carried_out) == after:
            raise RuntimeError("the disk is gone")
        carried_out.append(call)
        return carry_out(*call)

    monkeypatch.setattr(registry, "run_attack", counted)


def gone_on_with(monkeypatch, root: Path, attack: str, given: list, change) -> dict[str, tuple[int, pd.DataFrame]]:
    """An attack that stopped after a batch, gone on with as it was, and again after a `change` of what it reads.

    Which -> how many batches were carried out then, and the rows.
    """
    with monkeypatch.context() as patch:
        interrupted(patch, [], after=1)
        with pytest.raises(RuntimeError, match="the disk is gone"):
            here("attack.py", *given, settings=settings(attack))
    assert not (root / attack).exists()
    partial, found = root / f".{attack}.partial", {}
    shutil.copytree(partial, root / "kept")
    for name in ("the same", "other"):
        if name == "other":
            shutil.copytree(root / "kept", partial)
            change()
        carried_out: list = []
        with monkeypatch.context() as patch:
            interrupted(patch, carried_out, after=-1)
            here("attack.py", *given, settings=settings(attack))
        found[name] = len(carried_out), pd.read_parquet(root / attack / "rows.parquet")
    return found


def test_an_interrupted_attack_goes_on_unless_the_attacks_before_it_have_other_rows(
    folder, shown_data, skilled, tmp_path, monkeypatch
):
    """Errors that are no shortage of memory end the program, and what is done is kept."""
    pgd = changed(folder / "pgd", tmp_path / "pgd", lambda rows: rows)
    rows = pd.read_parquet(pgd / "rows.parquet")
    one = rows.index[rows.outcome != "right"][0]

    def fail_one() -> None:
        rows.loc[one, ["outcome", "answer"]] = [FAILED, ""]
        rows.to_parquet(pgd / "rows.parquet", index=False)

    given = [*arguments(shown_data, skilled.model.name_or_path, tmp_path / "apgd", "apgd", 8), "--before", pgd]
    found, whole = gone_on_with(monkeypatch, tmp_path, "apgd", given, fail_one), folder / "apgd" / "rows.parquet"
    (same, done), (other, again) = found["the same"], found["other"]
    assert (same, other) == (2, 3)
    pd.testing.assert_frame_equal(done, pd.read_parquet(whole))
    assert again.attacked[one] and not done.attacked[one]  # what failed before is attacked on


def test_an_interrupted_attack_under_hints_goes_on_with_the_same_file_of_them_alone(
    folder, shown_data, skilled, tmp_path, monkeypatch
):
    templates = tmp_path / "templates.yaml"
    shutil.copy(TEMPLATES, templates)
    given = arguments(shown_data, skilled.model.name_or_path, tmp_path / "pgd-hint", "pgd-hint", 0, 8)
    given += ["--templates", templates]
    found = gone_on_with(monkeypatch, tmp_path, "pgd-hint", given, lambda: one_new_wording(tmp_path, "report-2"))
    (same, done), (other, again) = found["the same"], found["other"]
    assert (same, other) == (2, 3)
    pd.testing.assert_frame_equal(done, pd.read_parquet(folder / "pgd-hint" / "rows.parquet"))
    assert set(again.hint) == {"report-2"} != set(done.hint)


def test_the_clean_images_have_no_radius(shown_data, skilled, tmp_path, capsys):
    with pytest.raises(SystemExit):
        here("attack.py", *arguments(shown_data, skilled.model.name_or_path, tmp_path / "c", "clean", 8), settings={})
    assert "clean has eps 0" in capsys.readouterr().err


def test_an_attack_has_its_name_and_the_losses_and_restarts_of_its_variant():
    both = {"losses": {"think": ["stop"], "instruct": ["ce"]}, "restarts": {"think": 1, "instruct": 3}}
    own = {"kind": "pgd", "steps": 7, "survivors": True, "eps": 0.3, **both}
    assert registry.read_attack_config("some", own, "think") == AttackConfig(name="some", steps=7, losses=("stop",))
    assert registry.read_attack_config("other", own | {"restarts": 3}, "instruct", amp=True) == AttackConfig(
        name="other", steps=7, losses=("ce",), restarts=3, amp=True
    )
    assert registry.read_attack_config("other", own, "instruct").restarts == 3
    assert registry.read_attack_config("bare", {"kind": "noise", "steps": 2}, "think").losses == ()


@pytest.mark.parametrize("variant", ["instruct", "think"])
def test_a_smoothed_model_answers_with_the_majority_of_its_function(skilled, shown, variant):
    clean = to_float(Evaluator(skilled, shown, variant, 24).images, skilled.device)
    for function in ("choice", "generate"):
        quiet = SmoothedEvaluator(skilled, shown, variant, 24, 1e-6, 1, 3, function)
        said = [quiet.answer(text, i) for i, text in enumerate(quiet.answers(quiet.images, EVERYTHING))]
        assert said == quiet.classes(function, clean, EVERYTHING)
        loud = SmoothedEvaluator(skilled, shown, variant, 24, 0.3, 1, 15, function)
        heard = []
        for draw in range(60):
            noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(draw))
            heard.append(loud.classes(function, clean + 0.3 * noise.to(clean), EVERYTHING))
        answers = [loud.answer(text, i) or "?" for i, text in enumerate(loud.answers(loud.images, EVERYTHING))]
        clear = 0
        for i, votes in enumerate(zip(*heard, strict=True)):
            best = max(set(votes), key=votes.count)
            if votes.count(best) > 48:  # so that hardly any fifteen votes have another majority
                clear += 1
                assert answers[i] == best
        assert clear >= 5
        order = torch.tensor([20, 3])
        assert [loud.answer(text, 20) or "?" for text in loud.answers(loud.images[order], order)[:1]] == [answers[20]]


def test_a_killed_attack_goes_on_where_it_was_and_ends_with_the_same_rows(shown_data, skilled, tmp_path, capsys):
    out, weights = tmp_path / "pgd", skilled.model.name_or_path
    slow = settings("pgd", questions=12, batch_size=2, pgd={"kind": "pgd", "steps": 20, "losses": LOSSES})
    line = command_line("attack.py", *arguments(shown_data, weights, out, "pgd", 8), settings=slow)
    done = killed_after(2, line, tmp_path / ".pgd.partial" / "shards")
    assert not out.exists() and 2 <= len(done) < 6
    here("attack.py", *arguments(shown_data, weights, out, "pgd", 8), settings=slow)
    assert capsys.readouterr().err.count("batches, right in this one") == 6 - len(done)
    whole = tmp_path / "whole"
    here("attack.py", *arguments(shown_data, weights, whole, "pgd", 8), settings=slow)
    first, again = (pd.read_parquet(f / "rows.parquet") for f in (whole, out))
    pd.testing.assert_frame_equal(first, again)
    spent = [json.loads((f / "cost.json").read_text())["backward_passes"] for f in (whole, out)]
    assert spent[0] == spent[1]


def quadratic(images: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A loss with its highest point at 0.52 everywhere, never broken."""
    return -((images - 0.52) ** 2).flatten(1).sum(1), torch.zeros(len(images), dtype=torch.bool)


def test_apgd_comes_nearer_to_the_top_than_pgd_in_as_many_steps():
    clean8 = torch.full((3, 8, 8, 3), 128, dtype=torch.uint8)
    seen = {}

    def judge(images, rows):
        return torch.ones(len(images), dtype=torch.bool)

    for kind in ("pgd", "apgd"):
        losses = []

        def recorded(images, rows, losses=losses):
            loss, broken = quadratic(images, rows)
            losses.append(loss.max().item())
            return loss, broken

        config = AttackConfig(kind=kind, steps=30)
        engine.attack([recorded], judge, clean8, list("abc"), 16, config, torch.device("cpu"))
        seen[kind] = max(losses)
    assert seen["apgd"] > 0.25 * seen["pgd"] and seen["apgd"] > -0.01


def test_patience_gives_up_what_will_not_reach_zero_and_nothing_else():
    clean8 = torch.full((2, 8, 8, 3), 128, dtype=torch.uint8)

    def margin(images, rows):  # the ball of 16 levels moves it by 0.063: enough for the first question, not the second
        found = images.flatten(1).mean(1) - clean8[0, 0, 0, 0] / 255 - torch.tensor([0.03, 1.0])[rows]
        return found, found > 0

    def is_right(images, rows):
        return ~margin(images.permute(0, 3, 1, 2).float() / 255, rows)[1]

    spent = {}
    for patience in (None, 5):
        config = AttackConfig(kind="pgd", steps=40, patience=patience)
        found = engine.attack([margin], is_right, clean8, ["a", "b"], 16, config, torch.device("cpu"))
        assert found.broken.tolist() == [True, False]
        spent[patience] = found.steps[1].item()
    assert spent == {None: 40, 5: 5}


def test_apgd_reviews_its_step_size_at_the_papers_checkpoints():
    assert list(apgd_checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert apgd_checkpoints(100)[41] == 22 and not apgd_checkpoints(1)


def plane(share: float, black: bool, distance: float):
    """An image and a half-space that breaks it, so far away: clean8, direction of length 1 (a share of the pixels is
    not 0, on black all point inwards), the margin and the verdict.
    """
    generator = torch.Generator().manual_seed(0)
    clean8 = torch.full((1, 64, 64, 3), 0 if black else 128, dtype=torch.uint8)
    direction = torch.randn(1, 3, 64, 64, generator=generator)
    direction = direction * (torch.rand(direction.shape, generator=generator) < share)
    direction = (direction.abs() if black else direction) / direction.norm()
    level = (to_float(clean8, torch.device("cpu")) * direction).sum() + distance

    def margin(images, rows):
        found = (images * direction).flatten(1).sum(1) - level
        return found, found > 0

    def is_right(images, rows):
        return ~margin(to_float(images, torch.device("cpu")), rows)[1]

    return clean8, direction, margin, is_right


def nearest_8_bit(direction: torch.Tensor, distance: float) -> float:
    """The length of the shortest step of whole levels across a plane: n = round(x direction) has the smallest n^2 of
    all whole n with as large a product n direction; x is bisected until it is large enough.
    """
    d, low, high = direction.abs().flatten().double(), 0.0, 1e7
    for _ in range(100):
        x = (low + high) / 2
        low, high = (low, x) if (x * d).round() @ d >= 255 * distance else (x, high)
    return ((high * d).round().norm() / 255).item()


@pytest.mark.parametrize("black", [False, True])
@pytest.mark.parametrize("distance", [0.1, 0.3, 1.0])
def test_carlini_wagner_comes_close_to_the_distance_of_a_plane(distance, black):
    """In the default study's steps and searches. Near planes are farther for an 8-bit image: it has no small steps."""
    for share in (0.05, 1.0):
        clean8, direction, margin, is_right = plane(share, black, distance)
        config = AttackConfig(kind="cw", norm="l2", steps=30)
        found = cw.carlini_wagner(margin, is_right, clean8, config, torch.device("cpu"))
        assert found.broken.all() and not is_right(found.images, torch.arange(1)).any()
        reached, least = l2_levels(found.images, clean8).item(), nearest_8_bit(direction, distance)
        assert least - 1e-6 <= reached <= 1.15 * least
        if share < 1 or distance >= 0.3:
            assert 0.98 * distance <= reached <= 1.2 * distance


def test_carlini_wagner_leaves_what_nothing_breaks(skilled, shown):
    evaluator = Evaluator(skilled, shown, "instruct", 24)
    attack_loss = evaluator.attack_loss("answer", evaluator.answers(evaluator.images, EVERYTHING), EVERYTHING)
    config = AttackConfig(kind="cw", norm="l2", steps=4)
    found = cw.carlini_wagner(
        attack_loss,
        lambda images, rows: torch.ones(len(rows), dtype=torch.bool),
        evaluator.images,
        config,
        evaluator.vlm.device,
    )
    assert torch.equal(found.images, evaluator.images) and not found.broken.any()


def test_the_expectation_over_noise_is_that_of_the_smoothed_model():
    images = torch.full((6, 3, 4, 4), 0.5)

    def first_pixel(images, rows):
        return images[:, 0, 0, 0] * (rows + 1), images[:, 0, 0, 0] > 0.5

    names, rows = list("abcdef"), torch.arange(6)
    loss, _ = losses.under_noise(first_pixel, 0.1, 1000, names)(images, rows)
    assert torch.allclose(loss, 0.5 * torch.arange(1, 7), atol=0.06)
    few = losses.under_noise(first_pixel, 0.1, 101, names)
    (above, broken), (below, held) = few(images + 0.2, rows), few(images - 0.2, rows)
    assert (above > loss).all() and broken.all() and (below < loss).all() and not held.any()


def test_each_step_and_each_question_of_a_smoothed_attack_has_noise_of_its_own():
    images, seen = torch.full((3, 3, 4, 4), 0.5), []

    def recorded(images, rows):
        seen.append(images)
        return images.sum((1, 2, 3)), torch.zeros(len(rows), dtype=torch.bool)

    def noise(names: list[str], rows: torch.Tensor, calls: int = 1) -> torch.Tensor:
        attack_loss = losses.under_noise(recorded, 0.1, 2, names)
        for _ in range(calls):
            attack_loss(images[rows], rows)
        return seen[-1].view(2, len(rows), 3, 4, 4)

    whole = noise(list("abc"), torch.arange(3))
    assert len(torch.unique(whole.flatten(0, 1), dim=0)) == 6
    assert torch.equal(noise(list("abc"), torch.tensor([2, 0])), whole[:, [2, 0]])  # in any batch
    assert torch.equal(noise(["c"], torch.tensor([0])), whole[:, [2]])
    assert not (noise(list("abc"), torch.arange(3), calls=2) == whole).any()


def test_bfloat16_first_and_fp32_on_what_survives(skilled, shown):
    evaluator = Evaluator(skilled, shown, "instruct", 24)
    words = evaluator.answers(evaluator.images, EVERYTHING)
    found = evaluator.attack(words, EVERYTHING, AttackConfig(steps=3, losses=("answer",), amp=True), 8, seed=0)
    plain = evaluator.attack(words, EVERYTHING, AttackConfig(steps=3, losses=("answer",)), 8, seed=0)
    assert (~found.broken).tolist() == evaluator.is_right(found.images, EVERYTHING).tolist()
    assert found.broken.sum() >= plain.broken.sum()  # fp32 had its turn on all that bfloat16 left
    assert found.steps[~found.broken].tolist() == [6] * int((~found.broken).sum())
