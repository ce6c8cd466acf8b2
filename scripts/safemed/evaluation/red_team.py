"""A red team on each question that a model answers rightly: sets of operators, until one makes its answer not right.

After the robustness loop of DAS (arXiv 2508.00923), without a language model. The verdict is that of the generated
text; the margin of the right letter only says what to try next.
"""

import logging
from argparse import Namespace
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from safemed.data.dataset import load_questions, subset
from safemed.data.prompts import FAILED
from safemed.evaluation import results
from safemed.evaluation.arguments import asking, load, model_columns
from safemed.evaluation.batching import Halving, for_each
from safemed.evaluation.evaluator import Evaluator
from safemed.evaluation.partial_results import PartialResults
from safemed.evaluation.strategies import SILENT, STRATEGIES, Prior, Set, Tried
from safemed.models.vlm import VLM
from safemed.stress.changed_questions import ChangedQuestions
from safemed.stress.hints import Templates
from safemed.stress.operators import named
from safemed.stress.stress_tests import CLEAN, StressedQuestion, StressInputs
from safemed.utils import cli, cost

log = logging.getLogger(__name__)

PLAIN, PRIOR = "plain", "prior"  # in place of a strategy: questions as they are; each operator alone, on val

Asked = list[tuple[int, Set]]  # places of questions, and the operators that each is asked under
Ask = Callable[[list[StressedQuestion]], list[dict]]  # what a row says of the question and of the answer to it
Once = Callable[[int, Callable[[], pd.DataFrame]], pd.DataFrame]  # a numbered part, made unless it is stored


def run(args: Namespace, script: str) -> None:
    """Write the folder args.out: rows.parquet (RED_TEAM_ROWS of the report), cost.json, provenance.json."""
    meter, vlm = cost.CostMeter("redteam", args.model), load(args)
    with results.resumable(args, script, meter, vlm, [args.templates], {}) as (folder, parts):
        templates = Templates.read(args.templates)
        test, trial = (_questions(vlm, args, templates, split) for split in ("test", "val"))
        once = partial(_once, parts)
        team = RedTeam(*test, args.settings, args.seed, once)
        alone = once(0, partial(asked_alone, *trial))
        rows = team.rows(learned(alone, trial[0]))
        rows = pd.concat([alone, rows], ignore_index=True).assign(**model_columns(args), templates=templates.version)
        rows.to_parquet(folder / "rows.parquet", index=False)


def _questions(vlm: VLM, args: Namespace, templates: Templates, split: str) -> tuple[ChangedQuestions, Ask]:
    """The questions of a split that are asked, and the model that answers them."""
    settings, everything = args.settings, load_questions(args.data, split)
    n = settings["questions"] if split == "test" else settings["prior_questions"]
    asked = subset(everything, n, args.seed)
    plain = asking(vlm, asked, args)
    table = list(everything.remove_columns("image"))
    inputs = StressInputs(plain.rows, {CLEAN: plain.images}, set(), table, templates, args.seed)
    return ChangedQuestions(inputs), Asker(plain, settings["batch_size"])


def _once(parts: PartialResults, number: int, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """A part that is stored, or else made and stored."""
    if not parts.has(number):
        parts.write(number, make())
    return parts.read(number)


class Asker:
    """A model that is asked changed questions, in batches."""

    def __init__(self, plain: Evaluator, batch_size: int):
        """plain: of the model, whatever its questions."""
        self.plain, self.batch_size, self.halving = plain, batch_size, Halving()

    def __call__(self, asked: list[StressedQuestion]) -> list[dict]:
        """For each question what it was, the outcome of the generated text, and the margin, nan where there is none."""
        images = torch.from_numpy(np.stack([one.image for one in asked]))
        evaluator = self.plain.with_questions([one.row for one in asked], images)
        batches = evaluator.batches(torch.arange(len(asked)), self.batch_size)
        found = for_each(batches, partial(_texts_and_margins, evaluator), self.halving)
        return [
            evaluator.about(i) | {"claimed": one.claimed} | evaluator.about_answer(i, found[i], "margin")
            for i, one in enumerate(asked)
        ]


def _texts_and_margins(evaluator: Evaluator, part: Tensor) -> list[tuple[str, float]]:
    texts = evaluator.answers(evaluator.images[part], part)
    return list(zip(texts, evaluator.margins(evaluator.images[part], part, texts), strict=True))


def asked_alone(questions: ChangedQuestions, ask: Ask) -> pd.DataFrame:
    """Rows of PRIOR: the questions as they are, and under each operator alone, with its first claim and with none."""
    asked: Asked = []
    for place in range(len(questions)):
        offered = [one.first() for silent in (False, True) for one in questions.offered(place, silent)]
        asked += [(place, frozenset()), *((place, frozenset([one])) for one in dict.fromkeys(offered))]
    return _numbered(_answers(questions, ask, asked, PRIOR, 0))


def learned(alone: pd.DataFrame, questions: ChangedQuestions) -> Prior:
    """The mean fall of the margin under each operator alone, over the questions that are right as they are.

    alone: of `asked_alone`. Of an answer without a letter, the whole margin fell; one that failed says nothing.
    """
    offered = [questions.offered(place, silent) for place in range(len(questions)) for silent in (False, True)]
    names = {named([one.first()]): one.first() for some in offered for one in some}
    right = alone[(alone.operators == "") & (alone.outcome == "right")].set_index("question_id").margin
    if right.empty:
        log.warning("no question of val is answered rightly: every operator is expected to do as much as any other")
        return {}
    kept = alone[alone.question_id.isin(right.index) & (alone.operators != "") & (alone.outcome != FAILED)]
    falls = kept.question_id.map(right) - kept.margin.fillna(0.0)
    return {names[name]: fall for name, fall in falls.groupby(kept.operators).mean().items()}


class RedTeam:
    """All strategies on the questions that a model answers rightly as they are.

    questions: that are attacked. ask: the model; where it marks a row as FAILED, the search on that question ends, and
    is no success. settings: strategies, rounds, and budget, the most queries of a question, shared evenly among the
    rounds. once: what keeps the parts of the work, numbered from 1, which a killed job goes on from.

    A round asks all questions that are still answered rightly together; what one is asked depends on no other. Raises
    ValueError where a question has fewer operators than the budget: not all strategies could ask it as often.
    """

    def __init__(self, questions: ChangedQuestions, ask: Ask, settings: dict, seed: int, once: Once):
        self.questions, self.ask, self.settings, self.seed, self.once = questions, ask, settings, seed, once
        self._check_budget()

    def rows(self, prior: Prior) -> pd.DataFrame:
        """One row a query: the questions as they are (PLAIN), then those of each strategy, up to the first that makes a
        question's answer not right, or fails.
        """
        everything = [(place, frozenset()) for place in range(len(self.questions))]
        plain = self.once(1, partial(_answers, self.questions, self.ask, everything, PLAIN, 0))
        right = plain[plain.outcome == "right"].margin.to_dict()  # by place
        tables = [plain]
        for i, strategy in enumerate(tqdm(self.settings["strategies"], desc="strategies", disable=not cli.watched())):
            tables += self._searched(strategy, 2 + i * self.settings["rounds"], right, prior)
        return _numbered(pd.concat(tables, ignore_index=True))

    def _searched(self, strategy: str, number: int, right: dict[int, float], prior: Prior) -> list[pd.DataFrame]:
        """The rows of a strategy's rounds, of which `number` is the first. right: place -> the plain margin."""
        live, tables = {place: self._untried(place, strategy) for place in right}, []
        for round_, n in enumerate(self._shares(), 1):
            sets = {place: STRATEGIES[strategy](tried, prior, round_, n) for place, tried in live.items()}
            asked = [(place, operators) for place, found in sets.items() for operators in found]
            if not asked:
                break
            made = self.once(number + round_ - 1, partial(_answers, self.questions, self.ask, asked, strategy, round_))
            for (place, operators), row in zip(asked, made.itertuples(), strict=True):
                live[place].falls[operators] = right[place] - row.margin
            over = {place for (place, _), outcome in zip(asked, made.outcome, strict=True) if outcome != "right"}
            live = {place: tried for place, tried in live.items() if place not in over}
            tables.append(_to_the_end(made))
            log.info("%s, round %d: %d of %d are still right", strategy, round_, len(live), len(right))
        return tables

    def _check_budget(self) -> None:
        untried = [self._untried(i, name) for i in range(len(self.questions)) for name in self.settings["strategies"]]
        fewest = min(untried, key=lambda tried: len(tried.offered))
        if (n := len(fewest.offered)) < self.settings["budget"]:
            raise ValueError(
                f"redteam.budget: {self.settings['budget']} queries, but question {fewest.name} has {n} operators: one "
                f"at a time, it could not be asked as often; lower the budget to {n} or less"
            )

    def _untried(self, place: int, strategy: str) -> Tried:
        name = self.questions.inputs.rows[place]["question_id"]
        return Tried(name, self.questions.offered(place, strategy == SILENT), self.seed)

    def _shares(self) -> list[int]:
        """The queries of each round, which together are the budget."""
        budget, rounds = self.settings["budget"], self.settings["rounds"]
        return [budget * (i + 1) // rounds - budget * i // rounds for i in range(rounds)]


def _answers(questions: ChangedQuestions, ask: Ask, asked: Asked, strategy: str, round_: int) -> pd.DataFrame:
    """A row for each question asked, in order."""
    rows = ask([questions.changed(place, operators) for place, operators in asked])
    names = [named(operators) for _, operators in asked]
    return pd.DataFrame(rows).assign(strategy=strategy, round=round_, operators=names)


def _to_the_end(made: pd.DataFrame) -> pd.DataFrame:
    """The rows of a round without those of a question after its first that is not right."""
    ended = (made.outcome != "right").astype(int)
    return made[ended.groupby(made.question_id).cumsum() - ended == 0]


def _numbered(rows: pd.DataFrame) -> pd.DataFrame:
    """With `query`: 1, 2, ... for each question under each strategy, 0 for questions as they are."""
    rows = rows.reset_index(drop=True)
    changed = rows.operators != ""
    return rows.assign(query=changed.groupby([rows.strategy, rows.question_id]).cumsum())
