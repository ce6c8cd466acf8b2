"""What rules are given: the source's stamp, how trainings start, and the folders and settings of evaluations."""

import json
import os
from types import SimpleNamespace

import pytest

from safemed.utils.dependencies import fingerprint
from safemed.workflow import config as configs
from safemed.workflow import config_files
from safemed.workflow.evaluations import Evaluations
from safemed.workflow.sources import Sources
from safemed.workflow.trainings import Trainings
from support.paths import STUDIES

SFT = SimpleNamespace(method="sft", variant="think", seed="")


@pytest.fixture
def study() -> dict:
    """The config of the default study with all evaluations, a test's own."""
    full = json.loads(json.dumps(config_files.read(STUDIES["full"])))
    return full | {"evaluations": [*full["evaluations"], "towers", "redteam", "defend", "reveal", "retrieve"]}


def changed(study: dict, **sections) -> dict:
    """The config with some keys of its sections changed."""
    return study | {name: study[name] | keys for name, keys in sections.items()}


def test_the_stamp_of_a_users_folder_changes_with_every_file_in_it_and_only_then(study, tmp_path):
    (tmp_path / "Images" / "CT").mkdir(parents=True)
    image = tmp_path / "Images" / "CT" / "one.png"
    image.write_bytes(b"before")
    sources = Sources(changed(study, data={"source": str(tmp_path)}), "data")
    stamps = [sources.stamp(), sources.stamp()]
    image.write_bytes(b"edited")
    os.utime(image, ns=(1, 1))
    stamps.append(sources.stamp())
    (tmp_path / "Images" / "CT" / "two.png").symlink_to(tmp_path / "nowhere")
    stamps.append(sources.stamp())
    image.rename(image.with_name("three.png"))
    stamps.append(sources.stamp())
    assert stamps[0] == stamps[1] and len(set(stamps)) == 4


@pytest.mark.parametrize("name", ["a.zip", "A.ZIP", "data.zip/", "data"])
def test_a_zip_is_told_by_its_name_in_any_case_and_a_folder_may_have_it(study, tmp_path, name):
    source = tmp_path / name
    source.mkdir() if name.endswith(("/", "data")) else source.touch()
    sources = Sources(changed(study, data={"source": str(source)}), "data")
    zipped = source.is_file()
    assert sources.folder == (sources.unpacked if zipped else str(source))
    assert (sources.archive == str(source)) == zipped


def test_a_folders_record_files_are_inputs_in_any_case(study, tmp_path):
    folder = tmp_path / "QA_information" / "Open-access"
    folder.mkdir(parents=True)
    for name in ("b.JSON", "a.json", "._a.json", "notes.txt"):
        (folder / name).touch()
    sources = Sources(changed(study, data={"source": str(tmp_path)}), "data")
    assert sources.records() == [str(folder / "a.json"), str(folder / "b.JSON")]


def test_what_a_rule_makes_has_no_stamp(study):
    assert {Sources(changed(study, data={"source": named}), "data").stamp() for named in (None, "hub", "a.zip")} == {""}


def test_questions_as_published_do_not_depend_on_what_hardens_them(study):
    published, hardened = (
        Sources(changed(study, data={"questions": wording}), "data").hardening for wording in ("published", "hardened")
    )
    assert not published and fingerprint("prepare.py", *hardened) != fingerprint("prepare.py")


def test_a_checkpoint_is_one_base_for_all_seeds_and_the_tiny_model_is_trained_with_each(study):
    several = study | {"further_seeds": [1], "variants": ["think"]}
    assert configs.models(several, ["base", "sft"]) == [
        "base-think",
        "sft-think",
        "base-think-seed1",
        "sft-think-seed1",
    ]
    assert configs.trained_bases(several) == ["base", "base-seed1"]
    named = changed(several, model={"name": "someone/Model", "revision": "0" * 40})
    assert configs.models(named, ["base", "sft"]) == ["base-think", "sft-think", "sft-think-seed1"]
    assert configs.trained_bases(named) == ["base"]


def test_one_process_is_started_by_python_several_by_torchrun_and_several_nodes_by_srun(study):
    cases = {(1, 1): "python", (1, 2): "torchrun --standalone --nproc-per-node 2 --"}
    for (nodes, processes), line in cases.items():
        resources = {"train_nodes": nodes, "train_processes": processes}
        assert Trainings(changed(study, resources=resources), "results").launcher() == line
    several = Trainings(changed(study, resources={"train_nodes": 2, "train_processes": 4, "gpus": 1}), "results")
    assert several.launcher().startswith("srun ") and "--nnodes 2 --nproc-per-node 4" in several.launcher()
    assert several.resources() == {"gpu": 8, "tasks_per_node": 4, "tasks_per_gpu": 0, "nodes": 2, "mpi": "srun"}


def test_a_training_of_several_processes_has_the_gpus_of_a_machine_for_itself(study):
    for processes, here, asked in ((1, 4, 1), (2, 4, 4), (2, 0, 2)):
        resources = {"train_processes": processes, "gpus": 1}
        assert Trainings(changed(study, resources=resources), "results", here).resources() == {"gpu": asked}
    assert Trainings(changed(study, resources={"train_processes": 2, "gpus": 0}), "results", 4).resources() == {
        "gpu": 0
    }


def test_only_a_method_that_alters_questions_depends_on_alterations_and_their_templates(study):
    study["methods"]["hinted"] = {"trainer": "grpo", "start": "sft", "augmentation": {"kind": "clean", "hints": 2}}
    trainings, hinted = Trainings(study, "results"), SimpleNamespace(method="hinted", variant="think", seed="")
    plain = SimpleNamespace(method="at-grpo", variant="think", seed="")
    assert trainings.templates(hinted) == [study["templates"]] and trainings.templates(plain) == []
    assert trainings.script(hinted) == trainings.script(plain) and trainings.code(hinted) != trainings.code(plain)
    assert trainings.start(hinted) == "results/models/sft-think" and trainings.start(plain) == "results/models/base"


def test_what_is_monitored_is_no_setting_of_a_training(study):
    other = changed(study, monitoring={"log_steps": 1, "report_to": ["wandb"]})
    one, two = (Trainings(each, "results") for each in (study, other))
    assert one.settings(SFT) == two.settings(SFT) and one.monitoring != two.monitoring


def test_the_base_is_evaluated_as_it_is_and_trained_by_no_method(study):
    study = study | {"study_methods": ["base", "sft"]}
    base, evaluations = SimpleNamespace(method="base", variant="think", seed=""), Evaluations(study, "results")
    assert evaluations.weights(base) == "results/models/base" and evaluations.model(base) == "base-think"
    assert evaluations.weights(SFT) == "results/models/sft-think" and "base-think" in evaluations.studied
    own = changed(study, model={"name": {"instruct": "some/model", "think": "other/model"}})
    assert Evaluations(own, "results").weights(base) == "results/models/base-think"
    assert configs.lineage(study, configs.studied(study)) == ["sft"]


def test_the_tiny_base_learns_to_answer_as_after_only_where_that_is_studied(study):
    """Studies of instruct, of think and of both have the same base."""

    def learned(variants: list[str], name: object = "tiny") -> list[str]:
        config = changed(study | {"variants": variants}, model={"name": name})
        (base, *_), trainings = configs.bases(config), Trainings(config, "results")
        return json.loads(trainings.base_settings(SimpleNamespace(base=base)))["variants"]

    assert learned(["instruct"]) == learned(["think"]) == learned(["think", "instruct"]) == ["instruct", "think"]
    assert learned(["after"]) == learned(["think", "after"]) == ["instruct", "think", "after"]
    assert learned(["think", "after"], "some/model") == ["think", "after"]


@pytest.mark.parametrize(
    "left_out",
    ["attack", "transfer", "sanity", "towers", "certify", "stress", "turns", "redteam", "defend", "reveal", "retrieve"],
)
def test_an_evaluation_that_is_left_out_has_no_folders_and_no_other_loses_any(study, left_out):
    def folders(study: dict) -> dict[str, list[str]]:
        evaluations = Evaluations(study, "results")
        studied, certified = evaluations.studied, evaluations.certified
        single = ("transfer", "sanity", "towers", "stress", "turns", "redteam", "defend", "reveal", "retrieve")
        kinds = {kind: evaluations.of_every(kind, studied) for kind in single}
        return kinds | {
            "attack": evaluations.sweeps(studied) + evaluations.suite(studied),
            "certify": evaluations.certificates(certified) + evaluations.smoothed(certified),
        }

    less = folders(study | {"evaluations": [name for name in study["evaluations"] if name != left_out]})
    assert less == folders(study) | {left_out: []} and all(folders(study).values())


def test_an_attack_is_given_the_questions_that_it_is_compared_on(study):
    own = {"certify": {"questions": 40}, "stress": {"questions": 50}, "turns": {"questions": 60}}
    study = changed(study, attack={"questions": 90}, **own)
    evaluations = Evaluations(study, "results")

    def asked(attack: str) -> int:
        wildcards = SimpleNamespace(method="sft", variant="think", seed="", attack=attack)
        return json.loads(evaluations.attack_settings(wildcards))["questions"]

    assert {name: asked(name) for name in ("clean", "pgd", "smoothed-linf", "pgd-hint", "pgd-turn")} == {
        "clean": 90, "pgd": 90, "smoothed-linf": 40, "pgd-hint": 50, "pgd-turn": 60,
    }  # fmt: skip


def test_a_replay_on_another_model_has_a_folder_and_a_name_of_its_own_and_need_not_be_the_same(study):
    inputs = SimpleNamespace(attacks=["a", "b"], templates=["t.yaml"])
    for on, model, folder, same in (
        (None, "sft-think", "replay", True),
        ("models/other", "other", "replay-on-other", False),
        ("my models/an o'ther {one}/", "an-o-ther-one-", "replay-on-an-o-ther-one-", False),
    ):
        evaluations = Evaluations(changed(study, attack={"replay_on": on}), "results")
        assert evaluations.replay_model(SFT) == model and evaluations.replay == folder
        assert ("--same" in evaluations.replay_arguments(SFT, inputs)) == same
