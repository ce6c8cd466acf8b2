"""The one parser reads hostile completions strictly, and everything else reads through it."""

import pytest

from safemed.data import prompts
from safemed.data.prompts import parse, render, target, well_formed
from safemed.training import rewards

# completion -> (the letter among four options or None, well-formed as instruct, well-formed as think)
TABLE = {
    "": (None, False, False),
    "B": (None, False, False),
    "<answer> B </answer>": ("B", True, False),
    "<answer>B</answer>": ("B", True, False),
    "<answer>b</answer>": ("B", True, False),
    "<answer>B.</answer>": ("B", True, False),
    "<answer>(B)</answer>": ("B", True, False),
    "<answer>B)</answer>": ("B", True, False),
    "<answer>B:</answer>": ("B", True, False),
    "<answer>\n\t B \n</answer>\n": ("B", True, False),
    "<think>CT: cyst</think><answer>B</answer>": ("B", False, True),
    "<think>\nCT\n\ncyst\n</think>\n<answer>\nB\n</answer>": ("B", False, True),
    "<think>not <answer>A</answer></think><answer>B</answer>": ("B", False, True),
    "<think></think><answer>B</answer>": ("B", False, False),
    "<think> \n </think><answer>B</answer>": ("B", False, False),
    "I say <answer>B</answer>": ("B", False, False),
    "<answer>B</answer> surely": ("B", False, False),
    "<think>x</think> so <answer>B</answer>": ("B", False, False),
    "<answer></answer>": (None, False, False),
    "<answer> </answer>": (None, False, False),
    "<answer>E</answer>": (None, False, False),
    "<answer>AB</answer>": (None, False, False),
    "<answer>A, B</answer>": (None, False, False),
    "<answer>A B</answer>": (None, False, False),
    "<answer>cyst</answer>": (None, False, False),
    "<answer>1</answer>": (None, False, False),
    "<answer>\u0412</answer>": (None, False, False),  # Cyrillic
    "<answer>\uff22</answer>": (None, False, False),  # full width
    "<answer>\u0392</answer>": (None, False, False),  # Greek
    "<answer>B\u200b</answer>": (None, False, False),  # with a blank of no width
    "<ANSWER>B</ANSWER>": (None, False, False),
    "<answer>A</answer><answer>B</answer>": (None, False, False),
    "<answer>B</answer><answer>B</answer>": (None, False, False),
    "<answer>B": (None, False, False),
    "<answer>B</answer": (None, False, False),
    "B</answer>": (None, False, False),
    "<answer>B</answer></answer>": (None, False, False),
    "<answer><answer>B</answer></answer>": (None, False, False),
    "<answer>B</answer><answer>": (None, False, False),
    "<think>x": (None, False, False),
    "<think>x <answer>B</answer>": (None, False, False),
    "<think>x <answer>B</answer></think>": (None, False, False),
    "<think>x</think>": (None, False, False),
    "<think>x</think><answer>": (None, False, False),
    "<think>x</think><answer>B": (None, False, False),
    "x</think><answer>B</answer>": (None, False, False),
    "<think>x</think><think>y</think><answer>B</answer>": (None, False, False),
    "<think><think>x</think></think><answer>B</answer>": (None, False, False),
    "<answer>B</answer><think>x</think>": (None, False, False),
    "so <answer>B</answer><think>x</think>": (None, False, False),
    "<answer><think>x</think>B</answer>": (None, False, False),
    "<ans<think>x</think>wer>B</answer>": (None, False, False),
    "<thi<answer>B</answer>nk>": (None, False, False),
}


@pytest.mark.parametrize("text", TABLE)
def test_hostile_completions_are_read_strictly(text):
    answer, instruct, think = TABLE[text]
    completion = parse(text, 4)
    assert completion.answer == answer
    assert (well_formed(completion, "instruct"), well_formed(completion, "think")) == (instruct, think)


def test_a_letter_counts_only_among_the_options_offered():
    for n in range(1, 9):
        for i, letter in enumerate(prompts.LETTERS):
            assert parse(f"<answer>{letter}</answer>", n).answer == (letter if i < n else None)
    for n in (0, 9, -1):
        with pytest.raises(ValueError, match="n_options"):
            parse("<answer>A</answer>", n)


def test_both_rewards_say_what_the_parser_says():
    for text in TABLE:
        for n in (1, 2, 4, 8):
            read = parse(text, n)
            for letter in "ABE":
                row = {"gold": letter, "n_options": n, "variant": "instruct"}
                assert rewards.accuracy(text, row) == float(read.answer == letter)
            for variant in prompts.VARIANTS:
                row = {"gold": "A", "n_options": n, "variant": variant}
                assert rewards.format(text, row) == float(well_formed(read, variant))


@pytest.mark.parametrize("variant", prompts.VARIANTS)
def test_every_target_is_well_formed_and_names_the_gold_letter(train_questions, variant):
    other = {"instruct": "think", "think": "instruct"}[variant]
    for question in train_questions.remove_columns("image"):
        for known in (question, {**question, "finding": None}):
            completion = parse(target(known, variant), len(question["options"]))
            assert completion.answer == question["gold"]
            assert well_formed(completion, variant) and not well_formed(completion, other)


def test_the_prompt_shows_every_option_under_its_letter_and_the_variants_instruction():
    options = ["cyst", "no finding", "nodule"]
    for variant in prompts.VARIANTS:
        text = render("What is it?", options, variant)
        assert text.startswith("What is it? A) cyst, B) no finding, C) nodule ")
        assert text.endswith(prompts.INSTRUCTIONS[variant])
