"""What a study plans before anything has run: every model, attack and certificate of its config, and no more."""

import functools
import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from safemed.workflow import config as configuration
from safemed.workflow import config_files
from safemed.workflow.jobs import jobs as counted_jobs
from support.hub import REVISION
from support.paths import ROOT, STUDIES
from support.snakemake_runs import checkout, commands, plan, planned, snakemake

DEFAULT, FULL = config_files.read(), config_files.read(STUDIES["full"])
MODELS = configuration.models(FULL, FULL["study_methods"])


@pytest.fixture(scope="module")
def untouched(tmp_path_factory) -> Path:
    """A copy in which nothing has run."""
    return checkout(tmp_path_factory.mktemp("plans") / "repository")


@pytest.fixture(scope="module")
def full(untouched) -> Counter:
    """The jobs of the default study with all evaluations."""
    return plan("--configfile", STUDIES["full"], cwd=untouched)


@pytest.fixture(scope="module")
def every_target(untouched) -> subprocess.CompletedProcess:
    """The dry run, with its commands, of all that is made from the default study's models."""
    targets = ("attack", "stress", "certify", "replay")
    return snakemake("-n", *targets, "--printshellcmds", "--configfile", STUDIES["full"], cwd=untouched)


@pytest.fixture(scope="module")
def plans(untouched, source) -> Callable[..., subprocess.CompletedProcess]:
    """The dry run, with its commands, of studies by their names, on a folder of images; each is planned once."""
    data = ["--config", f'data={{"source": "{source}"}}']

    def planned_study(*names: str) -> subprocess.CompletedProcess:
        files = [STUDIES[name] for name in names]
        return snakemake("-n", "--printshellcmds", "--configfile", *files, *data, cwd=untouched)

    return functools.cache(planned_study)


def changed(folder: Path, change: dict, *arguments) -> subprocess.CompletedProcess:
    """The dry run, with its commands, of all evaluations under a changed config."""
    file = folder / "changed.yaml"
    file.write_text(yaml.safe_dump(change))
    return snakemake("-n", *arguments, "--printshellcmds", "--configfile", STUDIES["full"], file, cwd=folder)


def trainings(jobs: Counter) -> Counter:
    """The jobs that train a method."""
    return Counter({name: n for name, n in jobs.items() if name.startswith("train_")})


def trainings_of(config: dict, methods: list[str]) -> Counter:
    """The trainings that some methods need, and all that they start from."""
    trainers = [config["methods"][name]["trainer"] for name in configuration.lineage(config, methods)]
    return Counter({f"train_{name}": n * len(config["variants"]) for name, n in Counter(trainers).items()})


def test_the_default_study_plans_every_model_attack_and_certificate(full):
    attack, certify = FULL["attack"], FULL["certify"]
    assert full["train_sft"] == full["train_grpo"] == len(FULL["variants"])
    assert configuration.certified_methods(FULL) == FULL["study_methods"]
    suites = sum(1 + len(configuration.suite(attack, variant)) for variant in FULL["variants"])
    smoothed, adaptive = len(MODELS) * len(certify["attacks"]), 2 * len(MODELS)
    assert full["attack_model"] == suites * len(FULL["study_methods"]) + smoothed + adaptive
    assert (
        full["probe_attacks"] == full["transfer_images"] == full["stress_model"] == full["turns_model"] == len(MODELS)
    )
    tables = len(MODELS) * len(certify["functions"]) * len(certify["sigma"])
    assert full["certify_model"] == tables * certify["shards"]
    assert full["make_base"] == full["audit_questions"] == full["write_report"] == 1
    assert [full[name] for name in ("make_phantoms", "download_archive", "download_model")] == [1, 0, 0]


def test_every_method_is_attacked_at_the_same_radii(plans):
    """A sweep of other radii would be another attack, with which nothing could be compared."""
    swept = [given for given in commands(plans("ablation"), "attack.py") if given["--attack"] == ["pgd"]]
    radii = {given["--method"][0]: given["--eps"] for given in swept}
    assert radii.keys() == set(config_files.read(STUDIES["ablation"])["study_methods"])
    assert all(found == list(map(str, DEFAULT["attack"]["eps"])) for found in radii.values())


def test_hints_and_second_turns_are_put_to_the_questions_of_their_attacks_and_of_a_replay_alone(every_target):
    names = [FULL[kind]["adaptive"] for kind in ("stress", "turns")]
    eps, file = FULL["attack"]["headline_eps"], FULL["templates"]
    attacks = commands(every_target, "attack.py")
    hinted = [given for given in attacks if given["--attack"][0] in names]
    assert sorted(given["--model"][0] for given in hinted) == sorted([*MODELS, *MODELS])
    assert all(given["--eps"] == ["0", str(eps)] and given["--templates"] == [file] for given in hinted)
    assert not [given for given in attacks if given not in hinted and given.get("--templates")]
    replays = [given for given in commands(every_target, "replay.py") if "--same" in given]
    assert sorted(given["--model"][0] for given in replays) == sorted(MODELS)
    for given in replays:
        assert set(names) <= {path.rpartition("/")[2] for path in given["--attacks"]} and given["--templates"] == [file]


def test_a_replay_on_another_model_has_a_folder_and_a_name_of_its_own(every_target, untouched, tiny_model):
    """In words that a shell and Snakemake leave alone, whatever the folder is called."""
    shutil.copytree(tiny_model, untouched / "my $models" / "an o'ther")
    other = changed(untouched, {"attack": {"replay_on": "my $models/an o'ther/"}}, "replay")
    results, places = "results/phantoms", {}
    for done in (every_target, other):
        for given in commands(done, "replay.py"):
            places[given["--out"][0]] = [*given["--model"], *given["--weights"], "--same" in given]
    assert places[f"{results}/replay/sft-think"] == ["sft-think", f"{results}/models/sft-think", True]
    assert places[f"{results}/replay-on-an-o-ther/sft-think"] == ["an-o-ther", "my $models/an o'ther/", False]


def test_paths_and_noise_levels_reach_the_scripts_as_they_are_written(untouched):
    """A path that a shell would take apart, and a number that Python writes with an exponent."""
    templates = untouched / "my 'words' $HOME" / "a+b.yaml"
    templates.parent.mkdir()
    shutil.copy(untouched / FULL["templates"], templates)
    change = {"templates": str(templates), "certify": {"sigma": [1e-5], "attacks": []}}
    altered = {"training": {"grpo": {"augmentation": {"hints": 1}}}}
    done = changed(untouched, change | altered, "stress", "certify", "at-grpo")
    trained, stressed = commands(done, "train_grpo.py"), commands(done, "stress.py")
    assert len(trained) == len(stressed) / 2 == len(FULL["variants"])
    assert all(given["--templates"] == [str(templates)] for given in (*trained, *stressed))
    certified = commands(done, "certify.py")
    assert len(certified) == planned(done)["certify_model"] and {given["--sigma"][0] for given in certified} == {
        "1e-05"
    }


def test_what_the_hub_calls_its_archive_is_one_word(untouched):
    hub = {"data": {"source": "hub", "hub": {"file": "an 'archive'.zip"}}}
    (given,) = commands(changed(untouched, hub, "data"), "download.py")
    assert given["--file"] == ["an 'archive'.zip"] and given["--out"] == ["resources/an 'archive'.zip"]


def test_the_questions_of_a_certificate_are_shared_among_as_many_jobs_as_asked(untouched):
    done = changed(untouched, {"certify": {"shards": 3}}, "certify")
    certificates = commands(done, "certify.py")
    assert planned(done)["certify_model"] == len(certificates)
    names = ("--model", "--function", "--sigma", "--shard")
    shards = Counter()
    for given in certificates:
        model, function, sigma, shard = (given[name][0] for name in names)
        assert given["--out"][0].endswith(f"/certificates/{model}/{function}-sigma{sigma}/{shard}")
        shards[shard] += 1
    assert len({given["--out"][0] for given in certificates}) == len(certificates)
    assert set(shards) == {"1-of-3", "2-of-3", "3-of-3"} and len(set(shards.values())) == 1


@pytest.mark.parametrize(
    "change, figures",
    [
        (
            {"evaluations": ["attack", "transfer", "sanity", "stress", "turns"]},
            {"certified_vs_radius", "smoothed_attack"},
        ),
        ({"certify": {"attacks": []}}, {"smoothed_attack"}),
    ],
    ids=["no certificates", "no attack on what is certified"],
)
def test_what_a_study_leaves_out_is_not_drawn(change, figures, full, untouched):
    less = planned(changed(untouched, change))
    missing = {job.removeprefix("draw_") for job in full.keys() - less.keys() if job.startswith("draw_")}
    assert missing == figures and less["write_report"] == 1
    assert less["certify_model"] == (0 if "evaluations" in change else full["certify_model"])


OFTEN = {
    "demo",
    "words",
    "redteam",
    "defences",
    "reveal",
    "retrieval",
    "turns",
    "towers",
    "after",
    "ablation",
    "full",
    "omnimedvqa",
}  # changed; the others are slow


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in OFTEN else pytest.mark.slow) for name in STUDIES]
)
def test_every_study_plans_on_a_folder_of_images(name, plans):
    config, jobs = config_files.read(STUDIES[name]), planned(plans(name))
    assert jobs["make_phantoms"] == jobs["download_archive"] == 0 and jobs["write_report"] == 1
    once = trainings_of(config, configuration.studied(config))
    assert trainings(jobs) == {name: len(configuration.seeds(config)) * count for name, count in once.items()}


def test_the_red_team_is_set_on_the_models_of_the_study_that_it_is_laid_over(plans):
    alone, words = plans("redteam"), plans("words", "redteam")
    for done, name in ((alone, "redteam"), (words, "words")):
        config = config_files.read(STUDIES[name])
        asked = commands(done, "redteam.py")
        models = configuration.models(config, config["study_methods"])
        assert sorted(given["--model"][0] for given in asked) == sorted(models)
        assert all(given["--templates"] == [config["templates"]] for given in asked)
    assert "grpo-hints-think" in models and not commands(plans("words"), "redteam.py")
    assert planned(alone)["make_redteam"] == planned(alone)["draw_redteam"] == 1


def test_evidence_is_revealed_to_the_models_of_the_study_that_it_is_laid_over(plans):
    config, done = config_files.read(STUDIES["reveal"]), plans("reveal")
    asked = commands(done, "reveal.py")
    assert sorted(given["--model"][0] for given in asked) == sorted(
        configuration.models(config, config["study_methods"])
    )
    assert {given["--attack"][0].rpartition("/")[2] for given in asked} == {"pgd"}
    settings = json.loads(asked[0]["--settings"][0])
    assert settings["draws_at_once"] == config["certify"]["batch_size"] and settings["eps"] == 8
    assert {key: settings[key] for key in ("shares", "cells", "draws", "sigma")}.items() <= config["reveal"].items()
    jobs = planned(done)
    assert jobs["make_gradient"] == jobs["make_gradient_summary"] == jobs["draw_gradient"] == 1
    assert not commands(plans("redteam"), "reveal.py")


def test_reports_are_retrieved_by_the_own_tower_and_by_those_that_are_named_each_once(plans):
    config, done = config_files.read(STUDIES["retrieval"]), plans("retrieval")
    asked = {given["--model"][0]: given for given in commands(done, "retrieve.py")}
    assert sorted(asked) == sorted(configuration.models(config, config["study_methods"]))
    for model, given in asked.items():
        variant = configuration.variant_of(model)
        towers = list(dict.fromkeys([model, f"sft-{variant}", f"fare-{variant}"]))
        for option, folder in (("--towers", "models"), ("--corpora", "corpora")):
            assert given[option] == [f"results/{config['study']}/{folder}/{name}" for name in towers]
    trained = {given["--name"][0]: given for given in commands(done, "train_sft.py")}
    assert trained["sft-rag-think"]["--corpus"] == [f"results/{config['study']}/corpora/base-think"]
    assert not trained["sft-think"]["--corpus"]
    built = {given["--model"][0]: json.loads(given["--settings"][0]) for given in commands(done, "build_corpus.py")}
    assert {name for name, settings in built.items() if settings["neighbours"]} == {
        f"{method}-{variant}" for method in ("base", "sft-rag") for variant in config["variants"]
    }
    assert planned(done)["make_rag"] == planned(done)["make_rag_by_type"] == planned(done)["draw_rag"] == 1


def test_a_method_that_only_retrieves_is_trained_and_every_job_is_counted(untouched):
    change = {"evaluations": ["attack", "retrieve"], "study_methods": ["sft"], "retrieve": {"retrievers": ["fare"]}}
    made = planned(changed(untouched, change))
    counted: Counter = Counter()
    for job in counted_jobs(config_files.read(STUDIES["full"], untouched / "changed.yaml")):
        counted[job["rule"]] += job["jobs"]
    assert set(counted) == {"train_sft", "train_tower", "build_corpus", "attack_model", "retrieve_model"}
    assert counted == {rule: made[rule] for rule in counted}


def test_towers_are_probed_beside_the_default_studys_models_and_none_costs_more_than_three_of_fare(plans):
    config, done = config_files.read(STUDIES["towers"]), plans("towers")
    models = configuration.models(config, config["study_methods"])
    assert sorted(given["--model"][0] for given in commands(done, "probe_towers.py")) == sorted(models)
    assert planned(done)["make_towers"] == planned(done)["draw_towers"] == 1
    towers = {name for name, method in config["methods"].items() if method["trainer"] == "tower"}
    assert towers <= set(config["study_methods"])  # each as its objective left it, before anything goes on from it
    for name in ("sft", "fare", "at-grpo"):
        assert configuration.training_settings(config, name) == configuration.training_settings(DEFAULT, name)
    spent = {
        job["model"]: sum(
            work["rows"] * (3 if work["step"] == "tower" and "fare" in job["model"] else 2) for work in job["passes"]
        )  # forward and backward, and forward through the reference, which fare and fare-hsat have
        for job in counted_jobs(config)
        if job["rule"] == "train_tower"
    }
    assert set(spent) == {f"{name}-instruct" for name in ("fare", "tecoa", "fare-hsat", "hsat", "acl")}
    assert max(spent.values()) <= 3 * spent["fare-instruct"]
    augmentation = {**DEFAULT["training"]["tower"]["augmentation"], "share": 0.75, "ramp": 0.6}
    changed = {"objective": "tecoa", "learning_rate": 5e-4, "augmentation": augmentation}
    fare, tecoa = (configuration.training_settings(config, name) for name in ("fare", "tecoa"))
    assert tecoa == fare | changed  # slower, with clean rows among the attacked ones, and nothing else differs


def test_defences_are_attacked_on_the_models_of_the_study_that_they_are_laid_over(plans):
    alone, config = plans("defences"), config_files.read(STUDIES["defences"])
    asked = commands(alone, "defend.py")
    models = configuration.models(config, config["study_methods"])
    assert sorted(given["--model"][0] for given in asked) == sorted(models)
    assert all(given["--attack"][0].endswith(f"attacks/{given['--model'][0]}/pgd") for given in asked)
    assert planned(alone)["make_defences"] == planned(alone)["draw_defences"] == 1
    over = plans("words", "defences")
    assert "grpo-hints-think" in {given["--model"][0] for given in commands(over, "defend.py")}


@pytest.mark.parametrize("name", ["cross-modality", "cross-task", "medvlm-r1"])
def test_sft_stands_beside_clean_grpo_and_the_untrained_base_on_the_scale_of_omnimedvqa(name, plans):
    """As in the matrices of Med-R1 and MedVLM-R1; the base is asked by every evaluation, and nothing trains it anew."""
    config, done = config_files.read(STUDIES["omnimedvqa"], STUDIES[name]), plans("omnimedvqa", name)
    methods = config["study_methods"]
    assert methods[0] == "base" and methods.count("base") == 1
    trainers = Counter(config["methods"][method]["trainer"] for method in methods[1:])
    assert trainers["sft"] == trainers["grpo"] == len(methods) // 2 and trainings(planned(done)) == trainings_of(
        config, methods[1:]
    )
    for given in commands(done, "train_grpo.py"):
        assert json.loads(given["--settings"][0])["augmentation"] == {"kind": "clean"}
    weights = f"results/{config['study']}/models/base"
    for script in ("attack.py", "stress.py", "sanity.py", "replay.py"):
        asked = {(*given["--method"], *given["--weights"]) for given in commands(done, script)}
        assert not asked or {path for method, path in asked if method == "base"} == {weights}
    attacked = {given["--model"][0] for given in commands(done, "attack.py")}
    assert {f"base-{variant}" for variant in config["variants"]} < attacked


def test_after_is_trained_and_attacked_where_it_is_studied_and_nowhere_else(plans):
    config, done = config_files.read(STUDIES["after"]), plans("after")
    assert config["variants"] == [*DEFAULT["variants"], "after"] and "after" not in FULL["variants"]
    assert trainings(planned(done)) == trainings_of(config, config["study_methods"])
    attacks = {
        tuple(given[key][0] for key in ("--method", "--attack"))
        for given in commands(done, "attack.py")
        if given["--variant"] == ["after"]
    }
    assert attacks == {(method, name) for method in config["study_methods"] for name in ("clean", "fgsm", "pgd")}
    (base,) = commands(done, "make_base.py")
    assert json.loads(base["--settings"][0])["variants"] == config["variants"]


def test_what_is_certified_follows_what_is_studied(full, untouched):
    alone = plan("--config", "study_methods=[sft]", "--configfile", STUDIES["full"], cwd=untouched)
    assert trainings(alone) == trainings_of(FULL, ["sft"]) and not alone["train_tower"]
    share = len(FULL["study_methods"])
    for name in ("attack_model", "certify_model", "stress_model", "transfer_images", "probe_attacks"):
        assert alone[name] == full[name] / share > 0


def test_the_ablation_attacks_every_method_and_makes_no_other_evaluation(plans):
    """And takes the default study's models as they are: the attack is the same, on more questions."""
    config, jobs = config_files.read(STUDIES["ablation"]), planned(plans("ablation"))
    models = configuration.models(config, config["study_methods"])
    assert jobs["attack_model"] == len(models) * (1 + len(config["attack"]["suite"])) and set(MODELS) < set(models)
    assert not jobs.keys() & {"certify_model", "stress_model", "transfer_images", "probe_attacks"}
    for name in ("sft", "fare", "at-grpo"):
        assert configuration.training_settings(config, name) == configuration.training_settings(DEFAULT, name)
    more = {"questions": 200, "suite": ["pgd"]}
    assert config["study"] == DEFAULT["study"] and config["attack"] == DEFAULT["attack"] | more


def test_second_turns_are_no_job_of_the_default_study(plans, untouched):
    config, jobs = config_files.read(STUDIES["turns"]), planned(plans("turns"))
    models, default = configuration.models(config, config["study_methods"]), plan(cwd=untouched)
    assert jobs["turns_model"] == len(models)
    assert jobs["make_turns"] == jobs["make_turn_comparisons"] == jobs["draw_turns"] == 1
    assert jobs["attack_model"] == len(models) * (2 + len(config["attack"]["suite"])) and not jobs["stress_model"]
    assert not any("turn" in name for name in default)
    taught = [given for script in ("train_sft.py", "train_grpo.py") for given in commands(plans("turns"), script)]
    altered = {given["--stage"][0] for given in taught if given.get("--alterations")}
    assert altered == {"sft-turns", "grpo-turns"}


def test_every_method_is_a_target_of_its_own_name(untouched):
    jobs = plan("at-grpo", cwd=untouched)
    assert jobs["at-grpo"] == 1 and trainings(jobs) == trainings_of(FULL, ["at-grpo"])


def test_certificates_in_full_add_to_the_default_study_what_it_lacks(plans, full):
    """The models trained for noise are certified and attacked as smoothed models, and their own pgd stands beside."""
    config, more = config_files.read(STUDIES["full"], STUDIES["smoothing"]), planned(plans("full", "smoothing"))
    variants, certify = len(config["variants"]), config["certify"]
    added = len(certify["methods"]) - len(config["study_methods"])
    assert added >= 2 and more["train_grpo"] == full["train_grpo"] + added * variants
    assert more["attack_model"] == full["attack_model"] + added * variants * (2 + len(certify["attacks"]))
    tables = variants * len(certify["methods"]) * len(certify["functions"]) * len(certify["sigma"])
    assert more["certify_model"] == tables and {0.12, 0.25, 0.5} <= set(certify["sigma"])


def test_what_the_hub_has_is_fetched_by_the_driver_itself(untouched):
    """Archive and model; their commands run where Snakemake does, since a cluster's nodes may have no network."""
    hub = {"data": {"source": "hub"}, "model": {"name": "someone/Model", "revision": REVISION}}
    done = changed(untouched, hub, "base")
    jobs, local = planned(done), (ROOT / "Snakefile").read_text().split("localrules:")[1].split("\n\n")[0]
    assert [jobs[name] for name in ("download_archive", "unpack_archive", "make_phantoms")] == [1, 1, 0]
    assert jobs["download_model"] == 1 and f"output: resources/models/someone--Model-{REVISION}.json" in done.stdout
    assert all(f"    {name},\n" in local for name in ("download_archive", "download_model"))


def test_each_variant_may_have_a_checkpoint_of_its_own(untouched):
    names, other = {"instruct": "someone/Model", "think": "someone/Thinker"}, REVISION[::-1]
    pair = {"model": {"name": names, "revision": {"instruct": REVISION, "think": other}}}
    done = changed(untouched, pair, "sft")
    assert [planned(done)[name] for name in ("download_model", "make_base", "train_sft")] == [2, 2, 2]
    for variant, snapshot in (("instruct", f"Model-{REVISION}"), ("think", f"Thinker-{other}")):
        base = f"results/phantoms/models/base-{variant}"
        (made,) = [job for job in commands(done, "make_base.py") if job["--out"] == [base]]
        assert made["--fetched"] == [f"resources/models/someone--{snapshot}.json"]
        assert made["--name"] == [f"base-{variant}"]
        (trained,) = [job for job in commands(done, "train_sft.py") if job["--variant"] == [variant]]
        assert trained["--start"] == [base]


def test_an_archive_of_the_users_is_unpacked_and_nothing_is_fetched(untouched):
    (untouched / "own.zip").touch()
    jobs = planned(changed(untouched, {"data": {"source": "own.zip"}}, "data"))
    assert [jobs[name] for name in ("download_archive", "unpack_archive", "make_phantoms")] == [0, 1, 0]


def test_further_seeds_train_and_evaluate_every_model_anew_on_the_same_data(untouched):
    once = plan("--configfile", STUDIES["full"], cwd=untouched)
    file = untouched / "seeds.yaml"
    file.write_text(yaml.safe_dump({"further_seeds": [1, 2]}))
    thrice = plan("--configfile", STUDIES["full"], file, cwd=untouched)
    for name in (
        "make_base",
        "train_sft",
        "train_grpo",
        "attack_model",
        "probe_attacks",
        "certify_model",
        "stress_model",
        "turns_model",
    ):
        assert thrice[name] == 3 * once[name], name
    assert {name: thrice[name] for name in ("prepare", "split_questions", "audit_questions")} == dict.fromkeys(
        ("prepare", "split_questions", "audit_questions"), 1
    )
    assert {"make_seeds", "make_seed_comparisons", "draw_seeds"} == set(thrice) - set(once)


def test_each_seed_trains_from_the_base_of_its_own_and_attacks_keep_the_study_s_seed(untouched):
    file = untouched / "seeds.yaml"
    file.write_text(yaml.safe_dump({"further_seeds": [5]}))
    done = snakemake("-n", "attack", "--printshellcmds", "--configfile", file, cwd=untouched)
    (trained,) = (one for one in commands(done, "train_sft.py") if one["--name"] == ["sft-think-seed5"])
    assert trained["--start"] == ["results/phantoms/models/base-seed5"] and trained["--seed"] == ["5"]
    attacked = [one for one in commands(done, "attack.py") if one["--model"] == ["sft-think-seed5"]]
    assert attacked and all(one["--weights"] == ["results/phantoms/models/sft-think-seed5"] for one in attacked)
    assert all(one["--seed"] == ["0"] for one in attacked)


def test_images_are_shown_to_the_models_of_their_seed_alone(untouched):
    file = untouched / "seeds.yaml"
    file.write_text(yaml.safe_dump({"further_seeds": [5]}))
    done = snakemake("-n", "attack", "--printshellcmds", "--configfile", STUDIES["full"], file, cwd=untouched)
    shown = {one["--model"][0]: one["--attacks"] for one in commands(done, "replay.py")}
    assert len(shown) == 2 * len(MODELS)
    for model, folders in shown.items():
        assert len(folders) == len(MODELS) and all(("-seed5/" in one) == model.endswith("-seed5") for one in folders)
