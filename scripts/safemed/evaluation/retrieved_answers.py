"""The answers of a model beside retrieved reports: from a sound corpus, and from corpora with poisons."""

import hashlib
import logging
import math
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

import pandas as pd
import torch
from torch import Tensor

from safemed.data.dataset import load_questions, subset
from safemed.data.prompts import gold_text
from safemed.evaluation import results
from safemed.evaluation.arguments import asking, model_columns
from safemed.evaluation.batching import Failure, Halving, for_each
from safemed.evaluation.evaluator import Evaluator
from safemed.evaluation.partial_results import PartialResults
from safemed.evaluation.stress_answers import stored_images
from safemed.models.vlm import VLM
from safemed.retrieval.corpus import Corpus
from safemed.retrieval.library import Found, Library
from safemed.retrieval.reports import Report, beside
from safemed.stress.hints import Templates, claimed
from safemed.stress.stress_tests import CLEAN
from safemed.utils.draws import draw

log = logging.getLogger(__name__)

NONE = "none"  # no retriever, no reports, no poison
Asked = tuple[dict, Tensor]  # a question as it is put, and the picture [H, W, 3] beside it
Ask = Callable[[Sequence[Asked]], list[str | Failure]]  # the text generated for each


def run(args: Namespace, script: str) -> None:
    """Write the folder args.out: rows.parquet (RAG_ROWS of the report), cost.json, provenance.json."""
    corpora = [folder / "cost.json" for folder in args.corpora]
    results.write_parts(
        args, script, "retrieve", [args.templates, args.attack / "rows.parquet", *corpora], ask_all
    )  # fmt: skip


def ask_all(vlm: VLM, args: Namespace, parts: PartialResults) -> None:
    """Ask the questions under all conditions that are not among the parts, a part for each corpus and its poisons."""
    settings, template = args.settings, Templates.read(args.templates).report
    train, test = (load_questions(args.data, split) for split in ("train", "test"))
    plain = asking(vlm, subset(test, settings["questions"], args.seed), args)
    attacked, failed = stored_images(plain, args.attack, settings["eps"])
    shown = {CLEAN: plain.images, args.attack.name: attacked}
    answers = RetrievedAnswers(plain, Reader(plain, settings["batch_size"]), shown, failed, template, args.seed)
    planned: list[Callable[[], pd.DataFrame]] = [answers.without_reports]
    for weights, folder in zip(args.towers, args.corpora, strict=True):
        tower = VLM.load(weights, settings["precision"])
        tower.passes = vlm.passes
        library = Library(tower, Corpus.read(folder), train, shown, plain.rows, settings, args.seed)
        planned += [partial(one, library, folder.name) for one in conditions(answers, settings)]
    for number, make in enumerate(planned):
        if not parts.has(number):
            parts.write(number, make().assign(**model_columns(args)))
            log.info("%d/%d corpora", number + 1, len(planned))


def conditions(answers: "RetrievedAnswers", settings: dict) -> list[Callable[[Library, str], pd.DataFrame]]:
    """What is asked with one retriever: first of the sound corpus, then of each with poisons."""
    budgets = [*((rate, 0) for rate in settings["rates"]), *((0.0, n) for n in settings["per_question"])]
    return [
        answers.of_sound_corpus,
        *(
            partial(answers.of_poisoned_corpus, kind=kind, rate=rate, per_question=per_question)
            for kind in settings["poisons"]
            for rate, per_question in budgets
        ),
    ]


class Reader:
    """A model that answers questions in batches, equal ones once: equal reports thus have equal answers."""

    def __init__(self, plain: Evaluator, batch_size: int):
        """plain: of the model, whatever its questions."""
        self.plain, self.batch_size, self.halving = plain, batch_size, Halving()
        self.heard: dict[tuple, str | Failure] = {}

    def __call__(self, asked: Sequence[Asked]) -> list[str | Failure]:
        """The text generated for each question."""
        names = [_name(*one) for one in asked]
        new = {name: one for name, one in zip(names, asked, strict=True) if name not in self.heard}
        if new:
            rows, images = zip(*new.values(), strict=True)
            evaluator = self.plain.with_questions(list(rows), torch.stack(images))
            batches = evaluator.batches(torch.arange(len(new)), self.batch_size)
            found = for_each(batches, lambda part: evaluator.answers(evaluator.images[part], part), self.halving)
            self.heard |= {name: found[i] for i, name in enumerate(new)}
        return [self.heard[name] for name in names]


def _name(row: dict, image: Tensor) -> tuple:
    """What is equal for equal questions beside equal pictures."""
    return row["question_id"], row["question"], hashlib.sha256(image.numpy().tobytes()).digest()


class RetrievedAnswers:
    """The rows of a model's answers, with the columns RAG_ROWS of safemed.report.tables.rag but those that name it.

    shown: kind of image -> the questions' images, uint8 [Q, H, W, 3], clean ones first; failed: ids of the questions
    that have none of the other kinds. template: names {report}.
    """

    def __init__(
        self, plain: Evaluator, ask: Ask, shown: dict[str, Tensor], failed: set[str], template: str, seed: int
    ):  # fmt: skip
        self.plain, self.ask, self.shown, self.failed, self.template, self.seed = (
            plain, ask, shown, failed, template, seed,
        )  # fmt: skip
        self.questions = plain.rows

    def without_reports(self) -> pd.DataFrame:
        """The questions as they are, beside each kind of image."""
        nothing: list[list[Found]] = [[] for _ in self.questions]
        return pd.concat([self._rows(nothing, nothing, shown, NONE) for shown in self.shown], ignore_index=True)

    def of_sound_corpus(self, library: Library, retriever: str) -> pd.DataFrame:
        """Beside the reports retrieved by each kind of image; by the clean one, also beside those of other questions,
        and beside those that the model does not contradict.
        """
        tables = []
        for shown in self.shown:
            found = library.sound(shown)
            tables.append(self._rows(found, found, shown, "retrieved"))
            tables.append(self._checked_rows(found, library, shown))
            if shown == CLEAN:
                tables.append(self._rows(found, self._shuffled(found), shown, "shuffled"))
        return pd.concat(tables, ignore_index=True).assign(retriever=retriever)

    def of_poisoned_corpus(
        self, library: Library, retriever: str, kind: str, rate: float, per_question: int
    ) -> pd.DataFrame:
        """Beside the reports that are retrieved once poisons are added. Where every question has some: also beside the
        same reports where those of poisons say nothing of the question's type, and beside those that the model does not
        contradict.
        """
        found = library.poisoned(CLEAN, kind, rate, per_question)
        tables = [self._rows(found, found, CLEAN, "retrieved")]
        if per_question:
            tables.append(self._rows(found, found, CLEAN, "unclaimed"))
            tables.append(self._checked_rows(found, library, CLEAN))
        made = pd.concat(tables, ignore_index=True)
        aimed = Counter(self.questions[place]["question_id"] for place in library.aims(rate, per_question))
        how = {"retriever": retriever, "poison": kind, "rate": rate, "per_question": per_question}
        return made.assign(**how, poisons=aimed.total(), aimed=made.question_id.map(aimed).fillna(0).astype(int))

    def _checked_rows(self, found: list[list[Found]], library: Library, shown: str) -> pd.DataFrame:
        """The rows beside what the model does not contradict; where it could not be asked about that, failed ones."""
        given, unknown = self._checked(found, library)
        return self._rows(found, given, shown, "checked", unknown)

    def _rows(
        self, found: list[list[Found]], given: list[list[Found]], shown: str, reports: str,
        unknown: frozenset[int] = frozenset(),
    ) -> pd.DataFrame:  # fmt: skip
        """A row a question. found: what is retrieved; given: what of it, or else, stands beside the question; unknown:
        the places of questions of which that is not known.
        """
        texts = [self._reports(place, given[place], reports) for place in range(len(self.questions))]
        posed = [beside(row, said, self.template) for row, said in zip(self.questions, texts, strict=True)]
        heard = self._heard(posed, shown)
        heard = [Failure("a check failed") if i in unknown else one for i, one in enumerate(heard)]
        made = []
        for place, question in enumerate(self.questions):
            said = self.plain.about_answer(place, heard[place])
            del said["confidence"]
            row = self.plain.about(place) | {"retriever": NONE, "poison": NONE, "rate": 0.0, "per_question": 0}
            row |= {"shown": shown, "reports": reports, "gold_said": gold_text(question), "poisons": 0, "aimed": 0}
            row |= {
                "claimed": claimed(question, "negative", self.seed), "given": len(given[place]),
                "recalled": any(report.states(question) for report in texts[place]),
                "poisoned": sum(one.poison is not None for one in given[place]),
                "dropped": len(found[place]) - len(given[place]),
            }  # fmt: skip
            made.append(row | said)
        return pd.DataFrame(made)

    def _reports(self, place: int, given: list[Found], reports: str) -> list[Report]:
        if reports != "unclaimed":
            return [one.report for one in given]
        return [one.report.unclaimed(self.questions[place]) if one.poison else one.report for one in given]

    def _heard(self, posed: list[dict], shown: str) -> list[str | tuple[str, float] | Failure]:
        """What the model says to each question beside its image, as `Evaluator.about_answer` reads it."""
        failed = [shown != CLEAN and row["question_id"] in self.failed for row in posed]
        asked = [(row, self.shown[shown][i]) for i, row in enumerate(posed) if not failed[i]]
        texts = iter(self.ask(asked))
        found = [Failure("the attack failed") if out else next(texts) for out in failed]
        return [one if isinstance(one, Failure) else (one, math.nan) for one in found]

    def _shuffled(self, found: list[list[Found]]) -> list[list[Found]]:
        """What is found for another question, in a random round of all of them."""
        order = sorted(range(len(found)), key=lambda i: draw(self.seed, self.questions[i]["question_id"], "shuffled"))
        following = dict(zip(order, [*order[1:], order[0]], strict=True))
        return [found[following[place]] for place in range(len(found))]

    def _checked(self, found: list[list[Found]], library: Library) -> tuple[list[list[Found]], frozenset[int]]:
        """What is found without the reports that the model contradicts; and where it could not be asked about one.

        It is asked the question, without reports, about the picture of each report that gives one of the options; where
        it answers with another one, it contradicts the report. An unparsable answer contradicts nothing.
        """
        judged = [(place, one) for place, several in enumerate(found) for one in several]
        judged = [(place, one) for place, one in judged if one.report.says(self.questions[place])]
        pictures = library.pictures([one for _, one in judged])
        texts = self.ask(
            [(self.questions[place], picture) for (place, _), picture in zip(judged, pictures, strict=True)]
        )
        unknown = frozenset(place for (place, _), text in zip(judged, texts, strict=True) if isinstance(text, Failure))
        contradicted: list[list[Found]] = [[] for _ in found]
        for (place, one), text in zip(judged, texts, strict=True):
            answer = "" if place in unknown else self.plain.answer(text, place)
            if answer and answer != one.report.says(self.questions[place]):
                contradicted[place].append(one)
        left = [
            [one for one in several if not any(one is other for other in contradicted[place])]
            for place, several in enumerate(found)
        ]
        return left, unknown
