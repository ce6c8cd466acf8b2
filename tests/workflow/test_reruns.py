"""What runs again after a change of a finished study: what the change has a meaning for, and nothing else."""

import contextlib
from collections import Counter
from pathlib import Path

import pytest
import yaml

from support.paths import SMALLEST_STUDY
from support.settings import SMALLEST
from support.snakemake_runs import plan

LIBRARY = Path("scripts/safemed")
CERTIFY = SMALLEST["certify"]
CERTIFICATES = len(CERTIFY["functions"]) * CERTIFY["shards"]


def to_be_run(study: Path, *configs: Path) -> Counter:
    """The jobs of the smallest study, with further config files."""
    return plan("--configfile", SMALLEST_STUDY, *configs, cwd=study)


def after_change(study: Path, change: str) -> Counter:
    """The jobs under a changed config."""
    file = study / "change.yaml"
    file.write_text(change)
    return to_be_run(study, file)


def after_edit(study: Path, *modules: str, text: str = "EDITED = 1") -> Counter:
    """The jobs after a line was appended to some modules; the edit is undone."""
    with contextlib.ExitStack() as undo:
        for module in modules:
            path = study / module
            undo.callback(path.write_bytes, path.read_bytes())
            path.write_text(f"{path.read_text()}\n{text}\n")
        return to_be_run(study)


def trainings(jobs: Counter) -> set[str]:
    """The rules among the jobs that make models."""
    return {name for name in jobs if name == "make_base" or name.startswith("train_")}


def test_nothing_runs_again_where_nothing_changed(study):
    assert not to_be_run(study)


def test_comments_docstrings_and_formatting_run_nothing_again(study):
    """In modules that every stage imports, and in one that trainings and evaluations share."""
    with contextlib.ExitStack() as undo:
        for name in ("utils/cli.py", "utils/files.py", "attacks/engine.py"):
            path = study / LIBRARY / name
            undo.callback(path.write_bytes, path.read_bytes())
            path.write_text(reworded(path.read_text()))
        assert not to_be_run(study)


def reworded(text: str) -> str:
    """The same code with another docstring, a comment, and other line breaks."""
    assert text.startswith('"""') and "(" in text
    opened = text.index("(", text.index("\ndef ")) + 1
    return f'"""In other words.\n\n{text[3:opened]}\n        # a remark\n        {text[opened:]}\n# a last remark\n'


@pytest.mark.parametrize("module", ["attacks/apgd.py", "attacks/mi_fgsm.py", "attacks/cw.py"])
def test_an_edit_of_an_evaluations_attack_attacks_again_and_trains_nothing(module, study):
    jobs = after_edit(study, LIBRARY / module)
    assert jobs["attack_model"] and jobs["write_report"] == 1 and not trainings(jobs)


def test_an_edit_of_the_hints_trains_no_tower_again(study):
    jobs = after_edit(study, LIBRARY / "stress" / "hints.py")
    assert jobs["stress_model"] == 2 and not {"make_base", "train_tower"} & trainings(jobs)


def test_an_edit_of_the_hardening_trains_nothing_again_where_questions_are_as_published(study):
    assert SMALLEST["data"]["questions"] == "published"
    assert not trainings(after_edit(study, LIBRARY / "data" / "hardening.py"))


def test_an_edit_of_the_rewards_retrains_grpo_and_what_follows_but_not_sft(study):
    jobs = after_edit(study, LIBRARY / "training" / "rewards.py")
    assert trainings(jobs) == {"train_grpo"} and not jobs["prepare"]
    suite = len(SMALLEST["attack"]["suite"]) + len(CERTIFY["attacks"])
    assert (
        jobs["train_grpo"] == 1 and jobs["attack_model"] == suite + 3
    )  # and on clean images, under a hint and in a turn
    assert jobs["certify_model"] == CERTIFICATES == 4
    assert jobs["probe_attacks"] == 1 and jobs["transfer_images"] == 2  # every model is shown its images
    assert jobs["write_report"] == 1


def test_an_edit_of_a_script_runs_its_own_rule_and_what_follows(study):
    jobs = after_edit(study, Path("scripts") / "certify.py")
    assert jobs["certify_model"] == CERTIFICATES and not jobs["attack_model"] and not trainings(jobs)


def test_an_edit_of_the_templates_reruns_what_is_asked_after_them_and_nothing_else(study):
    jobs = after_edit(study, Path(SMALLEST["templates"]), text="# edited")
    assert jobs["attack_model"] == 4 and jobs["stress_model"] == jobs["turns_model"] == 2 and jobs["write_report"] == 1
    assert not trainings(jobs) and not jobs["certify_model"] and not jobs["transfer_images"]


@pytest.mark.parametrize(
    "change",
    [
        "attack: {attacks: {pgd: {steps: 3}, smoothed-linf: {steps: 3}, pgd-hint: {steps: 3}, pgd-turn: {steps: 3}}}",
        "attack: {suite: [noise, fgsm, pgd, mi-fgsm, apgd-t, square, pgd-100]}",
    ],
    ids=["more steps", "one more attack"],
)
def test_a_stronger_attack_of_the_evaluation_trains_nothing_again(change, study):
    jobs = after_change(study, change)
    assert jobs["attack_model"] and jobs["write_report"] == 1 and not trainings(jobs) and not jobs["certify_model"]


def test_a_changed_certificate_certifies_again_and_attacks_nothing(study):
    jobs = after_change(study, "certify: {alpha: 0.01}")
    assert jobs["certify_model"] == CERTIFICATES and jobs["write_report"] == 1
    assert not jobs["attack_model"] and not trainings(jobs)


def test_how_a_training_is_watched_trains_nothing_again(study):
    watched = {
        "monitoring": {"log_steps": 7, "probe": {"times": 3, "questions": 5}, "report_to": ["tensorboard"]},
        "resources": {"train_minutes": 90, "train_mem_mb": 5000},
    }  # fmt: skip
    assert not trainings(after_change(study, yaml.safe_dump(watched)))
