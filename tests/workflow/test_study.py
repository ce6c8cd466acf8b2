"""The smallest whole study, finished: its report, what its results came from, and its replay."""

import json
import os
from importlib import metadata
from pathlib import Path

import pandas as pd
import pytest

from safemed.report.tables.rows import ATTACK_ROWS
from safemed.utils.dependencies import fingerprint
from safemed.utils.files import content_hash
from safemed.workflow import config as configuration
from support.forked_scripts import forked_scripts
from support.paths import SMALLEST_STUDY
from support.settings import SMALLEST
from support.snakemake_runs import checkout, snakemake

RESULTS = Path("results") / SMALLEST["study"]
FIGURES = [
    "accuracy_vs_eps", "training_curves", "modality_heatmap", "question_type_heatmap", "adversarial_examples",
    "success_vs_eps", "success_vs_steps", "transfer_matrix", "sanity", "thoughts", "certified_vs_radius",
    "smoothed_attack", "turns", "redteam", "defences", "gradient", "towers", "rag",
]  # fmt: skip


def table(study: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(study / RESULTS / "tables" / f"{name}.csv")


def rows(study: Path, folder: str) -> pd.DataFrame:
    """An evaluation's rows."""
    return pd.read_parquet(study / RESULTS / folder / "rows.parquet")


def test_the_whole_study_ends_in_its_figures_and_report(study):
    assert "at-grpo-instruct" in (study / RESULTS / "report.html").read_text()
    for name in FIGURES:
        assert all((study / RESULTS / "figures" / f"{name}.{kind}").stat().st_size for kind in ("pdf", "png", "csv"))


def test_every_model_is_attacked_by_every_sweep_at_every_radius(study):
    robustness = table(study, "robustness")
    assert set(robustness.model) == {"sft-instruct", "at-grpo-instruct"}
    swept = {(name, eps) for name in ("noise", "fgsm", "pgd") for eps in SMALLEST["attack"]["eps"]}
    assert set(zip(robustness.attack, robustness.eps, strict=True)) == {("clean", 0), *swept}
    pgd = rows(study, "attacks/sft-instruct/pgd")
    assert len(pgd) == 2 * SMALLEST["attack"]["questions"] and (pgd.linf <= pgd.eps).all()
    assert set(pgd) == set(ATTACK_ROWS) and not pgd.duplicated(["eps", "question_id"]).any()


def test_certificates_are_gathered_from_their_shards_and_held_against_the_attack_on_the_smoothed_model(study):
    certify = SMALLEST["certify"]
    certified, smoothing = table(study, "certified"), table(study, "smoothing")
    expected = {(function, radius) for function in certify["functions"] for radius in certify["radii"]}
    assert set(zip(certified.function, certified.radius, strict=True)) == expected
    assert set(certified.n) == {certify["questions"]} and set(certified.status) == {"complete"}
    assert certified.empirical_accuracy.notna().all() and (certified.unconfirmed == 0).all()
    assert smoothing[["model", "function", "n", "failed"]].values.tolist() == [["at-grpo-instruct", "generate", 4, 0]]
    attacked = rows(study, "attacks/at-grpo-instruct/smoothed-l2")
    assert attacked.groupby("eps").size().to_dict() == {0: 4, 0.1: 4}  # the questions that are certified


def test_the_attack_that_knows_the_hint_stands_beside_the_one_that_does_not(study):
    adaptive = table(study, "adaptive")
    assert adaptive[["attack", "seen", "eps", "n", "failed"]].values.tolist() == [["pgd-hint", "pgd", 8, 8, 0]] * 2
    assert set(adaptive.model) == {"sft-instruct", "at-grpo-instruct"} and adaptive.difference.notna().all()


def test_second_turns_are_put_to_every_model_and_to_an_attack_that_knows_them(study):
    turns, adaptive = table(study, "turns"), table(study, "adaptive_turns")
    assert len(turns) == 2 * 2 * 2 * 4 and set(turns.n) == {8} and set(turns.status) == {"complete"}
    assert adaptive[["attack", "seen", "eps", "n", "failed"]].values.tolist() == [["pgd-turn", "pgd", 8, 8, 0]] * 2
    compared = table(study, "turn_comparisons")
    assert len(compared) == 2 * 2 * 4 and set(compared.failed) == {0}
    assert {*compared["first"], *compared.second} == {"sft-instruct", "at-grpo-instruct"}


def test_the_red_team_has_a_row_for_every_model_and_strategy(study):
    """The models of the smallest study are hardly ever right: where there is nothing to attack, there is no share."""
    redteam, settings = table(study, "redteam").set_index(["model", "strategy"]), SMALLEST["redteam"]
    models = ("sft-instruct", "at-grpo-instruct")
    assert set(redteam.index) == {(model, strategy) for model in models for strategy in settings["strategies"]}
    assert set(redteam.n) == {settings["questions"]} and set(redteam.status) == {"complete"}
    assert (redteam.fooled.notna() == (redteam.n_right > 0)).all()
    for model in models:
        asked = rows(study, f"redteam/{model}")
        assert asked[asked.strategy == "prior"].question_id.nunique() == settings["prior_questions"]
        right = (asked[asked.strategy == "plain"].outcome == "right").sum()
        assert (redteam.loc[model].n_right == right).all()


def test_evidence_is_revealed_to_every_model_to_the_whole_image(study):
    gradient, settings = table(study, "gradient"), SMALLEST["reveal"]
    assert set(gradient.model) == {"sft-instruct", "at-grpo-instruct"} and set(gradient.status) == {"complete"}
    assert set(gradient.seen) == {"clean", "pgd"} and set(gradient.share) == set(settings["shares"])
    seeded = gradient[gradient.order == "seeded"]
    assert set(seeded.n) == {settings["questions"]} and set(seeded.estimator.value_counts()) == {
        2 * 2 * len(settings["shares"])
    }
    for model, name in ((model, name) for model in set(gradient.model) for name in ("clean", "pgd")):
        plain = rows(study, f"attacks/{model}/{name}").query("eps in (0, 8)").set_index("question_id")
        whole = rows(study, f"reveal/{model}").query("seen == @name and share == 1").set_index("question_id")
        assert (whole.text == plain.text[whole.index]).all()


def test_the_tower_of_every_model_is_probed_at_every_level_that_is_told(study):
    """Phantoms tell modality, anatomy and finding, and the passes are those of all trainings up to the model's."""
    towers = table(study, "towers")
    assert {*zip(towers.model, towers.level, strict=True)} == {
        (model, level) for model in ("sft-instruct", "at-grpo-instruct") for level in ("modality", "anatomy", "finding")
    }
    assert set(towers.status) == {"complete"} and (towers.n <= SMALLEST["towers"]["images"]).all()
    assert (towers.knn_pgd <= towers.knn_clean).all() and set(towers.vqa_n) == {SMALLEST["attack"]["questions"]}
    passes = towers.groupby("model").passes.first()
    assert passes["at-grpo-instruct"] > passes["sft-instruct"] > 0


def test_reports_are_retrieved_for_every_model(study):
    rag, settings = table(study, "rag"), SMALLEST["retrieve"]
    assert set(rag.model) == {"sft-instruct", "at-grpo-instruct"} and set(rag.n) == {settings["questions"]}
    assert set(rag.status) == {"complete"} and set(rag.poison) == {"none", "text", "image", "conflict"}
    assert (rag.retriever.isin(["none"]) | (rag.retriever == rag.model)).all()
    like = (rag.poison == "conflict") & (rag.per_question == 1) & (rag.reports == "retrieved")
    assert (rag.poisoned[like] > 0.5).all()  # an image like the question's is found for most of them


def test_every_defence_of_every_model_stands_beside_the_attack_made_for_it(study):
    defences, names = table(study, "defences"), SMALLEST["defend"]["defences"]
    models = ("sft-instruct", "at-grpo-instruct")
    wanted = {(model, name, against) for model in models for name in names for against in ("pixels", "words")}
    assert {*zip(defences.model, defences.defence, defences.against, strict=True)} == wanted
    assert set(defences.n) == {SMALLEST["defend"]["questions"]} and set(defences.status) == {"complete"}
    assert (defences.adaptive <= defences.plain).all()


def test_every_result_says_what_it_came_from(study):
    recorded = json.loads((study / RESULTS / "tables" / "provenance.json").read_text())
    decisive = SMALLEST.keys() - {"resources", "monitoring", "preflight"}
    assert recorded["config"] == {key: SMALLEST[key] for key in decisive}
    folders = {str(path.parent.relative_to(study)) for path in (study / RESULTS).glob("*/**/cost.json")}
    assert set(recorded["results"]) == folders and f"{RESULTS}/models/at-grpo-instruct" in folders
    for folder, result in recorded["results"].items():
        own = json.loads((study / folder / "provenance.json").read_text())
        modules = filter(None, [own["arguments"].get("alterations")])
        assert own["code"]["hash"] == result["code"]["hash"] == fingerprint(own["script"], *modules)
        assert own["packages"]["torch"] == metadata.version("torch") and own["hardware"]["cores"] == os.cpu_count()
        assert own["arguments"]["seed"] == SMALLEST["seed"] and own["arguments"]["settings"]
    kinds = ("tables/*.csv", "figures/*.csv", "pages/*.html")
    made = [
        path.relative_to(study / RESULTS).with_suffix("") for kind in kinds for path in (study / RESULTS).glob(kind)
    ]
    assert set(recorded["products"]) == set(map(str, made))
    code, files = recorded["products"]["tables/suite"].values()
    assert code == fingerprint("make_table.py", "safemed.report.tables.suite")
    assert files == {"suite.csv": content_hash(study / RESULTS / "tables" / "suite.csv")}
    attack = recorded["results"][f"{RESULTS}/attacks/sft-instruct/pgd"]["arguments"]["settings"]
    assert attack["pgd"] == SMALLEST["attack"]["attacks"]["pgd"]
    trained = recorded["results"][f"{RESULTS}/models/at-grpo-instruct"]["arguments"]["settings"]
    assert trained == configuration.training_settings(SMALLEST, "at-grpo")


def test_the_stored_images_are_replayed_to_the_same_rows(study):
    with forked_scripts() as programs:
        done = snakemake("replay", "--cores", 2, "--configfile", SMALLEST_STUDY, cwd=study, programs=programs)
    assert done.returncode == 0, done.stderr[-3000:]
    again, pgd = rows(study, "replay/sft-instruct"), rows(study, "attacks/sft-instruct/pgd")
    assert again[again.attack == "pgd"].text.tolist() == pgd.text.tolist()
    for name in ("pgd-hint", "pgd-turn"):  # under the same hints and pushes
        assert (again[again.attack == name].groupby("eps").size() == 8).all()


@pytest.mark.slow  # that of Slurm holds the same, by jobs
def test_the_same_config_in_a_fresh_folder_gives_the_same_rows(study, tmp_path):
    """Through all of data, base, SFT, FARE and AT-GRPO: the weights are equal to the bit, and so are the rows.

    Here Python starts anew for every script, as it does for a user; the finished study's scripts are forks.
    """
    fresh = checkout(tmp_path / "repository")
    folders = ["attacks/at-grpo-instruct/pgd", "certificates/at-grpo-instruct/choice-sigma0.25/1-of-2"]
    curves = RESULTS / "figures" / "training_curves.csv"
    targets = [curves, *(RESULTS / folder for folder in folders)]
    done = snakemake(*targets, "--cores", 2, "--configfile", SMALLEST_STUDY, cwd=fresh)
    assert done.returncode == 0, done.stderr[-3000:]
    model = RESULTS / "models/at-grpo-instruct/model.safetensors"
    assert all((study / path).read_bytes() == (fresh / path).read_bytes() for path in (model, curves))
    for folder in folders:
        first, again = (rows(place, folder).drop(columns="seconds", errors="ignore") for place in (study, fresh))
        pd.testing.assert_frame_equal(first, again)
