"""The answers of a model in a second turn: each question is asked plainly, and then pushed in every way and wording."""

import logging
from argparse import Namespace

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from safemed.data.dataset import load_questions, subset
from safemed.data.prompts import FAILED
from safemed.evaluation import results, transcripts
from safemed.evaluation.arguments import asking, model_columns
from safemed.evaluation.batching import Failure
from safemed.evaluation.evaluator import Evaluator
from safemed.evaluation.partial_results import PartialResults
from safemed.evaluation.stress_answers import stored_images
from safemed.models.vlm import VLM
from safemed.stress.hints import Templates
from safemed.stress.pushes import PUSHES, Push
from safemed.stress.second_turns import claim_of
from safemed.stress.stress_tests import CLEAN
from safemed.utils import cli

log = logging.getLogger(__name__)


def run(args: Namespace, script: str) -> None:
    """Write the folder args.out: rows.parquet, one row a question, push, wording and kind of image shown at the second
    turn; cost.json, provenance.json.
    """
    results.write_parts(args, script, "turns", [args.templates, args.attack / "rows.parquet"], ask_all)


def ask_all(vlm: VLM, args: Namespace, parts: PartialResults) -> None:
    """Ask and push the questions of every batch that is not among the parts."""
    settings = args.settings
    questions = subset(load_questions(args.data, "test"), settings["questions"], args.seed)
    plain = asking(vlm, questions, args)
    turns = SecondTurns(plain, Templates.read(args.templates), args)
    batches = plain.batches(torch.arange(len(plain)), settings["batch_size"])
    for number, rows in enumerate(tqdm(batches, desc="second turns", disable=not cli.watched())):
        if not parts.has(number):
            parts.write(number, turns.asked(rows))
            log.info("%d/%d batches", number + 1, len(batches))


class SecondTurns:
    """The rows, with the columns TURN_ROWS of safemed.report.tables.turns, of the questions that an evaluator asks.

    The first answer is always the one to the clean image. At the second turn the image is shown as it is, or as the
    attack of args.attack stored it.
    """

    def __init__(self, plain: Evaluator, templates: Templates, args: Namespace):
        self.plain, self.templates, self.seed, self.model = plain, templates, args.seed, model_columns(args)
        attacked, self.failed = stored_images(plain, args.attack, args.settings["eps"])
        self.shown = {CLEAN: plain.images, args.attack.name: attacked}

    def asked(self, rows: Tensor) -> pd.DataFrame:
        """Ask a batch of questions plainly, and then once more after every push."""
        firsts = transcripts.heard(self.plain, [rows])
        made = []
        for seen in self.shown:
            for push in PUSHES:
                for wording in self.templates.wordings(push):
                    made += self._pushed(rows, firsts, seen, push, wording)
        return pd.DataFrame(made)

    def _pushed(self, rows: Tensor, firsts: dict, seen: str, push: str, wording: Push) -> list[dict]:
        claims = {row: claim_of(self.plain.rows[row], push, self.seed) for row in rows.tolist()}
        posed = {row: self._posed(row, firsts[row], seen, wording, claim) for row, claim in claims.items()}
        found = self._heard({row: one for row, one in posed.items() if not isinstance(one, Failure)}, seen)
        how = {"push": push, "wording": wording.name, "taught": wording.train, "templates": self.templates.version}
        made = []
        for row, claim in claims.items():
            first, second = self._said(row, firsts[row]), self._said(row, found.get(row, posed[row]))
            about = self.plain.about(row) | self.model | how | {"seen": seen, "claimed": claim}
            made.append(about | {f"first_{name}": value for name, value in first.items()} | second)
        return made

    def _said(self, row: int, found: transcripts.Heard | Failure) -> dict:
        """What a row says of an answer to question `row`, and whether that is cut."""
        said = self.plain.about_answer(row, found)
        return said | {"cut": said["outcome"] != FAILED and self.plain.cut([said["text"]])[0]}

    def _posed(self, row: int, first, seen: str, wording: Push, claim: str) -> dict | Failure:
        """The question in its second turn, or why it cannot be put."""
        if seen != CLEAN and self.plain.rows[row]["question_id"] in self.failed:
            return Failure("the attack failed")
        return transcripts.second_turn(self.plain, row, first, wording, claim)

    def _heard(self, posed: dict[int, dict], seen: str) -> dict[int, transcripts.Heard | Failure]:
        """The answers to the questions that can be put, by their rows."""
        if not posed:
            return {}
        places = list(posed)
        evaluator = self.plain.with_questions(list(posed.values()), self.shown[seen][places])
        found = transcripts.heard(evaluator, [torch.arange(len(places))])
        return {places[place]: one for place, one in found.items()}
