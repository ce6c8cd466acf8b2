"""SFT on the real trainer: what its loss pass sees, on what its loss is, and stepwise targets."""

import pytest
import torch
from datasets import Dataset
from trl import SFTConfig

from safemed.data import prompts
from safemed.data.dataset import FEATURES, load_questions
from safemed.models.processor import load_processor
from safemed.models.vlm import load_weights
from safemed.training import common
from safemed.training.augmentation import Augmentation
from safemed.training.sft import AugmentedSFTTrainer, AugmentingCollator, earlier_answers
from support.commands import here
from support.grpo_trainers import Recorder, nearest
from support.settings import ADVERSARIAL, TRAINING
from support.trainings import trainer_arguments, training_arguments, weights

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
        train_dataset=common.training_rows(questions, "think"),
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
    rows = common.training_rows(questions, "instruct")
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


@pytest.mark.parametrize("order", [1, -1])
def test_a_stepwise_thought_goes_through_the_right_answers_of_the_stages_before_its_own(order):
    asked = Dataset.from_list(STUDY[::order], features=FEATURES)
    rows = common.training_rows(asked, "think", earlier_answers(asked))
    expected = {name: f"<think> {thought} </think><answer> B </answer>" for name, thought in THOUGHTS.items()}
    assert {row["question_id"]: row["target"] for row in rows.remove_columns("image")} == expected
    plain = common.training_rows(asked, "think").remove_columns("image")
    assert {row["target"] for row in plain if row["question_id"] == "q1"} == {
        "<think> CT, nodule: nodule </think><answer> B </answer>"
    }
    assert all(prompts.well_formed(prompts.parse(target, 2), "think") for target in expected.values())


def test_stepwise_sft_trains_on_the_whole_images_and_ends_elsewhere_than_plain_sft(study_data, tiny_model, tmp_path):
    """Trained on diagnoses alone, thoughts still go through the other questions of the training split."""
    only = {"question_type": "Disease Diagnosis"}
    for targets in ("plain", "stepwise"):
        settings = {**TRAINING, "steps": 3, "targets": targets, "train_on": only}
        given = training_arguments(study_data, tiny_model, tmp_path / targets, "think")
        here("train_sft.py", *given, settings=settings)
    assert weights(tmp_path / "plain") != weights(tmp_path / "stepwise")
    asked = load_questions(study_data, "train", only)
    earlier = earlier_answers(load_questions(study_data, "train"))
    assert any(len(earlier[name]) >= 2 for name in asked["question_id"])
