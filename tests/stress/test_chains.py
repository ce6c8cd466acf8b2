"""Which images are asked a chain of evidence, and which of their questions make it up."""

from datasets import Dataset

from safemed.data.clinical_stages import STAGE_OF, STAGES
from safemed.data.dataset import subset
from safemed.data.phantoms.study import WORDINGS
from safemed.stress.chains import chains


def test_the_phantoms_ask_every_stage():
    assert set(WORDINGS) == set(STAGE_OF) and len(STAGES) == 7


def asked(images: dict[str, list[str]]) -> Dataset:
    """Questions of image -> question types, numbered from the last."""
    pairs = [(image, kind) for image, kinds in images.items() for kind in kinds]
    return Dataset.from_list(
        [
            {"question_id": f"q{len(pairs) - i:03d}", "image_path": image, "question_type": kind}
            for i, (image, kind) in enumerate(pairs)
        ]
    )


def test_chains_hold_one_question_a_stage_in_the_order_of_the_workflow():
    several = ["Disease Diagnosis", "Modality Recognition", "Disease Diagnosis", "Other Biological Attributes"]
    questions = asked({"b": several, "a": list(WORDINGS), "one": ["Lesion Grading"], "none": several[-1:] * 2})
    drawn = chains(questions, 10, 0).to_pandas()
    assert drawn.image_path.tolist() == ["a"] * 7 + ["b"] * 2
    assert drawn.question_type.map(STAGE_OF).tolist() == [*STAGES, "modality", "diagnosis"]
    diagnoses = questions.to_pandas().query("image_path == 'b' and question_type == 'Disease Diagnosis'")
    assert drawn.question_id.tolist()[-1] == diagnoses.question_id.min()


def test_chains_are_drawn_by_image_whatever_the_order():
    questions = asked({f"image {i}": ["Modality Recognition", "Disease Diagnosis"] for i in range(40)})
    drawn = chains(questions, 10, 0)
    assert len(set(drawn["image_path"])) == 10 and len(drawn) == 20
    assert chains(questions.shuffle(seed=1), 10, 0).to_list() == drawn.to_list()
    assert set(chains(questions, 5, 0)["image_path"]) < set(drawn["image_path"])
    assert set(chains(questions, 10, 1)["image_path"]) != set(drawn["image_path"])
    fewer = subset(questions, 0, 0)
    assert len(chains(fewer, 10, 0)) == 0
