"""The stages of the chain of evidence (Med-R2), and the question types that ask for them."""

# "Other Biological Attributes" (the eye's axis, the shape of cells) is no step of the workflow. "Lesion Grading" is the
# phantoms' size of a lesion; OmniMedVQA asks for the stage or grade of a disease under that name, at the same step.
STAGE_OF = {
    "Image Quality": "quality",
    "Modality Recognition": "modality",
    "Anatomy Identification": "anatomy",
    "Lesion Presence": "presence",
    "Lesion Localization": "place",
    "Lesion Grading": "size",
    "Disease Diagnosis": "diagnosis",
}
STAGES = tuple(STAGE_OF.values())  # in the order of the workflow
PRESUPPOSES = ("place", "size")  # stages whose questions say that there is a lesion
LESION_STAGES = ("presence", *PRESUPPOSES)


def presupposes_lesion(question_type: str) -> bool:
    """Whether a question has no answer where there is no lesion; presence and diagnosis can be "no" and "normal"."""
    return STAGE_OF.get(question_type) in PRESUPPOSES


def about(question_type: str) -> str:
    """Whether a question is about the lesion, "lesion", or can be told from what surrounds it, "context"."""
    return "lesion" if STAGE_OF.get(question_type) in (*LESION_STAGES, "diagnosis") else "context"
