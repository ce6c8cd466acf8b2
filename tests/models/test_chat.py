"""Prompts, completions and letters of Qwen3-VL's own vocabulary and templates, the Thinking checkpoints' among them."""

from pathlib import Path

import pytest
import torch

from safemed.attacks import losses
from safemed.attacks.engine import AttackConfig
from safemed.data import prompts
from safemed.evaluation.evaluator import FUNCTIONS, LOSSES, Evaluator
from safemed.models import tiny
from safemed.models.chat import Chat, check_template
from safemed.models.geometry import to_float
from safemed.models.processor import load_processor
from safemed.models.vlm import VLM, save_model
from safemed.training.rollouts import roll_out, taught
from safemed.training.sft import AugmentingCollator
from support import qwen
from support.commands import here
from support.settings import SIDE, TINY
from support.taught_model import teach
from support.trainings import plain_rows

TEMPLATES = {"instruct": qwen.INSTRUCT, "think": qwen.THINKING}
SMALL = {**TINY, "hidden": 32}  # of 152 thousand tokens
N = 8
EVERYTHING = torch.arange(N)
# All that the parser reads as the letter B.
FORMS = ["B", " B ", "\nB\n", "b", " b ", "B.", " B.", "B:", "(B)", " (B) ", "B)", "( B )"]


def untaught(variant: str, vocabulary: Path, made_once) -> Path:
    """A tiny model with random weights, the real vocabulary and the template of the variant's kind."""

    def make(folder: Path) -> None:
        tokenizer = qwen.tokenizer(vocabulary, TEMPLATES[variant])
        save_model(*tiny.assemble(tokenizer, SMALL, SIDE, seed=0), folder)

    return made_once(f"qwen-{variant}", make)


@pytest.fixture(scope="module", params=TEMPLATES)
def published(request, vocabulary, made_once) -> tuple[str, Path]:
    """A variant, and its untaught model."""
    return request.param, untaught(request.param, vocabulary, made_once)


@pytest.fixture(scope="module")
def asked(shown):
    """Eight questions with the same text, two of each answer."""
    places = [[i for i, gold in enumerate(shown["gold"]) if gold == letter][:2] for letter in "ABCD"]
    return shown.select([i for pair in places for i in pair])


@pytest.fixture(scope="module", params=["instruct", pytest.param("think", marks=pytest.mark.slow)])
def evaluator(request, vocabulary, asked, made_once) -> Evaluator:
    """A variant's model, once it has learned to answer `asked`."""
    variant, start = request.param, untaught(request.param, vocabulary, made_once)
    folder = made_once(f"qwen-{variant}-skilled", lambda folder: teach(start, asked, folder, variants=[variant]))
    return Evaluator(VLM.load(folder), asked, variant, 24)


def test_the_vocabulary_has_the_published_ids(vocabulary):
    ids = {"<|im_start|>": 151644, "<|im_end|>": 151645, "<|vision_start|>": 151652, "<|image_pad|>": 151655}
    ids |= {"<think>": 151667, "</think>": 151668}
    tokenizer = qwen.tokenizer(vocabulary, qwen.THINKING)
    assert {token: tokenizer.convert_tokens_to_ids(token) for token in ids} == ids and len(tokenizer) == 151669
    assert tokenizer.tokenize("<answer>B</answer>") == ["<", "answer", ">B", "</", "answer", ">"]


def test_what_the_prompt_has_opened_belongs_to_the_completion(published, shown):
    variant, folder = published
    chat = Chat(load_processor(folder))
    assert chat.opened == {"instruct": "", "think": "<think>\n"}[variant]
    assert chat.prompt(prompts.conversation(shown[0], variant)).endswith(f"assistant\n{chat.opened}")
    for whole in (f"{chat.opened}CT </think><answer> B </answer>", f"{chat.opened}cut off"):
        assert chat.whole(chat.written(whole)) == whole
    assert chat.written("") == ""


def test_a_second_turn_shows_the_first_answer_as_the_template_would_have_it(published, shown):
    """Whole where nothing is stripped; a Thinking template leaves the thought out, and opens the next one."""
    variant, folder = published
    chat, vlm = Chat(load_processor(folder)), VLM.load(folder)
    first = chat.whole({"instruct": "<answer> B </answer>", "think": "CT it is </think><answer> B </answer>"}[variant])
    turns = prompts.second_turn(first, "Are you sure?", variant)
    plain, again = (prompts.conversation(row, variant) for row in (shown[0], shown[0] | {"turns": turns}))
    begun = chat.prompt(plain).removesuffix(chat.opened)
    asked = f"<|im_end|>\n<|im_start|>user\nAre you sure? {prompts.INSTRUCTIONS[variant]}<|im_end|>\n"
    whole = f"{begun}<answer> B </answer>{asked}<|im_start|>assistant\n{chat.opened}"
    assert chat.prompt(again) == whole and "CT it is" not in whole
    encoded = vlm.encode([again], [""], SIDE)
    read = vlm.tokenizer.decode(encoded.prompt_ids[0][encoded.prompt_mask[0].bool()])
    assert read.replace("<|image_pad|>", "") == whole.replace("<|image_pad|>", "")
    assert (encoded.prompt_ids == vlm.image_token_id).sum() == vlm.columns(torch.zeros(1, 3, SIDE, SIDE)) ** 2


def test_a_tiny_models_second_turn_shows_the_first_thought(tiny_model, shown):
    chat, first = Chat(load_processor(tiny_model)), "<think> CT </think><answer> B </answer>"
    again = shown[0] | {"turns": prompts.second_turn(first, "Are you sure?", "think")}
    assert f"{first}<|im_end|>" in chat.prompt(prompts.conversation(again, "think"))


def test_an_answer_that_spells_a_token_of_the_models_own_is_not_shown(shown):
    with pytest.raises(ValueError, match=r"spells '<\|image_pad\|>'"):
        prompts.second_turn("<answer> <|image_pad|> </answer>", "Are you sure?", "instruct")


def test_without_a_thought_an_opened_one_ends_at_once(vocabulary):
    chat = Chat(tiny.assemble(qwen.tokenizer(vocabulary, qwen.THINKING), SMALL, SIDE, seed=0)[1])
    assert chat.written("<answer> B </answer>") == "</think><answer> B </answer>"
    assert chat.written("<think> </think><answer> B </answer>") == "</think><answer> B </answer>"
    assert chat.written("<think> CT </think>") == "CT </think>"


def test_a_taught_model_is_right_under_the_one_parser(evaluator):
    texts = evaluator.answers(evaluator.images, EVERYTHING)
    assert [evaluator.outcome(text, row) for row, text in enumerate(texts)] == ["right"] * N
    assert all(prompts.well_formed(prompts.parse(text, 4, evaluator.variant), evaluator.variant) for text in texts)
    assert min(evaluator.confidences(evaluator.images, EVERYTHING, texts)) > 0.3  # the likeliest of four
    clean = to_float(evaluator.images, evaluator.vlm.device)
    known = FUNCTIONS if evaluator.variant == "instruct" else ["generate"]  # a choice has no thought before it
    for function in known:
        assert evaluator.classes(function, clean, EVERYTHING) == [row["gold"] for row in evaluator.rows]


def test_the_standard_attack_breaks_it(evaluator):
    words = evaluator.answers(evaluator.images, EVERYTHING)
    config = AttackConfig(steps=5, losses=LOSSES[evaluator.variant])
    found = evaluator.attack(words, EVERYTHING, config, 16, seed=0)
    assert found.broken.float().mean() > 0.8
    assert not evaluator.is_right(found.images, EVERYTHING)[found.broken].any()


@pytest.mark.parametrize("form", FORMS)
def test_the_letter_is_found_in_the_models_own_tokens(evaluator, form):
    """The tokens before it go on with each letter's token, as the tokenizer cuts the text that has this letter."""
    thought = "<think> CT: A </think>" if evaluator.variant == "think" else ""
    text = f"{thought}<answer>{form}</answer>"
    assert prompts.parse(text, 4, evaluator.variant).answer == "B" and text[prompts.letter_at(text)] in "Bb"
    places, vlm = evaluator.letter_places([text], torch.tensor([0])), evaluator.vlm
    asked = evaluator.asked.prompt_ids[0].tolist()
    for letter, token in zip("ABCD", places.tokens[0].tolist(), strict=False):
        cased = letter if "B" in form else letter.lower()
        other = text[: prompts.letter_at(text)] + cased + text[prompts.letter_at(text) + 1 :]
        ids = asked + vlm.tokenizer.encode(vlm.chat.written(other), add_special_tokens=False)
        before = places.prompts.prompt_ids[0].tolist()
        assert ids[: len(before) + 1] == [*before, token]
        assert cased in vlm.tokenizer.decode(token)
    assert len(set(places.tokens[0, :4].tolist())) == 4


def test_the_margin_is_of_the_letters_that_the_model_would_write(evaluator):
    """The logits are those of whole texts that differ in the letter alone, teacher-forced."""
    rows = torch.tensor([0, 3, 7])
    clean = to_float(evaluator.images[rows], evaluator.vlm.device)
    text = ("<think> CT </think>" if evaluator.variant == "think" else "") + "<answer>B</answer>"
    places = evaluator.letter_places([text] * 3, rows)
    found = losses.letter_logits(evaluator.vlm, clean, places, torch.tensor([4, 4, 4]))
    asked = [prompts.conversation(evaluator.rows[i], evaluator.variant) for i in rows.tolist()]
    for place, letter in enumerate("ABCD"):
        encoded = evaluator.vlm.encode(asked, [text.replace(">B<", f">{letter}<")] * 3, SIDE)
        logits = evaluator.vlm.completion_logits(clean, encoded)
        at = [evaluator.vlm.tokenizer.decode(token) for token in encoded.completion_ids[0]].index(f">{letter}")
        assert torch.allclose(found[:, place], logits[:, at, encoded.completion_ids[0, at]], atol=1e-4)


def test_sft_grpo_and_attacks_share_one_rendering(published, shown):
    variant, folder = published
    rows, vlm = plain_rows(shown.select(range(4)), variant), VLM.load(folder)
    batch = AugmentingCollator(vlm.processor)(list(rows))
    ends = [row["target"] + vlm.tokenizer.eos_token for row in rows]
    encoded = vlm.encode([row["prompt"] for row in rows], ends, SIDE)
    targets = taught(vlm, list(rows)).completions
    for i, labels in enumerate(batch["labels"]):
        completion = encoded.completion_ids[i][encoded.completion_mask[i].bool()].tolist()
        assert labels[labels != -100].tolist() == completion == list(targets[i])
        ids = batch["input_ids"][i][batch["attention_mask"][i].bool()].tolist()
        assert ids == encoded.prompt_ids[i][encoded.prompt_mask[i].bool()].tolist() + completion


def test_rollouts_are_rewarded_for_the_whole_completion(evaluator, asked):
    rows = list(plain_rows(asked, evaluator.variant))
    images = to_float(evaluator.images, evaluator.vlm.device)
    settings = {"num_generations": 4, "temperature": 1e-3, "scale_rewards": "none"}
    settings["rewards"] = {"accuracy": 1.0, "format": 0.1}
    draws = torch.Generator().manual_seed(0)
    found = roll_out(evaluator.vlm, images, evaluator.asked, rows, settings, 24, draws)
    assert all((values == 1).all() for values in found.rewards.values()) and found.rewards


def test_a_template_is_checked_with_a_question_of_the_study(published, shown):
    variant, folder = published
    check_template(load_processor(folder), shown[0], variant)
    if variant == "instruct":
        check_template(load_processor(folder), shown[0], "after")


def test_a_checkpoint_whose_template_does_not_serve_a_variant_is_no_base(published, study_data, tmp_path):
    kind, folder = published
    model = {"name": str(folder), "revision": None}
    line = ["make_base.py", "--data", study_data, "--name", "base", "--checkpoint", tmp_path / "checkpoint"]
    for variants in (["think"], ["instruct", "think"]):
        out, settings = tmp_path / "-".join(variants), {"model": model, "image_size": SIDE, "variants": variants}
        if kind == "think" and "instruct" in variants:
            with pytest.raises(SystemExit, match=r"^config: model\.name: instruct: after this chat template"):
                here(*line, "--out", out, settings=settings)
            assert not out.exists()
        else:
            here(*line, "--out", out, settings=settings)
            assert (out / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("template", "variant", "said"),
    [
        (qwen.THINKING, "instruct", "instruct: after this chat template .* no answer of this variant"),
        (qwen.THINKING, "after", "after: after this chat template .* no answer of this variant"),
        (qwen.INSTRUCT.replace("<|image_pad|>", ""), "instruct", "does not show the question and one image"),
        (qwen.INSTRUCT.replace("part.text", "part.text[:9]"), "think", "does not show the question and one image"),
        (qwen.INSTRUCT.replace("in messages", "in messages[:1]"), "instruct", "does not show a second turn after"),
        (qwen.INSTRUCT.replace("in messages", "in messages[-1:]"), "instruct", "does not show a second turn after"),
    ],
)
def test_a_template_that_loses_something_is_refused(vocabulary, published, shown, template, variant, said):
    processor = load_processor(published[1])
    processor.chat_template = template
    with pytest.raises(ValueError, match=said):
        check_template(processor, shown[0], variant)
