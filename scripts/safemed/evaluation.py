"""Putting questions to a model: generated answers, three outcomes, and the attack on each question."""

import re

import torch
from datasets import Dataset
from torch import Tensor

from safemed import attacks, prompts
from safemed.attacks import Attacked, Objective
from safemed.data import as_arrays
from safemed.vlm import VLM, Encoded, frozen, to_float

# What the loss of each restart is taken on, in turn. `answer`: the letter after the model's own clean words;
# `sequence`: all of those words; `empty`: the letter after an empty thought.
TARGETS = {"instruct": ("answer",), "think": ("sequence", "empty", "answer")}
EMPTY_THOUGHT = "<think> </think><answer>"


class Exam:
    """Questions of one variant put to one model.

    images: the prepared 8-bit images, uint8 [N, H, W, 3]. gold [N]: index of the right option. What counts is the
    GENERATED text: `is_right` and `outcome` go through the one parser.
    """

    def __init__(self, vlm: VLM, questions: Dataset, variant: str, max_new_tokens: int):
        self.vlm, self.variant, self.max_new_tokens = vlm, variant, max_new_tokens
        self.rows = list(questions.remove_columns("image"))
        self.images = torch.from_numpy(as_arrays(questions["image"]))
        self.side = self.images.shape[1]
        self.gold = torch.tensor([prompts.LETTERS.index(row["gold"]) for row in self.rows], device=vlm.device)
        self.n_options = torch.tensor([len(row["options"]) for row in self.rows], device=vlm.device)
        self.asked = self._encoded(torch.arange(len(self.rows)), [""] * len(self.rows))

    def __len__(self) -> int:
        return len(self.rows)

    def answers(self, images: Tensor, rows: Tensor) -> list[str]:
        """Generated texts for 8-bit images [b, H, W, 3] shown with the questions `rows` [b]."""
        return self.answers_to(to_float(images, self.vlm.device), rows)

    def answers_to(self, images: Tensor, rows: Tensor) -> list[str]:
        """Generated texts for float images [b, 3, H, W], which need not stay within [0, 1]."""
        return self.vlm.generate(images, self.asked[rows], self.max_new_tokens)

    def outcome(self, text: str, row: int) -> str:
        """right, wrong or unparsable."""
        answer = prompts.parse(text, len(self.rows[row]["options"])).answer
        if answer is None:
            return "unparsable"
        return "right" if answer == self.rows[row]["gold"] else "wrong"

    def about(self, row: int, args) -> dict:
        """What every row of an evaluation says of question `row` and of the model (args: model, method, variant)."""
        question = self.rows[row]
        kept = ("question_id", "image_path", "modality", "question_type", "gold")
        told = {name: question[name] for name in kept} | {"n_options": len(question["options"])}
        return told | {"model": args.model, "method": args.method, "variant": args.variant}

    def is_right(self, images: Tensor, rows: Tensor) -> Tensor:
        """Whether the text generated from 8-bit images [b, H, W, 3] answers the questions `rows` rightly, [b] bool."""
        return self.right(self.answers(images, rows), rows)

    def right(self, texts: list[str], rows: Tensor) -> Tensor:
        """Whether the texts answer the questions `rows` rightly, [b] bool."""
        return torch.tensor([self.outcome(t, int(r)) == "right" for t, r in zip(texts, rows, strict=True)])

    def objective(self, target: str, words: list[str], rows: Tensor) -> Objective:
        """The loss of one target (see TARGETS) for the questions `rows` [b], whose right clean texts are `words`."""
        if target == "sequence":
            ended = [text + self.vlm.tokenizer.eos_token for text in words]
            return attacks.sequence_objective(self.vlm, self._encoded(rows, ended))
        prefixes = [EMPTY_THOUGHT] * len(words) if target == "empty" else [before_letter(text) for text in words]
        encoded = self._encoded(rows, prefixes)
        return attacks.answer_objective(self.vlm, encoded, self.gold[rows], self.n_options[rows])

    def attack(self, words: list[str], rows: Tensor, eps: int, steps: int, restarts: int, seed: int) -> Attacked:
        """PGD on the questions `rows` [b], whose right clean texts are `words`; the restarts take the targets in turn.

        The step size is 2.5 * eps / steps (Madry et al. 2018). A single step is FGSM: all of eps, from the clean image.
        """
        names = [f"{seed}:{self.rows[i]['question_id']}:{eps}" for i in rows.tolist()]
        fgsm = steps == 1
        chosen = [TARGETS[self.variant][i % len(TARGETS[self.variant])] for i in range(restarts)]
        objectives = [self.objective(target, words, rows) for target in chosen]
        return attacks.attack(
            objectives,
            lambda images, part: self.is_right(images, rows[part]),
            self.images[rows],
            names,
            eps,
            steps,
            eps if fgsm else 2.5 * eps / steps,
            not fgsm,
            self.vlm.device,
        )

    def _encoded(self, rows: Tensor, completions: list[str]) -> Encoded:
        asked = [prompts.conversation(self.rows[i], self.variant) for i in rows.tolist()]
        return self.vlm.encode(asked, completions, self.side)


def before_letter(text: str) -> str:
    """A right completion up to where its letter comes next."""
    return text[: re.search(r".*<answer>", text, re.DOTALL).end()]


def probe(vlm: VLM, questions: Dataset, variant: str, settings: dict, seed: int) -> dict[str, float]:
    """Clean and PGD accuracy of generated answers on a small fixed batch, for training curves.

    settings: the config's `probe` (eps, steps, restarts, max_new_tokens).
    """
    with frozen(vlm.model):
        exam = Exam(vlm, questions, variant, settings["max_new_tokens"][variant])
        everything = torch.arange(len(exam))
        words = exam.answers(exam.images, everything)
        right = exam.right(words, everything)
        kept = [text for text, ok in zip(words, right, strict=True) if ok]
        budget = (settings["eps"], settings["steps"], settings["restarts"], seed)
        robust = (~exam.attack(kept, everything[right], *budget).broken).sum().item() if kept else 0
    return {
        "clean_accuracy": right.float().mean().item(),
        "robust_accuracy": robust / len(exam),
    }
