"""Tables are what one counts by hand, bad rows are refused, and figures draw and keep the very numbers."""

import json

import make_tables
import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

import make_figure
from safemed.data import prompts
from safemed.evaluation import diagnostics
from safemed.report.figures import plots
from safemed.report.tables import (
    certificates,
    chain,
    comparisons,
    cost,
    robustness,
    rows,
    sanity,
    stress,
    suite,
    transfer,
)
from safemed.stress.erasure import ERASURES, SOUND
from safemed.utils.stats import clustered_wilson
from support.stress_rows import attacked_rows, every_kind, hint_rows

MODALITIES = ["CT", "fundus photography"]
BASELINES = pd.DataFrame(
    {
        "kind": ["modality", "modality", "question_type", "questions", "question_type"],
        "part": [*MODALITIES, "Disease Diagnosis", "all", MODALITIES[0]],  # a question type may be named as a modality
        "n": [4, 4, 8, 8, 0], "chance": 0.3, "blind": [0.4, 0.2, 0.3, 0.3, 0.9],
    }
)  # fmt: skip
OUTCOMES = ["right", "right", "wrong", "unparsable", "right", "right", "right", "wrong"]


def attack_rows(model="sft-think", attack="clean", eps=0, outcomes=OUTCOMES):
    """Eight questions on four images, gold B, two or four options."""
    n = len(outcomes)
    method, _, variant = model.rpartition("-")
    return pd.DataFrame(
        {
            "question_id": [f"q{i}" for i in range(n)], "image_path": [f"{i // 2}.png" for i in range(n)],
            "modality": [MODALITIES[i // 4 % 2] for i in range(n)], "question_type": "Disease Diagnosis",
            "n_options": [2, 4] * (n // 2), "gold": "B", "model": model, "method": method, "variant": variant,
            "function": "generate", "sigma": 0.0, "attack": attack, "hint": "", "norm": "linf", "eps": eps,
            "outcome": outcomes,
            "answer": [{"right": "B", "wrong": "A", "unparsable": ""}[outcome] for outcome in outcomes],
            "text": "<answer> $B </answer>", "linf": eps, "l2": eps / 10, "steps": 10, "attacked": attack != "clean",
        }
    )  # fmt: skip


def study():
    """Two models, clean and PGD at three budgets; the attack breaks ever more."""
    worse = {0: OUTCOMES, 2: ["wrong"] + OUTCOMES[1:], 4: ["wrong"] * 5 + OUTCOMES[5:], 8: ["wrong"] * 8}
    frames = [attack_rows("sft-think", "pgd" if eps else "clean", eps, outcomes) for eps, outcomes in worse.items()]
    frames += [attack_rows("at-grpo-think", "pgd" if eps else "clean", eps) for eps in worse]
    return pd.concat([*frames, attack_rows(attack="fgsm", eps=8)], ignore_index=True)


def probed(model="sft-think"):
    """Probes of eight questions: all that is read of scripts/sanity.py, every check passed."""
    asked = {"model": model, "question_id": [f"q{i}" for i in range(8)], "image_path": "a.png", "n_options": 4}
    runs = [("eps", 0, 5, 1, 0), ("eps", 8, 20, 1, 4), ("eps", 64, 20, 1, 8), ("steps", 8, 5, 1, 3)]
    runs += [("steps", 8, 20, 1, 4), ("restarts", 8, 20, 1, 4), ("restarts", 8, 20, 3, 5)]
    runs += [("l2", 0.5, 5, 1, 4)]
    frames = [
        pd.DataFrame(
            asked | {"probe": probe, "eps": eps, "steps": steps, "climbs": climbs, "linf": eps, "l2": eps,
                     "broken": [i < fell for i in range(8)], "spent": [2 if i < fell else steps for i in range(8)]}
        )
        for probe, eps, steps, climbs, fell in runs
    ]  # fmt: skip
    measured = {"probe": "measured", "loss": "answer", "broken": True, "float_broken": True, "forced_broken": True}
    frames.append(pd.DataFrame(asked | measured | {"zero_gradient": 0.0, "rounding": 0.4}))
    return pd.concat(frames, ignore_index=True)[diagnostics.PROBE_ROWS]


def certificate_rows(model="at-grpo-think", sigma=0.5, function="generate"):
    """Five questions in two shards: right to 0.9, right to 0.25, wrong but certain, abstained, unparsable."""
    n, radius = np.array([100, 200, 300, 400, 500]), np.array([0.9, 0.25, 1.5, 0.0, 0.7])
    proven = np.where(radius > 0, norm.cdf((radius + 1e-3) / sigma), 0.4)
    return pd.DataFrame(
        {
            "question_id": list("abcde"), "image_path": list("abcde"), "modality": "CT", "question_type": "t",
            "n_options": 4, "gold": "B", "model": model, "method": "at-grpo", "variant": "think",
            "function": function, "sigma": sigma, "mode": "sequential", "randomised": False, "coin": 1.0,
            "alpha": 0.001, "n0": 10, "n": n, "successes": n // 2, "samples": n + 10, "p_lower": proven,
            "stopped": ["decided"] * 4 + ["futile"],
            "prediction": ["B", "B", "A", "", "?"], "certified": [True, True, False, False, False],
            "radius": radius, "shard": ["1-of-2", "2-of-2"] * 2 + ["1-of-2"],
            "seconds": [1.0, 2.0, 3.0, 4.0, 5.0],
        }
    )  # fmt: skip


def smoothed_rows(right, model="at-grpo-think", norm="l2", function="generate", sigma=0.5):
    """An attack on a smoothed model. right: radius -> letters of those of the questions a to e that it left right."""
    frames = []
    for eps, letters in right.items():
        outcomes = ["right" if letter in letters else "wrong" for letter in "abcde"]
        told = attack_rows(model, f"smoothed-{norm}-{function}", eps, [*outcomes, "wrong"])[:5].assign(norm=norm)
        told["question_id"] = told["image_path"] = list("abcde")
        frames.append(told.assign(function=function, sigma=sigma, l2=eps if norm == "l2" else 0.0, attacked=True))
    return pd.concat(frames, ignore_index=True)


NOTHING = pd.DataFrame(columns=rows.ATTACK_ROWS)
UNDER_ATTACK = ["empirical_accuracy", "clean_accuracy", "unconfirmed"]


def test_robustness_counts_by_hand():
    table = robustness.robustness(study(), BASELINES).set_index(["model", "attack", "eps"])
    clean = table.loc[("sft-think", "clean", 0)]
    assert (clean.n, clean.accuracy, clean.unparsable) == (8, 5 / 8, 1 / 8)  # unparsable is not right
    assert (clean.chance, clean.blind) == (pytest.approx(3 / 8), 0.3)
    right = [outcome == "right" for outcome in OUTCOMES]
    assert (clean.ci_low, clean.ci_high) == clustered_wilson(right, [0, 0, 1, 1, 2, 2, 3, 3])
    assert table.loc[("sft-think", "pgd", 4), "accuracy"] == 2 / 8
    assert list(table.reset_index().columns.sort_values()) == sorted(robustness.ROBUSTNESS)


def test_an_unparsable_answer_scores_as_a_wrong_one():
    parsed = attack_rows(outcomes=["right"] * 4 + ["wrong"] * 4)
    garbled = attack_rows(outcomes=["right"] * 4 + ["unparsable"] * 4)
    one, other = (robustness.robustness(rows, BASELINES).iloc[0] for rows in (parsed, garbled))
    assert one.accuracy == other.accuracy == 0.5 and (one.unparsable, other.unparsable) == (0, 0.5)


def test_modalities_add_up_to_the_whole():
    whole, parts = robustness.robustness(study(), BASELINES), robustness.robustness_by_part(study(), BASELINES)
    keys = ["model", "attack", "eps"]
    summed = parts.assign(right=parts.accuracy * parts.n).groupby(keys)[["right", "n"]].sum()
    assert (summed.right / summed.n).to_dict() == pytest.approx(whole.set_index(keys).accuracy.to_dict())
    assert parts.set_index("part").blind["fundus photography"].unique() == [0.2]


def test_certified_accuracy_by_hand_and_never_increasing():
    table = certificates.certified(certificate_rows(), [1.0, 0.0, 0.25, 0.3, 0.9], NOTHING)
    assert table.columns.tolist() == certificates.CERTIFIED and table.radius.tolist() == [0.0, 0.25, 0.3, 0.9, 1.0]
    assert table.certified_accuracy.tolist() == [0.4, 0.4, 0.2, 0.2, 0.0]  # of all five, also the abstained one
    assert table.certified_accuracy.is_monotonic_decreasing
    assert table.sure.tolist() == [0.2, 0.2, 0.0, 0.0, 0.0]  # in five certificates one may be wrong
    alike = ["n", "abstain", "samples", "seconds", "alpha", "mode", "randomised", "status"]
    assert table[alike].drop_duplicates().values.tolist() == [[5, 0.2, 310, 3, 0.001, "sequential", False, "complete"]]
    assert table.mean_radius.unique().tolist() == pytest.approx([(0.9 + 0.25) / 5])
    assert table[UNDER_ATTACK].isna().to_numpy().all()


def test_each_function_and_sigma_has_certificates_of_its_own():
    choice = certificate_rows(function="choice").assign(radius=0.5, p_lower=0.9, prediction="B", certified=True)
    quiet = certificate_rows(sigma=0.25).assign(radius=0.0, prediction="", certified=False)
    rows = pd.concat([certificate_rows(), choice, quiet], ignore_index=True)
    table = certificates.certified(rows, [0.5], NOTHING).set_index(["function", "sigma"])
    expected = {("choice", 0.5): 1.0, ("generate", 0.25): 0.0, ("generate", 0.5): 0.2}
    assert table.certified_accuracy.to_dict() == expected


def test_an_attack_on_the_smoothed_model_stands_beside_its_certificates_and_may_refute_them():
    attacks = smoothed_rows({0: "abd", 0.25: "bd", 0.9: "b"})
    other = smoothed_rows({0: "", 0.25: "", 0.9: ""}, function="choice")  # of another function: says nothing
    table = certificates.certified(certificate_rows(), [0.0, 0.25, 0.3, 0.9], pd.concat([attacks, other]))
    assert table.empirical_accuracy.fillna(-1).tolist() == [0.6, 0.4, -1, 0.2]  # no attack had a radius of 0.3
    assert set(table.clean_accuracy) == {0.6}
    assert table.unconfirmed.fillna(-1).tolist() == [0, 1, -1, 1]  # a is certified to 0.9, and fell at 0.25
    alone = certificates.certified(certificate_rows(), [0.25], other)
    assert alone[UNDER_ATTACK].isna().to_numpy().all()


def failed_attack(rows, at):
    """The rows with question c not evaluated at one radius."""
    one = (rows.question_id == "c") & (rows.eps == at)
    return rows.assign(outcome=rows.outcome.mask(one, "failed"), answer=rows.answer.mask(one, ""))


@pytest.mark.parametrize("at, untold", [(0.25, ["empirical_accuracy", "unconfirmed"]), (0.0, ["clean_accuracy"])])
def test_an_attack_on_the_smoothed_model_that_failed_tells_no_number(at, untold):
    attacks = failed_attack(smoothed_rows({0: "abd", 0.25: "bd"}), at)
    row = certificates.certified(certificate_rows(), [0.25], attacks).iloc[0]
    assert row[untold].isna().all() and row.certified_accuracy == 0.4


def test_certificates_that_failed_tell_no_number():
    rows = certificate_rows()
    rows.loc[2, ["stopped", "prediction", "certified", "radius"]] = ["failed", "", False, 0.0]
    table = certificates.certified(rows, [0.0, 0.25], smoothed_rows({0: "abd", 0.25: "bd"}))
    assert set(table.status) == {"incomplete: 1 of 5 not evaluated"}
    untold = ["certified_accuracy", "ci_low", "ci_high", "sure", "mean_radius", "abstain", "samples", "unconfirmed"]
    assert table[untold].isna().to_numpy().all()


def test_cost_sums_runs():
    run = {"stage": "attack", "model": "m", "wall_s": 2.0, "forward_passes": 10, "backward_passes": 5, "peak_rss_mb": 7}
    table = cost.cost(pd.DataFrame([run, run | {"peak_rss_mb": 9}, run | {"stage": "sft"}]))
    assert table.values.tolist() == [["attack", "m", 4.0, 20, 10, 9], ["sft", "m", 2.0, 10, 5, 7]]
    with pytest.raises(ValueError, match="stage sft.*re-run"):
        cost.cost(pd.DataFrame([run | {"stage": "sft", "wall_s": None}]))


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda rows: pd.concat([rows, rows.iloc[:1]]), "appears twice.*model sft-think.*re-run"),
        (lambda rows: rows.assign(outcome="error", answer=""), "outcome is none of"),
        (lambda rows: rows.assign(answer="B"), "contradicts the answer"),
        (lambda rows: rows.assign(linf=9), "linf or l2 exceeds eps"),
        (lambda rows: rows.assign(norm="l2", l2=0.1), "linf or l2 exceeds eps"),
        (lambda rows: rows.assign(variant=None), "value is missing"),
        (lambda rows: rows.drop(columns=["gold", "eps"]), r"missing column\(s\) gold, eps"),
        (lambda rows: pd.concat([rows, attack_rows("base")[1:]]), "models base and sft-think answered different.* q0"),
    ],
)
def test_refuses_attack_rows_that_cannot_be_counted(spoil, message):
    for table in (robustness.robustness, robustness.robustness_by_part):
        with pytest.raises(ValueError, match=message):
            table(spoil(attack_rows()), BASELINES)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda rows: pd.concat([rows, rows.iloc[:1]]), "appears twice.*sigma 0.5"),
        (lambda rows: rows.assign(certified=True), "certified contradicts"),
        (lambda rows: rows.assign(radius=-1.0), "negative"),
        (lambda rows: rows.assign(radius=1.0), "abstention"),
        (lambda rows: rows.assign(alpha=[0.1, 0.1, 0.1, 0.1, 0.2]), "more than one alpha"),
        (lambda rows: rows.assign(mode=["fixed"] + ["sequential"] * 4), "more than one mode.*function generate"),
        (lambda rows: rows.assign(randomised=[True] + [False] * 4), "more than one randomised"),
        (lambda rows: rows[rows.shard != "2-of-2"], "at-grpo-think, function generate.*shard 2-of-2 is missing"),
        (lambda rows: rows[rows.shard != "1-of-2"], "shard 1-of-2 is missing.*re-run certify_model"),
        (lambda rows: rows.assign(shard=["1-of-2", "2-of-2", "1-of-1", "1-of-2", "2-of-2"]), "1-of-1"),
        (lambda rows: pd.concat([rows, certificate_rows("sft-think")[1:]]), "answered different.*function generate"),
        (lambda rows: rows.drop(columns="radius"), "missing column"),
    ],
)
def test_refuses_certificate_rows_that_cannot_be_counted(spoil, message):
    with pytest.raises(ValueError, match=message):
        certificates.certified(spoil(certificate_rows()), [0.0], NOTHING)


def test_refuses_a_negative_radius_and_attacks_on_smoothed_models_that_cannot_be_counted():
    with pytest.raises(ValueError, match="radii"):
        certificates.certified(certificate_rows(), [-0.1], NOTHING)
    with pytest.raises(ValueError, match="linf or l2 exceeds eps"):
        certificates.certified(certificate_rows(), [0.25], smoothed_rows({0.25: "ab"}).assign(l2=0.3))


def test_refuses_baselines_without_the_modality():
    with pytest.raises(ValueError, match="'all'"):
        robustness.robustness(attack_rows(), BASELINES[:3])


@pytest.fixture
def made(tmp_path):
    """The tables of a small study, made by the script from files."""
    study().to_parquet(tmp_path / "attacks.parquet")
    certificate_rows().to_parquet(tmp_path / "certificates.parquet")
    BASELINES.to_csv(tmp_path / "baselines.csv", index=False)
    attacks = study()[["model", "attack"]].drop_duplicates().values.tolist()
    paid = [{"stage": "sft", "model": "m"}, *({"stage": "attack", "model": m, "attack": a} for m, a in attacks)]
    for i, told in enumerate(paid):
        (tmp_path / f"{i}").mkdir()
        (tmp_path / f"{i}" / "cost.json").write_text(json.dumps(dict.fromkeys(rows.COST_RECORD[2:], 1) | told))
        made_on = {"python": "3", "packages": {"torch": "2"}, "hardware": {"gpus": ["A", "B"][: i > 1]}}
        (tmp_path / f"{i}" / "provenance.json").write_text(json.dumps({"script": f"{i}.py"} | made_on))
    probed().to_parquet(tmp_path / "sanity.parquet")
    study().assign(source="sft-think").query("eps == 8 and attack == 'pgd'").to_parquet(tmp_path / "transfer.parquet")
    held_against_smoothed().to_parquet(tmp_path / "smoothed.parquet")
    pd.concat([every_kind(), hint_rows(seen="pgd")]).to_parquet(tmp_path / "misled.parquet")
    attacked_rows().to_parquet(tmp_path / "adaptive.parquet")
    costs = " ".join(f"{tmp_path}/{i}/cost.json" for i in range(len(paid)))
    make_tables.main(
        f"--attack-rows {tmp_path}/attacks.parquet --certificate-rows {tmp_path}/certificates.parquet --radii 0 .25 .5"
        f" --transfer-rows {tmp_path}/transfer.parquet --sanity-rows {tmp_path}/sanity.parquet --eps 8"
        f" --smoothed-rows {tmp_path}/smoothed.parquet --stress-rows {tmp_path}/misled.parquet"
        f" --adaptive-rows {tmp_path}/adaptive.parquet"
        f" --costs {costs} --baselines {tmp_path}/baselines.csv --out {tmp_path}/tables"
        ' --config {"seed":7}'.split()
    )
    return tmp_path / "tables"


def test_script_writes_the_tables(made):
    expected = robustness.robustness(study(), BASELINES)
    pd.testing.assert_frame_equal(pd.read_csv(made / "robustness.csv"), expected, check_exact=True, check_dtype=False)
    names = ["certified", "comparisons", "cost", "robustness", "robustness_by_part", "sanity", "smoothing", "suite"]
    names += [
        "transfer",
        "hints",
        "question_edits",
        "image_edits",
        "pixels_and_words",
        "adaptive",
        "calibration",
        "abstention",
    ]
    names += ["chain", "chain_summary"]
    names = sorted(["provenance.json", *(f"{name}.csv" for name in names)])
    assert sorted(path.name for path in made.iterdir()) == names  # and no temporary file
    certified = pd.read_csv(made / "certified.csv").set_index("radius")
    assert certified.empirical_accuracy.dropna().to_dict() == {0.0: 0.6, 0.25: 0.4}  # of l2, whose rows were given
    assert pd.read_csv(made / "smoothing.csv").attacked_smoothed.tolist() == [0.4]
    assert pd.read_csv(made / "adaptive.csv").adaptive.tolist() == [0.2]


def test_what_the_tables_came_from_is_collected_with_each_environment_told_once(made):
    told = json.loads((made / "provenance.json").read_text())
    assert told["config"] == {"seed": 7} and len(told["environments"]) == 2
    results = list(told["results"].values())
    assert [result["script"] for result in results[:3]] == ["0.py", "1.py", "2.py"]
    assert [result["environment"] for result in results[:3]] == [0, 0, 1]
    assert told["environments"][1]["hardware"] == {"gpus": ["A"]}


def test_script_without_rows_writes_headers(tmp_path):
    BASELINES.to_csv(tmp_path / "baselines.csv", index=False)
    make_tables.main(["--baselines", f"{tmp_path}/baselines.csv", "--eps", "8", "--out", f"{tmp_path}/tables"])
    told = {"suite": suite.SUITE, "comparisons": comparisons.COMPARISONS, "smoothing": certificates.SMOOTHING}
    told |= {
        "sanity": sanity.SANITY,
        "transfer": transfer.TRANSFER,
        "hints": stress.HINTS,
        "question_edits": stress.QUESTION_EDITS,
    }
    told |= {"image_edits": stress.IMAGE_EDITS, "pixels_and_words": stress.PIXELS_AND_WORDS, "chain": chain.CHAIN}
    told |= {"adaptive": stress.ADAPTIVE, "calibration": stress.CALIBRATION, "abstention": stress.ABSTENTION}
    told |= {"chain_summary": chain.CHAIN_SUMMARY}
    for name, columns in told.items():
        assert (tmp_path / f"tables/{name}.csv").read_text() == ",".join(columns) + "\n"
    assert (tmp_path / "tables/certified.csv").read_text() == ",".join(certificates.CERTIFIED) + "\n"
    assert (tmp_path / "tables/robustness.csv").read_text() == ",".join(robustness.ROBUSTNESS) + "\n"
    assert (tmp_path / "tables/cost.csv").read_text() == ",".join(cost.COST) + "\n"


def test_script_refuses_an_empty_evaluation_and_names_its_file(tmp_path):
    BASELINES.to_csv(tmp_path / "baselines.csv", index=False)
    attack_rows()[:0].to_parquet(tmp_path / "failed.parquet")
    arguments = f"--attack-rows {tmp_path}/failed.parquet --baselines {tmp_path}/baselines.csv --out {tmp_path}/tables"
    arguments += " --eps 8"
    with pytest.raises(ValueError, match="failed.parquet: no rows"):
        make_tables.main(arguments.split())
    assert not (tmp_path / "tables").exists()


def example_files(folder):
    """Rows and images of two models, the second robust; the perturbation is +eps everywhere."""
    for model, outcomes in (("sft-think", ["wrong"] * 8), ("at-grpo-think", OUTCOMES)):
        attack_rows(model).to_parquet(folder / f"{model}-clean.parquet")
        attack_rows(model, "pgd", 8, outcomes).to_parquet(folder / f"{model}-pgd.parquet")
        clean = np.full((8, 4, 4, 3), 100, np.uint8)
        np.savez(folder / f"{model}.npz", clean=clean, eps8=clean + np.uint8(8))


def figure_arguments(name, folder):
    curves = pd.DataFrame({"step": range(60), "loss": np.linspace(2, 1, 60), "clean_accuracy": [0.5] + [np.nan] * 59})
    curves.to_csv(folder / "curves.csv", index=False)
    example_files(folder)
    of_both = "{0}/sft-think-{1} {0}/at-grpo-think-{1}"
    rows_of_both = (
        f"--clean-rows {of_both.format(folder, 'clean.parquet')} --attack-rows {of_both.format(folder, 'pgd.parquet')}"
    )
    probed().to_parquet(folder / "sanity.parquet")
    inputs = {
        "success_vs_eps": f"--table {folder}/robustness.csv",
        "success_vs_steps": f"--sanity-rows {folder}/sanity.parquet",
        "transfer_matrix": f"--table {folder}/transfer.csv",
        "sanity": f"--table {folder}/sanity.csv",
        "resistance": f"--table {folder}/hints.csv",
        "pixels_and_words": f"--table {folder}/pixels_and_words.csv",
        "image_edits": f"--table {folder}/image_edits.csv",
        "abstention": f"--table {folder}/abstention.csv",
        "chain": f"--table {folder}/chain.csv",
        "thoughts": f"{rows_of_both} --eps 8",
        "accuracy_vs_eps": f"--table {folder}/robustness.csv",
        "certified_vs_radius": f"--table {folder}/certified.csv",
        "smoothed_attack": f"--table {folder}/smoothing.csv",
        "heatmap": f"--table {folder}/robustness_by_part.csv --kind modality --eps 8",
        "training_curves": f"--models sft-think --curves {folder}/curves.csv",
        "adversarial_examples": f"{rows_of_both} --images {folder}/sft-think.npz {folder}/at-grpo-think.npz --eps 8",
    }
    return ["--figure", name, *inputs[name].split()]


@pytest.mark.parametrize("name", make_figure.FIGURES)
def test_figures_are_the_same_bytes_every_time(name, made, tmp_path):
    arguments = figure_arguments(name, made)
    for run in ("one", "two"):
        make_figure.main([*arguments, "--out", f"{tmp_path}/{run}/figure"])
    for suffix in ("pdf", "png", "csv"):
        one, two = ((tmp_path / run / f"figure.{suffix}").read_bytes() for run in ("one", "two"))
        assert one == two and len(one) > 100
    assert len(list((tmp_path / "one").iterdir())) == 3
    assert b"CreationDate" not in (tmp_path / "one/figure.pdf").read_bytes()


def test_the_sweep_draws_the_numbers_of_its_table(made, tmp_path):
    make_figure.main([*figure_arguments("accuracy_vs_eps", made), "--out", f"{tmp_path}/figure"])
    drawn, table = pd.read_csv(tmp_path / "figure.csv"), pd.read_csv(made / "robustness.csv")
    assert set(drawn.attack) == {"clean", "pgd"} and len(drawn) == len(table) - 1  # all but FGSM
    merged = drawn.merge(table)
    assert len(merged) == len(drawn)  # every column equal to the last digit
    line = [line for line in plots.accuracy_vs_eps(drawn).axes[0].lines if line.get_marker() == "o"][-1]
    robust = drawn[drawn.model == "at-grpo-think"]  # drawn last, in the order of plots.NAMES
    assert line.get_xdata().tolist() == robust.eps.tolist() and line.get_ydata().tolist() == robust.accuracy.tolist()


def test_certified_curve_is_nowhere_above_the_certificates():
    attacks = smoothed_rows({0: "abd", 0.25: "abd"})
    table = certificates.certified(certificate_rows(), [0.0, 0.25, 0.5, 1.0], attacks)
    line, crosses = plots.certified_vs_radius(table).axes[0].lines
    assert line.get_drawstyle() == "steps-pre"  # between two radii the value at the larger
    assert line.get_ydata().tolist() == table.certified_accuracy.tolist()
    drawn = np.isfinite(crosses.get_ydata())
    assert crosses.get_xdata()[drawn].tolist() == [0.0, 0.25] and crosses.get_ydata()[drawn].tolist() == [0.6, 0.6]


def test_certificates_have_a_row_a_function_and_a_column_a_sigma():
    kinds = [(function, sigma) for function in ("generate", "choice") for sigma in (0.25, 0.5, 0.12)]
    rows = pd.concat([certificate_rows(sigma=sigma, function=function) for function, sigma in kinds])
    figure = plots.certified_vs_radius(certificates.certified(rows, [0.0, 0.25], NOTHING))
    titles = [axes.get_title() or axes.get_title(loc="left") for axes in figure.axes]
    assert titles == [f"{function}, σ = {sigma}" for function in ("choice", "generate") for sigma in (0.12, 0.25, 0.5)]
    assert figure.axes[0].get_gridspec().get_geometry() == (2, 3)


def test_incomplete_certificates_and_attacks_on_smoothed_models_are_not_drawn():
    rows = certificate_rows()
    spoilt = rows.assign(model="sft-think", stopped="failed", prediction="", certified=False, radius=0.0)
    table = certificates.certified(pd.concat([rows, spoilt]), [0.0, 0.25], NOTHING)
    assert len(plots.certified_vs_radius(table).axes[0].lines) == 2  # a curve and its crosses, of the other model
    with pytest.raises(ValueError, match="nothing to draw"):
        plots.certified_vs_radius(table[table.model == "sft-think"])
    failed = certificates.smoothing(failed_attack(held_against_smoothed(), 8), 8)
    with pytest.raises(ValueError, match="nothing to draw"):
        plots.smoothed_attack(failed)


def held_against_smoothed():
    """The five certified questions of one model: clean, under pgd, and smoothed, under linf and l2 attacks."""
    plain = smoothed_rows({0: "abcd", 8: "a", 16: ""}, norm="linf", sigma=0.0)
    plain["attack"] = plain.eps.map({0: "clean", 8: "pgd", 16: "pgd"})
    beyond = plain[plain.eps == 0].assign(question_id=list("vwxyz"), outcome="wrong", answer="A")  # not smoothed
    linf, l2 = smoothed_rows({0: "abc", 8: "ab"}, norm="linf"), smoothed_rows({0: "abd", 0.25: "bd"})
    return pd.concat([plain, beyond, beyond.assign(attack="pgd", eps=8.0), linf, l2], ignore_index=True)


def test_what_smoothing_adds_is_counted_by_hand_on_the_questions_it_was_attacked_on():
    (row,) = certificates.smoothing(held_against_smoothed(), 8).to_dict("records")
    assert (row["model"], row["function"], row["sigma"]) == ("at-grpo-think", "generate", 0.5)
    assert (row["n"], row["failed"], row["eps"]) == (5, 0, 8)
    accuracies = [row[name] for name in ("clean", "clean_smoothed", "attacked", "attacked_smoothed")]
    assert accuracies == [0.8, 0.6, 0.2, 0.4]
    assert row["difference"] == pytest.approx(0.2) and row["ci_low"] <= 0.2 <= row["ci_high"]
    assert row["p"] == pytest.approx(1.0)  # one question, which may have gone either way
    assert list(row) == certificates.SMOOTHING


@pytest.mark.parametrize("at", [0, 8])
def test_what_smoothing_adds_has_no_number_where_a_question_failed(at):
    (row,) = certificates.smoothing(failed_attack(held_against_smoothed(), at), 8).to_dict("records")
    untold = ["clean", "clean_smoothed", "attacked", "attacked_smoothed", "difference", "ci_low", "ci_high", "p"]
    assert row["failed"] == 1 and all(np.isnan(row[name]) for name in untold)


def test_the_smoothed_model_is_drawn_full_and_the_model_itself_hollow():
    axes = plots.smoothed_attack(certificates.smoothing(held_against_smoothed(), 8)).axes[0]
    hollow = [line for line in axes.lines if line.get_markerfacecolor() == "white" and line.get_marker() == "o"]
    full = [line for line in axes.lines if line.get_markerfacecolor() != "white" and line.get_marker() == "o"]
    ticks = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "|"]
    assert [line.get_xdata()[0] for line in hollow] == [0.2] and [line.get_xdata()[0] for line in full] == [0.4]
    assert sorted(ticks) == [0.6, 0.8]


def test_an_incomplete_evaluation_has_no_accuracy_and_no_point():
    rows = study()
    one = (rows.attack == "pgd") & (rows.eps == 4) & (rows.question_id == "q0") & (rows.model == "sft-think")
    rows.loc[one, ["outcome", "answer", "text"]] = ["failed", "", "FloatingPointError: not finite"]
    table = robustness.robustness(rows, BASELINES).set_index(["model", "attack", "eps"])
    spoilt = table.loc[("sft-think", "pgd", 4)]
    assert spoilt.status == "incomplete: 1 of 8 not evaluated" and np.isnan(spoilt.accuracy) and np.isnan(spoilt.ci_low)
    assert (table.drop(("sft-think", "pgd", 4)).status == "complete").all()
    drawn = plots.pgd_sweep(table.reset_index())
    assert set(drawn[drawn.model == "sft-think"].eps) == {0, 2, 8}


def test_success_is_counted_by_the_step_and_the_first_differing_word_is_found():
    success = plots.success_by_steps(probed())
    assert success.set_index("step").success[[0, 1, 2, 20]].tolist() == [0, 0, 0.5, 0.5] and set(success.n) == {8}
    assert plots.first_difference(["a", "b", "c"], ["a", "x", "c"]) == 1
    assert plots.first_difference(["a", "b"], ["a", "b", "c"]) == 2
    by_eps = plots.success_by_eps(robustness.robustness(study(), BASELINES))
    assert "clean" not in set(by_eps.attack) and (by_eps.success == 1 - by_eps.accuracy).all()


def test_two_models_are_compared_on_their_worst_case_and_by_modality():
    twin = [study(), study().assign(model=lambda rows: rows.model.str.replace("think", "instruct"), variant="instruct")]
    rows = pd.concat(twin, ignore_index=True)
    table = comparisons.comparisons(rows, 8)
    pair = table[(table.family == "methods") & (table.images == comparisons.WORST)].iloc[0]
    assert {pair["first"], pair["second"]} == {"sft-think", "at-grpo-think"}
    assert abs(pair.difference) == 5 / 8 and pair.ci_low <= pair.difference <= pair.ci_high
    assert pair.p == pytest.approx(2 * 0.5**5)  # five questions that one model alone answers, all one way
    same = table[table.family == "variants"]
    assert (same.difference == 0).all() and (same.p == 1).all()
    assert set(table[table.family == "variants by modality"].part) == set(MODALITIES)
    assert (table.p_holm >= table.p).all()


def test_models_are_not_compared_on_questions_that_one_of_them_was_not_evaluated_on():
    twin = study().query("model == 'sft-think'").assign(model="sft-instruct", variant="instruct")
    rows = pd.concat([study(), twin], ignore_index=True)
    one = (rows.attack == "pgd") & (rows.eps == 8) & (rows.question_id == "q0") & (rows.model == "at-grpo-think")
    rows.loc[one, ["outcome", "answer"]] = ["failed", ""]
    table = comparisons.comparisons(rows, 8)
    numbers = ["first_accuracy", "second_accuracy", "difference", "ci_low", "ci_high", "p", "p_holm"]
    about = (table["first"] == "at-grpo-think") | (table["second"] == "at-grpo-think")
    worst = table.images == comparisons.WORST
    assert table[about & worst].failed.tolist() == [1] and table[about & worst][numbers].isna().to_numpy().all()
    assert (table[~(about & worst)].failed == 0).all() and table[~(about & worst)][numbers].notna().to_numpy().all()
    assert set(table.n) == {4, 8}


def test_a_question_that_one_attack_broke_is_lost_though_another_failed_on_it():
    """A failure hides no defeat: only what is not known is missing."""
    rows = study()
    rows.loc[(rows.attack == "fgsm") & rows.question_id.isin(["q0", "q1"]), ["outcome", "answer"]] = ["failed", ""]
    told = comparisons.worst_case(rows, 8).set_index(["model", "question_id"])
    assert told.worst["sft-think", "q0"] == False  # noqa: E712, not missing: PGD broke it
    spoilt = rows[~((rows.attack == "pgd") & (rows.model == "sft-think"))]
    assert comparisons.worst_case(spoilt, 8).set_index(["model", "question_id"]).worst.isna()["sft-think", "q0"]


def test_a_transferred_attack_that_failed_has_no_accuracy():
    rows = study().assign(source="sft-think").query("eps == 8 and attack == 'pgd'")
    whole = transfer.transfer(rows).set_index("target")
    assert whole.failed.tolist() == [0, 0] and whole.accuracy.to_dict() == {"sft-think": 0, "at-grpo-think": 5 / 8}
    one = (rows.question_id == "q0") & (rows.model == "at-grpo-think")
    spoilt = transfer.transfer(rows.assign(outcome=rows.outcome.mask(one, "failed"))).set_index("target")
    assert spoilt.failed.to_dict() == {"sft-think": 0, "at-grpo-think": 1} and set(spoilt.n) == {8}
    assert spoilt.loc["at-grpo-think", ["accuracy", "ci_low", "ci_high"]].isna().all()
    assert spoilt.accuracy["sft-think"] == 0


def test_heatmap_writes_accuracy_and_n_in_each_cell():
    cells = plots.heatmap_cells(robustness.robustness_by_part(study(), BASELINES), "modality", 8)
    assert set(zip(cells.attack, cells.eps, strict=True)) == {("clean", 0), ("pgd", 8)}
    clean, pgd = plots.heatmap(cells).axes[:2]
    words = [text.get_text() for text in clean.texts]
    assert words[:4] == ["50.0", "n 4", "75.0", "n 4"]  # SFT on CT, then on fundus
    assert [text.get_text() for text in pgd.texts][:4] == ["0.0", "n 4", "0.0", "n 4"]


def test_curves_keep_every_value_and_drop_what_is_missing():
    curves = pd.DataFrame({"model": "sft-think", "step": [2, 1, 3], "loss": [2.0, 3.0, np.nan], "eps": np.nan})
    long = plots.long_curves(curves)
    assert long[["quantity", "step", "value"]].values.tolist() == [["loss", 1, 3.0], ["loss", 2, 2.0]]


def test_examples_are_chosen_by_rule_and_shown_amplified():
    clean, attacked = attack_rows(), attack_rows(attack="pgd", eps=8, outcomes=["right"] + ["unparsable"] * 7)
    chosen = plots.choose_examples(clean, attacked)
    assert chosen == ["q1", "q4"]  # q0 stays right, q2 and q3 were not right when clean; one a modality
    lost = attacked.assign(outcome=attacked.outcome.where(attacked.question_id != "q1", prompts.FAILED))
    assert plots.choose_examples(clean, lost) == ["q4"]  # what could not be evaluated is not shown as broken
    shown = plots.compare_examples(chosen, clean, attacked)
    assert shown[["row", "clean_outcome", "outcome"]].values.tolist() == [[r, "right", "unparsable"] for r in (1, 4)]
    with pytest.raises(ValueError, match="of one model"):
        plots.compare_examples(chosen, clean, attack_rows("base"))
    pixels = np.array([100, 100, 100, 250], np.uint8)
    assert plots.amplified(pixels, np.array([100, 108, 92, 230], np.uint8)).tolist() == [128, 192, 64, 0]


def test_no_example_is_said_and_not_an_error():
    nothing = plots.compare_examples(plots.choose_examples(attack_rows(), attack_rows()), attack_rows(), attack_rows())
    assert "No question" in plots.adversarial_examples(nothing, {}).texts[0].get_text()


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="no pgd row at eps 5"):
        plots.heatmap_cells(robustness.robustness_by_part(study(), BASELINES), "modality", 5)
    with pytest.raises(ValueError, match="nothing to draw"):
        plots.certified_vs_radius(pd.DataFrame(columns=certificates.CERTIFIED))


def test_twelve_models_keep_labels_apart_and_ablations_distinct():
    methods = [*plots.NAMES, "at-grpo-no-anchor", "at-grpo-no-fare"]
    models = [f"{method}-{variant}" for method in methods for variant in ("instruct", "think")][:14]
    placed = plots._spread(np.linspace(0.1, 0.12, 14), gap=0.052)
    assert np.diff(placed).min() >= 0.0519 and placed.min() >= 0 and placed.max() <= 1
    looks = [tuple(map(str, plots._style(model, models).values())) for model in models]
    assert len(set(looks)) == len(models)
    assert plots.label("at-grpo-no-anchor-think") == "AT-GRPO no anchor, think" and plots.label("base") == "base"


def test_the_script_names_the_input_it_lacks(capsys):
    with pytest.raises(SystemExit):
        make_figure.main(["--figure", "heatmap", "--table", "t.csv", "--out", "x"])
    assert "needs --kind, --eps" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        make_figure.main(["--figure", "training_curves", "--models", "a", "b", "--curves", "a.csv", "--out", "x"])
    assert "one entry a model" in capsys.readouterr().err


def test_resistance_is_drawn_of_taught_and_of_new_wordings(made, tmp_path):
    make_figure.main(["--figure", "resistance", "--table", f"{made}/hints.csv", "--out", f"{tmp_path}/resistance"])
    drawn = pd.read_csv(tmp_path / "resistance.csv").set_index("taught")
    assert drawn.resistance.to_dict() == {"taught": 0.25, "new": 0.75}
    figure = plots.resistance(drawn.reset_index())
    assert len(figure.axes) == 2  # on clean images, and on those of an attack: the same answers
    for axes in figure.axes:
        marks = {round(float(y), 9) for line in axes.lines for y in np.atleast_1d(line.get_ydata())}
        assert {0.25, 0.75} <= marks


def test_every_erasure_has_a_place_in_the_figure_of_who_abstains(made):
    assert set(plots.ERASED) == {SOUND, *ERASURES}
    figure = plots.abstention(pd.read_csv(made / "abstention.csv"))
    assert [axes.get_title(loc="left").split("\n")[0] for axes in figure.axes] == ["Questions about the finding"]
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == [
        plots.ERASED["sound"],
        plots.ERASED["lesion"],
    ]


def test_the_chain_is_drawn_as_far_as_images_are_right(made):
    told = pd.read_csv(made / "chain.csv").set_index("stage")
    assert told.loc["size", ["accuracy", "reached"]].tolist() == [0.5, 0.5]
    assert told.loc["diagnosis", ["accuracy", "reached", "given_reached"]].tolist() == [1.0, 0.5, 1.0]
    (summary,) = pd.read_csv(made / "chain_summary.csv").itertuples()
    assert (summary.joint, summary.diagnosis_when_missed, summary.ungrounded) == (0.5, 1.0, 0.5)


def test_where_nothing_was_right_or_linked_the_figures_say_so():
    nothing = pd.DataFrame(columns=stress.HINTS)
    for figure in (plots.resistance(plots.resistance_points(nothing)), plots.chain(pd.DataFrame(columns=chain.CHAIN))):
        assert figure.texts and not figure.axes
