"""Tables are what one counts by hand, bad rows are refused, and figures draw and keep the very numbers."""

import json

import numpy as np
import pandas as pd
import pytest

import make_figure
import make_tables
from safemed import plots, sanity, suite, tables
from safemed.stats import clustered_wilson

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
            "attack": attack, "norm": "linf", "eps": eps, "outcome": outcomes,
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
    frames = [
        pd.DataFrame(
            asked | {"probe": probe, "eps": eps, "steps": steps, "restarts": restarts, "linf": eps,
                     "broken": [i < fell for i in range(8)], "spent": [2 if i < fell else steps for i in range(8)]}
        )
        for probe, eps, steps, restarts, fell in runs
    ]  # fmt: skip
    measured = {"probe": "measured", "broken": True, "float_broken": True, "forced_broken": True}
    frames.append(pd.DataFrame(asked | measured | {"zero_gradient": 0.0, "rounding": 0.4}))
    return pd.concat(frames, ignore_index=True)[sanity.PROBE_ROWS]


def certificate_rows(model="at-grpo-think", sigma=0.5):
    """Five questions: right to 0.9, right to 0.25, wrong but certain, abstained, unparsable."""
    return pd.DataFrame(
        {
            "question_id": list("abcde"), "image_path": list("abcde"), "modality": "CT", "question_type": "t",
            "n_options": 4, "gold": "B", "model": model, "method": "at-grpo", "variant": "think", "sigma": sigma,
            "function": "generate", "n0": 10, "n": [100, 200, 300, 400, 500], "alpha": 0.001,
            "prediction": ["B", "B", "A", "", "?"], "certified": [True, True, False, False, False],
            "radius": [0.9, 0.25, 1.5, 0.0, 0.7], "seconds": 1.0,
        }
    )  # fmt: skip


def test_robustness_counts_by_hand():
    table = tables.robustness(study(), BASELINES).set_index(["model", "attack", "eps"])
    clean = table.loc[("sft-think", "clean", 0)]
    assert (clean.n, clean.accuracy, clean.unparsable) == (8, 5 / 8, 1 / 8)  # unparsable is not right
    assert (clean.chance, clean.blind) == (pytest.approx(3 / 8), 0.3)
    right = [outcome == "right" for outcome in OUTCOMES]
    assert (clean.ci_low, clean.ci_high) == clustered_wilson(right, [0, 0, 1, 1, 2, 2, 3, 3])
    assert table.loc[("sft-think", "pgd", 4), "accuracy"] == 2 / 8
    assert list(table.reset_index().columns.sort_values()) == sorted(tables.ROBUSTNESS)


def test_an_unparsable_answer_scores_as_a_wrong_one():
    parsed = attack_rows(outcomes=["right"] * 4 + ["wrong"] * 4)
    garbled = attack_rows(outcomes=["right"] * 4 + ["unparsable"] * 4)
    one, other = (tables.robustness(rows, BASELINES).iloc[0] for rows in (parsed, garbled))
    assert one.accuracy == other.accuracy == 0.5 and (one.unparsable, other.unparsable) == (0, 0.5)


def test_modalities_add_up_to_the_whole():
    whole, parts = tables.robustness(study(), BASELINES), tables.robustness_by_part(study(), BASELINES)
    keys = ["model", "attack", "eps"]
    summed = parts.assign(right=parts.accuracy * parts.n).groupby(keys)[["right", "n"]].sum()
    assert (summed.right / summed.n).to_dict() == pytest.approx(whole.set_index(keys).accuracy.to_dict())
    assert parts.set_index("part").blind["fundus photography"].unique() == [0.2]


def test_certified_accuracy_by_hand_and_never_increasing():
    table = tables.certified(certificate_rows(), [1.0, 0.0, 0.25, 0.3, 0.9])
    assert table.radius.tolist() == [0.0, 0.25, 0.3, 0.9, 1.0]
    assert table.certified_accuracy.tolist() == [0.4, 0.4, 0.2, 0.2, 0.0]  # of all five, also the abstained one
    assert table.certified_accuracy.is_monotonic_decreasing
    assert set(table.abstain) == {0.2} and set(table.mean_samples) == {300} and set(table.n) == {5}


def test_cost_sums_runs():
    run = {"stage": "attack", "model": "m", "wall_s": 2.0, "forward_passes": 10, "backward_passes": 5, "peak_rss_mb": 7}
    table = tables.cost(pd.DataFrame([run, run | {"peak_rss_mb": 9}, run | {"stage": "sft"}]))
    assert table.values.tolist() == [["attack", "m", 4.0, 20, 10, 9], ["sft", "m", 2.0, 10, 5, 7]]
    with pytest.raises(ValueError, match="stage sft.*re-run"):
        tables.cost(pd.DataFrame([run | {"stage": "sft", "wall_s": None}]))


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
    for table in (tables.robustness, tables.robustness_by_part):
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
        (lambda rows: pd.concat([rows, certificate_rows("sft-think")[1:]]), "answered different"),
        (lambda rows: rows.drop(columns="radius"), "missing column"),
    ],
)
def test_refuses_certificate_rows_that_cannot_be_counted(spoil, message):
    with pytest.raises(ValueError, match=message):
        tables.certified(spoil(certificate_rows()), [0.0])


def test_refuses_baselines_without_the_modality():
    with pytest.raises(ValueError, match="'all'"):
        tables.robustness(attack_rows(), BASELINES[:3])


@pytest.fixture
def made(tmp_path):
    """The tables of a small study, made by the script from files."""
    study().to_parquet(tmp_path / "attacks.parquet")
    certificate_rows().to_parquet(tmp_path / "certificates.parquet")
    BASELINES.to_csv(tmp_path / "baselines.csv", index=False)
    attacks = study()[["model", "attack"]].drop_duplicates().values.tolist()
    paid = [{"stage": "sft", "model": "m"}, *({"stage": "attack", "model": m, "attack": a} for m, a in attacks)]
    for i, told in enumerate(paid):
        (tmp_path / f"cost{i}.json").write_text(json.dumps(dict.fromkeys(tables.COST_RECORD[2:], 1) | told))
    probed().to_parquet(tmp_path / "sanity.parquet")
    study().assign(source="sft-think").query("eps == 8 and attack == 'pgd'").to_parquet(tmp_path / "transfer.parquet")
    costs = " ".join(f"{tmp_path}/cost{i}.json" for i in range(len(paid)))
    make_tables.main(
        f"--attack-rows {tmp_path}/attacks.parquet --certificate-rows {tmp_path}/certificates.parquet --radii 0 .25 .5"
        f" --transfer-rows {tmp_path}/transfer.parquet --sanity-rows {tmp_path}/sanity.parquet --eps 8"
        f" --costs {costs} --baselines {tmp_path}/baselines.csv --out {tmp_path}/tables".split()
    )
    return tmp_path / "tables"


def test_script_writes_the_tables(made):
    expected = tables.robustness(study(), BASELINES)
    pd.testing.assert_frame_equal(pd.read_csv(made / "robustness.csv"), expected, check_exact=True, check_dtype=False)
    names = ["certified", "comparisons", "cost", "robustness", "robustness_by_part", "sanity", "suite", "transfer"]
    assert sorted(path.name for path in made.iterdir()) == [f"{name}.csv" for name in names]  # and no temporary file


def test_script_without_rows_writes_headers(tmp_path):
    BASELINES.to_csv(tmp_path / "baselines.csv", index=False)
    make_tables.main(["--baselines", f"{tmp_path}/baselines.csv", "--eps", "8", "--out", f"{tmp_path}/tables"])
    for name, columns in (("suite", suite.SUITE), ("comparisons", suite.COMPARISONS), ("sanity", sanity.SANITY)):
        assert (tmp_path / f"tables/{name}.csv").read_text() == ",".join(columns) + "\n"
    assert (tmp_path / "tables/certified.csv").read_text() == ",".join(tables.CERTIFIED) + "\n"
    assert (tmp_path / "tables/robustness.csv").read_text() == ",".join(tables.ROBUSTNESS) + "\n"
    assert (tmp_path / "tables/cost.csv").read_text() == ",".join(tables.COST) + "\n"


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
        "thoughts": f"{rows_of_both} --eps 8",
        "accuracy_vs_eps": f"--table {folder}/robustness.csv",
        "certified_vs_radius": f"--table {folder}/certified.csv",
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
    table = tables.certified(certificate_rows(), [0.0, 0.25, 0.5, 1.0])
    (line,) = plots.certified_vs_radius(table).axes[0].lines
    assert line.get_drawstyle() == "steps-pre"  # between two radii the value at the larger
    assert line.get_ydata().tolist() == table.certified_accuracy.tolist()


def test_an_incomplete_evaluation_has_no_accuracy_and_no_point():
    rows = study()
    one = (rows.attack == "pgd") & (rows.eps == 4) & (rows.question_id == "q0") & (rows.model == "sft-think")
    rows.loc[one, ["outcome", "answer", "text"]] = ["failed", "", "FloatingPointError: not finite"]
    table = tables.robustness(rows, BASELINES).set_index(["model", "attack", "eps"])
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
    by_eps = plots.success_by_eps(tables.robustness(study(), BASELINES))
    assert "clean" not in set(by_eps.attack) and (by_eps.success == 1 - by_eps.accuracy).all()


def test_two_models_are_compared_on_their_worst_case_and_by_modality():
    twin = [study(), study().assign(model=lambda rows: rows.model.str.replace("think", "instruct"), variant="instruct")]
    rows = pd.concat(twin, ignore_index=True)
    table = suite.comparisons(rows, 8)
    pair = table[(table.family == "methods") & (table.images == suite.WORST)].iloc[0]
    assert {pair["first"], pair["second"]} == {"sft-think", "at-grpo-think"}
    assert abs(pair.difference) == 5 / 8 and pair.ci_low <= pair.difference <= pair.ci_high
    assert pair.p == pytest.approx(2 * 0.5**5)  # five questions that one model alone answers, all one way
    same = table[table.family == "variants"]
    assert (same.difference == 0).all() and (same.p == 1).all()
    assert set(table[table.family == "variants by modality"].part) == set(MODALITIES)
    assert (table.p_holm >= table.p).all()


def test_heatmap_writes_accuracy_and_n_in_each_cell():
    cells = plots.heatmap_cells(tables.robustness_by_part(study(), BASELINES), "modality", 8)
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
        plots.heatmap_cells(tables.robustness_by_part(study(), BASELINES), "modality", 5)
    with pytest.raises(ValueError, match="nothing to draw"):
        plots.certified_vs_radius(pd.DataFrame(columns=tables.CERTIFIED))


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
