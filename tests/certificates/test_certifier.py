"""Certifying real models: which noise they see, functions, batches, shards, kills, and attacks in the radius."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import norm

from safemed.attacks import losses
from safemed.attacks.engine import AttackConfig
from safemed.attacks.threat_model import l2_levels
from safemed.certificates.certifier import Certifier
from safemed.certificates.smoothing import Procedure, lower_bound
from safemed.evaluation.evaluator import FUNCTIONS, WORDLESS, Evaluator, SmoothedEvaluator
from safemed.models.geometry import to_float
from safemed.models.vlm import VLM
from safemed.report.tables.certified import certified as certified_table
from safemed.utils.noise import gaussian, uniform
from support.commands import command_line, evaluation_arguments, here, killed_after
from support.settings import SIDE

LONGEST = {"instruct": 24, "think": 24}
SETTINGS = {
    "questions": 24, "mode": "sequential", "randomised": False, "n0": 8, "n": 64, "alpha": 0.01, "radii": [0.0, 0.05],
    "batch_size": 50, "max_new_tokens": LONGEST, "precision": "fp32",
}  # fmt: skip
FIXED = Procedure(sigma=0.2, n0=8, n=24, alpha=0.01, mode="fixed")


def arguments(data: Path, weights: Path | str, out: Path, function: str = "choice", shard: str = "1-of-1") -> list:
    """How the workflow calls scripts/certify.py on a thinking model."""
    return [*evaluation_arguments(data, weights, out), "--sigma", 0.05, "--function", function, "--shard", shard]


def certified(data: Path, weights: Path | str, out: Path, *options, **changes) -> pd.DataFrame:
    """The rows of scripts/certify.py, without its times."""
    here("certify.py", *arguments(data, weights, out, *options), settings=SETTINGS | changes)
    return pd.read_parquet(out / "rows.parquet").drop(columns="seconds")


def noise_seen(evaluator: Evaluator, row: int, seed: int = 0, sigma: float = 0.2, batch_size: int = 7) -> torch.Tensor:
    """What the vision tower saw of a question's draws, less its clean image: [draws, pixels] in [0, 1] units."""
    seen = []

    def record(module, args, kwargs):
        pixel_values = args[0] if args else next(v for k, v in kwargs.items() if k != "grid_thw" and v.ndim == 2)
        seen.append(pixel_values.detach() * 0.5 + 0.5)

    handle = evaluator.vlm.visual.register_forward_pre_hook(record, with_kwargs=True)
    try:
        list(Certifier(evaluator, "choice", Procedure(**{**vars(FIXED), "sigma": sigma}), batch_size, seed).run([row]))
    finally:
        handle.remove()
    image = evaluator.images[row : row + 1].numpy()
    clean = evaluator.vlm.processor.image_processor([image[0]], return_tensors="pt")["pixel_values"]
    return torch.cat(seen).view(FIXED.n0 + FIXED.n, -1) - (clean.view(1, -1) * 0.5 + 0.5)


def is_the_theorems(noise: torch.Tensor, sigma: float) -> bool:
    """Whether noise is Gaussian, of its sigma in pixel units, not clipped, and another one in every draw."""
    standard = (noise / sigma).flatten().numpy()
    shares = [(np.abs(standard) < z).mean() - (2 * norm.cdf(z) - 1) for z in (0.5, 1.0, 2.0, 3.0)]
    correlation = np.corrcoef(noise.numpy())
    return bool(
        len(torch.unique(noise, dim=0)) == len(noise)
        and abs(standard.std() - 1) < 0.02
        and abs(standard.mean()) < 0.02
        and np.abs(shares).max() < 0.01
        and np.abs(correlation - np.eye(len(noise))).max() < 0.15
    )


def test_every_draw_is_fresh_gaussian_noise_on_the_pixels(skilled, shown):
    evaluator = Evaluator(skilled, shown, "instruct", 8)
    noise = noise_seen(evaluator, 1)
    assert is_the_theorems(noise, 0.2)
    assert torch.allclose(noise, noise_seen(evaluator, 1, batch_size=32), atol=1e-6)
    assert not torch.allclose(noise, noise_seen(evaluator, 1, seed=1))
    assert not torch.allclose(noise / 0.2, noise_seen(evaluator, 1, sigma=0.25) / 0.25, atol=1e-3)


def after_normalisation(hear):
    """Noise of sigma in the units of the normalised image, half as much in pixels."""
    return lambda self, drawn: hear(self, drawn, scale=0.5)


def one_for_all(hear):
    """The same noise in every draw."""
    return lambda self, drawn: hear(self, [(row, 0) for row, _ in drawn])


def clipped(hear):
    """Noisy pixels put back into [0, 1]."""
    return lambda self, drawn: hear(self, drawn, clip=True)


@pytest.mark.parametrize("bug", [after_normalisation, one_for_all, clipped], ids=lambda bug: bug.__name__)
def test_other_noise_is_told_from_the_theorems(skilled, shown, monkeypatch, bug):
    def hear(self, drawn, scale=1.0, clip=False):
        rows = torch.tensor([row for row, _ in drawn])
        clean = to_float(self.evaluator.images[rows], torch.device("cpu"))
        noisy = clean + scale * self.procedure.sigma * gaussian(
            clean.shape[1:], [self._name(row, f"draw {number}") for row, number in drawn]
        )
        return self.evaluator.classes(self.function, noisy.clamp(0, 1) if clip else noisy, rows)

    evaluator = Evaluator(skilled, shown, "instruct", 8)
    monkeypatch.setattr(Certifier, "_hear", hear)
    assert is_the_theorems(noise_seen(evaluator, 1), 0.2)  # the double itself is sound
    monkeypatch.setattr(Certifier, "_hear", bug(hear))
    assert not is_the_theorems(noise_seen(evaluator, 1), 0.2)


def test_noise_belongs_to_its_name_and_names_do_not_share_it():
    first, again, other = (gaussian((3, 16, 16), [name])[0] for name in ("a", "a", "b"))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(gaussian((3, 16, 16), ["b", "a"])[1], first)
    many = gaussian((1,), [str(i) for i in range(20_000)])[:, 0].numpy()
    assert abs(many.mean()) < 0.03 and abs(many.std() - 1) < 0.02 and len(np.unique(many)) > 19_990
    coins = [uniform(str(i)) for i in range(2000)]
    assert 0.47 < np.mean(coins) < 0.53 and min(coins) >= 0 and max(coins) < 1


@pytest.mark.parametrize("variant", ["instruct", "think"])
def test_a_choice_is_the_most_likely_letter_after_words_that_do_not_depend_on_the_image(skilled, shown, variant):
    evaluator, rows = Evaluator(skilled, shown, variant, 24), torch.tensor([5, 0, 17])
    images = to_float(evaluator.images[rows], torch.device("cpu"))
    places = evaluator.letter_places([WORDLESS[variant]] * 3, rows)
    logits = losses.letter_logits(evaluator.vlm, images, places, evaluator.n_options[rows])
    assert evaluator.choices(images, rows) == ["ABCD"[i] for i in logits.argmax(1)]
    before = evaluator.vlm.passes.forward
    evaluator.choices(images, rows)
    assert evaluator.vlm.passes.forward == before + 3  # one pass an image
    text = SmoothedEvaluator(evaluator.vlm, shown, variant, 24, 1e-4, 1, 1, "choice").answers(
        evaluator.images[rows], rows
    )
    assert [evaluator.answer(t, i) for t, i in zip(text, rows.tolist(), strict=True)] == evaluator.choices(images, rows)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_neither_batches_nor_shards_change_a_certificate(skilled, shown_data, tmp_path, function):
    weights = skilled.model.name_or_path
    whole = certified(shown_data, weights, tmp_path / "whole", function, questions=9)
    small = certified(shown_data, weights, tmp_path / "small", function, questions=9, batch_size=9)
    pd.testing.assert_frame_equal(whole, small)
    shards = [f"{i}-of-3" for i in (1, 2, 3)]
    parts = [certified(shown_data, weights, tmp_path / shard, function, shard, questions=9) for shard in shards]
    assert [len(part) for part in parts] == [3, 3, 3]
    together = pd.concat(parts).set_index("question_id").loc[whole.question_id].reset_index()
    pd.testing.assert_frame_equal(
        whole.drop(columns="shard"), together.drop(columns="shard")[whole.columns.drop("shard")]
    )
    gathered = certified_table(pd.concat(parts).assign(seconds=1.0), [0.0, 0.05], SIDE)
    assert gathered.n.tolist() == [9, 9] and gathered.certified_accuracy.iloc[0] > 0.5
    with pytest.raises(ValueError, match="2-of-3"):
        certified_table(pd.concat([parts[0], parts[2]]).assign(seconds=1.0), [0.0], SIDE)


def test_a_row_can_be_computed_again_from_its_votes(skilled, shown_data, tmp_path):
    rows = certified(shown_data, skilled.model.name_or_path, tmp_path / "fixed", mode="fixed", n=30)
    for row in rows.itertuples():
        assert (row.n, row.samples) == (30, 38)
        assert row.p_lower == lower_bound(row.successes, row.n, row.alpha)
        radius = 0.05 * norm.ppf(row.p_lower) if row.p_lower > 0.5 else 0
        assert radius - 1e-4 < row.radius <= max(radius, 0)
    assert (rows.radius <= 0.05 * norm.ppf(0.01 ** (1 / 30))).all() and rows.certified.any()


def test_batches_are_filled_with_the_draws_of_several_questions(skilled, shown, monkeypatch):
    sizes, classes = [], Evaluator.classes

    def recorded(self, function, images, rows):
        sizes.append(len(rows))
        return classes(self, function, images, rows)

    monkeypatch.setattr(Evaluator, "classes", recorded)
    evaluator = Evaluator(skilled, shown, "instruct", 8)
    found = list(
        Certifier(evaluator, "choice", Procedure(0.05, 8, 200, 0.01, radii=(0.0,)), 40, 0).run(list(range(24)))
    )
    assert len(found) == 24 and sum(sizes) == sum(question.votes.drawn for _, question in found)
    assert np.mean([size == 40 for size in sizes[:-5]]) > 0.9


def test_a_killed_job_goes_on_where_it_was_and_ends_with_the_same_rows(skilled, shown_data, tmp_path):
    slow = SETTINGS | {"n": 3000, "radii": [0.15], "batch_size": 40}
    weights, out = skilled.model.name_or_path, tmp_path / "killed"
    line = command_line("certify.py", *arguments(shown_data, weights, out), settings=slow)
    done = killed_after(3, line, tmp_path / ".killed.partial" / "shards")
    assert not out.exists() and 3 <= len(done) < 24
    here("certify.py", *arguments(shown_data, weights, out), settings=slow)
    here("certify.py", *arguments(shown_data, weights, tmp_path / "whole"), settings=slow)
    first, again = (pd.read_parquet(folder / "rows.parquet") for folder in (tmp_path / "whole", out))
    pd.testing.assert_frame_equal(first.drop(columns="seconds"), again.drop(columns="seconds"))
    assert json.loads((out / "cost.json").read_text())["forward_passes"] > 0


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_model_that_returns_nan_has_no_certificate_and_no_score(skilled, shown_data, tmp_path, function):
    broken = shutil.copytree(skilled.model.name_or_path, tmp_path / "model")
    weights = load_file(broken / "model.safetensors")
    name = next(name for name in weights if "language_model" in name and name.endswith("down_proj.weight"))
    weights[name][0, 0] = float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    rows = certified(shown_data, broken, tmp_path / "rows", function, questions=3)
    assert rows.stopped.tolist() == ["failed"] * 3 and rows.why.str.contains("not finite").all()
    table = certified_table(rows.assign(seconds=1.0), [0.0], SIDE)
    assert table.status.tolist() == ["incomplete: 3 of 3 not evaluated"] and table.certified_accuracy.isna().all()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_attack_inside_the_certified_radius_changes_the_smoothed_answer(skilled, shown, function):
    """The attack is of the smoothed model, white-box; what is certified at alpha = 0.001 must survive it. Far outside
    the radius, the same attack does change answers: it is no attack that cannot.
    """
    sigma, evaluator = (
        0.05,
        SmoothedEvaluator(skilled, shown, "instruct", 8, 0.05, draws=4, votes=65, function=function),
    )
    procedure = Procedure(sigma, 32, 400, 0.001, radii=(0.05,))
    found = dict(Certifier(evaluator, function, procedure, 200, 0).run(list(range(24))))
    held = [row for row, question in found.items() if question.votes.certificate().radius >= 0.05]
    assert len(held) >= 6
    rows = torch.tensor(held)
    words = evaluator.answers(evaluator.images[rows], rows)
    right = evaluator.right(words, rows)
    rows, kept = rows[right], [text for text, ok in zip(words, right, strict=True) if ok]
    config = AttackConfig(norm="l2", steps=8, losses=("answer",))
    inside = evaluator.attack(kept, rows, config, 0.05, seed=0)
    assert l2_levels(inside.images, evaluator.images[rows]).max() <= 0.05 and not inside.broken.any()
    outside = evaluator.attack(kept, rows, config, 3.0, seed=0)
    assert outside.broken.any()


def test_too_few_draws_are_refused_before_the_model_is_loaded(shown_data, tmp_path):
    with pytest.raises(ValueError, match=r"certify\.n = 3.*draws are needed"):
        here("certify.py", *arguments(shown_data, "no-such-model", tmp_path / "o"), settings=SETTINGS | {"n": 3})


def test_the_smoothed_models_votes_are_a_questions_own(skilled, shown):
    evaluator = SmoothedEvaluator(skilled, shown, "instruct", 8, 0.3, 1, 7, "generate")
    everything = torch.arange(24)
    together = evaluator.answers(evaluator.images, everything)
    alone = [evaluator.answers(evaluator.images[i : i + 1], everything[i : i + 1])[0] for i in range(24)]
    assert together == alone
    base = VLM.load(skilled.model.name_or_path)
    assert (
        SmoothedEvaluator(base, shown, "instruct", 8, 0.3, 1, 7, "generate").answers(evaluator.images, everything)
        == together
    )
