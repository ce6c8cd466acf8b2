"""The answers of a model to images that are revealed step by step, and how sure it is of each, told in five ways."""

import logging
import math
from argparse import Namespace
from functools import partial
from itertools import product

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from safemed.certificates.certifier import noisy_classes
from safemed.data.dataset import load_questions, subset
from safemed.data.prompts import FAILED, LETTERS
from safemed.evaluation import results
from safemed.evaluation.arguments import asking, model_columns
from safemed.evaluation.batching import Failure, Halving, for_each
from safemed.evaluation.evaluator import UNPARSABLE, Evaluator
from safemed.evaluation.partial_results import PartialResults
from safemed.evaluation.stress_answers import stored_images
from safemed.models.vlm import VLM
from safemed.stress.reveal import revealed, turns_of_cells
from safemed.stress.reveal_orders import LESION_LAST, SEEDED
from safemed.stress.stress_tests import CLEAN
from safemed.utils import cli
from safemed.utils.draws import draw

log = logging.getLogger(__name__)

FUNCTION = "generate"  # what votes under noise: the text, whose other confidences stand beside its votes
OWN = ("letter", "entropy", "agreement", "noise")  # confidences in the text's answer
HOW = ("cells", "samples", "sigma", "draws")  # settings that a row names


def run(args: Namespace, script: str) -> None:
    """Write the folder args.out: rows.parquet, one row a question, order, kind of image and share; cost.json,
    provenance.json.
    """
    results.write_parts(args, script, "reveal", [args.attack / "rows.parquet"], ask_all)


def ask_all(vlm: VLM, args: Namespace, parts: PartialResults) -> None:
    """Ask the questions at every share of either kind of image that is not among the parts."""
    questions = subset(load_questions(args.data, "test"), args.settings["questions"], args.seed)
    answers = RevealedAnswers(asking(vlm, questions, args), args)
    planned = list(product(answers.images, args.settings["shares"]))
    for number, (seen, share) in enumerate(tqdm(planned, desc="shares", disable=not cli.watched())):
        if not parts.has(number):
            found = answers.asked(seen, share)
            parts.write(number, found)
            log.info("%s, %g of the cells: right %.3f", seen, share, (found.outcome == "right").mean())


class RevealedAnswers:
    """The rows, with the columns REVEAL_ROWS of safemed.report.tables.gradient, of the questions of an evaluator.

    An attacked image is the one that the attack of args.attack stored, uncovered in the same cells as the clean one.
    """

    def __init__(self, plain: Evaluator, args: Namespace):
        self.plain, self.settings, self.seed, self.model = plain, args.settings, args.seed, model_columns(args)
        attacked, self.failed = stored_images(plain, args.attack, args.settings["eps"])
        self.images = {CLEAN: plain.images, args.attack.name: attacked}
        self.halving, self.votes_halving = Halving(), Halving()  # their batches differ in size

    def asked(self, seen: str, share: float) -> pd.DataFrame:
        """Ask all questions about images of which a share is uncovered in seeded order, and those about images whose
        lesion has a known place, uncovered in the other order.
        """
        seeded = self._asked(SEEDED, seen, share)
        if share < 1:
            return pd.concat([seeded, self._asked(LESION_LAST, seen, share)], ignore_index=True)
        known = {self.plain.rows[i]["question_id"] for i in self._turns(LESION_LAST)}
        same = seeded[seeded.question_id.isin(known)].assign(order=LESION_LAST)  # a whole image is so in any order
        return pd.concat([seeded, same], ignore_index=True)

    def _turns(self, order: str) -> dict[int, np.ndarray]:
        """Question -> when its cells are uncovered, of the questions that have the order."""
        cells, side = self.settings["cells"], self.plain.side
        found = {i: turns_of_cells(row, side, cells, order, self.seed) for i, row in enumerate(self.plain.rows)}
        return {i: turns for i, turns in found.items() if turns is not None}

    def _asked(self, order: str, seen: str, share: float) -> pd.DataFrame:
        """The rows of one order; none where no lesion has a known place."""
        turns = self._turns(order)
        if not turns:
            return pd.DataFrame()
        images = [revealed(self.images[seen][i].numpy(), of_cells, share) for i, of_cells in turns.items()]
        shown = self.plain.with_questions([self.plain.rows[i] for i in turns], torch.from_numpy(np.stack(images)))
        unknown = set() if seen == CLEAN else self.failed
        places = [i for i, row in enumerate(shown.rows) if row["question_id"] not in unknown]
        sound = torch.tensor(places, dtype=torch.long)
        batches = shown.batches(sound, self.settings["batch_size"])
        heard = for_each(batches, partial(self._heard, shown, f"{order}:{seen}:{share:g}"), self.halving)
        votes, none = self._votes(shown, sound), Failure("the attack failed")
        condition = {"order": order, "seen": seen, "share": share} | {name: self.settings[name] for name in HOW}
        return pd.DataFrame(
            [
                shown.about(i) | self.model | condition | said(shown, i, heard.get(i, none), votes.get(i, none))
                for i in range(len(shown))
            ]
        )

    def _heard(self, shown: Evaluator, name: str, rows: Tensor) -> list[tuple[str, dict[str, float]]]:
        """The text generated for each of the questions `rows` [b], and its confidences but for that of noise."""
        images, first, places = shown.images[rows], shown.rows[int(rows[0])]["question_id"], rows.tolist()
        texts = shown.answers(images, rows)
        answers = [shown.answer(text, row) for text, row in zip(texts, places, strict=True)]
        agreed = np.zeros(len(places))
        for number in range(self.settings["samples"]):
            sampled = shown.samples(images, rows, draw(self.seed, f"{name}:{first}:{number}", "samples"))
            agreed += np.array([shown.answer(sampled[i], places[i]) == own for i, own in enumerate(answers)])
        found = []
        for i, letters in enumerate(shown.letter_probabilities(images, rows, texts)):
            own = dict.fromkeys(OWN, math.nan)
            if letters is not None:
                own["letter"] = letters[LETTERS.index(answers[i])].item()
                own["entropy"] = certainty(letters, len(shown.rows[places[i]]["options"]))
                own["agreement"] = agreed[i] / self.settings["samples"]
            found.append((texts[i], own))
        return found

    def _votes(self, shown: Evaluator, rows: Tensor) -> dict[int, list[str] | Failure]:
        """Each question of `rows` with the classes of its noisy images, which have the noise of its certificate."""
        n = self.settings["draws"]
        drawn = [(row, number) for row in rows.tolist() for number in range(n)]

        def classes(part: Tensor) -> list[str]:
            return noisy_classes(shown, FUNCTION, self.settings["sigma"], self.seed, [drawn[i] for i in part.tolist()])

        batches = torch.arange(len(drawn)).split(self.settings["draws_at_once"])
        found = for_each(batches if drawn else [], classes, self.votes_halving)
        votes: dict[int, list[str] | Failure] = {}
        for place, row in enumerate(rows.tolist()):
            own = [found[i] for i in range(place * n, (place + 1) * n)]
            votes[row] = next((one for one in own if isinstance(one, Failure)), own)
        return votes


def said(shown: Evaluator, row: int, heard: tuple[str, dict[str, float]] | Failure, votes: list[str] | Failure) -> dict:
    """What a row says of the answers to question `row` and of the confidences: of the text, and of the votes.

    A question of which either could not be evaluated was not evaluated.
    """
    failures = [found for found in (heard, votes) if isinstance(found, Failure)]
    if failures:
        nothing = dict.fromkeys([*OWN, "p_A"], math.nan)
        return shown.about_answer(row, failures[0], "letter") | nothing | {"voted": "", "vote_outcome": FAILED}
    text, own = heard
    made = shown.about_answer(row, (text, own["letter"]), "letter") | own
    voted, share = winner(votes)
    if made["answer"]:
        made["noise"] = votes.count(made["answer"]) / len(votes)
    outcome = "unparsable" if not voted else "right" if voted == shown.rows[row]["gold"] else "wrong"
    return made | {"voted": voted, "vote_outcome": outcome, "p_A": share if voted else math.nan}


def winner(votes: list[str]) -> tuple[str, float]:
    """The class with the most votes, the first of several, as in a certificate; "" where it names no option. And its
    share.
    """
    classes, counts = np.unique(votes, return_counts=True)
    chosen = str(classes[counts.argmax()])
    return "" if chosen == UNPARSABLE else chosen, float(counts.max() / len(votes))


def certainty(letters: Tensor, n_options: int) -> float:
    """1 minus the entropy of the letters' probabilities [8] over that of n_options equal ones: 0 to 1."""
    entropy = torch.special.entr(letters.double()).sum().item()
    return min(1.0, max(0.0, 1 - entropy / math.log(n_options)))
