"""Chains of evidence (Med-R2 Bench): the questions of an image in the order of the clinical workflow."""

from datasets import Dataset

from safemed.data.clinical_stages import STAGE_OF, STAGES
from safemed.utils.draws import draw


def chains(questions: Dataset, n: int, seed: int) -> Dataset:
    """The chains of evidence of at most n images, ordered by image_path, then stage; empty where no image has one.

    An image's chain holds one question for each stage, the first by question_id; images with fewer than two stages have
    none. Images are drawn by a hash of image_path and seed: few are exchanged where images are added or removed.
    """
    texts = questions.select_columns(["question_id", "image_path", "question_type"]).to_pandas()
    texts["stage"] = texts["question_type"].map(STAGE_OF).map(STAGES.index, na_action="ignore")
    texts = texts.dropna(subset="stage").sort_values(["image_path", "stage", "question_id"])
    texts = texts.drop_duplicates(["image_path", "stage"])
    texts = texts[texts.groupby("image_path")["stage"].transform("size") > 1]
    drawn = sorted(texts["image_path"].unique(), key=lambda path: draw(seed, path, "chain"))[:n]
    return questions.select(texts.index[texts["image_path"].isin(drawn)])
