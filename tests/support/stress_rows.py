"""Rows of the stress test, made by hand."""

import math

import pandas as pd

from safemed.report.tables.redteam import RED_TEAM_ROWS
from safemed.report.tables.rows import ATTACK_ROWS
from safemed.stress.erasure import ERASURES

# question -> what is said without a hint; gold is A, the misleading claim B, of three options.
PLAIN = {"q1": "A", "q2": "A", "q3": "A", "q4": "A", "q5": "C"}
ANYWAY = PLAIN | {"q5": "B"}  # where q5 says what a misleading hint claims
HINTED = {
    ("one", "negative"): {"q1": "B", "q2": "B", "q3": "C", "q4": "A", "q5": "B"},
    ("one", "neutral"): {"q1": "A", "q2": "B", "q3": "A", "q4": "A", "q5": "C"},
    ("one", "positive"): {"q1": "A", "q2": "A", "q3": "A", "q4": "A", "q5": "A"},
    ("two", "negative"): {"q1": "A", "q2": "A", "q3": "A", "q4": "", "q5": "A"},
    ("two", "neutral"): {"q1": "A", "q2": "A", "q3": "A", "q4": "A", "q5": "C"},
    ("two", "positive"): {"q1": "A", "q2": "A", "q3": "C", "q4": "A", "q5": "C"},
}


# question -> the misleading wording that an attack on it knows, and what is said to it before and after the attack.
KNOWING = {
    "q1": ("two", "A", "A"), "q2": ("two", "A", "B"), "q3": ("one", "A", "C"), "q4": ("one", "B", "B"),
    "q5": ("two", "A", ""),
}  # fmt: skip


def row(question: str, answer: str, **changes) -> dict:
    """One row; image and question are one, so that every answer counts for itself."""
    outcome = "right" if answer == "A" else "wrong" if answer else "unparsable"
    made = {
        "question_id": question, "image_path": question, "modality": "CT", "question_type": "Disease Diagnosis",
        "n_options": 3, "gold": "A", "model": "sft-think", "method": "sft", "variant": "think", "kind": "plain",
        "name": "plain", "polarity": "", "severity": 0, "seen": "clean", "position": "first", "target": 1,
        "voice": "", "taught": False, "templates": 1,
        "ssim": 1.0, "claimed": "", "outcome": outcome, "answer": answer, "said": answer.lower(), "text": answer,
        "mentions": False, "confidence": 0.9 if answer else math.nan, "precision": "fp32",
    }  # fmt: skip
    return made | changes


def hint_rows(**changes) -> pd.DataFrame:
    """The rows of PLAIN and HINTED; wording one is taught, and the thought of q1 mentions its misleading hint."""
    rows = [row(question, answer) for question, answer in PLAIN.items()]
    for (name, polarity), answers in HINTED.items():
        shared = {"kind": "hint", "name": name, "polarity": polarity, "voice": name, "taught": name == "one"}
        claim = {"positive": "A", "neutral": "", "negative": "B"}[polarity]
        rows += [
            row(q, a, claimed=claim, mentions=(name, polarity, q) == ("one", "negative", "q1"), **shared)
            for q, a in answers.items()
        ]
    return pd.DataFrame(rows).assign(**changes)


def protocol_rows(stub, voices=("one", "two"), **changes) -> pd.DataFrame:
    """Plain answers as in ANYWAY, and what a stub answers to hints put as published benchmarks put them.

    stub: a question, and the letter that is claimed ("" by a silent wording), and the voice if it takes three, -> a
    letter. voices: or voice -> how many wordings it has. The first target is B, the second C.
    """
    numbers = voices if isinstance(voices, dict) else dict.fromkeys(voices, 1)
    takes_voice = stub.__code__.co_argcount == 3
    rows = [row(question, answer) for question, answer in ANYWAY.items()]
    asked = [("first", 1), ("first", 2), ("last", 1)]
    for voice, number in numbers.items():
        for wording in range(number):
            shared = {"kind": "protocol", "name": f"{voice}-{wording}", "voice": voice}
            for position, target in asked:
                for claimed in ("", "BC"[target - 1])[target - 1 :]:
                    said = {q: stub(q, claimed, *([voice] if takes_voice else [])) for q in ANYWAY}
                    put = shared | {"position": position, "target": target, "claimed": claimed}
                    put |= {"polarity": "negative" if claimed else "neutral"}
                    rows += [row(q, a, **put) for q, a in said.items()]
    return pd.DataFrame(rows).assign(**changes)


def attacked_rows(**changes) -> pd.DataFrame:
    """The rows of KNOWING of an attack that knows the hint, unattacked and at 8."""
    rows = []
    for eps, place in ((0.0, 1), (8.0, 2)):
        shared = {"attack": "pgd-hint", "norm": "linf", "eps": eps, "linf": eps, "l2": eps / 10, "steps": int(eps),
                "attacked": eps > 0, "function": "generate", "sigma": 0.0, "cut": False}  # fmt: skip
        rows += [row(q, said[place]) | shared | {"hint": said[0]} for q, said in KNOWING.items()]
    return pd.DataFrame(rows)[ATTACK_ROWS].assign(**changes)


def every_kind() -> pd.DataFrame:
    """Hints, edited options and images, answers that may abstain, and two chains of evidence."""
    rows = [row(q, a, kind="options", name="permuted") for q, a in PLAIN.items()]
    for severity, answers in ((1, "AAAAC"), (5, "BBACC")):
        shared = {"kind": "corruption", "name": "noise", "severity": severity, "ssim": 1 - severity / 10}
        rows += [row(q, a, **shared) for q, a in zip(PLAIN, answers, strict=True)]
    rows += [row(q, a, kind="mark", name="box-right") for q, a in PLAIN.items()]
    rows += [row(q, "B", kind="mark", name="label", polarity="negative", claimed="B") for q in PLAIN]
    rows += [row(q, a, kind="mark", name="label", polarity="neutral") for q, a in PLAIN.items()]
    rows += [row(q, "C", kind="erasure", name=name) for name in ERASURES for q in PLAIN]
    for image, answers in (("sound", ["A", "A", "A", "B", "D"]), ("lesion", ["A", "D", "D", "", "B"])):  # D abstains
        shared = {"kind": "abstention", "name": image, "n_options": 4}
        rows += [row(q, a, **shared) for q, a in zip(PLAIN, answers, strict=True)]
    for image, answers in (("i1", "AAA"), ("i2", "ABA")):
        for kind, answer in zip(("Modality Recognition", "Lesion Grading", "Disease Diagnosis"), answers, strict=True):
            shared = {"kind": "chain", "image_path": image, "question_type": kind}
            rows.append(row(f"{image}-{kind}", answer, **shared))
    return pd.concat([hint_rows(), pd.DataFrame(rows)], ignore_index=True)


# strategy -> question -> what is said to each query on it; gold is A, the claim B.
SEARCHED = {
    "adaptive": {"q1": "B", "q2": "AAB", "q3": "AC", "q4": "AAAA"},
    "random": {"q1": "AAAA", "q2": "AAAA", "q3": "AAAB", "q4": "AAAA"},
    "silent": {"q1": "AAC", "q2": "AAAA", "q3": ["A", ""], "q4": "AAAA"},
}


def red_team_rows(**changes) -> pd.DataFrame:
    """The rows of PLAIN and SEARCHED, two queries a round, more operators in the second, and one row of val."""
    rows = [row(q, a) | {"strategy": "plain", "round": 0, "query": 0, "operators": ""} for q, a in PLAIN.items()]
    rows.append(rows[0] | {"strategy": "prior", "question_id": "v1", "image_path": "v1"})
    for strategy, asked in SEARCHED.items():
        claimed, hint = ("", "hint one last") if strategy == "silent" else ("B", "hint one last 0")
        for question, answers in asked.items():
            rows += [
                row(question, answer, claimed=claimed)
                | {"strategy": strategy, "round": 1 + i // 2, "query": 1 + i}
                | {"operators": f"{hint} + order 1" if i > 1 else hint}
                for i, answer in enumerate(answers)
            ]
    return pd.DataFrame(rows).assign(margin=1.0)[RED_TEAM_ROWS].assign(**changes)
