"""A model's chat template: how a conversation becomes a prompt, and where its completion begins.

A template may end the prompt inside the answer: that of Qwen3-VL's Thinking checkpoints ends it with `<think>` and a
line break, which the model then does not write. Everywhere else a completion is the WHOLE answer, what the prompt has
opened included: it is what the parser reads and what targets are. This module alone knows which part the model writes.

In a second turn the template is given the first answer whole, thought and all, and shows of it what it was made to
show: that of the tiny model everything, those of Qwen3's Thinking checkpoints no thought of an earlier turn.
"""

import re

from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor

from safemed.data import prompts

OPENED = re.compile(r"<think>\s*\Z")
THOUGHT, END_OF_THOUGHT = "<think>", "</think>"


class Chat:
    """A processor's template.

    opened: what of every completion the prompt already has; empty for a template that leaves all to the model.
    """

    def __init__(self, processor: Qwen3VLProcessor):
        self._render, self._end = processor.apply_chat_template, processor.tokenizer.eos_token
        found = OPENED.search(self.prompt([{"role": "user", "content": [{"type": "text", "text": "?"}]}]))
        self.opened = found[0] if found else ""

    def prompt(self, conversation: list[dict]) -> str:
        """The text that the model goes on from; an image is one placeholder."""
        return self._render(conversation, add_generation_prompt=True, tokenize=False)

    def written(self, completion: str) -> str:
        """What the model writes of a completion; after an opened thought, one without a thought ends it at once."""
        if not self.opened or not completion:
            return completion
        if completion.startswith(self.opened):
            return completion.removeprefix(self.opened)
        if completion.startswith(THOUGHT):
            return completion.removeprefix(THOUGHT).lstrip()
        return END_OF_THOUGHT + completion

    def taught(self, target: str) -> str:
        """What a model is taught to write for a target: its part of it, and the end of text."""
        return self.written(target) + self._end

    def whole(self, written: str) -> str:
        """The completion of which the model has written this."""
        return self.opened + written


def check_template(processor: Qwen3VLProcessor, question: dict, variant: str) -> None:
    """Pose a prepared question, answer it as it is taught, and read that back.

    Raises ValueError where the prompt lacks the question or its one image, where a second turn lacks the first answer
    or what was said to it, or where the target, cut into tokens and decoded as a model's answer is, does not come back,
    or is not read as the right answer in the variant's format.
    """
    chat, tokenizer = Chat(processor), processor.tokenizer
    shown, target = chat.prompt(prompts.conversation(question, variant)), prompts.target(question, variant)
    asked = prompts.render(question["question"], question["options"], variant)
    if shown.count(processor.image_token) != 1 or asked not in shown:
        raise ValueError(f"{variant}: the chat template does not show the question and one image, but {shown!r}")
    ids = tokenizer.encode(chat.taught(target), add_special_tokens=False)
    heard = chat.whole(tokenizer.decode(ids, skip_special_tokens=True))
    if heard != chat.whole(chat.written(target)):
        raise ValueError(f"{variant}: the tokenizer makes {heard!r} of the target {target!r}")
    read = prompts.parse(heard, len(question["options"]), variant)
    if read.answer != question["gold"] or not prompts.well_formed(read, variant):
        raise ValueError(
            f"{variant}: after this chat template the target reads {heard!r}, which is no answer of this variant; give "
            "the variant a checkpoint whose template ends the prompt as it does"
        )
    _check_second_turn(chat, processor.image_token, question, variant)


def _check_second_turn(chat: Chat, image: str, question: dict, variant: str) -> None:
    """Whether a second turn shows, one after the other, the image, the question, the answer that it had and what was
    said to it; a template need not show the thought behind the answer.
    """
    answer = prompts.target(question, "instruct")
    turns = prompts.second_turn(prompts.target(question, variant), "Well?", variant)
    shown = chat.prompt(prompts.conversation(question | {"turns": turns}, variant))
    asked = prompts.render(question["question"], question["options"], variant)
    places = [shown.find(part) for part in (image, asked, answer, turns[1][1])]
    if -1 in places or places != sorted(places) or shown.count(image) != 1:
        raise ValueError(f"{variant}: the chat template does not show a second turn after the first, but {shown!r}")
