"""Defences at inference: what is made of a question and its image before a model is asked, and of its answers after.

A defence changes no weight. Which of them there are, and what each is: docs/stress-tests.md.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from safemed.attacks import views
from safemed.attacks.views import View
from safemed.stress import precautions, question_edits
from safemed.stress.hints import Templates

NONE = "none"
DEFENCES = (NONE, "caution", "few-shot", "strip", "vote", "jpeg", "blur", "smooth", "loop")
EXAMPLES = 2  # of few-shot
LOOP_VIEWS = 3  # different ones

Words = Callable[[dict], dict]  # a row of the prepared questions -> the row that the model is asked


@dataclass(frozen=True)
class Asking:
    """One way in which a defence has the model asked. random: whether the view draws, from the image's name."""

    words: Words
    view: View = views.as_it_is
    random: bool = False


@dataclass(frozen=True)
class Defence:
    """All ways in which a model is asked, and the rule that makes one answer of its answers.

    rule: first (there is one), majority, or agreement (of two answers in a row; where there is none, it abstains).
    """

    name: str
    askings: Sequence[Asking]
    rule: str = "first"


def defences(settings: dict, templates: Templates, examples: Sequence[dict], seed: int) -> Iterator[Defence]:
    """The defences that the settings name, in their order. examples: questions of the training split, for few-shot."""
    for name in settings["defences"]:
        yield _MADE[name](name, settings, templates, examples, seed)


def unchanged(question: dict) -> dict:
    """The question as it was put."""
    return question


def _alone(words: Words = unchanged, view: Callable[[dict], View] = lambda settings: views.as_it_is):
    """A defence that has the model asked once."""
    return lambda name, settings, *_: Defence(name, (Asking(words, view(settings)),))


def _few_shot(name: str, settings: dict, templates: Templates, examples: Sequence[dict], seed: int) -> Defence:
    shown = partial(precautions.shown_examples, pool=examples, n=EXAMPLES, templates=templates, seed=seed)
    return Defence(name, (Asking(shown),))


def _vote(name: str, settings: dict, templates: Templates, *_) -> Defence:
    """Every order of the options under every wording, the plain one first."""
    wordings = ["{question}", *templates.paraphrases.values()][: settings["vote"]["wordings"]]
    orders = range(settings["vote"]["orders"])
    return Defence(name, [Asking(partial(_put, by, text)) for text in wordings for by in orders], "majority")


def _put(by: int, wording: str, question: dict) -> dict:
    return question_edits.paraphrased(precautions.reordered(question, by), wording)


def _smooth(name: str, settings: dict, *_) -> Defence:
    asking = Asking(unchanged, views.noisy(settings["smooth"]["sigma"]), random=True)
    return Defence(name, [asking] * settings["smooth"]["votes"], "majority")


def _loop(name: str, settings: dict, *_) -> Defence:
    """The question as it was put; then, without what names an option, on purified images, another at every round."""
    jpeg, blur = views.jpeg(settings["jpeg_quality"]), views.blur(settings["blur"])
    purified = (jpeg, blur, views.one_after_another(blur, jpeg))
    again = [Asking(precautions.stripped, purified[i % LOOP_VIEWS]) for i in range(settings["rounds"])]
    return Defence(name, [Asking(unchanged), *again], "agreement")


_MADE = {
    NONE: _alone(),
    "caution": _alone(precautions.cautious),
    "few-shot": _few_shot,
    "strip": _alone(precautions.stripped),
    "vote": _vote,
    "jpeg": _alone(view=lambda settings: views.jpeg(settings["jpeg_quality"])),
    "blur": _alone(view=lambda settings: views.blur(settings["blur"])),
    "smooth": _smooth,
    "loop": _loop,
}
