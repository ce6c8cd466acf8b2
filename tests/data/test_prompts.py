"""The one parser reads hostile completions strictly, and everything else reads through it."""

import itertools

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
    "<think>x <think>y</think><answer>B</answer>": (None, False, False),
    "<answer>B</answer><think>x</think>": (None, False, False),
    "so <answer>B</answer><think>x</think>": (None, False, False),
    "<answer><think>x</think>B</answer>": (None, False, False),
    "<ans<think>x</think>wer>B</answer>": (None, False, False),
    "<thi<answer>B</answer>nk>": (None, False, False),
}

# completion -> (the letter among four options or None, well-formed) as after; without a thought it is as instruct's.
AFTER = {
    **{text: (answer, False) for text, (answer, *_) in TABLE.items() if "think>" not in text},
    "<answer>B</answer><think>x</think>": ("B", True),
    "<answer>\nB\n</answer>\n<think>\nCT\n\ncyst\n</think>\n": ("B", True),
    "<answer>B</answer><think>not <answer>A</answer></think>": ("B", True),
    "<answer>B</answer><think> </think>": ("B", False),
    "so <answer>B</answer><think>x</think>": ("B", False),
    "<answer>B</answer> for <think>x</think>": ("B", False),
    "<answer>B</answer><think>x</think> indeed": ("B", False),
    "<answer>E</answer><think>x</think>": (None, False),
    "<answer>B</answer><think>x": (None, False),
    "<answer>B</answer><think>x</think><think>y</think>": (None, False),
    "<answer>B</answer><think>x <think>y</think>": (None, False),
    "<answer>A</answer><think>x</think><answer>B</answer>": (None, False),
    "<think>x</think><answer>B</answer>": (None, False),
    "<think></think><answer>B</answer>": (None, False),
    "<answer><think>x</think>B</answer>": (None, False),
    "<answer>B<think>x</think></answer>": (None, False),
    "<ans<think>x</think>wer>B</answer>": (None, False),
    "<answer>B</ans<think>x</think>wer>": (None, False),
}


@pytest.mark.parametrize("text", TABLE)
def test_hostile_completions_are_read_strictly(text):
    answer, instruct, think = TABLE[text]
    for variant, formed in (("instruct", instruct), ("think", think)):
        completion = parse(text, 4, variant)
        assert (completion.answer, well_formed(completion, variant)) == (answer, formed)


@pytest.mark.parametrize("text", AFTER)
def test_the_variant_after_answers_before_it_thinks(text):
    completion = parse(text, 4, "after")
    assert (completion.answer, well_formed(completion, "after")) == AFTER[text]


def test_an_answer_before_its_thought_is_right_for_after_and_for_no_other():
    text = target({"gold": "B", "options": ["CT", "MR"], "modality": "MR", "finding": None}, "after")
    assert text == "<answer> B </answer><think> MR: MR </think>"
    assert [parse(text, 2, variant).answer for variant in prompts.VARIANTS] == [None, None, "B"]


def test_the_letter_that_counts_is_outside_the_thought():
    for variant in ("think", "after"):
        thinking, answer = "<think>not <answer> A </answer></think>", "<answer> b </answer>"
        text = answer + thinking if variant == "after" else thinking + answer
        assert prompts.with_letter(text, "C") == text.replace(" b ", " c ")
        assert parse(prompts.with_letter(text, "C"), 4, variant).answer == "C"
    with pytest.raises(ValueError, match="no answer in"):
        prompts.letter_at("<think><answer> A </answer></think>")


def test_a_letter_counts_only_among_the_options_offered():
    for n in range(1, 9):
        for i, letter in enumerate(prompts.LETTERS):
            assert parse(f"<answer>{letter}</answer>", n, "instruct").answer == (letter if i < n else None)
    for n in (0, 9, -1):
        with pytest.raises(ValueError, match="n_options"):
            parse("<answer>A</answer>", n, "instruct")


def test_both_rewards_say_what_the_parser_says():
    for text, n, variant in itertools.product({**TABLE, **AFTER}, (1, 2, 4, 8), prompts.VARIANTS):
        read, row = parse(text, n, variant), {"n_options": n, "variant": variant}
        for letter in "ABE":
            assert rewards.accuracy(text, row | {"gold": letter}) == float(read.answer == letter)
        assert rewards.format(text, row | {"gold": "A"}) == float(well_formed(read, variant))


@pytest.mark.parametrize("variant", prompts.VARIANTS)
def test_every_target_is_well_formed_and_names_the_gold_letter(train_questions, variant):
    for question in train_questions.remove_columns("image"):
        for known in (question, {**question, "finding": None}):
            read = {other: parse(target(known, variant), len(question["options"]), other) for other in prompts.VARIANTS}
            assert read[variant].answer == question["gold"]
            assert [other for other, completion in read.items() if well_formed(completion, other)] == [variant]


def test_the_prompt_shows_every_option_under_its_letter_and_the_variants_instruction():
    options = ["cyst", "no finding", "nodule"]
    for variant in prompts.VARIANTS:
        text = render("What is it?", options, variant)
        assert text.startswith("What is it? A) cyst, B) no finding, C) nodule ")
        assert text.endswith(prompts.INSTRUCTIONS[variant])


@pytest.mark.parametrize("variant", prompts.VARIANTS)
def test_a_second_turn_goes_after_the_question_and_what_stands_behind_its_options(variant):
    row = {"question": "Which?", "options": ["CT", "MR"], "after": "A patient: MR."}
    turns = prompts.second_turn("<answer> A </answer>", "Are you sure?", variant)
    asked, answered, said = prompts.conversation(row | {"turns": turns}, variant)
    assert [asked] == prompts.conversation(row, variant) and "MR. A patient: MR. " in asked["content"][1]["text"]
    assert answered == {"role": "assistant", "content": [{"type": "text", "text": "<answer> A </answer>"}]}
    assert said["content"][0]["text"] == f"Are you sure? {prompts.INSTRUCTIONS[variant]}"


def test_a_first_answer_that_spells_a_token_of_the_model_is_not_shown_again():
    with pytest.raises(ValueError, match=r"spells '<\|image_pad\|>'"):
        prompts.second_turn("<answer> A <|image_pad|></answer>", "Are you sure?", "instruct")
