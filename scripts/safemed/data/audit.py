"""What the numbers of a data set are worth: what the text alone gives away, and what the splits share.

Three blind baselines, none of which sees an image: the option most often right in training (option prior), a linear
model of question and options, and the dot that ends only the right option. All are learned on train, scored on test.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import combinations

import numpy as np
import pandas as pd
from datasets import Dataset
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression

from safemed.data.images import image_key
from safemed.data.prompts import LETTERS, gold_text
from safemed.data.records import normalise
from safemed.data.splits import CHUNK, SUBJECTS, distances, hash_array, subject

BUCKETS = 2**18  # of the linear model's hashed features
VALUE = re.compile(r"'[^']*'|\"[^\"]*\"|\d+(?:\.\d+)?")  # in the reason of a drop
WORDS = 40  # of a question, at most, that meet its options
CAPTIONS = {  # of the tables on audit.html
    "baselines": (
        "Chance and blind baselines of the study's questions",
        "No baseline sees an image. prior: the option most often right in training; linear: a linear model of question "
        "and options; blind: the higher of the two overall, the line that every later table and figure carries.",
    ),
    "blind": (
        "As published and hardened",
        "The same baselines for both wordings of the same questions (hardening leaves some out), in the same splits. "
        "Hardening balances the options; what the question's own words tell (linear) is less, not gone.",
    ),
    "tells": (
        "Tells",
        "plausible: share of questions with two or more options that are ever right in their modality and dataset. "
        "dot_right: of the dot_n questions of four options of which one alone ends in a dot, how many have it right.",
    ),
    "leaks": (
        "What splits share",
        "path: the same file; image: the same stored pixels, computed from them here; group: near-duplicates and "
        "subjects, too. questions counts those of the second split that show a shared one.",
    ),
    "nearest": (
        "The closest pairs of a test and a training image",
        "bits: in how many of 256 their difference hashes differ. Pairs to look at: near-duplicates missed are on top.",
    ),
    "subjects": ("Subjects told by file names", "Images that share a patient, slide or photograph stay together."),
    "composition": ("Questions a split, modality and type", "unused: the split scheme gives them to none."),
    "repairs": ("Drops and repairs", "Record by record, with the values left out here, in drops.csv."),
    "counts": (
        "Counts against the published ones",
        "All open-access records, whether they could be used or not; images are paths, told apart in a dataset and "
        "modality.",
    ),
}


def option_prior(train: pd.DataFrame) -> Counter:
    """How often each option's text is a right answer. train: columns options (list), gold (letter)."""
    return Counter(normalise(gold_text(row)) for row in train.to_dict("records"))


def guess(options: list[str], gold: str, scores: np.ndarray) -> float:
    """Probability of being right by choosing the option of the highest score, ties broken at random."""
    best = scores == scores.max()
    return float(best[LETTERS.index(gold)] / best.sum())


def prior_accuracy(train: pd.DataFrame, test: pd.DataFrame) -> np.ndarray:
    """Expected accuracy [n] on each test question of choosing the option most often right in train."""
    prior = option_prior(train)
    return _accuracy(test, lambda row: [prior[normalise(option)] for option in row["options"]])


def linear_accuracy(train: pd.DataFrame, test: pd.DataFrame) -> np.ndarray:
    """Accuracy [n] on each test question of a linear model of the question's and the options' text, learned on train.

    A logistic regression of whether an option is right, on its hashed features: the option, its words, its punctuation
    and capitals, its place, and each of these beside the question and the question's words. The option with the highest
    score is chosen. Deterministic.
    """
    hashed = HashingVectorizer(
        analyzer=lambda names: names, n_features=BUCKETS, norm=None, alternate_sign=False, binary=True
    )
    right = [letter == row["gold"] for row in train.to_dict("records") for letter in LETTERS[: len(row["options"])]]
    model = LogisticRegression(solver="liblinear", random_state=0).fit(hashed.transform(_option_features(train)), right)
    scores = model.decision_function(hashed.transform(_option_features(test)))
    parts = np.split(scores, np.cumsum(test["options"].map(len))[:-1])
    return np.array([guess(o, g, s) for o, g, s in zip(test["options"], test["gold"], parts, strict=True)])


def baselines(train: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
    """Columns kind, part, n, chance, prior, linear, blind; a row for each modality and each question type.

    Before them, of the kind questions, the parts "all" and "four options". chance: mean of 1 / number of options.
    prior, linear: the blind baselines' accuracy. blind: the higher of the two over all questions, the line
    that tables and figures carry. train, test: at least one question each, columns modality, question_type, question,
    options, gold.
    """
    test = test.assign(
        chance=[1 / len(options) for options in test["options"]],
        prior=prior_accuracy(train, test),
        linear=linear_accuracy(train, test),
    )
    test["blind"] = test["linear"] if test["linear"].mean() > test["prior"].mean() else test["prior"]
    four = test[test["options"].map(len) == 4]
    parts = [
        ("questions", "all", test),
        *([("questions", "four options", four)] if len(four) else []),
        *((kind, name, part) for kind in ("modality", "question_type") for name, part in test.groupby(kind)),
    ]
    means = ["chance", "prior", "linear", "blind"]
    return pd.DataFrame(
        {"kind": kind, "part": name, "n": len(part)} | part[means].mean().to_dict() for kind, name, part in parts
    )


def dots(questions: pd.DataFrame) -> dict[str, float]:
    """Of the questions of four options where one alone ends in a dot: n, and the share where that one is right."""
    asked = questions[questions["options"].map(lambda o: len(o) == 4 and sum(t.endswith(".") for t in o) == 1)]
    right = [gold_text(row).endswith(".") for row in asked.to_dict("records")]
    return {"n": len(asked), "right": float(np.mean(right)) if right else float("nan")}


def plausible(questions: pd.DataFrame) -> pd.Series:
    """How many of each question's options are ever a right answer in the same modality and dataset; at least 1."""
    pools: dict[tuple, set[str]] = {}
    for row in questions.to_dict("records"):
        pools.setdefault((row["modality"], row["dataset"]), set()).add(normalise(gold_text(row)))
    counts = [
        sum(normalise(option) in pools[row["modality"], row["dataset"]] for option in row["options"])
        for row in questions.to_dict("records")
    ]
    return pd.Series(counts, questions.index)


def tells(wordings: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Columns questions, n, plausible, dot_n, dot_right; a row a wording. See `plausible` and `dots`."""
    rows = []
    for name, questions in wordings.items():
        dotted = dots(questions)
        share = (plausible(questions) > 1).mean()
        rows.append((name, len(questions), share, dotted["n"], dotted["right"]))
    return pd.DataFrame(rows, columns=["questions", "n", "plausible", "dot_n", "dot_right"])


def stored_keys(questions: Dataset) -> list[str]:
    """The image_key of each prepared question, computed from the stored image."""
    return [image_key(row["image"]) for row in questions.select_columns(["image"])]


def leaks(questions: pd.DataFrame) -> pd.DataFrame:
    """What two splits share: columns shared, splits, images, questions; a row a kind and a pair of splits.

    shared: image (image_key: the same pixels), group (near-duplicates and subjects too), path (the same file). images
    counts the shared ones' values, questions those of the second split (test before val before train) that show one.
    questions: columns split, image_path, image_key, group.
    """
    rows = []
    for first, second in combinations(("train", "val", "test"), 2):
        one, other = (questions[questions["split"] == name] for name in (first, second))
        for shared, column in (("path", "image_path"), ("image", "image_key"), ("group", "group")):
            common = set(one[column]) & set(other[column])
            shown = int(other[column].isin(common).sum())
            rows.append({"shared": shared, "splits": f"{first}|{second}", "images": len(common), "questions": shown})
    return pd.DataFrame(rows)


def nearest(questions: pd.DataFrame, n: int = 20) -> pd.DataFrame:
    """The closest pairs of a test and a training image of one modality: modality, bits, test, train; closest first.

    bits: in how many of 256 their difference hashes differ. To look at: what grouping left is at the top.
    questions: columns split, modality, image_path, dhash.
    """
    found = []
    for modality, part in questions.drop_duplicates(["split", "image_path"]).groupby("modality"):
        train, test = (part[part["split"] == name].reset_index(drop=True) for name in ("train", "test"))
        if not len(train) or not len(test):
            continue
        known = hash_array(train["dhash"])
        for start in range(0, len(test), CHUNK):
            some = test[start : start + CHUNK]
            bits = distances(hash_array(some["dhash"]), known)
            closest = train["image_path"].to_numpy()[bits.argmin(axis=1)]
            found += zip([modality] * len(some), bits.min(axis=1), some["image_path"], closest, strict=True)
    return pd.DataFrame(found, columns=["modality", "bits", "test", "train"]).sort_values("bits", kind="stable")[:n]


def subjects(questions: pd.DataFrame) -> pd.DataFrame:
    """How many images and subjects each pattern of file names tells apart: columns pattern, images, subjects."""
    told = questions.drop_duplicates("image_path")["image_path"].map(subject).dropna()
    rows = [(name, told[told.str.startswith(f"{name} ")]) for name in SUBJECTS]
    return pd.DataFrame(
        {"pattern": name, "images": len(part), "subjects": part.nunique()} for name, part in rows if len(part)
    )


def composition(questions: pd.DataFrame) -> pd.DataFrame:
    """Questions a split, modality and question type. questions: columns split, modality, question_type."""
    counts = questions.groupby(["split", "modality", "question_type"]).size()
    return counts.rename("questions").reset_index()


def repairs(drops: pd.DataFrame) -> pd.DataFrame:
    """How often each record was dropped or repaired for a reason: columns action, reason, n; most frequent first.

    drops: columns action, reason. Quoted values and numbers in a reason become "...".
    """
    reasons = drops["reason"].str.replace(VALUE, "...", regex=True)
    return drops.assign(reason=reasons).value_counts(["action", "reason"]).rename("n").reset_index()


def counts_against(found: pd.DataFrame, published: dict) -> pd.DataFrame:
    """Columns what, published, found, difference. found: `prepare.count`'s table; published: data.published.

    Counted are questions, images (paths, told apart in a dataset and modality), datasets, and questions a modality as
    the records name it; one that was not published stands in a row of its own.
    """
    modalities = found.groupby("modality")["questions"].sum().to_dict()
    here = {
        "questions": found["questions"].sum(),
        "images": found["images"].sum(),
        "datasets": found["dataset"].nunique(),
    }
    wanted = {name: published[name] for name in here}
    here |= {f"questions: {name}": n for name, n in modalities.items()}
    wanted |= {f"questions: {name}": n for name, n in published["modalities"].items()}
    table = pd.DataFrame({"published": wanted, "found": here}).fillna(0).astype(int)
    table["difference"] = table["found"] - table["published"]
    return table.rename_axis("what").reset_index()


def _accuracy(test: pd.DataFrame, score: Callable[[dict], list[float]]) -> np.ndarray:
    rows = test.to_dict("records")
    return np.array([guess(row["options"], row["gold"], np.array(score(row))) for row in rows])


def _option_features(questions: pd.DataFrame) -> Iterator[list[str]]:
    """The names of every option's features, question after question."""
    for row in questions.to_dict("records"):
        question = normalise(row["question"])
        words = sorted(set(question.split()))[:WORDS]
        for letter, option in zip(LETTERS, row["options"], strict=False):
            yield _describe(option, letter, question, words)


def _describe(option: str, letter: str, question: str, words: list[str]) -> list[str]:
    """The names of an option's features."""
    text, raw = normalise(option), option.strip()
    marks = [f"dot {raw.endswith('.')}", f"capital {raw[:1].isupper()}", f"place {letter}", f"length {len(raw) // 8}"]
    own = [f"is {text}", f"raw {raw}", *(f"has {word}" for word in set(text.split()))]
    return [*marks, *own, f"asked {question} {text}", *(f"{word} beside {text}" for word in words)]
