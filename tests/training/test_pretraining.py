"""What the pretraining shows the model: the questions it asks about words, and that it learns from what it is shown."""

import itertools
import re

import numpy as np
import pytest
import torch

from safemed.data import prompts
from safemed.models.tiny import build_tiny
from safemed.models.vlm import VLM
from safemed.training import pretraining
from safemed.training.pretraining import TOKEN_NOISE, Pretraining, corpus
from safemed.utils.cost import CostMeter
from support.commands import here
from support.malice import set_trap
from support.settings import BASE, SIDE, TINY

GUESSED = "Lesion Grading"
VARIANTS = ["instruct", "think"]
SETTINGS = {
    **BASE,
    "steps": 8,
    "binding_steps": 4,
    "batch_size": 24,
    "max_options": 4,
    "guessed": [GUESSED],
    "guessing_steps": 2,
}


ALONE = 2 * SETTINGS["binding_steps"]  # batches of binding alone: so few do not bind, and as many again follow


class Watched(VLM):
    """The model itself, keeping each question about words and the tokens that stood for its image."""

    def encode(self, asked, completions, side):
        self.asked = list(zip([turn[0]["content"][1]["text"] for turn in asked], completions, strict=True))
        return super().encode(asked, completions, side)

    def logits_of(self, tokens, encoded):
        self.shown = [*getattr(self, "shown", []), (self.asked, tokens.detach())]
        return super().logits_of(tokens, encoded)


@pytest.fixture(scope="module")
def watched(train_questions, tmp_path_factory):
    """A finished pretraining of eight steps, and the true names of each image."""
    vlm = Watched(*build_tiny(corpus(train_questions, VARIANTS), TINY, SIDE, seed=0))
    training = Pretraining(vlm, train_questions, VARIANTS, SETTINGS, 0, SIDE, CostMeter("base", "base"))
    curves = training.run(tmp_path_factory.mktemp("pretraining") / "base.pt", every=4)
    assert [row["step"] for row in curves] == [4, 8] and len(vlm.shown) == 8 + 4  # as many again for want of binding
    return vlm, train_questions.remove_columns("image").to_pandas()


def offered(text: str) -> list[str]:
    """The options that a rendered question lists."""
    listed = re.search(r" A\) (.*?) (?:Answer with|Think in)", text)[1]
    return re.split(r", [B-H]\) ", listed)


def test_the_letter_taught_is_that_of_the_option_the_thought_names(watched):
    vlm, rows = watched
    names = {name for options in rows.options for name in options}
    for asked, _ in vlm.shown:
        assert len({len(offered(text)) for text, _ in asked}) > 1  # two to four options, in one batch
        for text, target in asked:
            options, letter = offered(text), re.search(r"<answer> (\w) </answer>", target)[1]
            assert set(options) <= names and len(set(options)) == len(options)
            thought = re.search(r"<think> (?:.*: )?(.*) </think>", target)
            assert not thought or options[prompts.LETTERS.index(letter)] == thought[1]


def test_wrong_options_are_of_the_questions_type_once_letters_are_bound(watched):
    """Else the type asked for would tell the answer among names of other types."""
    vlm, rows = watched
    kinds = {
        kind: {name for options in part.options for name in options} for kind, part in rows.groupby("question_type")
    }

    def share_of_own_type(asked) -> float:
        same = []
        for text, _ in asked:
            same += [option in kinds[kind_of(text, rows)] for option in offered(text)]
        return float(np.mean(same))

    assert all(share_of_own_type(asked) < 0.9 for asked, _ in vlm.shown[:ALONE])
    assert all(share_of_own_type(asked) == 1 for asked, _ in vlm.shown[ALONE:])


def kind_of(text: str, rows) -> str:
    """The type of a rendered question."""
    wordings = rows.groupby("question").question_type.first()
    return wordings[max((wording for wording in wordings.index if text.startswith(wording)), key=len)]


def test_the_answers_taught_are_true_of_the_image_but_where_they_are_guessed(watched):
    vlm, rows = watched
    words, found = vlm.model.get_input_embeddings().weight.detach(), {True: [], False: []}
    first = len(vlm.shown) - SETTINGS["guessing_steps"]
    for step, (asked, tokens) in enumerate(vlm.shown):
        if step < ALONE:
            continue
        for (text, target), image in zip(asked, tokens, strict=True):
            options, letter = offered(text), re.search(r"<answer> (\w) </answer>", target)[1]
            named = vlm.tokenizer.encode(f" {options[prompts.LETTERS.index(letter)]}")[0]
            guessed = step >= first and kind_of(text, rows) == GUESSED
            found[guessed].append(named in torch.cdist(image, words).argmin(1))
    assert all(found[False]) and 0.2 < np.mean(found[True]) < 0.8


def test_images_are_exact_words_first_and_noisy_ones_then(watched):
    vlm, _ = watched
    for step, (_, tokens) in enumerate(vlm.shown):
        alike = (tokens - tokens[:, :1]).abs().amax((1, 2))  # [B], zero where all tokens of an image are one word
        assert (alike == 0).all() if step < ALONE else (alike > 0).all()


def test_the_noise_is_a_share_of_the_words_length(watched):
    vlm, _ = watched
    words = vlm.model.get_input_embeddings().weight.detach()
    for _, tokens in vlm.shown[ALONE:]:
        off = torch.cdist(tokens.flatten(0, 1), words).amin(1).square().mean() / words.square().sum(1).mean()
        assert 0 < off < TOKEN_NOISE


def test_a_type_to_unlearn_that_the_data_lack_is_refused_before_training(study_data, tmp_path):
    settings = {"model": {"name": "tiny", "tiny": TINY}, "image_size": SIDE, "variants": VARIANTS}
    settings["base"] = {**SETTINGS, "guessed": ["Sizes"]}
    folders = ["--checkpoint", tmp_path / "checkpoint", "--out", tmp_path / "model"]
    with pytest.raises(SystemExit, match=r"^config: base.guessed: .* type Sizes; its types are .*Lesion Grading"):
        here("make_base.py", "--data", study_data, "--name", "base", *folders, settings=settings)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("bound", "batches"), [(0.0, 8), (2.0, 12)])
def test_binding_goes_on_until_letters_are_right_and_no_longer(
    train_questions, tmp_path, monkeypatch, caplog, bound, batches
):
    monkeypatch.setattr(pretraining, "BOUND", bound)
    vlm = Watched(*build_tiny(corpus(train_questions, VARIANTS), TINY, SIDE, seed=0))
    Pretraining(vlm, train_questions, VARIANTS, SETTINGS, 0, SIDE, CostMeter("base", "base")).run(
        tmp_path / "base.pt", every=4
    )
    assert len(vlm.shown) == batches
    assert ("raise base.binding_steps" in caplog.text) == (batches == 12)
    asked = [[text for text, _ in asked] for asked, _ in vlm.shown]
    assert all(first != second for first, second in itertools.combinations(asked, 2))  # no batch twice


def test_a_checkpoint_that_would_run_code_is_refused_in_one_line(train_questions, tmp_path):
    set_trap(tmp_path / "base.pt", tmp_path / "sprung")
    vlm = VLM(*build_tiny(corpus(train_questions, VARIANTS), TINY, SIDE, seed=0))
    training = Pretraining(vlm, train_questions, VARIANTS, SETTINGS, 0, SIDE, CostMeter("base", "base"))
    with pytest.raises(SystemExit, match=r"base.pt: no checkpoint of this training, .*delete it") as error:
        training.run(tmp_path / "base.pt", every=4)
    assert "\n" not in str(error.value) and not (tmp_path / "sprung").exists()


def test_a_pretraining_of_one_step_trains(train_questions, tmp_path):
    vlm = VLM(*build_tiny(corpus(train_questions, VARIANTS), TINY, SIDE, seed=0))
    before = {name: parameter.detach().clone() for name, parameter in vlm.model.named_parameters()}
    settings = {**SETTINGS, "steps": 1, "binding_steps": 0, "guessing_steps": 0}
    Pretraining(vlm, train_questions, VARIANTS, settings, 0, SIDE, CostMeter("base", "base")).run(
        tmp_path / "base.pt", every=1
    )
    moved = {name for name, parameter in vlm.model.named_parameters() if not torch.equal(parameter, before[name])}
    assert any("visual" in name for name in moved) and any("language_model" in name for name in moved)
