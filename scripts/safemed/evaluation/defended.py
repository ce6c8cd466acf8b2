"""A model behind a defence: its answers through the defence, and the loss of an attack that knows the defence."""

import itertools
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from safemed.attacks.losses import AttackLoss
from safemed.attacks.views import through
from safemed.data import prompts
from safemed.data.prompts import LETTERS
from safemed.evaluation.defences import Defence
from safemed.evaluation.evaluator import Evaluator
from safemed.models.geometry import to_float
from safemed.utils.draws import draw

ABSTAINED = "abstained"  # an outcome, and the text that stands for it: neither right nor wrong


class DefendedEvaluator(Evaluator):
    """The questions that one model is asked through a defence.

    A text that comes out is the model's own, with the letter that its option has in the question as it was put; or
    ABSTAINED. Whatever a defence draws belongs to seed and question: the same question has the same answer in any
    batch. Each step of an attack climbs the mean over all askings; of those under noise, which is drawn anew for every
    step (EOT), over `draws`.
    """

    def __init__(self, plain: Evaluator, defence: Defence, seed: int, draws: int, started: Sequence[Tensor] = ()):
        """plain: the model without a defence, asked the same questions. started: for each of the first restarts, the
        uint8 images [N, H, W, 3] from which it climbs.
        """
        vars(self).update(vars(plain))
        self.plain, self.defence, self.seed, self.draws, self.started = plain, defence, seed, draws, started
        self._clean_texts: dict[tuple[int, int], str] = {}  # asking and question -> what is said to the clean image
        asked: dict = {}  # questions in the same words are encoded once
        for one in defence.askings:
            if one.words not in asked:
                asked[one.words] = plain.with_questions([one.words(row) for row in plain.rows], plain.images)
        self.inner = [asked[one.words] for one in defence.askings]

    def with_questions(self, rows: list[dict], images: Tensor) -> Self:
        return type(self)(self.plain.with_questions(rows, images), self.defence, self.seed, self.draws)

    def starts(self, rows: Tensor) -> list[Tensor]:
        """The 8-bit images that the first restarts of every loss climb from, [b, H, W, 3] each."""
        return [images[rows] for images in self.started]

    def answers_to(self, images: Tensor, rows: Tensor) -> list[str]:
        if self.defence.rule == "agreement":
            return self._agreed(images, rows)
        heard = [self._heard(number, images, rows) for number in range(len(self.inner))]
        return [self._majority(texts, int(row)) for texts, row in zip(zip(*heard, strict=True), rows, strict=True)]

    def outcome(self, text: str, row: int) -> str:
        """right, wrong, unparsable or ABSTAINED."""
        return ABSTAINED if text == ABSTAINED else super().outcome(text, row)

    def attack_loss(self, name: str, words: list[str], rows: Tensor, place: int = 0, seed: int = 0) -> AttackLoss:
        """The mean of the loss over the askings; a row looks broken where the defence's rule then has no right answer.

        words: right texts that come out of the defence.
        """
        made = [self._loss_of(i, name, words, rows, place, seed) for i in self._climbed()]

        def attack_loss(images: Tensor, part: Tensor) -> tuple[Tensor, Tensor]:
            found, broken = zip(*(each(images, part) for each in made), strict=True)
            return torch.stack(found).mean(0), looks_broken(self.defence.rule, torch.stack(broken))

        return attack_loss

    def _climbed(self) -> list[int]:
        """The numbers of the askings that a step climbs: those under noise differ in nothing else, and some will do."""
        fixed = [i for i, one in enumerate(self.defence.askings) if not one.random]
        random = [i for i, one in enumerate(self.defence.askings) if one.random]
        return [*fixed, *random[: self.draws]]

    def _loss_of(self, number: int, name: str, words: list[str], rows: Tensor, place: int, seed: int) -> AttackLoss:
        """The loss of one asking, under fresh noise at every call where its view draws."""
        asking, inner, calls = self.defence.askings[number], self.inner[number], itertools.count()
        put = self._own_words(number, words, rows)
        ids = [self.rows[i]["question_id"] for i in rows.tolist()]

        def names(part: Tensor) -> list[str]:
            call = next(calls)
            return [f"{seed}:{name}:{place}:{ids[i]}:{number}:{call}" for i in part.tolist()]

        return through(inner.attack_loss(name, put, rows, place, seed), asking.view, names)

    def _own_words(self, number: int, words: list[str], rows: Tensor) -> list[str]:
        """What one asking says to the clean images, in its own letters; where that is not right, the defence's words.

        words: right texts that come out of the defence.
        """
        inner = self.inner[number]
        new = torch.tensor([row for row in rows.tolist() if (number, row) not in self._clean_texts], dtype=torch.long)
        if len(new):
            texts = self._said(number, to_float(self.images[new], self.vlm.device), new)
            self._clean_texts |= {(number, row): text for row, text in zip(new.tolist(), texts, strict=True)}
        own = [self._clean_texts[number, row] for row in rows.tolist()]
        return [
            text if inner.outcome(text, row) == "right" else self._letter_in(inner, borrowed, row)
            for text, borrowed, row in zip(own, words, rows.tolist(), strict=True)
        ]

    def _said(self, number: int, images: Tensor, rows: Tensor) -> list[str]:
        """The texts of one asking, with its own letters."""
        names = [f"{self.seed}:{self.rows[i]['question_id']}:vote {number}" for i in rows.tolist()]
        return self.inner[number].answers_to(self.defence.askings[number].view(images, names), rows)

    def _heard(self, number: int, images: Tensor, rows: Tensor) -> list[str]:
        """The texts of one asking, each with the letter that its option has in the question as it was put."""
        inner, texts = self.inner[number], self._said(number, images, rows)
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


def looks_broken(rule: str, broken: Tensor) -> Tensor:
    """Whether a rule can no longer be counted on to give a right answer, [b], where these of the askings are wrong.

    broken: [A, b] bool, in the order of the askings. majority: half of them are wrong. agreement: two wrong ones in a
    row, which may agree, come before two right ones in a row; or neither come.
    """
    if rule != "agreement":
        return broken.float().mean(0) >= 0.5
    return _first(broken[:-1] & broken[1:]) <= _first(~broken[:-1] & ~broken[1:])


def _first(pairs: Tensor) -> Tensor:
    """The number of the first pair that is True, [b], of pairs [P, b]; P where none is."""
    return torch.where(pairs.any(0), pairs.int().argmax(0), len(pairs))
