"""Words and cues as the attack (Med-R2 Bench): the conditions a model is asked under, and what they make of a question.

A condition alters the words, the image or both; the seed and the question decide how, never the order of evaluation.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from datasets import Dataset

from safemed.data.clinical_stages import STAGE_OF, STAGES
from safemed.data.prompts import LETTERS, gold_text
from safemed.stress import abstention, corruptions, erasure, hints, marks, question_edits
from safemed.stress.erasure import ERASURES, SOUND, Box
from safemed.stress.hints import POLARITIES, Templates
from safemed.utils.draws import lot

CLEAN = "clean"
OPTION_CHANGES = ("permuted", "removed", "distracted")
PLACES = ("right", "wrong", "normal")  # the lesion's; one beside it; any place of an image without a lesion


@dataclass(frozen=True)
class Condition:
    """What is altered, and how.

    kind: plain, hint, paraphrase, options, corruption, mark, erasure or abstention (SOUND or an erasure, with
    abstention offered as the last option). name: which one of its kind. polarity: of a hint or a label, else "".
    severity: of a corruption, else 0. seen: whose image is altered or shown, CLEAN or the name of an attack.
    """

    kind: str
    name: str
    polarity: str = ""
    severity: int = 0
    seen: str = CLEAN


@dataclass(frozen=True)
class Altered:
    """A question under a condition.

    row: as the prepared questions have them. image: uint8 [H, W, 3]. claimed: the letter that a hint claims, "" where
    none is. ssim: how alike the image is to the one it was made from. failed: whether the attack that made the image
    could not evaluate the question, so that no answer to it may count.
    """

    row: dict
    image: np.ndarray
    claimed: str = ""
    ssim: float = 1.0
    failed: bool = False


def conditions(templates: Templates, severities: list[int], attack: str) -> Iterator[Condition]:
    """All conditions of a study, in order; those with words alone also on the attack's stored images."""
    for seen in (CLEAN, attack):
        yield Condition("plain", "plain", seen=seen)
        for name in templates.hints:
            yield from (Condition("hint", name, polarity, seen=seen) for polarity in POLARITIES)
    yield from (Condition("paraphrase", name) for name in templates.paraphrases)
    yield from (Condition("options", name) for name in OPTION_CHANGES)
    for kind in corruptions.CORRUPTIONS:
        yield from (Condition("corruption", kind, severity=severity) for severity in severities)
    for kind in ("box", "arrow"):
        yield from (Condition("mark", f"{kind}-{place}") for place in PLACES)
    yield from (Condition("mark", "label", polarity) for polarity in ("positive", "negative"))
    yield from (Condition("erasure", name) for name in ERASURES)
    yield from (Condition("abstention", name) for name in (SOUND, *ERASURES))


def chains(questions: Dataset, n: int, seed: int) -> Dataset:
    """The chains of evidence of at most n images drawn by a hash of image_path, ordered by image_path, then stage.

    An image's chain holds one question a stage, the first by question_id; images with fewer than two stages have none.
    An image's rank does not depend on the others, so few change when images come or go. Empty where no image has one.
    """
    texts = questions.select_columns(["question_id", "image_path", "question_type"]).to_pandas()
    texts["stage"] = texts["question_type"].map(STAGE_OF).map(STAGES.index, na_action="ignore")
    texts = texts.dropna(subset="stage").sort_values(["image_path", "stage", "question_id"])
    texts = texts.drop_duplicates(["image_path", "stage"])
    texts = texts[texts.groupby("image_path")["stage"].transform("size") > 1]
    drawn = sorted(texts["image_path"].unique(), key=lambda path: lot(path, seed))[:n]
    return questions.select(texts.index[texts["image_path"].isin(drawn)])


class Material:
    """The evaluation questions, and all that is needed to alter them.

    rows: rows of the prepared questions. images: CLEAN and an attack -> uint8 [N, H, W, 3] in the rows' order. failed:
    question_ids that the attack could not evaluate. everything: rows of the whole split, which distractors are drawn
    from, and which tell all that is right for an image.
    """

    def __init__(
        self, rows: list[dict], images: dict[str, torch.Tensor], failed: set[str], everything: list[dict],
        templates: Templates, seed: int,
    ):  # fmt: skip
        self.rows, self.images, self.failed, self.templates, self.seed = rows, images, failed, templates, seed
        self.pool: dict[tuple, set[str]] = {}
        self.truths: dict[str, set[str]] = {}
        for row in everything:
            self.pool.setdefault((row["modality"], row["question_type"]), set()).update(row["options"])
            self.truths.setdefault(row["image_path"], set()).add(gold_text(row))

    def altered(self, condition: Condition) -> list[Altered]:
        """The questions that the condition can be put to: where a place is not known, it is not marked or erased."""
        made = []
        for row, image in zip(self.rows, self.images[condition.seen], strict=True):
            failed = condition.seen != CLEAN and row["question_id"] in self.failed
            plain = Altered(row, image.numpy(), failed=failed)
            if (one := getattr(self, f"_{condition.kind}")(condition, plain)) is not None:
                made.append(one)
        return made

    def _plain(self, condition: Condition, plain: Altered) -> Altered:
        return plain

    def _hint(self, condition: Condition, plain: Altered) -> Altered:
        claimed = hints.claimed(plain.row, condition.polarity, self.seed)
        row = hints.hinted(plain.row, self.templates.hints[condition.name], condition.polarity, self.seed)
        return replace(plain, row=row, claimed=claimed)

    def _paraphrase(self, condition: Condition, plain: Altered) -> Altered:
        return replace(plain, row=question_edits.paraphrased(plain.row, self.templates.paraphrases[condition.name]))

    def _options(self, condition: Condition, plain: Altered) -> Altered | None:
        row = plain.row
        if condition.name == "permuted":
            return replace(plain, row=question_edits.permuted(row, self.seed))
        if condition.name == "removed":
            return replace(plain, row=question_edits.removed(row, self.templates.none_of_these))
        others, truths = self.pool[row["modality"], row["question_type"]], self.truths[row["image_path"]]
        distracted = question_edits.distracted(row, others, truths, self.seed)
        return distracted and replace(plain, row=distracted)

    def _corruption(self, condition: Condition, plain: Altered) -> Altered:
        image, ssim = corruptions.corrupt(
            plain.image, condition.name, condition.severity, self._own(plain.row, condition.name)
        )
        return replace(plain, image=image, ssim=ssim)

    def _mark(self, condition: Condition, plain: Altered) -> Altered | None:
        """A burnt-in label names an option; a box or an arrow shows the lesion's place, or one without a lesion."""
        if condition.name == "label":
            claimed = hints.claimed(plain.row, condition.polarity, self.seed)
            named = plain.row["options"][LETTERS.index(claimed)]
            if not all(marks.fits(option, plain.image.shape) for option in plain.row["options"]):
                return None
            lesion = tuple(plain.row["box"]) or marks.some_place(plain.image.shape, self._own(plain.row, "place"))
            image = marks.mark(plain.image, "label", lesion, named)
            return replace(plain, image=image, claimed=claimed, ssim=corruptions.ssim(plain.image, image))
        kind, place = condition.name.split("-")
        if (box := self._place(plain, place)) is None:
            return None
        image = marks.mark(plain.image, kind, box)
        return replace(plain, image=image, ssim=corruptions.ssim(plain.image, image))

    def _place(self, plain: Altered, place: str) -> Box | None:
        """One of PLACES, None where the image has not got it."""
        if place != "normal":
            return self._beside(plain, erasure.known(plain.row["box"], plain.image.shape), right=place == "right")
        normal = plain.row["finding"] == "normal"
        return marks.some_place(plain.image.shape, self._own(plain.row, "place")) if normal else None

    def _beside(self, plain: Altered, lesion: Box | None, right: bool) -> Box | None:
        """The lesion's place, or one as large beside it; None where either is not to be had: both are of the same
        questions.
        """
        if lesion is None:
            return None
        beside = marks.wrong_place(lesion, plain.image.shape, self._own(plain.row, "place"))
        return None if _overlap(lesion, beside) else lesion if right else beside

    def _erasure(self, condition: Condition, plain: Altered) -> Altered | None:
        if condition.name == "blank":
            image = erasure.blank(plain.image)
        elif (box := self._erased(plain, condition.name)) is not None:
            image = erasure.erase(plain.image, box)
        else:
            return None
        return replace(plain, image=image, ssim=corruptions.ssim(plain.image, image))

    def _erased(self, plain: Altered, name: str) -> Box | None:
        """The place that an erasure fills; None where it is not known, or where nothing would be left to fill it from.

        An organ's box is taken as it is: grown as a lesion's is, many would be the whole image.
        """
        if name == "organ":
            return erasure.known(plain.row["organ"], plain.image.shape)
        if name == "normal":
            return self._place(plain, name)
        lesion = erasure.lesion_box(plain.row, plain.image.shape)
        return self._beside(plain, lesion, right=name == "lesion")

    def _abstention(self, condition: Condition, plain: Altered) -> Altered | None:
        shown = plain if condition.name == SOUND else self._erasure(condition, plain)
        row = abstention.abstainable(plain.row, self.templates.abstain)
        return replace(shown, row=row) if shown and row else None

    def _own(self, row: dict, purpose: str) -> str:
        """What seeds a draw for an image: all its questions see the same."""
        return f"{self.seed}:{purpose}:{row['image_path']}"


def _overlap(first: Box, second: Box) -> bool:
    """Whether two boxes share a pixel."""
    return all(max(first[i], second[i]) < min(first[i + 2], second[i + 2]) for i in (0, 1))
