"""Tables are what one counts by hand, bad rows are refused, and figures draw and keep the very numbers."""

import json

import numpy as np
import pandas as pd
import pytest

import make_figure
import make_tables
from safemed import plots, tables
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
            "attack": attack, "eps": eps, "outcome": outcomes,
            "answer": [{"right": "B", "wrong": "A", "unparsable": ""}[outcome] for outcome in outcomes],
            "text": "<answer> $B </answer>", "linf": eps, "steps": 10,
        }
    )  # fmt: skip


def study():
    """Two models, clean and PGD at three budgets; the attack breaks ever more."""
    worse = {0: OUTCOMES, 2: ["wrong"] + OUTCOMES[1:], 4: ["wrong"] * 5 + OUTCOMES[5:], 8: ["wrong"] * 8}
    frames = [attack_rows("sft-think", "pgd" if eps else "clean", eps, outcomes) for eps, outcomes in worse.items()]
    frames += [attack_rows("at-grpo-think", "pgd" if eps else "clean", eps) for eps in worse]
    return pd.concat([*frames, attack_rows(attack="fgsm", eps=8)], ignore_index=True)


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
        (lambda rows: rows.assign(linf=9), "linf exceeds eps"),
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
    costs = dict.fromkeys(tables.COST_RECORD[2:], 1) | {"stage": "sft", "model": "m"}
    (tmp_path / "cost.json").write_text(json.dumps(costs))
    make_tables.main(
        f"--attack-rows {tmp_path}/attacks.parquet --certificate-rows {tmp_path}/certificates.parquet --radii 0 .25 .5"
        f" --costs {tmp_path}/cost.json --baselines {tmp_path}/baselines.csv --out {tmp_path}/tables".split()
    )
    return tmp_path / "tables"


def test_script_writes_the_tables(made):
    expected = tables.robustness(study(), BASELINES)
    pd.testing.assert_frame_equal(pd.read_csv(made / "robustness.csv"), expected, check_exact=True, check_dtype=False)
    names = ["certified.csv", "cost.csv", "robustness.csv", "robustness_by_part.csv"]
    assert sorted(path.name for path in made.iterdir()) == names  # and no temporary file


def test_script_without_rows_writes_headers(tmp_path):
    BASELINES.to_csv(tmp_path / "baselines.csv", index=False)
    make_tables.main(["--baselines", f"{tmp_path}/baselines.csv", "--out", f"{tmp_path}/tables"])
    assert (tmp_path / "tables/certified.csv").read_text() == ",".join(tables.CERTIFIED) + "\n"
    assert (tmp_path / "tables/robustness.csv").read_text() == ",".join(tables.ROBUSTNESS) + "\n"
    assert (tmp_path / "tables/cost.csv").read_text() == ",".join(tables.COST) + "\n"


def test_script_refuses_an_empty_evaluation_and_names_its_file(tmp_path):
    BASELINES.to_csv(tmp_path / "baselines.csv", index=False)
    attack_rows()[:0].to_parquet(tmp_path / "failed.parquet")
    arguments = f"--attack-rows {tmp_path}/failed.parquet --baselines {tmp_path}/baselines.csv --out {tmp_path}/tables"
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
    inputs = {
        "accuracy_vs_eps": f"--table {folder}/robustness.csv",
        "certified_vs_radius": f"--table {folder}/certified.csv",
        "heatmap": f"--table {folder}/robustness_by_part.csv --kind modality --eps 8",
        "training_curves": f"--models sft-think --curves {folder}/curves.csv",
        "adversarial_examples": f"--clean-rows {of_both.format(folder, 'clean.parquet')} "
        f"--attack-rows {of_both.format(folder, 'pgd.parquet')} "
        f"--images {folder}/sft-think.npz {folder}/at-grpo-think.npz --eps 8",
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
