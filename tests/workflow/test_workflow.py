"""The workflow: every study plans, bad configs are refused by name, and exactly what depends on a change runs again."""

import ast
import json
import os
import re
import subprocess
import sys
from collections import Counter
from importlib import metadata
from pathlib import Path

import pandas as pd
import pytest
import yaml
from snakemake.utils import update_config

from safemed.utils.dependencies import fingerprint, sources
from support.helpers import ROOT, RULE_FILES, SMOKE, checkout, rules, smoke_config, snakemake

STUDIES = sorted((ROOT / "workflow" / "studies").glob("*.yaml"))


@pytest.fixture(scope="module")
def untouched(tmp_path_factory) -> Path:
    """A copy in which nothing has run."""
    return checkout(tmp_path_factory.mktemp("plans") / "repository")


def planned(done: subprocess.CompletedProcess) -> Counter:
    """Rule -> number of jobs, of a dry run."""
    assert done.returncode == 0, done.stdout + done.stderr
    table = re.search(r"Job stats:\njob +count\n[- ]+\n(.*?)\ntotal ", done.stdout + done.stderr, re.DOTALL)
    return Counter({name: int(n) for name, n in (line.split() for line in table[1].splitlines())} if table else {})


def test_the_default_study_plans_every_model_attack_and_certificate(untouched):
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    jobs = planned(snakemake("-n", cwd=untouched))
    models, certify = len(config["variants"]) * len(config["study_methods"]), config["certify"]
    assert jobs["train_sft"] == jobs["train_fare"] == jobs["train_grpo"] == len(config["variants"])
    attacks = sum(1 + len(config.suite(config["attack"], variant)) for variant in config["variants"])
    assert certify["methods"] == config["study_methods"]
    adaptive = models  # one attack each that knows the hint
    assert jobs["attack_model"] == attacks * len(config["study_methods"]) + models * len(certify["attacks"]) + adaptive
    assert jobs["probe_attacks"] == jobs["transfer_images"] == jobs["stress_model"] == models
    assert jobs["certify_model"] == models * len(certify["functions"]) * len(certify["sigma"]) * certify["shards"]
    assert jobs["make_base"] == jobs["audit_questions"] == jobs["make_tables"] == jobs["write_report"] == 1


def test_certificates_in_full_add_to_the_default_study_what_it_lacks(untouched):
    """The models trained for noise are certified and attacked as smoothed models, and their own pgd stands beside."""
    study = ROOT / "workflow" / "studies" / "smoothing.yaml"
    default, full = (
        planned(snakemake("-n", cwd=untouched)),
        planned(snakemake("-n", "--configfile", study, cwd=untouched)),
    )
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    update_config(config, yaml.safe_load(study.read_text()))
    variants, certify = len(config["variants"]), config["certify"]
    added = len(certify["methods"]) - len(config["study_methods"])
    assert added >= 2 and full["train_grpo"] == default["train_grpo"] + added * variants
    assert full["attack_model"] == default["attack_model"] + added * variants * (2 + len(certify["attacks"]))
    tables = variants * len(certify["methods"]) * len(certify["functions"]) * len(certify["sigma"])
    assert full["certify_model"] == tables and {0.12, 0.25, 0.5} <= set(certify["sigma"])


@pytest.mark.parametrize(
    "certify, figures",
    [({"methods": []}, ["certified_vs_radius", "smoothed_attack"]), ({"attacks": []}, ["smoothed_attack"])],
    ids=["no certificates", "no attack on what is certified"],
)
def test_what_a_study_leaves_out_is_not_drawn(certify, figures, untouched):
    default = planned(snakemake("-n", cwd=untouched))
    less = planned(snakemake("-n", "--config", f"certify={json.dumps(certify)}", cwd=untouched))
    missing = {job.removeprefix("draw_") for job in default.keys() - less.keys() if job.startswith("draw_")}
    assert missing == set(figures) and less["make_tables"] == less["write_report"] == 1
    assert less["certify_model"] == (0 if "methods" in certify else default["certify_model"])


def test_the_questions_of_a_certificate_are_shared_among_as_many_jobs_as_asked(untouched, tmp_path):
    (tmp_path / "shards.yaml").write_text("certify: {shards: 3}\n")
    done = snakemake("-n", "certify", "--printshellcmds", "--configfile", tmp_path / "shards.yaml", cwd=untouched)
    told = re.findall(r"--model (\S+) .*--function (\S+) --sigma (\S+) --shard (\S+) --out (\S+)", done.stdout)
    assert planned(done)["certify_model"] == len(told) and len({out for *_, out in told}) == len(told)
    shards = Counter(shard for *_, shard, _ in told)
    assert set(shards) == {"1-of-3", "2-of-3", "3-of-3"} and len(set(shards.values())) == 1
    for model, function, sigma, shard, out in told:
        assert out.endswith(f"certificates/{model}/{function}-sigma{sigma}/{shard}")


def test_a_replay_on_another_model_has_a_folder_and_a_name_of_its_own(untouched):
    for on, model, folder in ((None, "sft-think", "replay"), ("models/other", "other", "replay-on-other")):
        named = ["--config", f'attack={{"replay_on": "{on}"}}'] if on else []
        done = snakemake("-n", "replay", "--printshellcmds", *named, cwd=untouched)
        (line,) = re.findall(rf"scripts/replay.py .*--out \S*/{folder}/sft-think .*", done.stdout)
        assert f"--model {model} " in line and ("--same" in line) == (on is None)
        assert f"--weights {on or 'results/phantoms/models/sft-think'} " in line


def test_hints_are_put_before_the_questions_of_their_attack_and_of_a_replay_alone(untouched):
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    name, eps, file = config["stress"]["adaptive"], config["attack"]["headline_eps"], config["templates"]
    told = snakemake("-n", "stress", "attack", "replay", "--printshellcmds", cwd=untouched).stdout
    attacks = re.findall(r"--attack (\S+) --eps ([\d. ]+) --before .*--templates (\S*) +--out \S+/(\S+)/\S+ ", told)
    models = config.models(config, config["study_methods"])
    assert sorted(model for attack, *_, model in attacks if attack == name) == sorted(models)
    assert {(radii, given) for attack, radii, given, _ in attacks if attack == name} == {(f"0 {eps}", file)}
    assert {given for attack, _, given, _ in attacks if attack != name} == {""}
    for model in models:
        assert re.search(rf"scripts/replay.py .*/{model}/{name} .*--templates {file} .*replay/{model} .*--same", told)


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.stem)
def test_every_study_plans_on_a_folder_of_images(study, source, untouched):
    data = ["--config", f'data={{"source": "{source}"}}']
    jobs = planned(snakemake("-n", "--configfile", study, *data, cwd=untouched))
    assert jobs["make_phantoms"] == jobs["download_archive"] == 0 and jobs["write_report"] == 1
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    update_config(config, yaml.safe_load(study.read_text()))
    trained = config.lineage(config, config.studied(config))
    counts = Counter(f"train_{config['methods'][name]['trainer']}" for name in trained)
    assert all(jobs[rule] == n * len(config["variants"]) for rule, n in counts.items())


def test_a_model_of_the_hub_is_fetched_by_the_driver_itself(untouched, tmp_path):
    (tmp_path / "hub.yaml").write_text("model: {name: someone/Model, revision: abc}\n")
    done = snakemake("-n", "base", "--configfile", tmp_path / "hub.yaml", cwd=untouched)
    local = (ROOT / "Snakefile").read_text().split("localrules:")[1].split("\n\n")[0]
    assert planned(done)["download_model"] == 1 and "    download_model,\n" in local
    assert "output: resources/models/someone--Model-abc.json" in done.stdout + done.stderr
    assert "download_model" not in planned(snakemake("-n", "base", cwd=untouched))


def test_the_archive_is_fetched_only_where_the_hub_is_asked_for(untouched, tmp_path):
    (tmp_path / "local.zip").touch()
    kinds = ("download_archive", "unpack_archive", "make_phantoms")
    for source, expected in (("hub", [1, 1, 0]), (tmp_path / "local.zip", [0, 1, 0]), (None, [0, 0, 1])):
        named = ["--config", f'data={{"source": "{source}"}}'] if source else []
        jobs = planned(snakemake("-n", "audit_questions", *named, cwd=untouched))
        assert [jobs[kind] for kind in kinds] == expected


def test_a_script_depends_on_what_it_imports_and_on_nothing_else():
    depends = {path.name: set(sources(path.name)) for path in (ROOT / "scripts").glob("*.py")}
    library = "scripts/safemed/"
    assert library + "rewards.py" in depends["train_grpo.py"] and library + "at_grpo.py" in depends["train_grpo.py"]
    assert library + "rewards.py" not in depends["train_sft.py"]
    assert [name for name, found in depends.items() if library + "plots.py" in found] == ["make_figure.py"]
    assert not depends["prepare.py"] & {library + name for name in ("vlm.py", "attacks.py", "training.py")}
    for name, found in depends.items():
        assert f"scripts/{name}" in found and all((ROOT / path).exists() for path in found)
        text = (ROOT / "scripts" / name).read_text()
        assert {f"{library}{module}.py" for module in re.findall(r"^from safemed\.(\w+) import", text, re.M)} <= found
    with pytest.raises(FileNotFoundError):
        sources("no_such_script.py")


def test_every_safemed_module_that_a_script_loads_is_among_its_sources():
    """What really gets loaded by an import, against what the helper reads off the source."""
    for script in ("attack.py", "make_tables.py"):
        code = (
            f"import sys, runpy; sys.path.insert(0, 'scripts'); runpy.run_path('scripts/{script}', run_name='x'); "
            "print([m.__file__ for n, m in sys.modules.items() if n.startswith('safemed.')])"
        )
        out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        loaded = {str(Path(path).relative_to(ROOT)) for path in ast.literal_eval(out.splitlines()[-1])}
        assert loaded and loaded <= set(sources(script))


@pytest.mark.parametrize("name", rules())
def test_every_rule_says_what_a_cluster_must_know(name):
    text = rules()[name]
    wanted = ["log"] if "localrule: True" in text else ["log", "benchmark", "conda", "resources"]
    for directive in wanted:
        assert re.search(rf"^    {directive}:", text, re.M), f"rule {name} has no {directive}"
    if "resources" in wanted:
        assert "mem_mb=" in text and "runtime=" in text
        assert "{log}" in text, f"rule {name} writes no log"
    assert "retries" not in text
    conda = re.search(r'conda:\s+"(.*?)"', text)
    assert not conda or (ROOT / "workflow" / "rules" / conda[1]).resolve().exists()


def test_no_rule_file_is_forgotten_and_every_output_rule_is_in_one():
    included = re.findall(r'include: "(.*?)"', (ROOT / "Snakefile").read_text())
    assert {ROOT / name for name in included} == set(RULE_FILES)


@pytest.mark.parametrize(
    "line",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["snakefmt", "--check", "Snakefile", "workflow"],
    ],
    ids=" ".join,
)
def test_the_code_is_clean(line):
    done = subprocess.run([sys.executable, "-m", *line], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_snakemake_has_nothing_to_say_about_the_workflow(untouched):
    done = snakemake("--lint", cwd=untouched)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """A checkout in which the smallest whole study has run to its report."""
    folder = checkout(tmp_path_factory.mktemp("study") / "repository")
    done = snakemake("--cores", 2, "--configfile", SMOKE, cwd=folder)
    logs = "".join(f"\n== {path}\n{path.read_text()[-1500:]}" for path in folder.glob("results/*/logs/*.log"))
    assert done.returncode == 0, done.stderr[-3000:] + logs
    return folder


def to_be_run(folder: Path) -> Counter:
    """What a dry run of the smallest study would do."""
    return planned(snakemake("-n", "--configfile", SMOKE, cwd=folder))


def edited(folder: Path, module: str) -> Counter:
    """What would run again after an edit of a module, which is undone."""
    path = folder / "scripts" / "safemed" / module
    before = path.read_text()
    path.write_text(before + "\n# edited\n")
    jobs = to_be_run(folder)
    path.write_text(before)
    return jobs


def test_a_study_that_fails_ends_with_the_job_and_its_error(tmp_path):
    folder = checkout(tmp_path / "repository")
    (folder / "scripts" / "make_phantoms.py").write_text("raise ValueError('no ink')")
    done = snakemake("--cores", 1, "data", cwd=folder)
    assert done.returncode
    summary = done.stderr.split("1 failed:\n")[1].splitlines()
    assert [line.strip() for line in summary[:3]] == [
        "make_phantoms", "ValueError: no ink", "results/phantoms/logs/make_phantoms.log",
    ]  # fmt: skip


def test_the_whole_study_ends_in_its_tables_figures_and_report(study):
    results = study / "results" / "smoke"
    assert "at-grpo-instruct" in (results / "report.html").read_text()
    robustness = pd.read_csv(results / "tables" / "robustness.csv")
    assert set(robustness.model) == {"sft-instruct", "at-grpo-instruct"}
    assert set(zip(robustness.attack, robustness.eps, strict=True)) == {
        ("clean", 0),
        ("noise", 4),
        ("noise", 8),
        ("fgsm", 4),
        ("fgsm", 8),
        ("pgd", 4),
        ("pgd", 8),
    }
    for name in (
        "accuracy_vs_eps",
        "training_curves",
        "modality_heatmap",
        "question_type_heatmap",
        "adversarial_examples",
        "success_vs_eps",
        "success_vs_steps",
        "transfer_matrix",
        "sanity",
        "thoughts",
        "certified_vs_radius",
        "smoothed_attack",
    ):
        assert all((results / "figures" / f"{name}.{suffix}").stat().st_size for suffix in ("pdf", "png", "csv"))
    certified, smoothing = (pd.read_csv(results / "tables" / f"{name}.csv") for name in ("certified", "smoothing"))
    assert set(zip(certified.function, certified.radius, strict=True)) == {
        (function, radius) for function in ("choice", "generate") for radius in (0.0, 0.1)
    }
    assert set(certified.n) == {4} and set(certified.status) == {"complete"}  # gathered from two shards
    assert certified.empirical_accuracy.notna().all() and (certified.unconfirmed == 0).all()
    assert smoothing[["model", "function", "n", "failed"]].values.tolist() == [["at-grpo-instruct", "generate", 4, 0]]
    adaptive = pd.read_csv(results / "tables" / "adaptive.csv")
    assert adaptive[["attack", "seen", "eps", "n", "failed"]].values.tolist() == [["pgd-hint", "pgd", 8, 8, 0]] * 2
    assert set(adaptive.model) == set(robustness.model) and adaptive.difference.notna().all()
    attacked = pd.read_parquet(results / "attacks" / "at-grpo-instruct" / "smoothed-l2" / "rows.parquet")
    assert attacked.groupby("eps").size().to_dict() == {0: 4, 0.1: 4}  # the questions that are certified
    rows = pd.read_parquet(results / "attacks" / "sft-instruct" / "pgd" / "rows.parquet")
    assert len(rows) == 2 * 12 and not rows.duplicated(["eps", "question_id"]).any() and (rows.linf <= rows.eps).all()


def test_every_result_says_what_it_came_from(study):
    results, config = study / "results" / "smoke", smoke_config()
    told = json.loads((results / "tables" / "provenance.json").read_text())
    assert told["config"] == {key: config[key] for key in config.keys() - {"resources", "report_to"}}
    folders = {str(path.parent.relative_to(study)) for path in results.glob("*/**/cost.json")}
    assert set(told["results"]) == folders and "results/smoke/models/at-grpo-instruct" in folders
    for folder, result in told["results"].items():
        own = json.loads((study / folder / "provenance.json").read_text())
        assert own["code"]["hash"] == result["code"]["hash"] == fingerprint(own["script"])
        assert own["packages"]["torch"] == metadata.version("torch") and own["hardware"]["cores"] == os.cpu_count()
        assert own["arguments"]["seed"] == config["seed"] and own["arguments"]["settings"]
    attack = told["results"]["results/smoke/attacks/sft-instruct/pgd"]["arguments"]["settings"]
    assert attack["pgd"] == config["attack"]["attacks"]["pgd"]
    trained = told["results"]["results/smoke/models/at-grpo-instruct"]["arguments"]["settings"]
    assert trained == config.training_settings(config, "at-grpo")


def test_the_stored_images_are_replayed_to_the_same_rows(study):
    done = snakemake("replay", "--cores", 2, "--configfile", SMOKE, cwd=study)
    assert done.returncode == 0, done.stderr[-3000:]
    results = study / "results" / "smoke"
    again = pd.read_parquet(results / "replay" / "sft-instruct" / "rows.parquet")
    rows = pd.read_parquet(results / "attacks" / "sft-instruct" / "pgd" / "rows.parquet")
    assert again[again.attack == "pgd"].text.tolist() == rows.text.tolist()
    assert (again[again.attack == "pgd-hint"].groupby("eps").size() == 8).all()  # under the same hints


def test_nothing_runs_again_where_nothing_changed(study):
    assert not to_be_run(study)


def test_where_curves_are_shown_changes_no_result(study, tmp_path):
    (tmp_path / "told.yaml").write_text("report_to: [tensorboard]\nresources: {train_minutes: 90}\n")
    done = snakemake("-n", "--configfile", SMOKE, tmp_path / "told.yaml", cwd=study)
    assert planned(done) == planned(snakemake("-n", "--configfile", SMOKE, cwd=study))


def test_an_edit_of_the_plots_redraws_figures_and_nothing_else(study):
    jobs = edited(study, "plots.py")
    assert jobs["draw_accuracy_vs_eps"] == 1 and jobs["write_report"] == 1
    assert not [name for name in jobs if not name.startswith("draw_") and name not in ("write_report", "all")]


def test_an_edit_of_the_hints_reruns_what_is_asked_after_them_and_nothing_else(study):
    path = study / smoke_config()["templates"]
    before = path.read_text()
    path.write_text(before + "\n# edited\n")
    jobs = to_be_run(study)
    path.write_text(before)
    assert jobs["attack_model"] == jobs["stress_model"] == 2 and jobs["make_tables"] == 1
    assert not [name for name in jobs if name.startswith(("train_", "certify_", "transfer_"))]


def test_an_edit_of_the_rewards_retrains_grpo_and_what_follows_but_not_sft(study):
    jobs = edited(study, "rewards.py")
    config = smoke_config()
    attacks = 1 + len(config["attack"]["suite"]) + len(config["certify"]["attacks"]) + 1  # clean; one under a hint
    assert jobs["train_grpo"] == 1 and jobs["attack_model"] == attacks
    assert jobs["certify_model"] == len(config["certify"]["functions"]) * config["certify"]["shards"] == 4
    assert jobs["probe_attacks"] == 1 and jobs["transfer_images"] == 2  # every model is shown its images
    assert jobs["make_tables"] == jobs["write_report"] == 1
    assert not jobs["train_sft"] and not jobs["make_base"] and not jobs["prepare"]


def test_a_changed_setting_reruns_its_stage_and_what_follows(study, tmp_path):
    (tmp_path / "change.yaml").write_text("certify: {alpha: 0.01}\n")
    jobs = planned(snakemake("-n", "--configfile", SMOKE, tmp_path / "change.yaml", cwd=study))
    assert jobs["certify_model"] == 4 and jobs["make_tables"] == 1
    assert not jobs["attack_model"] and not jobs["train_sft"] and not jobs["train_grpo"]


def test_the_same_config_in_a_fresh_folder_gives_the_same_rows(study, tmp_path):
    """Through all of data, base, SFT and AT-GRPO: the weights are equal to the bit, and so are the rows."""
    fresh, wanted = checkout(tmp_path / "repository"), Path("results/smoke")
    certificates = wanted / "certificates/at-grpo-instruct/choice-sigma0.25/1-of-2"
    rows = [wanted / "attacks/at-grpo-instruct/pgd", certificates]
    done = snakemake(*rows, "--cores", 2, "--configfile", SMOKE, cwd=fresh)
    assert done.returncode == 0, done.stderr[-3000:]
    model = wanted / "models/at-grpo-instruct/model.safetensors"
    assert (study / model).read_bytes() == (fresh / model).read_bytes()
    for folder in rows:
        first, again = (pd.read_parquet(place / folder / "rows.parquet") for place in (study, fresh))
        drop = [name for name in ("seconds",) if name in first]
        pd.testing.assert_frame_equal(first.drop(columns=drop), again.drop(columns=drop))
