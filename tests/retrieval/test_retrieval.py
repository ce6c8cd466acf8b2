"""Reports, what is retrieved of them, and poisons: the corpus holds what it should, and poisons come to be found."""

import numpy as np
import pytest
import torch

from safemed.attacks.pgd import pgd
from safemed.attacks.threat_model import Ball, random_start
from safemed.data.dataset import as_arrays, load_questions
from safemed.data.prompts import LETTERS, conversation, gold_text
from safemed.models.geometry import to_float, to_uint8
from safemed.retrieval.corpus import NEIGHBOURS, Corpus, images_of, neighbours, pooled_features
from safemed.retrieval.entries import entries_of
from safemed.retrieval.library import Library
from safemed.retrieval.poisons import KINDS, aims, cosine_to, poisons, towards
from safemed.retrieval.reports import Report, beside
from safemed.retrieval.retriever import Retriever, query_text
from safemed.stress.hints import claimed

SETTINGS = {"k": 2, "words": 0.05, "eps": 8, "steps": 20, "restarts": 2}
QUESTION = {
    "question_id": "q", "question_type": "Diagnosis", "question": "What is it?", "options": ["a cyst", "Nodule"],
    "gold": "B",
}  # fmt: skip
REPORT = Report((("Modality", "CT"), ("Diagnosis", "nodule"), ("Size", "large")))


@pytest.fixture(scope="module")
def corpus(untrained, train_questions) -> Corpus:
    entries = entries_of(train_questions)
    return Corpus(entries, pooled_features(untrained, images_of(train_questions, entries)))


@pytest.fixture(scope="module")
def library(untrained, corpus, train_questions, study_data) -> Library:
    """Questions of test, beside the corpus of train."""
    test = load_questions(study_data, "test")
    shown = {"clean": torch.from_numpy(as_arrays(test["image"]))}
    rows = list(test.remove_columns("image"))
    return Library(untrained, corpus, train_questions, shown, rows, SETTINGS, seed=0)


def keys(found) -> list[list[str]]:
    return [[one.entry.question_id for one in several] for several in found]


def poisoned(found) -> float:
    """The share of questions for which a poison is found."""
    return np.mean([any(one.poison for one in several) for several in found])


def test_a_report_is_the_right_answers_and_says_which_option_it_gives():
    assert REPORT.text == "Modality: CT. Diagnosis: nodule. Size: large."
    assert REPORT.says(QUESTION) == "B" and REPORT.states(QUESTION)
    other = QUESTION | {"options": ["cyst", "bone"], "gold": "A"}
    assert REPORT.says(other) == "" and not REPORT.states(other)
    assert not REPORT.states(QUESTION | {"question_type": "Size"})


def test_a_claim_takes_the_place_of_what_is_said_of_the_question_s_type_alone():
    wrong = REPORT.claiming(QUESTION, "A")
    assert wrong.text == "Modality: CT. Diagnosis: a cyst. Size: large."
    assert wrong.says(QUESTION) == "A" and not wrong.states(QUESTION)
    unclaimed = wrong.unclaimed(QUESTION)
    assert unclaimed.text == "Modality: CT. Diagnosis: not stated. Size: large." and unclaimed.says(QUESTION) == ""
    alone = Report((("Diagnosis", "a cyst"),))  # an image of one question: its report says as much without the claim
    assert alone.unclaimed(QUESTION).text == "Diagnosis: not stated."
    assert Report((("Size", "large"),)).claiming(QUESTION, "A").text == "Size: large. Diagnosis: a cyst."


def test_reports_stand_before_the_question_and_nothing_else_changes():
    asked = beside(QUESTION, [REPORT, Report(())], "Found: {report}")
    assert asked == QUESTION | {"question": f"Found: {REPORT.text} What is it?"}
    assert beside(QUESTION, [], "Found: {report}") == QUESTION
    assert REPORT.text in conversation(asked, "instruct")[0]["content"][1]["text"]


def test_the_corpus_has_each_training_image_once_with_its_right_answers_and_no_image_of_test(
    corpus, train_questions, study_data
):
    found = [entry.image_key for entry in corpus.entries]
    assert sorted(found) == sorted(set(train_questions["image_key"]))
    for split in ("val", "test"):
        assert not set(found) & set(load_questions(study_data, split)["image_key"])
    reports = {entry.image_key: entry.report for entry in corpus.entries}
    for row in train_questions.remove_columns("image"):
        assert reports[row["image_key"]].states(row) and gold_text(row) in reports[row["image_key"]].text


def test_a_corpus_is_read_as_it_was_written_and_refused_where_its_parts_are_of_two(corpus, tmp_path):
    corpus.write(tmp_path)
    read = Corpus.read(tmp_path)
    assert read.entries == corpus.entries and torch.equal(read.features, corpus.features)
    np.save(tmp_path / "features.npy", corpus.features[1:].numpy())
    with pytest.raises(ValueError, match=r"\d+ entries, and features of .* run build_corpus again"):
        Corpus.read(tmp_path)


def test_a_report_that_spells_a_token_of_the_model_s_own_is_refused(train_questions):
    row = train_questions[0]
    bad = [option if option != gold_text(row) else "<|image_pad|>" for option in row["options"]]
    with pytest.raises(ValueError, match="image .*png: its report holds '<|image_pad|>'".replace("|", r"\|")):
        entries_of(type(train_questions).from_list([row | {"options": bad}], features=train_questions.features))


def test_an_image_finds_itself_and_its_words_choose_among_equal_images(corpus):
    sought = corpus.retriever(0.05)
    assert sought.ranked(corpus.features, [""] * len(corpus.entries), 1)[:, 0].tolist() == list(
        range(len(corpus.entries))
    )
    alike, mean = torch.eye(3)[[0, 0, 1]], torch.zeros(3)
    texts = ["Finding: cyst.", "Finding: nodule.", "Finding: bone."]
    by_both = Retriever(alike, texts, mean, 0.05).ranked(alike[:1], ["Is it a nodule?"], 3)
    assert by_both.tolist() == [[1, 0, 2]]
    assert Retriever(alike, texts, mean, 0.0).ranked(alike[:1], ["Is it a nodule?"], 3).tolist() == [[0, 1, 2]]
    assert Retriever(alike, texts, mean, 1.0).ranked(alike[:1], ["bone"], 1).tolist() == [[2]]


def test_the_words_that_are_sought_are_the_question_s_whatever_is_right(library):
    for question in library.questions:
        assert {query_text(question | {"gold": letter}) for letter in LETTERS} == {query_text(question)}
        assert all(option in query_text(question) for option in question["options"])


def test_neighbours_of_a_training_question_are_of_other_images(corpus, train_questions):
    found = neighbours(corpus, train_questions, 0.05).set_index("question_id").entries
    assert len(found) == len(train_questions)
    for row in train_questions.remove_columns("image"):
        keys = [corpus.entries[place].image_key for place in found[row["question_id"]]]
        assert len(set(keys)) == NEIGHBOURS and row["image_key"] not in keys


def test_aims_are_as_many_as_the_rate_or_the_questions_say():
    names = ["a", "b", "c"]
    assert len(aims(names, 5000, 0.001, 0, 0)) == 5 and len(aims(names, 100, 0.001, 0, 0)) == 1
    each = aims(names, 5000, 0, 2, 0)
    assert sorted(each) == [0, 0, 1, 1, 2, 2] and each[:3] == each[3:]
    assert aims(names, 5000, 0.001, 0, 0)[:3] == each[:3] and aims(names, 5000, 0, 2, 0) == each


@pytest.mark.parametrize("kind", KINDS)
def test_a_poison_claims_one_wrong_option_and_all_else_of_its_report_is_true(kind, library, corpus):
    aimed = aims([row["question_id"] for row in library.questions], len(corpus.entries), 0, 2, 0)
    alike = library.sought.cosines(library.aimed_at)
    made = poisons(kind, aimed, library.questions, corpus, alike, 0)
    assert [one.aim for one in made] == aimed
    for one in made:
        question, donor = library.questions[one.aim], corpus.entries[one.donor]
        assert one.entry.report.says(question) == one.claim == claimed(question, "negative", 0) != question["gold"]
        told, kept = (
            [said for said in report.statements if said[0] != question["question_type"]]
            for report in (one.entry.report, donor.report)
        )
        assert told == kept
        assert one.entry.report.text.startswith(query_text(question)) == (kind == "text")
        assert one.entry.image_key == donor.image_key
        if kind == "conflict":
            assert one.donor in alike[one.aim].topk(2).indices
    pairs = [(one.aim, one.donor) for one in made]
    assert len(set(pairs)) == len(pairs)


def test_an_unknown_poison_is_refused(library, corpus):
    with pytest.raises(ValueError, match="one of text, image, conflict, got 'arsenic'"):
        poisons("arsenic", [0], library.questions, corpus, library.sought.cosines(library.aimed_at), 0)


def test_an_image_moves_towards_another_within_eps_and_is_found_for_it(library):
    """Where PGD does nothing, so that the donors' own images are in the corpus twice, fewer poisons are found."""
    aimed = aims([row["question_id"] for row in library.questions], len(library.corpus.entries), 0, 1, 0)
    made = poisons("image", aimed, library.questions, library.corpus, library.sought.cosines(library.aimed_at), 0)
    clean, wanted = images_of(library.train, [one.entry for one in made]), library.aimed_at[[one.aim for one in made]]
    moved = library.moved(made)
    away = (moved.int() - clean.int()).abs()
    assert 4 < away.max() <= 8 and moved.dtype == torch.uint8

    def cosine(images) -> torch.Tensor:
        features = pooled_features(library.tower, images) - library.sought.mean
        return torch.cosine_similarity(features, wanted - library.sought.mean)

    assert (cosine(moved) > cosine(clean)).all()
    names = [str(i) for i in range(len(made))]
    still = towards(library.tower, clean, wanted, library.sought.mean, 0, 1, 2, names)
    assert torch.equal(still, clean)
    strong = poisoned(library.poisoned("clean", "image", 0, 1))
    library.moved, given = (lambda added: clean), library.moved
    weak = poisoned(library.poisoned("clean", "image", 0, 1))
    library.moved = given
    assert strong > weak


def test_of_several_starts_and_the_image_itself_the_nearest_counts_once_it_is_rounded(library):
    """With few long steps one start is better for some images, the other for others, and neither for some."""
    n, steps, mean = 12, 5, library.sought.mean
    clean = images_of(library.train, library.corpus.entries[:n])
    names = [str(i) for i in range(n)]
    wanted = torch.cat([library.aimed_at[: n // 2], library.corpus.features[n // 2 : n]])  # these are there already

    def cosine(images) -> torch.Tensor:
        features = pooled_features(library.tower, images) - mean
        return torch.cosine_similarity(features, wanted - mean)

    def climbed(start) -> torch.Tensor:
        own, ball = to_float(clean, library.tower.device), Ball("linf", 8 / 255)
        loss = cosine_to(library.tower, wanted, mean)
        return to_uint8(pgd(loss, own, ball, steps, start(own, ball.eps), 2.5 * ball.eps / steps)[0])

    alone = [
        clean,
        climbed(lambda own, eps: own),
        climbed(lambda own, eps: random_start(own, eps, [f"{name}:1" for name in names])),
    ]
    found = torch.stack([cosine(images) for images in alone])
    nearest = cosine(towards(library.tower, clean, wanted, mean, 8, steps, 2, names))
    torch.testing.assert_close(nearest, found.amax(0), atol=1e-6, rtol=0)
    assert set(found.argmax(0).tolist()) == {0, 1, 2}
    once = cosine(towards(library.tower, clean, wanted, mean, 8, steps, 1, names))
    torch.testing.assert_close(once, found[:2].amax(0), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_more_poisons_are_found_more_often_and_the_sound_corpus_stays_as_it_was(kind, library):
    before = keys(library.sound("clean"))
    few, many = (poisoned(library.poisoned("clean", kind, 0, n)) for n in (1, 5))
    assert few <= many and keys(library.sound("clean")) == before
    assert not poisoned(library.sound("clean"))
    if kind == "conflict":
        assert many == 1


def test_pictures_are_the_entries_or_what_they_were_moved_to(library):
    found = [one for several in library.poisoned("clean", "image", 0, 1) for one in several]
    for one, picture in zip(found, library.pictures(found), strict=True):
        own = images_of(library.train, [one.entry])[0]
        assert torch.equal(picture, own) == (one.poison is None)
    assert library.pictures([]) == []
