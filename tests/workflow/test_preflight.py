"""What the jobs of a study are said to do is no less than what they did; the command prices a study and refuses it."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest
import torch

from safemed.retrieval.corpus import BATCH
from safemed.stress.changed_questions import ChangedQuestions
from safemed.stress.hints import Templates
from safemed.stress.operators import KINDS
from safemed.stress.pushes import PUSHES
from safemed.stress.stress_tests import CLEAN, StressInputs, stress_tests
from safemed.workflow import config as configuration
from safemed.workflow import config_files
from safemed.workflow.evaluations import Evaluations
from safemed.workflow.jobs import ALONE, CORPUS, GROUPED, SECOND_TURNS, jobs
from safemed.workflow.report_inputs import report_inputs
from support.paths import ROOT, SMALLEST_STUDY, STUDIES, TEMPLATES
from support.settings import SMALLEST
from support.snakemake_runs import checkout, snakemake

FULL = config_files.read(STUDIES["full"])
DRAWN = {**SMALLEST, "preflight": {**SMALLEST["preflight"], "drawn": 1.0}}
TWICE = {"tower", "grpo"}  # a reference goes forward, too
BACKWARD = {"attack", "sft", "tower", "grpo", "training_attack", "tower_attack"}


def counted(job: dict) -> tuple[int, int]:
    """Images forward and backward through the tower in a job."""
    rows = [(work["step"], work.get("prompts", work["rows"])) for work in job["passes"]]
    return sum((1 + (step in TWICE)) * n for step, n in rows), sum(n for step, n in rows if step in BACKWARD)


def spent(results: Path, job: dict) -> tuple[int, int]:
    """The same as its cost.json says, of all jobs together."""
    model, what = job["model"], job["what"]
    smoothed = what.replace(", sigma ", "-sigma")
    folder = {
        "attack_model": f"attacks/{model}/{what}",
        "transfer_images": f"transfer/{model}",
        "stress_model": f"stress/{model}",
        "turns_model": f"turns/{model}",
        "redteam_model": f"redteam/{model}",
        "defend_model": f"defend/{model}",
        "reveal_model": f"reveal/{model}",
        "retrieve_model": f"retrieve/{model}",
        "build_corpus": f"corpora/{model}",
        "probe_attacks": f"sanity/{model}",
        "probe_towers": f"towers/{model}",
        "certify_model": f"certificates/{model}/{smoothed}/*",
    }.get(job["rule"], f"models/{model}")
    found = [json.loads(path.read_text()) for path in results.glob(f"{folder}/cost.json")]
    assert len(found) == job["jobs"], folder
    return sum(one["forward_passes"] for one in found), sum(one["backward_passes"] for one in found)


def test_no_job_did_more_than_was_counted(study):
    """The probes of a training are not counted: four questions, twice."""
    results = study / "results" / SMALLEST["study"]
    done = jobs(DRAWN)
    assert {job["rule"] for job in done} >= {"train_sft", "train_tower", "train_grpo", "attack_model", "certify_model"}
    for job in done:
        (forward, backward), (more, back) = counted(job), spent(results, job)
        if job["rule"].startswith("train_"):
            assert backward <= back <= backward + 2 * 4 * 6 and forward <= more <= forward + 2 * 4 * 16, job
        else:
            assert back <= backward and more <= forward, job


def test_an_attack_of_torchattacks_is_priced_by_what_it_spends():
    attacks = {
        "vmi": {"kind": "torchattacks", "attack": "VMIFGSM", "steps": 10, "survivors": True},
        "pixle": {
            "kind": "torchattacks", "attack": "Pixle", "norm": "l0", "steps": 10,
            "restarts": {"instruct": 2, "think": 1},
        },
    }  # fmt: skip
    attack = FULL["attack"] | {"suite": ["pgd", *attacks], "attacks": FULL["attack"]["attacks"] | attacks}
    found = {(job["model"], job["what"]): job["passes"] for job in jobs(FULL | {"attack": attack})}
    n, kinds = attack["questions"], ("step", "rows", "at_once")
    for model, queries in (("sft-instruct", 2 * 10 * 2 + 2), ("sft-think", 10 * 2 + 2)):
        vmi, pixle = ([tuple(work[kind] for kind in kinds) for work in found[model, name]] for name in attacks)
        assert vmi[:2] == [("attack", n * 60, attack["batch_size"]), ("query", n, min(n, attack["batch_size"]))]
        assert pixle[0] == ("query", n * queries, 1) and [step for step, *_ in pixle] == ["query", "answer"]


@pytest.mark.parametrize("kind", ["stress", "turns", "defend", "reveal", "retrieve"])
def test_an_attack_whose_images_an_evaluation_shows_is_priced_where_nothing_else_makes_it(kind):
    found = {
        (job["model"], job["what"]) for job in jobs(FULL | {"evaluations": [kind]}) if job["rule"] == "attack_model"
    }
    models = configuration.models(FULL, FULL["study_methods"])
    assert {(model, FULL[kind]["attack"]) for model in models} <= found


def test_a_method_that_only_retrieves_is_priced_with_its_corpora_and_is_in_costs_and_curves():
    own = {"evaluations": ["retrieve"], "study_methods": ["sft"], "variants": ["think"]}
    part = {"fare": FULL["methods"]["fare"] | {"train_on": {"modality": "CT"}}}
    retrieve = FULL["retrieve"] | {"retrievers": ["own", "fare", "base"]}
    config = FULL | own | {"methods": FULL["methods"] | part, "retrieve": retrieve}
    done, models = jobs(config), {"sft-think", "fare-think"}
    assert {job["model"] for job in done if job["rule"].startswith("train_")} == models
    built = {job["model"]: job["passes"] for job in done if job["rule"] == "build_corpus"}
    images = math.ceil(config["data"]["phantoms"]["images"] * config["data"]["split"]["train"] * GROUPED)
    assert built.keys() == models | {"base-think"}
    assert all([work["rows"] for work in passes] == [images] for passes in built.values())
    assert configuration.parts(config) == {"fare": {"modality": "CT"}}
    files = report_inputs(config, Evaluations(config, "results"), "audit")
    assert {f"results/models/{name}/curves.csv" for name in models} == set(files["curves"])
    assert {f"results/models/{name}/cost.json" for name in models} <= set(files["costs"])
    assert {f"results/corpora/{name}/cost.json" for name in built} <= set(files["costs"])


def test_poisons_are_priced_as_a_share_of_the_training_images_for_every_start():
    own = {"retrievers": ["own"], "poisons": ["image"], "rates": [0.1], "per_question": [], "restarts": 3, "steps": 7}
    config = FULL | {"evaluations": ["retrieve"], "retrieve": FULL["retrieve"] | own}
    images = math.ceil(config["data"]["phantoms"]["images"] * config["data"]["split"]["train"] * GROUPED)
    found = [job["passes"] for job in jobs(config) if job["rule"] == "retrieve_model"]
    moved = [[(work["rows"], work["at_once"]) for work in passes if work["step"] == "tower_attack"] for passes in found]
    rows = round(0.1 * images) * 3 * 7
    assert moved and all(one == [(rows, min(rows, BATCH))] for one in moved) and CORPUS == BATCH


def test_every_job_of_the_study_is_counted_once(study):
    results = study / "results" / SMALLEST["study"]
    parts = (
        "attacks",
        "transfer",
        "stress",
        "turns",
        "redteam",
        "defend",
        "reveal",
        "retrieve",
        "corpora",
        "sanity",
        "towers",
        "certificates",
        "models",
    )
    made = sum(len(list((results / part).glob("**/cost.json"))) for part in parts)
    assert sum(job["jobs"] for job in jobs(SMALLEST)) == made - len(configuration.bases(SMALLEST))


def test_stress_tests_are_no_more_than_are_assumed():
    templates, stress = Templates.read(ROOT / "workflow" / "templates.yaml"), FULL["stress"]
    asked = list(stress_tests(templates, stress["severities"], stress["attack"], stress["published"]))
    assert FULL["preflight"]["stress_tests"] / 2 < len(asked) <= FULL["preflight"]["stress_tests"]


def test_operators_that_are_tried_alone_are_no_more_than_are_assumed():
    question = {"question_id": "q", "image_path": "a", "modality": "CT", "question_type": "t", "gold": "B", "box": []}
    row, others = question | {"options": ["cyst", "nodule", "node", "bone"]}, ["air", "gas", "fat", "pus"]
    everything = [row, row | {"options": others, "image_path": "b"}]
    images, templates = {CLEAN: torch.zeros(1, 64, 64, 3, dtype=torch.uint8)}, Templates.read(TEMPLATES)
    questions = ChangedQuestions(StressInputs([row], images, set(), everything, templates, 0))
    alone = {one.first() for silent in (False, True) for one in questions.offered(0, silent)}
    assert ALONE / 2 < 1 + len(alone) <= ALONE and {one.kind for one in alone} == set(KINDS)


def test_second_turns_are_as_many_as_are_counted():
    templates = Templates.read(TEMPLATES)
    assert 2 * sum(len(templates.wordings(push)) for push in PUSHES) == SECOND_TURNS


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return checkout(tmp_path_factory.mktemp("preflight") / "repository")


def test_the_command_prices_a_study(folder):
    run = snakemake("preflight", "--cores", "1", "--quiet", "all", "--configfile", SMALLEST_STUDY, cwd=folder)
    assert run.returncode == 0 and "longest chain" in run.stdout, run.stderr
    rows = pd.read_csv(folder / "results" / SMALLEST["study"] / "preflight.csv", keep_default_na=False)
    assert set(rows.rule) == {job["rule"] for job in jobs(SMALLEST)}
    assert (rows.hours > 0).all() and (rows.memory_gb > 0).all() and (rows.largest > rows.at_once).all()


def test_the_command_refuses_what_does_not_fit(folder):
    small = ["--config", "preflight={memory_gb: 0.005, gpu: pocket}"]
    run = snakemake("preflight", "--cores", "1", "--configfile", SMALLEST_STUDY, *small, cwd=folder)
    assert run.returncode != 0
    said = run.stdout + run.stderr
    assert "train_sft sft-instruct: sft of 4 at once needs" in said and "and pocket has 0 to use" in said
