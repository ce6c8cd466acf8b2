"""SFT on the real trainer: what its loss pass sees, on what its loss is, and stepwise targets."""

import pandas as pd
import pytest
import torch
from datasets import Dataset
from trl import SFTConfig

from safemed.data import prompts
from safemed.data.dataset import FEATURES, load_questions
from safemed.models.processor import load_processor
from safemed.models.vlm import load_weights
from safemed.report.tables.targets import targets as targets_table
from safemed.training import common, targets
from safemed.training.augmentation import Augmentation
from safemed.training.sft import AugmentedSFTTrainer, AugmentingCollator
from support.commands import here
from support.grpo_trainers import Recorder, nearest
from support.settings import ADVERSARIAL, FARE, GRPO, LORA, TRAINING
from support.trainings import changed_tensors, plain_rows, trainer_arguments, training_arguments, weights

EPS = 8


@pytest.mark.parametrize("kind", ["clean", "noisy", "adversarial"])
def test_sfts_loss_pass_sees_the_augmentation(tiny_model, questions, tmp_path, kind):
    augmentation = {
        "clean": Augmentation(),
        "noisy": Augmentation("noisy", sigma=0.1),
        "adversarial": Augmentation(**ADVERSARIAL),
    }[kind]
    processor = load_processor(tiny_model)
    settings = {**TRAINING, "steps": 2, "batch_size": 4, "save_steps": 100}
    trainer = AugmentedSFTTrainer(
        model=load_weights(tiny_model),
        args=SFTConfig(**trainer_arguments(tmp_path, settings), max_length=None),
        train_dataset=plain_rows(questions, "think"),
        processing_class=processor,
        data_collator=AugmentingCollator(processor),
        augmentation=augmentation,
    )
    recorder = Recorder()
    recorder.watch(trainer.vlm.visual, trainer.vlm, "policy")
    trainer.train()
    passes = recorder.seen["policy", "step"]
    trained = torch.cat([images for images, training, _ in passes if training])
    assert len(trained) == 2 * 4
    _, distance = nearest(trained, questions, trainer.vlm)
    if kind == "clean":
        assert len(passes) == 2 and distance.max() < 0.01
    else:
        assert distance.min() > 0.5
    if kind == "adversarial":
        assert distance.max() < EPS + 0.01 and len(passes) == 2 * (1 + ADVERSARIAL["steps"])
    assert trainer.model.training and all(p.requires_grad for p in trainer.model.parameters())


def test_sfts_loss_is_on_the_completion_alone(tiny_model, questions):
    rows = plain_rows(questions, "instruct")
    processor = load_processor(tiny_model)
    batch = AugmentingCollator(processor)([rows[i] for i in range(4)])
    for labels, row in zip(batch["labels"], rows, strict=False):
        text = processor.tokenizer.decode(labels[labels != -100])
        assert text == row["target"] + "<|im_end|>"


def question(number: int, image: str, kind: str, gold: str, **more) -> dict:
    """A question whose right answer is its second option."""
    empty = dict.fromkeys(FEATURES, "") | {"box": [], "organ": [], "image": None}
    asked = {"question_type": kind, "question": "What?", "options": ["wrong", gold], "gold": "B"}
    return (
        empty | asked | {"question_id": f"q{number}", "image_path": image, "modality": "CT", "finding": "nodule"} | more
    )


STUDY = [
    question(1, "a.png", "Disease Diagnosis", "nodule"),
    question(2, "a.png", "Lesion Grading", "large"),
    question(3, "a.png", "Anatomy Identification", "lungs"),
    question(4, "a.png", "Modality Recognition", "CT"),
    question(5, "a.png", "Modality Recognition", "tomography"),  # the first of a stage counts
    question(6, "a.png", "Other Biological Attributes", "shape"),  # no stage
    question(7, "b.png", "Disease Diagnosis", "cyst"),  # of another image
    question(8, "b.png", "Lesion Presence", "lesion"),
    question(9, "b.png", "Lesion Localization", "upper left"),
    question(10, "b.png", "Image Quality", "clear"),
]
THOUGHTS = {
    "q1": "CT, lungs, large: nodule",
    "q2": "CT, lungs: large",
    "q3": "CT: lungs",
    "q4": "CT",
    "q5": "tomography",
    "q6": "shape",
    "q7": "clear, lesion, upper left: cyst",
    "q8": "clear: lesion",
    "q9": "clear, lesion: upper left",
    "q10": "clear",
}


@pytest.mark.parametrize("kind", ["plain", "stepwise"])
def test_a_step_towards_an_answer_before_its_thought_trains(study_data, tiny_model, tmp_path, kind):
    settings = {**TRAINING, "steps": 1, "targets": kind, "max_new_tokens": {"after": 48}}
    here("train_sft.py", *training_arguments(study_data, tiny_model, tmp_path, "after"), settings=settings)
    assert changed_tensors(tmp_path / "model", tiny_model)
    rows = plain_rows(load_questions(study_data, "train").select(range(3)), "after").remove_columns("image")
    assert all(row["target"].startswith(f"<answer> {row['gold']} </answer><think> ") for row in rows)
    assert all(prompts.INSTRUCTIONS["after"] in row["prompt"][0]["content"][1]["text"] for row in rows)


@pytest.mark.parametrize("order", [1, -1])
def test_a_stepwise_thought_goes_through_the_right_answers_of_the_stages_before_its_own(order):
    asked = Dataset.from_list(STUDY[::order], features=FEATURES)
    rows = common.training_rows(asked, "think", targets.stepwise(asked, asked, "think"))
    expected = {name: f"<think> {thought} </think><answer> B </answer>" for name, thought in THOUGHTS.items()}
    assert {row["question_id"]: row["target"] for row in rows.remove_columns("image")} == expected
    plain = plain_rows(asked, "think").remove_columns("image")
    assert {row["target"] for row in plain if row["question_id"] == "q1"} == {
        "<think> CT, nodule: nodule </think><answer> B </answer>"
    }
    assert all(prompts.well_formed(prompts.parse(target, 2, "think"), "think") for target in expected.values())


def test_stepwise_sft_trains_on_the_whole_images_and_ends_elsewhere_than_plain_sft(study_data, tiny_model, tmp_path):
    """Trained on diagnoses alone, thoughts still go through the other questions of the training split."""
    only = {"question_type": "Disease Diagnosis"}
    for kind in ("plain", "stepwise"):
        settings = {**TRAINING, "steps": 3, "targets": kind, "train_on": only}
        given = training_arguments(study_data, tiny_model, tmp_path / kind, "think")
        here("train_sft.py", *given, settings=settings)
    assert weights(tmp_path / "plain") != weights(tmp_path / "stepwise")
    asked = load_questions(study_data, "train", only)
    earlier = targets.earlier_answers(load_questions(study_data, "train"))
    assert any(len(earlier[name]) >= 2 for name in asked["question_id"])


def sampled_targets(study_data, start, out, variant="think", **changes) -> pd.DataFrame:
    """What sample_targets.py writes of a start model, in rounds of batches of nine."""
    settings = {"target_samples": 2, "train_on": None, "batch_size": 9, "precision": "fp32"}
    settings |= {"max_new_tokens": {"instruct": 8, "think": 24, "after": 24}, **changes}
    model = ["--weights", start, "--model", f"own-{variant}", "--method", "own", "--variant", variant]
    here("sample_targets.py", "--data", study_data, *model, "--out", out, settings=settings)
    return pd.read_parquet(out / "rows.parquet")


@pytest.mark.parametrize("variant", prompts.THINKING)
def test_own_targets_are_the_start_models_right_answers_and_no_others(learned, skilled_in_all, tmp_path, variant):
    start = skilled_in_all.model.name_or_path
    rows = sampled_targets(learned, start, tmp_path / "targets", variant)
    questions = load_questions(learned, "train")
    assert rows.question_id.tolist() == list(questions["question_id"])
    for row, asked in zip(rows.itertuples(), questions.remove_columns("image"), strict=True):
        read = prompts.parse(row.target, len(asked["options"]), variant)
        assert (row.target == "") == (row.tokens == 0) and 1 <= row.samples <= 2
        if row.target:
            assert read.answer == asked["gold"] and prompts.well_formed(read, variant)
        else:
            assert row.samples == 2
    found = targets.own(questions, tmp_path / "targets")
    assert 0 < len(found) < len(rows) and len(set(found.values())) > 3
    table = targets_table(rows)
    assert table.with_target.tolist() == [len(found)] and table.share[0] == len(found) / len(rows)
    taught = common.training_rows(questions, variant, found).remove_columns("image")
    assert {row["question_id"]: row["target"] for row in taught} == found


def test_sft_learns_its_start_models_own_answers_and_resumes_from_no_others(learned, skilled_in_all, tmp_path):
    start = skilled_in_all.model.name_or_path
    sampled_targets(learned, start, tmp_path / "targets")
    settings = {**TRAINING, "steps": 2, "targets": "own", "max_new_tokens": {"instruct": 8, "think": 24}}
    given = training_arguments(learned, start, tmp_path / "own", "think")
    here("train_sft.py", *given, "--targets", tmp_path / "targets", settings=settings)
    plain = training_arguments(learned, start, tmp_path / "plain", "think")
    here("train_sft.py", *plain, settings={**settings, "targets": "plain"})
    assert weights(tmp_path / "own") != weights(tmp_path / "plain")


def test_a_start_model_that_is_never_right_teaches_nothing(learned, tiny_model, tmp_path):
    rows = sampled_targets(learned, tiny_model, tmp_path / "targets", target_samples=1)
    assert (rows.target == "").all() and rows.cut.sum() > 0
    with pytest.raises(ValueError, match="raise target_samples"):
        targets.own(load_questions(learned, "train"), tmp_path / "targets")
    only = load_questions(learned, "train").select(range(3))
    with pytest.raises(ValueError, match="other questions"):
        targets.own(only, tmp_path / "targets")


@pytest.mark.parametrize(
    "script, settings",
    [
        ("train_sft.py", TRAINING),
        ("train_tower.py", FARE),
        ("train_grpo.py", GRPO),
        ("train_grpo.py", {**GRPO, "completions": "targets"}),
    ],
    ids=["sft", "fare", "grpo", "at-sft"],
)
def test_targets_that_the_model_could_never_write_are_refused_before_training(
    study_data, tiny_model, tmp_path, script, settings
):
    settings = {**settings, "max_new_tokens": {"instruct": 8, "think": 9}}
    with pytest.raises(SystemExit, match=r"config: max_new_tokens\.think: 9; \d+ of \d+ targets .* raise it to \d\d"):
        here(script, *training_arguments(study_data, tiny_model, tmp_path, "think"), settings=settings)
    assert not (tmp_path / "model").exists()


def test_dropout_of_adapters_is_not_in_grpos_loss(study_data, tiny_model, tmp_path):
    """The policy that is updated is the one that rollouts were drawn from: dropout changes nothing."""
    for dropout in (0.0, 0.9):
        settings = {**GRPO, "steps": 2, "peft": {**LORA, "dropout": dropout}, "vision_optimizer": "adamw"}
        given = training_arguments(study_data, tiny_model, tmp_path / str(dropout))
        here("train_grpo.py", *given, settings=settings)
    assert weights(tmp_path / "0.0") == weights(tmp_path / "0.9")
