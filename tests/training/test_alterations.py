"""Alterations on the real trainers: hints, second turns, images without what is asked for; who is asked what."""

from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
import yaml

from safemed.attacks.losses import words_away
from safemed.data import prompts
from safemed.data.clinical_stages import presupposes_lesion
from safemed.data.dataset import as_array, as_arrays, load_questions
from safemed.models.chat import Chat
from safemed.models.geometry import to_float
from safemed.models.processor import load_processor
from safemed.models.vlm import VLM, frozen
from safemed.stress.hints import Templates, mentions
from safemed.stress.hints import hinted as hinted_row
from safemed.training import alterations, common, targets
from safemed.training.abstention import offered
from safemed.training.alterations import GRPOAlterations
from safemed.training.augmentation import Augmentation
from safemed.training.sft import AugmentingCollator
from safemed.training.token_losses import forward_kl
from support.commands import here
from support.grpo_trainers import Watched, grpo_trainer, nearest, trained
from support.paths import TEMPLATES
from support.settings import ADVERSARIAL, SIDE, TRAINING
from support.trainings import parsed, plain_rows, training_arguments

READ = Templates.read(TEMPLATES)
HINTS = READ.taught()
K = 3


def altered(hints: int = 0, erased: float = 0.0, seed: int = 0, turns: float = 0.0) -> GRPOAlterations:
    """The alterations of a method with the repository's templates."""
    return alterations.for_grpo({"hints": hints, "erased": erased, "turns": turns}, TEMPLATES, seed)


def text(prompt: list[dict]) -> str:
    """The words of a prompt."""
    return prompt[0]["content"][1]["text"]


class Asked(Watched):
    """The trainer itself; it keeps what its questions became, their losses, and the words that each pass was asked."""

    def keep(self, rows: list[dict], step: int, policy: list[dict]) -> None:
        """What a step made of its rows, and the loss of each under all its wordings."""
        self.became = {row["question_id"]: row["prompt"] for row in policy}
        self.losses = {row["question_id"]: self.by_hand(row, step) for row in rows}
        assert [text(row["prompt"]) for row in policy] == [text(self.became[row["question_id"]]) for row in rows]

    @torch.no_grad()
    def by_hand(self, row: dict, step: int) -> dict[str, float]:
        """The loss of a question's target under each wording of a step, one at a time."""
        image, losses = to_float(torch.tensor(np.array(row["image"]))[None], self.vlm.device), {}
        with frozen(self.vlm.model):
            for prompt in altered(K).wordings(row, step):
                encoded = self.vlm.encode([prompt], [row["target"]], SIDE)
                losses[text(prompt)] = words_away(self.vlm, encoded)(image, torch.tensor([0]))[0].item()
        return losses

    def listen(self, who: str, backbone: torch.nn.Module) -> None:
        """Keep the words of every forward pass of a model, under who it is and the part of the step."""

        def hook(module, args, kwargs):
            if kwargs["input_ids"].shape[1] > 1:  # not a further token of a rollout
                said = self.vlm.tokenizer.batch_decode(kwargs["input_ids"], skip_special_tokens=True)
                self.words[who, self.recorder.phase[-1]] += said

        self.words = getattr(self, "words", defaultdict(list))
        backbone.register_forward_pre_hook(hook, with_kwargs=True)


def asked(start, questions, folder, augmentation: Augmentation, alter: GRPOAlterations, **more) -> Asked:
    """A trainer that listens, of four prompts; trained."""

    def listening(rows, vlm, step):
        made = alter(rows, vlm, step)
        trainer.altered = made.policy
        if alter.n_hints:
            trainer.keep(rows, step, made.policy)
        return made

    trainer = grpo_trainer(start, questions, folder, augmentation, alter=listening, kind=Asked, **more)
    trainer.listen("policy", trainer.vlm.backbone)
    trainer.listen("reference", trainer.reference.backbone)
    return trained(trainer)


@pytest.fixture(scope="module")
def hinted(tiny_model, questions, tmp_path_factory) -> Asked:
    """AT-GRPO with hints after a step of four questions."""
    folder = tmp_path_factory.mktemp("hinted")
    return asked(tiny_model, questions, folder, Augmentation(**ADVERSARIAL), altered(K), steps=1)


def test_the_worst_of_the_drawn_hints_becomes_the_prompt(hinted):
    assert len(hinted.became) == 4
    for question_id, prompt in hinted.became.items():
        losses = hinted.losses[question_id]
        assert len(losses) == K and max(losses.values()) - min(losses.values()) > 1e-3
        assert text(prompt) == max(losses, key=losses.get)
    worst = np.mean([max(losses.values()) for losses in hinted.losses.values()])
    assert hinted.state.log_history[0]["hint_loss"] == pytest.approx(worst, rel=1e-4)


def test_every_pass_of_the_policy_is_asked_the_hinted_question_and_the_reference_the_clean_one(hinted, questions):
    clean = [text(row["prompt"]) for row in hinted.inputs]
    misled = [text(hinted.became[row["question_id"]]) for row in hinted.inputs]
    assert not set(clean) & set(misled)
    passes = {"attack": ADVERSARIAL["steps"], "rollout": 1, "loss": 1}
    for phase, times in passes.items():
        heard = hinted.words["policy", phase]
        assert len(heard) == 4 * times
        assert all(words in said for words, said in zip(misled * times, heard, strict=True)), phase
    heard = hinted.words["reference", "loss"]
    assert len(heard) == 4 and all(words in said for words, said in zip(clean, heard, strict=True))
    assert not any(words in said for said in heard for words in misled)
    _, distance = nearest(hinted.recorder.images("reference", "loss"), questions, hinted.vlm)
    assert distance.max() < 0.01


def test_the_anchor_is_the_kl_from_the_clean_question_to_the_hinted_one(tiny_model, questions, tmp_path):
    """On clean images, before any update, each rollout by itself."""
    trainer = asked(tiny_model, questions, tmp_path, Augmentation(), altered(K), steps=1)
    start, found, total = VLM.load(tiny_model), trainer.found, 0.0
    images = to_float(torch.from_numpy(as_arrays(row["image"] for row in trainer.inputs)), start.device)
    for row, words, count in zip(found.rows, found.completions, found.counts.tolist(), strict=True):
        clean, misled = (
            log_probabilities(start, rows[row]["prompt"], words, images[[row]])
            for rows in (trainer.inputs, trainer.altered)
        )
        total += count * forward_kl(clean, misled).sum().item()
    kl = total / found.total.numel()
    assert kl > 1e-4 and trainer.state.log_history[0]["anchor_kl"] == pytest.approx(kl, rel=1e-3)


def log_probabilities(vlm: VLM, prompt: list[dict], words: tuple[int, ...], image: torch.Tensor) -> torch.Tensor:
    """Those [C, V] of a completion's tokens."""
    encoded = vlm.encode_ids(vlm.encode([prompt], [""], SIDE), [words])
    with torch.no_grad():
        return vlm.completion_logits(image, encoded)[0, :-1].log_softmax(-1)


def test_without_hints_the_reference_is_asked_what_the_policy_is(tiny_model, questions, tmp_path):
    trainer = asked(tiny_model, questions, tmp_path, Augmentation(**ADVERSARIAL), altered(), steps=1)
    assert trainer.words["policy", "loss"] == trainer.words["reference", "loss"]
    assert "hint_loss" not in trainer.state.log_history[0] and not trainer.words["policy", "step"]


def drawn(question: dict, step: int = 0, seed: int = 0, k: int = K) -> list[str]:
    """The words of a question's prompts at a step."""
    return [text(prompt) for prompt in altered(k, seed=seed).wordings(question, step)]


def test_hints_are_drawn_by_seed_step_and_question_and_mislead(questions):
    rows = list(plain_rows(questions, "instruct"))
    row = max(rows, key=lambda row: len(row["options"]))
    plain = prompts.render(row["question"], row["options"], "instruct")
    everything = {f"{hint.claim.format(option=option)} {plain}" for hint in HINTS for option in row["options"]}
    right = {f"{hint.claim.format(option=prompts.gold_text(row))} {plain}" for hint in HINTS}
    steps = [drawn(row, step) for step in range(300)]
    assert all(len(set(words)) == K and set(words) <= everything - right for words in steps)
    assert {words for step in steps for words in step} == everything - right  # all hints, all wrong options
    assert len(set(drawn(row, k=len(HINTS)))) == len(HINTS)
    assert drawn(row) == steps[0] and drawn(row, seed=1) != steps[0]
    other = {**row, "question_id": "another"}
    assert any(drawn(other, step) != words for step, words in enumerate(steps))


def test_hints_that_are_kept_for_the_evaluation_are_never_drawn(tmp_path):
    known = READ.hints
    assert {hint.name for hint in HINTS} == {name for name, hint in known.items() if hint.train} != set(known)
    changed = yaml.safe_load(TEMPLATES.read_text())
    for name, hint in changed["hints"].items():
        hint["train"] = name == "report-2"
    (tmp_path / "templates.yaml").write_text(yaml.safe_dump(changed))
    left = Templates.read(tmp_path / "templates.yaml").taught()
    assert [hint.name for hint in left] == ["report-2"]
    with pytest.raises(ValueError, match="augmentation.hints: 2 cannot be drawn from 1"):
        alterations.for_grpo({"hints": 2}, tmp_path / "templates.yaml", 0)


def test_checkpoints_belong_to_the_file_of_hints_that_they_were_trained_with(study_data, tiny_model, tmp_path):
    def identity(templates=None) -> dict:
        args = parsed(training_arguments(study_data, tiny_model, tmp_path, altered=bool(templates)), TRAINING)
        args.templates = templates
        return common.identity(args, "train_grpo.py")

    copy, changed = tmp_path / "copy" / "templates.yaml", tmp_path / "templates.yaml"
    copy.parent.mkdir()
    copy.write_text(TEMPLATES.read_text())
    changed.write_text(TEMPLATES.read_text().replace("Most readers", "Most people"))
    assert identity(copy) == identity(TEMPLATES) != identity(changed) != identity() != identity(TEMPLATES)


@pytest.fixture(scope="module")
def lesions(train_questions) -> list[dict]:
    """Questions that presuppose a lesion whose place is known, as the trainer has them."""
    rows = plain_rows(train_questions.select(range(120)), "think")
    return [row for row in rows if row["box"] and presupposes_lesion(row["question_type"])]


def erased(row: dict, step: int = 0, share: float = 0.5) -> dict:
    """What a step makes of a row."""
    return offered(row, READ.abstain, share, 0, f"step {step}")


def test_a_share_of_the_images_lacks_what_is_asked_for_and_to_abstain_is_right_there_alone(lesions):
    assert len(lesions) > 20
    kinds = Counter()
    for row in lesions:
        before = as_array(row["image"])
        for step in range(20):
            made = erased(row, step)
            assert made["options"] == [*row["options"], READ.abstain] and made["n_options"] == len(made["options"])
            assert READ.abstain in text(made["prompt"])
            seen = as_array(made["image"])
            if made["gold"] == row["gold"]:
                assert made["target"] == row["target"] and (seen == before).all()
                continue
            assert made["gold"] == prompts.LETTERS[len(row["options"])]
            assert made["target"] == f"<think> {READ.abstain} </think><answer> {made['gold']} </answer>"
            x0, y0, x1, y1 = row["box"]
            assert (seen[y0:y1, x0:x1] != before[y0:y1, x0:x1]).any()
            kinds[bool((seen == seen[0, 0]).all())] += 1
    n = 20 * len(lesions)
    assert sum(kinds.values()) == pytest.approx(n / 2, rel=0.1) and kinds[True] == pytest.approx(n / 4, rel=0.2)


def test_what_is_erased_changes_with_the_step_and_not_with_the_row(lesions):
    def golds(step: int, share: float = 0.5, seed: int = 0) -> list[str]:
        return [row["gold"] for row in altered(erased=share, seed=seed)(lesions, None, step).policy]

    assert golds(0) == golds(0) != golds(1) and golds(0) != golds(0, seed=1)
    assert golds(0, share=1e-9) == [row["gold"] for row in lesions]


def test_every_pass_sees_what_the_step_erased_and_is_offered_to_abstain(tiny_model, questions, tmp_path):
    """The reference too, which is the start model's answer to the same."""
    trainer = asked(tiny_model, questions, tmp_path, Augmentation(), altered(erased=1.0), steps=1)
    assert all(row["gold"] == prompts.LETTERS[row["n_options"] - 1] for row in trainer.altered)
    for key in (("policy", "rollout"), ("policy", "loss"), ("reference", "loss")):
        assert len(trainer.words[key]) == 4 and all(READ.abstain in said for said in trainer.words[key])
        _, distance = nearest(trainer.recorder.images(*key), questions, trainer.vlm)
        assert (distance > 1).all()
    assert abs(trainer.state.log_history[0]["anchor_kl"]) < 1e-6


def test_hints_go_before_questions_that_offer_to_abstain(tiny_model, questions, tmp_path):
    trainer = asked(tiny_model, questions, tmp_path, Augmentation(), altered(K, 1.0), steps=1)
    for row in trainer.altered:
        said = text(row["prompt"])
        assert READ.abstain in said and not said.startswith(row["question"]) and row["question"] in said
    heard = trainer.words["reference", "loss"]
    assert not any(said in words for words in heard for said in map(text, trainer.became.values()))


def test_sft_teaches_to_abstain_on_the_images_that_lack_what_is_asked_for(study_data, tiny_model, lesions, tmp_path):
    """The same ones in every epoch; the labels are the target, as the trainer sees them."""
    processor = load_processor(tiny_model)
    collate = AugmentingCollator(processor, alterations.for_sft({"erased": 0.5}, TEMPLATES, 0))
    batch, again = collate(lesions), collate(lesions)
    assert torch.equal(batch["clean_images"], again["clean_images"])
    said = [processor.tokenizer.decode(row[row != -100]).strip() for row in batch["labels"]]
    erased = [READ.abstain in words for words in said]
    before = torch.from_numpy(as_arrays(row["image"] for row in lesions))
    assert (batch["clean_images"] != before).flatten(1).any(1).tolist() == erased and 0.2 < np.mean(erased) < 0.8
    for row, words, missing in zip(lesions, said, erased, strict=True):
        letter = prompts.LETTERS[len(row["options"])] if missing else row["gold"]
        assert f"<answer> {letter} </answer>" in words
    given = training_arguments(study_data, tiny_model, tmp_path, altered=True)
    here("train_sft.py", *given, settings={**TRAINING, "steps": 2, "augmentation": {"kind": "clean", "erased": 0.5}})
    assert (tmp_path / "model" / "model.safetensors").exists()


@pytest.mark.parametrize("variant", prompts.VARIANTS)
def test_half_of_the_questions_come_after_a_hint_and_the_thought_tells_who_gave_it_and_whether_it_is_true(
    questions, train_questions, variant
):
    rows, kinds, sources = list(plain_rows(train_questions.select(range(200)), variant)), Counter(), set()
    alter = alterations.for_sft({"kind": "clean", "told": 0.5}, TEMPLATES, 0)
    for row in rows:
        made = alter(row)
        assert made["gold"] == row["gold"] and made["options"] == row["options"] and made["image"] is row["image"]
        if made["prompt"] == row["prompt"]:
            assert made["target"] == row["target"]
            kinds["plain"] += 1
            continue
        hint = READ.all_hints[made["hint"]]
        true = made["question"] == hinted_question(row, hint, "positive")
        assert hint.train and (true or made["question"] == hinted_question(row, hint, "negative"))
        assert made["question"] in text(made["prompt"])
        thought = f"<think> {hint.source} {'true' if true else 'false'}: {prompts.gold_text(row)} </think>"
        wanted = f"<answer> {row['gold']} </answer>"
        assert made["target"] == {"instruct": wanted, "think": thought + wanted, "after": wanted + thought}[variant]
        read = prompts.parse(made["target"], len(row["options"]), variant)
        assert mentions(read.thought, hint) == (variant in prompts.THINKING)
        kinds["true" if true else "false"] += 1
        sources.add(hint.name)
    assert 75 < kinds["plain"] < 125 and min(kinds["true"], kinds["false"]) > 30
    assert sources == {hint.name for hint in READ.told()}  # voices of both sections of the file
    assert [alter(row) for row in rows[:9]] == [alter(row) for row in rows[:9]]  # the same in every epoch


def hinted_question(row: dict, hint, polarity: str) -> str:
    """A row's question after a hint."""
    return hinted_row(row, hint, polarity, 0)["question"]


def test_sft_that_tells_trains_and_refuses_thoughts_that_the_model_could_not_end(study_data, tiny_model, tmp_path):
    room = {"max_new_tokens": {"instruct": 8, "think": 24}}
    settings = {**TRAINING, **room, "steps": 2, "augmentation": {"kind": "clean", "told": 0.5}}
    given = training_arguments(study_data, tiny_model, tmp_path, "think", altered=True)
    plain = targets.plain(load_questions(study_data, "train"), "think")
    told = alterations.told_targets(load_questions(study_data, "train"), "think", plain, {"told": 0.5}, TEMPLATES, 0)
    assert told.keys() == plain.keys() and 0.3 < np.mean([told[name] != plain[name] for name in plain]) < 0.7
    chat, tokenizer = Chat(load_processor(tiny_model)), load_processor(tiny_model).tokenizer
    longest = max(len(tokenizer(chat.written(words))["input_ids"]) for words in plain.values())
    short = settings | {"max_new_tokens": {"instruct": 8, "think": longest}}
    with pytest.raises(SystemExit, match=f"max_new_tokens.think: {longest}; .* targets are longer"):
        here("train_sft.py", *given, settings=short)
    here("train_sft.py", *given, settings=settings)
    assert (tmp_path / "model" / "model.safetensors").exists()


def posed_again(rows: list[dict], steps: int = 1, share: float = 1.0, seed: int = 0) -> list[dict]:
    """What the policy is asked at each of some steps."""
    return [row for step in range(steps) for row in altered(turns=share, seed=seed)(rows, None, step).policy]


@pytest.fixture(scope="module", params=prompts.VARIANTS)
def some(request, train_questions) -> list[dict]:
    """Questions as the trainer has them."""
    return list(plain_rows(train_questions.select(range(40)), request.param))


def test_a_share_of_the_questions_is_put_again_and_its_target_stays(some):
    made = posed_again(some, 25, share=0.25)
    again = [row for row in made if "turns" in row]
    assert len(again) == pytest.approx(len(made) / 4, rel=0.15)
    plain = {row["question_id"]: row for row in some}
    for row in made:
        before = plain[row["question_id"]]
        assert row["target"] == before["target"] and row["prompt"][0] == before["prompt"][0]
        assert len(row["prompt"]) == (3 if "turns" in row else 1)


def test_neither_the_first_answer_nor_a_claim_tells_what_is_right(some):
    """In well-formed answers and taught wordings, every option is drawn as often."""
    taught = {kind: READ.wordings(kind, train=True) for kind in ("silent", "doubt", "claim")}
    kinds, firsts, claims, n = Counter(), Counter(), Counter(), 0
    for row in posed_again(some, 60):
        (_, first), (_, said) = row["turns"]
        assert [message["role"] for message in row["prompt"]] == ["user", "assistant", "user"]
        assert [message["content"][0]["text"] for message in row["prompt"][1:]] == [first, said]
        read = prompts.parse(first, len(row["options"]), row["variant"])
        assert prompts.well_formed(read, row["variant"])
        firsts[(prompts.LETTERS.index(read.answer) - prompts.LETTERS.index(row["gold"])) % len(row["options"])] += 1
        push = said.removesuffix(f" {prompts.INSTRUCTIONS[row['variant']]}")
        named = {one.text.format(option=option, letter=""): (kind, option)
                 for kind, known in taught.items() for one in known for option in row["options"]}  # fmt: skip
        kind, option = named[push]  # and no wording that is kept for the evaluation
        kinds[kind] += 1
        claims[option == prompts.gold_text(row)] += kind == "claim"
        n += 1 / len(row["options"])
    total = sum(kinds.values())
    assert set(kinds) == set(taught) and all(count == pytest.approx(total / 3, rel=0.15) for count in kinds.values())
    assert firsts[0] == pytest.approx(n, rel=0.12) and claims[True] == pytest.approx(n / 3, rel=0.2)


def test_what_was_said_before_is_the_same_whatever_the_image_shows(some):
    """The modality is the right answer to some questions, and tells of that to others."""
    other = {"gold": "B", "modality": "another", "finding": "another"}
    said, again = ([row["turns"] for row in posed_again(rows, 4)] for rows in (some, [row | other for row in some]))
    assert said == again


def test_a_question_that_is_put_again_keeps_the_hint_of_which_its_target_tells(some):
    told, both = (alterations.for_sft({"told": 0.5} | turns, TEMPLATES, 0) for turns in ({}, {"turns": 0.5}))
    kinds = Counter()
    for row in some:
        once, again = told(row), both(row)
        assert again["target"] == once["target"] and again["prompt"][0] == once["prompt"][0]
        kinds["hint" in again, len(again["prompt"])] += 1
    assert set(kinds) == {(hinted, n) for hinted in (False, True) for n in (1, 3)}


def test_what_is_put_again_changes_with_step_and_seed_and_not_with_the_process(some):
    def turns(**changes) -> list:
        return [row.get("turns") for row in posed_again(some, share=0.5, **changes)]

    assert turns() == turns() != turns(seed=1)
    both = posed_again(some, 2, share=0.5)
    assert [row.get("turns") for row in both[: len(some)]] != [row.get("turns") for row in both[len(some) :]]


def test_the_policy_is_asked_again_and_the_reference_once(tiny_model, questions, tmp_path):
    trainer = asked(tiny_model, questions, tmp_path, Augmentation(**ADVERSARIAL), altered(turns=1.0), steps=1)
    said = [row["turns"][1][1] for row in trainer.altered]
    assert len(said) == 4 and all(row["target"] for row in trainer.altered)
    for phase, times in {"attack": ADVERSARIAL["steps"], "rollout": 1, "loss": 1}.items():
        heard = trainer.words["policy", phase]
        assert len(heard) == 4 * times
        assert all(words in prompt for words, prompt in zip(said * times, heard, strict=True)), phase
    clean = trainer.words["reference", "loss"]
    assert len(clean) == 4 and not any(words in prompt for prompt in clean for words in said)
    assert trainer.state.log_history[0]["anchor_kl"] > 1e-5


def test_sft_teaches_the_second_answer_alone(study_data, tiny_model, some, tmp_path):
    """The first answer is read and not learned; the same questions are put again in every epoch."""
    processor = load_processor(tiny_model)
    collate = AugmentingCollator(processor, alterations.for_sft({"turns": 0.5}, TEMPLATES, 0))
    batch, again = collate(some), collate(some)
    assert torch.equal(batch["input_ids"], again["input_ids"])
    learned = [processor.tokenizer.decode(row[row != -100], skip_special_tokens=True) for row in batch["labels"]]
    assert learned == [row["target"] for row in some]
    read = processor.tokenizer.batch_decode(batch["input_ids"])
    turns = [said.count("<|im_start|>assistant") for said in read]
    assert set(turns) == {1, 2} and 0.25 < turns.count(2) / len(turns) < 0.75
    if some[0]["variant"] == "instruct":
        given = training_arguments(study_data, tiny_model, tmp_path, altered=True)
        here("train_sft.py", *given, settings={**TRAINING, "steps": 2, "augmentation": {"kind": "clean", "turns": 0.5}})
        assert (tmp_path / "model" / "model.safetensors").exists()
