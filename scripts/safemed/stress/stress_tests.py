"""Stress tests (Med-R2 Bench): the ways in which questions and images are changed, and the questions that result.

A stress test changes the words, the image or both. The seed and the question decide how, not the order of evaluation.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from safemed.data.prompts import LETTERS, gold_text
from safemed.stress import abstention, corruptions, erasure, hints, marks, question_edits
from safemed.stress.erasure import ERASURES, SOUND, Box
from safemed.stress.hints import POLARITIES, POSITIONS, Templates
from safemed.utils.draws import draw

CLEAN = "clean"
OPTION_CHANGES = ("permuted", "removed", "distracted")
PLACES = ("right", "wrong", "normal")  # the lesion's; one beside it; any place of an image without a lesion


@dataclass(frozen=True)
class StressTest:
    """One way of changing questions.

    kind: plain (nothing is changed), hint, protocol (a hint as published benchmarks put it, see `protocols`),
    paraphrase, options, corruption, mark, erasure or abstention (SOUND or an erasure, with abstention offered as the
    last option). name: which one of its kind. polarity: of a hint or a label, else "". severity: of a corruption, else
    0. seen: the image that is shown or changed, CLEAN or an attack's name. position: of POSITIONS, where a hint stands.
    target: of TARGETS, which wrong option is claimed where one is.
    """

    kind: str
    name: str
    polarity: str = ""
    severity: int = 0
    seen: str = CLEAN
    position: str = "first"
    target: int = 1


@dataclass(frozen=True)
class StressedQuestion:
    """A question under a test.

    row: as the prepared questions have them. image: uint8 [H, W, 3]. claimed: the letter that a hint claims, "" where
    none is. ssim: how alike the image is to the one it was made from. failed: whether the attack that made the image
    could not evaluate the question, so that no answer to it may count.
    """

    row: dict
    image: np.ndarray
    claimed: str = ""
    ssim: float = 1.0
    failed: bool = False


def stress_tests(
    templates: Templates, severities: list[int], attack: str, published: bool = False
) -> Iterator[StressTest]:
    """All stress tests of a study, in order; plain questions and hints also with the images that an attack stored.

    published: whether hints are put as the published benchmarks put them, too.
    """
    for seen in (CLEAN, attack):
        yield StressTest("plain", "plain", seen=seen)
        for name in templates.hints:
            yield from (StressTest("hint", name, polarity, seen=seen) for polarity in POLARITIES)
    yield from (StressTest("paraphrase", name) for name in templates.paraphrases)
    yield from (StressTest("options", name) for name in OPTION_CHANGES)
    for kind in corruptions.CORRUPTIONS:
        yield from (StressTest("corruption", kind, severity=severity) for severity in severities)
    for kind in ("box", "arrow"):
        yield from (StressTest("mark", f"{kind}-{place}") for place in PLACES)
    yield from (StressTest("mark", "label", polarity) for polarity in POLARITIES)
    yield from (StressTest("erasure", name) for name in ERASURES)
    yield from (StressTest("abstention", name) for name in (SOUND, *ERASURES))
    if published:
        yield from protocols(templates)


def protocols(templates: Templates) -> Iterator[StressTest]:
    """What published benchmarks ask beside `hint`, on clean images, in wordings that no training draws.

    The further voices before the question and all voices after its options (EchoBench), misleading and silent; and a
    second wrong target of all voices before the question (MedOmni-45).
    """
    for name, hint in templates.all_hints.items():
        if hint.train:
            continue
        positions = POSITIONS if name in templates.further_hints else ("last",)
        for position in positions:
            yield from (StressTest("protocol", name, p, position=position) for p in ("neutral", "negative"))
        yield StressTest("protocol", name, "negative", target=2)


class StressInputs:
    """The evaluation questions, and all that is needed to stress them.

    rows: rows of the prepared questions. images: CLEAN and an attack -> uint8 [N, H, W, 3] in the rows' order. failed:
    question_ids that the attack could not evaluate. everything: rows of the whole split, from which distractors are
    drawn, and all right answers about an image are known.
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

    def stressed(self, test: StressTest) -> list[StressedQuestion]:
        """The questions that can be stressed so: a place that is not known is neither marked nor erased."""
        made = []
        for row, image in zip(self.rows, self.images[test.seen], strict=True):
            failed = test.seen != CLEAN and row["question_id"] in self.failed
            plain = StressedQuestion(row, image.numpy(), failed=failed)
            if (one := getattr(self, f"_{test.kind}")(test, plain)) is not None:
                made.append(one)
        return made

    def _plain(self, test: StressTest, plain: StressedQuestion) -> StressedQuestion:
        return plain

    def _hint(self, test: StressTest, plain: StressedQuestion) -> StressedQuestion:
        put = (test.polarity, self.seed)
        row = hints.hinted(plain.row, self.templates.all_hints[test.name], *put, test.position, test.target)
        return replace(plain, row=row, claimed=hints.claimed(plain.row, *put, test.target))

    def _protocol(self, test: StressTest, plain: StressedQuestion) -> StressedQuestion | None:
        """None where the question has no further wrong option to claim."""
        return self._hint(test, plain) if len(plain.row["options"]) > test.target else None

    def _paraphrase(self, test: StressTest, plain: StressedQuestion) -> StressedQuestion:
        return replace(plain, row=question_edits.paraphrased(plain.row, self.templates.paraphrases[test.name]))

    def _options(self, test: StressTest, plain: StressedQuestion) -> StressedQuestion | None:
        row = plain.row
        if test.name == "permuted":
            return replace(plain, row=question_edits.permuted(row, self.seed))
        if test.name == "removed":
            return replace(plain, row=question_edits.removed(row, self.templates.none_of_these))
        others, truths = self.pool[row["modality"], row["question_type"]], self.truths[row["image_path"]]
        distracted = question_edits.distracted(row, others, truths, self.seed)
        return distracted and replace(plain, row=distracted)

    def _corruption(self, test: StressTest, plain: StressedQuestion) -> StressedQuestion:
        image, ssim = corruptions.corrupt(plain.image, test.name, test.severity, self.own(plain.row, test.name))
        return replace(plain, image=image, ssim=ssim)

    def _mark(self, test: StressTest, plain: StressedQuestion) -> StressedQuestion | None:
        """A box or an arrow that shows the lesion's place, or one without a lesion; or a label."""
        if test.name == "label":
            return self._label(test, plain)
        kind, place = test.name.split("-")
        if (box := self._place(plain, place)) is None:
            return None
        image = marks.mark(plain.image, kind, box)
        return replace(plain, image=image, ssim=corruptions.ssim(plain.image, image))

    def _label(self, test: StressTest, plain: StressedQuestion) -> StressedQuestion | None:
        """A burnt-in label that names an option, or none; None where one of these words is too long for the image."""
        claimed, options = hints.claimed(plain.row, test.polarity, self.seed), plain.row["options"]
        named = options[LETTERS.index(claimed)] if claimed else marks.SILENT_LABEL
        if not all(marks.fits(words, plain.image.shape) for words in (*options, marks.SILENT_LABEL)):
            return None
        lesion = tuple(plain.row["box"]) or marks.some_place(plain.image.shape, self.own(plain.row, "place"))
        image = marks.mark(plain.image, "label", lesion, named)
        return replace(plain, image=image, claimed=claimed, ssim=corruptions.ssim(plain.image, image))

    def _place(self, plain: StressedQuestion, place: str) -> Box | None:
        """One of PLACES, None where the image has not got it."""
        if place != "normal":
            return self._beside(plain, erasure.known(plain.row["box"], plain.image.shape), right=place == "right")
        normal = plain.row["finding"] == "normal"
        return marks.some_place(plain.image.shape, self.own(plain.row, "place")) if normal else None

    def _beside(self, plain: StressedQuestion, lesion: Box | None, right: bool) -> Box | None:
        """The lesion's place, or one as large beside it; None where either is not to be had: both are of the same
        questions.
        """
        if lesion is None:
            return None
        beside = marks.wrong_place(lesion, plain.image.shape, self.own(plain.row, "place"))
        return None if _overlap(lesion, beside) else lesion if right else beside

    def _erasure(self, test: StressTest, plain: StressedQuestion) -> StressedQuestion | None:
        if test.name == "blank":
            image = erasure.blank(plain.image)
        elif test.name == "mismatch":
            return self._mismatched(plain)
        elif (box := self._erased(plain, test.name)) is not None:
            image = erasure.erase(plain.image, box)
        else:
            return None
        return replace(plain, image=image, ssim=corruptions.ssim(plain.image, image))

    def _mismatched(self, plain: StressedQuestion) -> StressedQuestion | None:
        """With the clean image of another of the questions, of another modality; None where all are of one."""
        own = plain.row
        others = {row["image_path"]: i for i, row in enumerate(self.rows) if row["modality"] != own["modality"]}
        if not others:
            return None
        drawn = min(others, key=lambda path: draw(self.seed, own["image_path"], f"mismatch {path}"))
        image = self.images[CLEAN][others[drawn]].numpy()
        return replace(plain, image=image, ssim=corruptions.ssim(plain.image, image))

    def _erased(self, plain: StressedQuestion, name: str) -> Box | None:
        """The place that an erasure fills; None where it is not known, or where nothing would be left to fill it from.

        An organ's box is taken as it is: grown as a lesion's is, many would be the whole image.
        """
        if name == "organ":
            return erasure.known(plain.row["organ"], plain.image.shape)
        if name == "normal":
            return self._place(plain, name)
        lesion = erasure.lesion_box(plain.row, plain.image.shape)
        return self._beside(plain, lesion, right=name == "lesion")

    def _abstention(self, test: StressTest, plain: StressedQuestion) -> StressedQuestion | None:
        shown = plain if test.name == SOUND else self._erasure(test, plain)
        row = abstention.abstainable(plain.row, self.templates.abstain)
        return replace(shown, row=row) if shown and row else None

    def own(self, row: dict, purpose: str) -> str:
        """What seeds a draw for an image: all its questions see the same."""
        return f"{self.seed}:{purpose}:{row['image_path']}"


def _overlap(first: Box, second: Box) -> bool:
    """Whether two boxes share a pixel."""
    return all(max(first[i], second[i]) < min(first[i + 2], second[i + 2]) for i in (0, 1))
