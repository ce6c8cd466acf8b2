"""What the model is asked, what it should answer, and the one parser that reads what it did answer."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

LETTERS = "ABCDEFGH"
VARIANTS = ("instruct", "think", "after")
THINKING = ("think", "after")  # the variants that write a thought, before the answer or after it
OUTCOMES = ("right", "wrong", "unparsable")
FAILED = "failed"  # not an outcome: the question was not evaluated, and no table counts it as an answer
INSTRUCTIONS = {
    "instruct": "Answer with one letter in <answer> </answer>.",
    "think": "Think in <think> </think>, then answer with one letter in <answer> </answer>.",
    "after": "Answer with one letter in <answer> </answer>, then explain in <think> </think>.",  # Med-R1's Think-After
}

# What a tokenizer of Qwen3-VL reads as a token of its own, wherever it stands: a text must not hold it.
TOKEN = re.compile(r"<\|[^<>|\s]+\|>")
MARKUP = re.compile(rf"{TOKEN.pattern}|</?(?:think|answer|tool_call|tool_response)>")

_THOUGHT = re.compile(r"<think>(.*?)</think>", re.DOTALL)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_TAG = re.compile(r"</?(?:think|answer)>")
_LETTER = re.compile(r"\(?\s*([A-Za-z])\s*\)?\s*[.:]?")
_ANSWERED = re.compile(r"<answer>\s*\(?\s*([A-Za-z])")


Setting = TypeVar("Setting")


@dataclass(frozen=True)
class Completion:
    """A completion taken apart.

    answer: the option letter, upper case, or None where the completion is unparsable.
    thought: the text of the one <think> block, stripped, or None where there is none.
    rest: what stands outside the tags, stripped; empty in a well-formed completion.
    """

    answer: str | None
    thought: str | None
    rest: str


def of_variant(setting: Setting | dict[str, Setting], variant: str) -> Setting:
    """A setting that is one for all variants, or one for each."""
    return setting[variant] if isinstance(setting, dict) else setting


def render(question: str, options: list[str], variant: str, after: str = "") -> str:
    """The user's text: the question with its options as ` A) x, B) y` (Med-R1's rendering), then the instruction.

    after: sentences that stand between options and instruction; a full stop keeps them from the last option.
    """
    listed = ", ".join(f"{letter}) {option}" for letter, option in zip(LETTERS, options, strict=False))
    return " ".join([question, f"{listed}. {after}" if after else listed, INSTRUCTIONS[variant]])


def gold_text(question: dict) -> str:
    """The text of the right option of a row of the prepared questions."""
    return question["options"][LETTERS.index(question["gold"])]


def thought(seen: Iterable[str | None], answer: str) -> str:
    """The thought that is taught: what is seen, as far as it is known, then the answer's name."""
    known = ", ".join(name for name in seen if name)
    return f"{known}: {answer}" if known else answer


def target(question: dict, variant: str, earlier: Iterable[str] | None = None) -> str:
    """The completion that fine-tuning teaches for a row of the prepared questions.

    earlier: what a stepwise thought goes through before its answer, the right answers of the stages before the
    question's own; a plain thought (None) names modality and finding. A thought of seven stages takes more tokens than
    a plain one: max_new_tokens must allow for it. The variant after has the same thought behind its answer.
    """
    answer = f"<answer> {question['gold']} </answer>"
    if variant == "instruct":
        return answer
    seen = (question["modality"], question["finding"]) if earlier is None else earlier
    thinking = f"<think> {thought(seen, gold_text(question))} </think>"
    return f"{answer}{thinking}" if variant == "after" else f"{thinking}{answer}"


def conversation(question: dict, variant: str) -> list[dict]:
    """The prompt as chat messages with one image placeholder; `after` of the question is what follows its options, and
    `turns` what was said since.
    """
    text = render(question["question"], question["options"], variant, question.get("after", ""))
    asked = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}
    since = question.get("turns", ())
    return [asked, *({"role": role, "content": [{"type": "text", "text": text}]} for role, text in since)]


def second_turn(first: str, said: str, variant: str) -> list[tuple[str, str]]:
    """The `turns` of a question that is asked again: the answer that it had, as it was written, and what the user says
    to it, which ends with the variant's instruction, or no answer could be read.

    Raises ValueError where the answer spells a token of the model's own, such as an image's placeholder.
    """
    if found := TOKEN.search(first):
        raise ValueError(f"the first answer spells {found[0]!r}, a token of the model's own")
    return [("assistant", first), ("user", f"{said} {INSTRUCTIONS[variant]}")]


def posed(question: dict, variant: str, target: str) -> dict:
    """What a training row says of a question: prompt as chat messages, target, n_options and variant."""
    return {
        "prompt": conversation(question, variant),
        "target": target,
        "n_options": len(question["options"]),
        "variant": variant,
    }


def parse(text: str, n_options: int, variant: str) -> Completion:
    """Read a variant's completion strictly; whatever is doubtful is unparsable, never guessed.

    An answer counts only if, outside the thought, there is exactly one <answer> block holding exactly one letter that
    is among the options offered; `B`, `b`, `B.`, `B:`, `(B)` and `B)` all name B. A thought that never ends or begins
    twice, two thoughts, two answers, an unclosed tag, an empty block or a letter beyond the options make it None. So
    does the wrong order: a thought goes before the answer, which it is to lead to, and for the variant after behind it.

    Raises ValueError if n_options is not in 1..8.
    """
    if not 1 <= n_options <= len(LETTERS):
        raise ValueError(f"n_options must be in 1..{len(LETTERS)}, got {n_options}")
    thoughts = _THOUGHT.findall(text)
    outside = _THOUGHT.sub("", text)
    answers = _ANSWER.findall(outside)
    rest = _ANSWER.sub("", outside).strip()
    thinking = thoughts[0].strip() if len(thoughts) == 1 else None
    doubtful = text.count("<think>") > 1 or len(answers) != 1 or _TAG.search(rest)
    if doubtful or not _in_order(text, outside, variant):
        return Completion(None, thinking, rest)
    letter = _LETTER.fullmatch(answers[0].strip())
    offered = letter and letter[1].upper() in LETTERS[:n_options]
    return Completion(letter[1].upper() if offered else None, thinking, rest)


def letter_at(text: str) -> int:
    """The place in a completion of the letter that it answers with: outside the thought, which may quote an answer.

    Raises ValueError where there is none.
    """
    found = _ANSWERED.search(_THOUGHT.sub(lambda thought: " " * len(thought[0]), text))
    if not found:
        raise ValueError(f"no answer in {text!r}")
    return found.start(1)


def with_letter(text: str, letter: str) -> str:
    """The completion with another letter in the place and case of its own; raises as `letter_at`."""
    at = letter_at(text)
    return text[:at] + (letter if text[at].isupper() else letter.lower()) + text[at + 1 :]


def _in_order(text: str, outside: str, variant: str) -> bool:
    """Whether a thought, if there is one, is on the variant's side of the one answer; outside: the text without it."""
    thinking, answer = text.find("<think>"), _ANSWER.search(outside)
    return thinking < 0 or (answer.end() <= thinking if variant == "after" else thinking <= answer.start())


def well_formed(completion: Completion, variant: str) -> bool:
    """Whether the completion, which `parse` has read as the variant's, is its format and nothing else.

    A thought is wanted of a variant that writes one, and of no other.
    """
    if completion.answer is None or completion.rest:
        return False
    return bool(completion.thought) if variant in THINKING else completion.thought is None
