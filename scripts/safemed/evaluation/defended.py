"""A model behind a defence: its answers through the defence, and the loss of an attack that knows the defence."""

import itertools
from typing import Self

import torch
from torch import Tensor

from safemed.attacks import losses
from safemed.attacks.losses import AttackLoss
from safemed.attacks.views import through
from safemed.data import prompts
from safemed.data.prompts import LETTERS
from safemed.evaluation.defences import Defence
from safemed.evaluation.evaluator import Evaluator
from safemed.utils.draws import draw

ABSTAINED = "abstained"  # an outcome, and the text that stands for it: neither right nor wrong


class DefendedEvaluator(Evaluator):
    """The questions that one model is asked through a defence.

    A text that comes out is the model's own, with the letter that its option has in the question as it was put; or
    ABSTAINED. Whatever a defence draws belongs to seed and question: the same question has the same answer in any
    batch. draws: how many of the defence's askings each step of an attack has, drawn anew (EOT).
    """

    def __init__(self, plain: Evaluator, defence: Defence, seed: int, draws: int, started: Tensor | None = None):
        """plain: the model without a defence, asked the same questions. started: uint8 images [N, H, W, 3] from which
        an attack climbs first.
        """
        vars(self).update(vars(plain))
        self.plain, self.defence, self.seed, self.draws, self.started = plain, defence, seed, draws, started
        asked: dict = {}  # questions in the same words are encoded once
        for one in defence.askings:
            if one.words not in asked:
                asked[one.words] = plain.with_questions([one.words(row) for row in plain.rows], plain.images)
        self.inner = [asked[one.words] for one in defence.askings]

    def with_questions(self, rows: list[dict], images: Tensor) -> Self:
        return type(self)(self.plain.with_questions(rows, images), self.defence, self.seed, self.draws)

    def starts(self, rows: Tensor) -> list[Tensor]:
        """The images that an attack stored before, and the clean ones."""
        return [] if self.started is None else [self.started[rows], self.images[rows]]

    def answers_to(self, images: Tensor, rows: Tensor) -> list[str]:
        if self.defence.rule == "agreement":
            return self._agreed(images, rows)
        heard = [self._heard(number, images, rows) for number in range(len(self.inner))]
        return [self._majority(texts, int(row)) for texts, row in zip(zip(*heard, strict=True), rows, strict=True)]

    def outcome(self, text: str, row: int) -> str:
        """right, wrong, unparsable or ABSTAINED."""
        return ABSTAINED if text == ABSTAINED else super().outcome(text, row)

    def attack_loss(self, name: str, words: list[str], rows: Tensor, place: int = 0, seed: int = 0) -> AttackLoss:
        """The mean of the loss over `draws` of the askings, drawn anew at every call where there are more.

        words: right texts that come out of the defence.
        """
        made = [self._loss_of(i, name, words, rows, place, seed) for i in range(len(self.inner))]
        calls = itertools.count()

        def attack_loss(images: Tensor, part: Tensor) -> tuple[Tensor, Tensor]:
            call = next(calls)
            order = sorted(range(len(made)), key=lambda i: draw(seed, f"{name}:{place}:{call}", f"asking {i}"))
            return losses.expectation([made[i] for i in order[: self.draws]])(images, part)

        return attack_loss

    def _loss_of(self, number: int, name: str, words: list[str], rows: Tensor, place: int, seed: int) -> AttackLoss:
        """The loss of one asking, under fresh noise at every call where its view draws."""
        asking, inner, calls = self.defence.askings[number], self.inner[number], itertools.count()
        put = [self._letter_in(inner, text, int(row)) for text, row in zip(words, rows, strict=True)]
        ids = [self.rows[i]["question_id"] for i in rows.tolist()]

        def names(part: Tensor) -> list[str]:
            call = next(calls)
            return [f"{seed}:{name}:{place}:{ids[i]}:{number}:{call}" for i in part.tolist()]

        return through(inner.attack_loss(name, put, rows, place, seed), asking.view, names)

    def _heard(self, number: int, images: Tensor, rows: Tensor) -> list[str]:
        """The texts of one asking, each with the letter that its option has in the question as it was put."""
        asking, inner = self.defence.askings[number], self.inner[number]
        names = [f"{self.seed}:{self.rows[i]['question_id']}:vote {number}" for i in rows.tolist()]
        texts = inner.answers_to(asking.view(images, names), rows)
        return [self._own_letter(inner, text, int(row)) for text, row in zip(texts, rows, strict=True)]

    def _own_letter(self, inner: Evaluator, text: str, row: int) -> str:
        answer = inner.answer(text, row)
        if not answer:
            return text
        option = inner.rows[row]["options"][LETTERS.index(answer)]
        return prompts.with_letter(text, LETTERS[self.rows[row]["options"].index(option)])

    def _letter_in(self, inner: Evaluator, text: str, row: int) -> str:
        """A text that came out of the defence, with the letter that its option has in an asking."""
        option = self.rows[row]["options"][LETTERS.index(self.answer(text, row))]
        return prompts.with_letter(text, LETTERS[inner.rows[row]["options"].index(option)])

    def _majority(self, texts: tuple[str, ...], row: int) -> str:
        """The first text with the most frequent option, of those that name one; of equals, question and seed choose."""
        answers = [self.answer(text, row) for text in texts]
        if not any(answers):
            return texts[0]
        question = self.rows[row]

        def rank(letter: str) -> tuple[int, int]:
            option = question["options"][LETTERS.index(letter)]
            return -answers.count(letter), draw(self.seed, question["question_id"], f"tie {option}")

        return texts[answers.index(min(filter(None, answers), key=rank))]

    def _agreed(self, images: Tensor, rows: Tensor) -> list[str]:
        """The first text whose answer is that of the asking before it; ABSTAINED where no two in a row agree."""
        found, live = [ABSTAINED] * len(rows), torch.arange(len(rows))
        before = self._heard(0, images, rows)
        for number in range(1, len(self.inner)):
            texts = self._heard(number, images[live.to(images.device)], rows[live])
            answers = [(self.answer(old, int(row)), self.answer(new, int(row)))
                       for old, new, row in zip(before, texts, rows[live], strict=True)]  # fmt: skip
            agreed = [bool(new) and old == new for old, new in answers]
            for i, text, same in zip(live.tolist(), texts, agreed, strict=True):
                found[i] = text if same else ABSTAINED
            left = torch.tensor([i for i, same in enumerate(agreed) if not same], dtype=torch.long)
            live, before = live[left], [texts[i] for i in left.tolist()]
            if not len(live):
                break
        return found
