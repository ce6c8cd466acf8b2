"""Asking a model questions: generated answers, their outcomes, and the attack on each question."""

import copy
import math
from collections.abc import Sequence
from typing import Self

import torch
from datasets import Dataset
from torch import Tensor

from safemed.attacks import cw, engine, losses
from safemed.attacks.engine import AttackConfig, Attacked
from safemed.attacks.losses import AttackLoss
from safemed.data import prompts
from safemed.data.dataset import as_arrays
from safemed.evaluation.batching import Failure
from safemed.models.geometry import to_float
from safemed.models.vlm import VLM, Encoded, LetterPlaces
from safemed.utils.noise import gaussian

FUNCTIONS = ("choice", "generate")  # what can be smoothed
# The losses that together make up the standard attack on a variant; see `Evaluator.attack_loss`.
LOSSES = {"instruct": ("answer",), "think": ("sequence", "empty", "answer"), "after": ("answer", "sequence")}
# Answers without a word that depends on the image: a choice is made at the place of their letter, whichever it is.
THOUGHTLESS = "<think> </think><answer> A </answer>"
WORDLESS = {"instruct": "<answer> A </answer>", "think": THOUGHTLESS, "after": "<answer> A </answer>"}
SAMPLED_THOUGHTS = 3


class Evaluator:
    """The questions that one model is asked as one variant.

    images: the prepared 8-bit images, uint8 [N, H, W, 3]. gold [N]: index of the right option. What counts is the
    GENERATED text: `is_right` and `outcome` go through the one parser.
    """

    def __init__(self, vlm: VLM, questions: Dataset, variant: str, max_new_tokens: int):
        self.vlm, self.variant, self.max_new_tokens = vlm, variant, max_new_tokens
        self._set(list(questions.remove_columns("image")), torch.from_numpy(as_arrays(questions["image"])))

    def with_questions(self, rows: list[dict], images: Tensor) -> Self:
        """The same model, asked other questions: rows like the prepared ones, and an image each, uint8 [N, H, W, 3]."""
        other = copy.copy(self)
        other._set(rows, images)
        return other

    def _set(self, rows: list[dict], images: Tensor) -> None:
        self.rows, self.images, self.side = rows, images, images.shape[1]
        self.gold = torch.tensor([prompts.LETTERS.index(row["gold"]) for row in rows], device=self.vlm.device)
        self.n_options = torch.tensor([len(row["options"]) for row in rows], device=self.vlm.device)
        everything = torch.arange(len(rows))
        self.asked = self._encoded(everything, [""] * len(rows))
        self._wordless = self.letter_places([WORDLESS[self.variant]] * len(rows), everything)

    def __len__(self) -> int:
        return len(self.rows)

    def answers(self, images: Tensor, rows: Tensor) -> list[str]:
        """Generated texts for 8-bit images [b, H, W, 3] shown with the questions `rows` [b]."""
        return self.answers_to(to_float(images, self.vlm.device), rows)

    def answers_to(self, images: Tensor, rows: Tensor) -> list[str]:
        """Generated texts for float images [b, 3, H, W], which need not stay within [0, 1]."""
        return self.vlm.generate(images, self.asked[rows], self.max_new_tokens)

    def samples(self, images: Tensor, rows: Tensor, seed: int) -> list[str]:
        """Texts sampled at temperature 1 for 8-bit images [b, H, W, 3]; the seed and the batch decide what."""
        return self.vlm.sample(to_float(images, self.vlm.device), self.asked[rows], self.max_new_tokens, seed)

    def choices(self, images: Tensor, rows: Tensor) -> list[str]:
        """The most likely of the letters offered, at the place of WORDLESS's: one forward pass on float images."""
        with torch.no_grad():
            logits = losses.letter_logits(self.vlm, images, self._wordless[rows], self.n_options[rows])
        if not logits.amax(1).isfinite().all():
            raise FloatingPointError("the model's logits are not finite")
        return [prompts.LETTERS[choice] for choice in logits.argmax(1).tolist()]

    def heard(self, rows: Tensor) -> list[tuple[str, float]]:
        """The text generated from the own image of each question of `rows` [b], and its confidence."""
        texts = self.answers(self.images[rows], rows)
        return list(zip(texts, self.confidences(self.images[rows], rows, texts), strict=True))

    def confidences(self, images: Tensor, rows: Tensor, texts: list[str]) -> list[float]:
        """The probability that each text's letter has among those offered, after the words before it; 8-bit images.

        nan where the text is unparsable: no letter was chosen.
        """
        found = self.letter_probabilities(images, rows, texts)
        answers = [self.answer(text, int(row)) for text, row in zip(texts, rows, strict=True)]
        return [
            math.nan if letters is None else letters[prompts.LETTERS.index(answer)].item()
            for letters, answer in zip(found, answers, strict=True)
        ]

    def letter_probabilities(self, images: Tensor, rows: Tensor, texts: list[str]) -> list[Tensor | None]:
        """The probabilities [8] of the letters offered, after the words before each text's letter; 8-bit images.

        They add up to 1; a letter that is not offered has 0. None where the text is unparsable.
        """
        found = self._letters_after(images, rows, texts)
        return [found[i].softmax(0) if i in found else None for i in range(len(texts))]

    def margins(self, images: Tensor, rows: Tensor, texts: list[str]) -> list[float]:
        """The logit of the right letter minus that of the best other offered, after the words before each text's
        letter; 8-bit images. nan where the text is unparsable.
        """
        found = [math.nan] * len(texts)
        for i, logits in self._letters_after(images, rows, texts).items():
            found[i] = -losses.margin(logits[None], self.gold[rows[i : i + 1]]).item()
        return found

    def _letters_after(self, images: Tensor, rows: Tensor, texts: list[str]) -> dict[int, Tensor]:
        """Place in the batch -> logits [8] of the letters after the text's words, of the texts that name a letter."""
        read = [i for i, (text, row) in enumerate(zip(texts, rows, strict=True)) if self.answer(text, int(row))]
        if not read:
            return {}
        places = self.letter_places([texts[i] for i in read], rows[read])
        with torch.no_grad():
            shown = to_float(images[read], self.vlm.device)
            logits = losses.letter_logits(self.vlm, shown, places, self.n_options[rows[read]])
        if not logits.amax(1).isfinite().all():
            raise FloatingPointError("the model's logits are not finite")
        return dict(zip(read, logits, strict=True))

    def classes(self, function: str, images: Tensor, rows: Tensor) -> list[str]:
        """The answer of a function of float images, one of FUNCTIONS: a letter, or UNPARSABLE.

        choice: the letter logits of one forward pass; generate: the parsed generated text, where unparsable text is a
        class of its own.
        """
        if function == "choice":
            return self.choices(images, rows)
        texts = self.vlm.generate(images, self.asked[rows], self.max_new_tokens)
        return [self.answer(text, int(row)) or UNPARSABLE for text, row in zip(texts, rows, strict=True)]

    def answer(self, text: str, row: int) -> str:
        """The letter that a text answers question `row` with, "" where it is unparsable."""
        return prompts.parse(text, len(self.rows[row]["options"]), self.variant).answer or ""

    def cut(self, texts: Sequence[str]) -> list[bool]:
        """Whether each generated text is as long as max_new_tokens allows: the model may have had more to say."""
        return [self.length(text) >= self.max_new_tokens for text in texts]

    def length(self, text: str) -> int:
        """The number of tokens that the model writes of a completion, without the end of text."""
        return len(self.vlm.tokenizer(self.vlm.chat.written(text), add_special_tokens=False)["input_ids"])

    def outcome(self, text: str, row: int) -> str:
        """right, wrong or unparsable."""
        answer = self.answer(text, row)
        if not answer:
            return "unparsable"
        return "right" if answer == self.rows[row]["gold"] else "wrong"

    def about(self, row: int) -> dict:
        """What every row of an evaluation says of question `row`."""
        question = self.rows[row]
        kept = ("question_id", "image_path", "modality", "question_type", "gold")
        return {name: question[name] for name in kept} | {"n_options": len(question["options"])}

    def about_answer(self, row: int, found: tuple[str, float] | Failure, number: str = "confidence") -> dict:
        """What a row of an evaluation says of the answer to question `row`: text, answer, its option `said`, outcome,
        and the `number` that was found with the text.

        Of a Failure the reason stands for the text, the outcome is FAILED, and the number is nan.
        """
        if isinstance(found, Failure):
            return {"text": found.why, "answer": "", "said": "", "outcome": prompts.FAILED, number: math.nan}
        text, value = found
        answer = self.answer(text, row)
        option = self.rows[row]["options"][prompts.LETTERS.index(answer)] if answer else ""
        return {"text": text, "answer": answer, "said": option, "outcome": self.outcome(text, row), number: value}

    def is_right(self, images: Tensor, rows: Tensor) -> Tensor:
        """Whether the text generated from 8-bit images [b, H, W, 3] answers the questions `rows` rightly, [b] bool."""
        return self.right(self.answers(images, rows), rows)

    def right(self, texts: list[str], rows: Tensor) -> Tensor:
        """Whether the texts answer the questions `rows` rightly, [b] bool."""
        return torch.tensor([self.outcome(t, int(r)) == "right" for t, r in zip(texts, rows, strict=True)])

    def attack_loss(self, name: str, words: list[str], rows: Tensor, place: int = 0, seed: int = 0) -> AttackLoss:
        """The loss of a name for the questions `rows` [b], whose right clean texts are `words`.

        answer: margin of the letter after the model's own clean words; ce: its cross entropy; other: margin of the
        `place`-th wrong letter alone; empty: margin after an empty thought; sampled: its expectation over thoughts
        sampled on the clean image; sequence: away from all of the clean words; thought: towards a thought that names
        the `place`-th wrong option, and its letter; stop: towards that letter with no thought at all.
        """
        gold, n_options = self.gold[rows], self.n_options[rows]
        if name == "sequence":
            return losses.words_away(self.vlm, self._encoded(rows, self._ended(words)))
        if name in ("thought", "stop"):
            variant = "think" if name == "thought" else "instruct"
            wanted = [prompts.target(self._misled(i, place), variant) for i in rows.tolist()]
            return losses.words_towards(self.vlm, self._encoded(rows, self._ended(wanted)))
        if name == "sampled":
            thoughts = [self._sampled(words, rows, seed + draw) for draw in range(SAMPLED_THOUGHTS)]
            margins = [losses.letter_margin(self.vlm, self.letter_places(t, rows), gold, n_options) for t in thoughts]
            return losses.expectation(margins)
        places = self.letter_places([THOUGHTLESS] * len(words) if name == "empty" else words, rows)
        if name == "other":
            return losses.letter_towards(self.vlm, places, gold, n_options, place)
        loss = losses.letter_cross_entropy if name == "ce" else losses.letter_margin
        return loss(self.vlm, places, gold, n_options)

    def attack(self, words: list[str], rows: Tensor, config: AttackConfig, eps: float, seed: int) -> Attacked:
        """A white-box attack on the questions `rows` [b], whose right clean texts are `words`.

        Raises ValueError where the config names no losses: nothing would be attacked, and all would look robust.
        """
        if not config.losses:
            raise ValueError(
                f"attack {config.name}: names no losses for {self.variant}, of which it needs at least one"
            )
        clean8, device = self.images[rows], self.vlm.device

        def is_right(images: Tensor, part: Tensor) -> Tensor:
            return self.is_right(images, rows[part])

        made = [self.attack_loss(loss, words, rows, restart, seed) for loss, restart in config.climbs()]
        if config.kind == "cw":
            return cw.carlini_wagner(made[0], is_right, clean8, config, device)
        names = [f"{seed}:{config.name}:{self.rows[i]['question_id']}:{eps:g}" for i in rows.tolist()]
        given = self.starts(rows)
        starts = [given[restart] if restart < len(given) else None for _, restart in config.climbs()]
        return engine.attack(made, is_right, clean8, names, eps, config, device, starts)

    def starts(self, rows: Tensor) -> list[Tensor]:
        """The 8-bit images that the first restarts of every loss climb from, [b, H, W, 3] each; of this model none."""
        return []

    def letter_places(self, words: list[str], rows: Tensor) -> LetterPlaces:
        """Where each text's letter stands after the words before it."""
        return self.vlm.letter_places(self.asked[rows], words)

    def batches(self, rows: Tensor, size: int) -> list[Tensor]:
        """The rows in batches of questions alike in number of options and length: little padding, one K a batch."""
        length = self.asked.prompt_mask.sum(1)
        order = sorted(rows.tolist(), key=lambda i: (int(self.n_options[i]), int(length[i]), i))
        return list(torch.tensor(order).split(size)) if order else []

    def _ended(self, words: list[str]) -> list[str]:
        return [text + self.vlm.tokenizer.eos_token for text in words]

    def _misled(self, row: int, place: int) -> dict:
        """Question `row` as if its `place`-th wrong option were right."""
        question, n = self.rows[row], len(self.rows[row]["options"])
        wrong = (prompts.LETTERS.index(question["gold"]) + 1 + place % (n - 1)) % n
        return question | {"gold": prompts.LETTERS[wrong], "finding": None}

    def _sampled(self, words: list[str], rows: Tensor, seed: int) -> list[str]:
        """Texts sampled on the clean images; the clean words where no answer came."""
        texts = self.samples(self.images[rows], rows, seed)
        answered = [bool(self.answer(text, int(row))) for text, row in zip(texts, rows, strict=True)]
        return [text if said else own for text, own, said in zip(texts, words, answered, strict=True)]

    def _encoded(self, rows: Tensor, completions: list[str]) -> Encoded:
        asked = [prompts.conversation(self.rows[i], self.variant) for i in rows.tolist()]
        return self.vlm.encode(asked, completions, self.side)


class SmoothedEvaluator(Evaluator):
    """The smoothed model: what a function of the base model answers most often under Gaussian noise on the image.

    sigma in [0, 1] pixel units; draws: noisy images a gradient step averages over; votes: noisy images an answer is the
    majority of; function: one of FUNCTIONS. The noise of the votes is a question's own: equal images get equal answers
    in any batch. Where the function has no text, the text is the choice alone.
    """

    def __init__(
        self, vlm: VLM, questions: Dataset, variant: str, max_new_tokens: int, sigma: float, draws: int, votes: int,
        function: str, seed: int = 0,
    ):  # fmt: skip
        super().__init__(vlm, questions, variant, max_new_tokens)
        self.sigma, self.draws, self.votes, self.function, self.seed = sigma, draws, votes, function, seed

    def answers_to(self, images: Tensor, rows: Tensor) -> list[str]:
        ids = [self.rows[i]["question_id"] for i in rows.tolist()]
        heard = []
        for vote in range(self.votes):
            noise = gaussian(images.shape[1:], [f"{self.seed}:{question_id}:vote {vote}" for question_id in ids])
            heard.append(self._texts(images + self.sigma * noise.to(images), rows))
        return [self._majority(texts, int(row)) for texts, row in zip(zip(*heard, strict=True), rows, strict=True)]

    def attack_loss(self, name: str, words: list[str], rows: Tensor, place: int = 0, seed: int = 0) -> AttackLoss:
        names = [f"{seed}:{name}:{place}:{self.rows[i]['question_id']}" for i in rows.tolist()]
        return losses.under_noise(super().attack_loss(name, words, rows, place, seed), self.sigma, self.draws, names)

    def _texts(self, images: Tensor, rows: Tensor) -> list[str]:
        if self.function == "generate":
            return super().answers_to(images, rows)
        return [prompts.with_letter(WORDLESS[self.variant], letter) for letter in self.choices(images, rows)]

    def _majority(self, texts: tuple[str, ...], row: int) -> str:
        """The first text with the most frequent answer."""
        answers = [self.answer(text, row) for text in texts]
        return texts[answers.index(max(answers, key=answers.count))]


UNPARSABLE = "?"
