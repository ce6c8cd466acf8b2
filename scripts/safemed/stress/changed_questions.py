"""Questions changed by the operators of a red team (after DAS, arXiv 2508.00923), which leave each one right option.

A set of operators is always applied to the ORIGINAL question. Seed, question and operators alone decide what comes out.
The operators are those of the stress tests; DAS' inverted questions, whose answer is a set of options, and its
impossible measurements are left out.
"""

import functools
from collections.abc import Collection
from itertools import product

import numpy as np

from safemed.data.clinical_stages import STAGE_OF
from safemed.data.hardening import overlap
from safemed.data.prompts import LETTERS
from safemed.stress import corruptions, hints, marks, question_edits
from safemed.stress.operators import NOTHING, Operator, conflicting, named
from safemed.stress.stress_tests import CLEAN, StressedQuestion, StressInputs

ADDED = (1, 2, 4)  # wrong options more; DAS adds four
MILDEST = 1  # of corruptions.SEVERITIES: what a question asks for is still to be seen


class ChangedQuestions:
    """The questions of stress tests under operators; a question is named by its place in `inputs.rows`."""

    def __init__(self, inputs: StressInputs):
        self.inputs, self.templates, self.seed = inputs, inputs.templates, inputs.seed
        self._corrupted = functools.lru_cache(maxsize=256)(self._corrupt)

    def __len__(self) -> int:
        return len(self.inputs.rows)

    def offered(self, place: int, silent: bool = False) -> list[Operator]:
        """All operators that can be applied to a question, each alone.

        silent: hints and labels claim nothing. Wordings are those that no training draws. An image is not corrupted
        where the question asks for its quality, and no label is offered where an option is too long for it.
        """
        row = self.inputs.rows[place]
        n = len(row["options"])
        claims = [NOTHING] if silent else range(n - 1)
        wordings = [hint.name for hint in self.templates.untaught()]
        made = [("hint", " ".join(one), claim) for *one, claim in product(wordings, hints.POSITIONS, claims)]
        made += [("paraphrase", name) for name in self.templates.paraphrases]
        made += [("order", str(by)) for by in range(1, n)]
        made += [("added", str(count)) for count in ADDED if self._added(row, count)]
        made += [("removed",)] if self._removable(row) else []
        made += [("label", "", claim) for claim in claims if self._labelled(row, place)]
        if STAGE_OF.get(row["question_type"]) != "quality":
            made += [("corruption", kind) for kind in corruptions.CORRUPTIONS]
        return [Operator(*one) for one in made]

    def changed(self, place: int, operators: Collection[Operator]) -> StressedQuestion:
        """A question under a set of operators: options first, then words, then the image.

        Its right option is the original's, or the templates' none_of_these where that was removed. Raises ValueError
        for operators that conflict.
        """
        if conflicting(operators):
            raise ValueError(f"operators that cannot stand in one set: {named(operators)}")
        row, image = self.inputs.rows[place], self.inputs.images[CLEAN][place].numpy()
        by_kind = {one.kind: one for one in operators}
        claim = max((one.claim for one in operators), default=NOTHING)
        text = "" if claim == NOTHING else row["options"][LETTERS.index(self._wrong(row)[claim])]
        row = self._with_options(row, by_kind)
        letter = LETTERS[row["options"].index(text)] if text else ""
        if "paraphrase" in by_kind:
            row = question_edits.paraphrased(row, self.templates.paraphrases[by_kind["paraphrase"].variant])
        if "hint" in by_kind:
            wording, position = by_kind["hint"].variant.rsplit(" ", 1)
            row = hints.claiming(row, self.templates.hints[wording], letter, position)
        if "corruption" in by_kind:
            image = self._corrupted(place, by_kind["corruption"].variant)
        if "label" in by_kind:
            image = self._label(row, image, text or marks.SILENT_LABEL)
        return StressedQuestion(row, image, claimed=letter)

    def _wrong(self, row: dict) -> list[str]:
        """The letters of a question's wrong options, first the one that the stress tests claim."""
        wrong = [letter for letter in LETTERS[: len(row["options"])] if letter != row["gold"]]
        first = wrong.index(hints.claimed(row, "negative", self.seed))
        return [*wrong[first:], *wrong[:first]]

    def _with_options(self, row: dict, by_kind: dict[str, Operator]) -> dict:
        if "removed" in by_kind:
            row = question_edits.removed(row, self.templates.none_of_these)
        if "added" in by_kind:
            row = self._added(row, int(by_kind["added"].variant))
        if "order" in by_kind:
            row = question_edits.moved_on(row, int(by_kind["order"].variant))
        return row

    def _added(self, row: dict, count: int) -> dict | None:
        """With so many wrong options more; None where there are not so many, or no letters for them."""
        others, truths = self.inputs.pool[row["modality"], row["question_type"]], self.inputs.truths[row["image_path"]]
        for _ in range(count):
            row = row and question_edits.distracted(row, others, truths, self.seed)
        return row

    def _removable(self, row: dict) -> bool:
        """Whether "none of these" would be a new option, and the right one."""
        return not any(overlap(option, self.templates.none_of_these) for option in row["options"])

    def _labelled(self, row: dict, place: int) -> bool:
        """Whether a label has room for every option, and for the words that name none."""
        shape = self.inputs.images[CLEAN][place].shape
        return all(_fits(words, tuple(shape)) for words in (*row["options"], marks.SILENT_LABEL))

    def _label(self, row: dict, image: np.ndarray, words: str) -> np.ndarray:
        """Away from the lesion, where its place is known."""
        lesion = tuple(row["box"]) or marks.some_place(image.shape, self.inputs.own(row, "place"))
        return marks.mark(image, "label", lesion, words)

    def _corrupt(self, place: int, kind: str) -> np.ndarray:
        row, image = self.inputs.rows[place], self.inputs.images[CLEAN][place].numpy()
        return corruptions.corrupt(image, kind, MILDEST, self.inputs.own(row, kind))[0]


_fits = functools.cache(marks.fits)
