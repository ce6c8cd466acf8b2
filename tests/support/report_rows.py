"""Rows of attacks, probes and certificates, made by hand."""

import numpy as np
import pandas as pd
from scipy.stats import norm

MODALITIES = ["CT", "fundus photography"]
BASELINES = pd.DataFrame(
    {
        "kind": ["modality", "modality", "question_type", "questions", "question_type"],
        "part": [*MODALITIES, "Disease Diagnosis", "all", MODALITIES[0]],  # a question type may be named as a modality
        "n": [4, 4, 8, 8, 0], "chance": 0.3, "blind": [0.4, 0.2, 0.3, 0.3, 0.9],
    }
)  # fmt: skip
OUTCOMES = ["right", "right", "wrong", "unparsable", "right", "right", "right", "wrong"]
RADII = {0: OUTCOMES, 2: ["wrong"] + OUTCOMES[1:], 4: ["wrong"] * 5 + OUTCOMES[5:], 8: ["wrong"] * 8}


def attack_rows(model="sft-think", attack="clean", eps=0, outcomes=OUTCOMES) -> pd.DataFrame:
    """Eight questions on four images, gold B, two or four options."""
    n = len(outcomes)
    method, _, variant = model.rpartition("-")
    return pd.DataFrame(
        {
            "question_id": [f"q{i}" for i in range(n)], "image_path": [f"{i // 2}.png" for i in range(n)],
            "modality": [MODALITIES[i // 4 % 2] for i in range(n)], "question_type": "Disease Diagnosis",
            "n_options": [2, 4] * (n // 2), "gold": "B", "model": model, "method": method, "variant": variant,
            "function": "generate", "sigma": 0.0, "attack": attack, "hint": "", "norm": "linf", "eps": eps,
            "outcome": outcomes,
            "answer": [{"right": "B", "wrong": "A", "unparsable": ""}[outcome] for outcome in outcomes],
            "text": "<answer> $B </answer>", "linf": eps, "l2": eps / 10, "steps": 10, "attacked": attack != "clean",
            "cut": False, "precision": "fp32",
        }
    )  # fmt: skip


def study() -> pd.DataFrame:
    """Two models, clean and PGD at three budgets; the attack breaks ever more of the first, nothing of the second."""
    frames = [attack_rows("sft-think", "pgd" if eps else "clean", eps, outcomes) for eps, outcomes in RADII.items()]
    frames += [attack_rows("at-grpo-think", "pgd" if eps else "clean", eps) for eps in RADII]
    return pd.concat([*frames, attack_rows(attack="fgsm", eps=8)], ignore_index=True)


def trained_again(rows: pd.DataFrame, *seeds: int) -> pd.DataFrame:
    """Rows of the study's own seed, and the same of further ones."""
    again = [rows.assign(model=rows.model + f"-seed{seed}") for seed in seeds]
    return pd.concat([rows, *again], ignore_index=True)


def probed(model="sft-think") -> pd.DataFrame:
    """Probes of eight questions: all that is read of scripts/sanity.py, every check passed."""
    asked = {"model": model, "question_id": [f"q{i}" for i in range(8)], "image_path": "a.png", "n_options": 4}
    runs = [("eps", 0, 5, 1, 0), ("eps", 8, 20, 1, 4), ("eps", 64, 20, 1, 8), ("steps", 8, 5, 1, 3)]
    runs += [("steps", 8, 20, 1, 4), ("restarts", 8, 20, 1, 4), ("restarts", 8, 20, 3, 5)]
    runs += [("l2", 0.5, 5, 1, 4)]
    frames = [
        pd.DataFrame(
            asked | {"probe": probe, "eps": eps, "steps": steps, "climbs": climbs, "linf": eps, "l2": eps,
                     "broken": [i < fell for i in range(8)], "spent": [2 if i < fell else steps for i in range(8)]}
        )
        for probe, eps, steps, climbs, fell in runs
    ]  # fmt: skip
    measured = {"probe": "measured", "loss": "answer", "broken": True, "float_broken": True, "forced_broken": True}
    frames.append(pd.DataFrame(asked | measured | {"zero_gradient": 0.0, "rounding": 0.4}))
    return pd.concat(frames, ignore_index=True)


def certificate_rows(model="at-grpo-think", sigma=0.5, function="generate") -> pd.DataFrame:
    """Five questions in two shards: right to 0.9, right to 0.25, wrong but certain, abstained, unparsable."""
    n, radius = np.array([100, 200, 300, 400, 500]), np.array([0.9, 0.25, 1.5, 0.0, 0.7])
    proven = np.where(radius > 0, norm.cdf((radius + 1e-3) / sigma), 0.4)
    return pd.DataFrame(
        {
            "question_id": list("abcde"), "image_path": list("abcde"), "modality": "CT", "question_type": "t",
            "n_options": 4, "gold": "B", "model": model, "method": "at-grpo", "variant": "think",
            "function": function, "sigma": sigma, "mode": "sequential", "randomised": False, "coin": 1.0,
            "alpha": 0.001, "n0": 10, "n": n, "successes": n // 2, "samples": n + 10, "p_lower": proven,
            "stopped": ["decided"] * 4 + ["futile"],
            "prediction": ["B", "B", "A", "", "?"], "certified": [True, True, False, False, False],
            "radius": radius, "shard": ["1-of-2", "2-of-2"] * 2 + ["1-of-2"],
            "seconds": [1.0, 2.0, 3.0, 4.0, 5.0], "precision": "fp32",
        }
    )  # fmt: skip


def smoothed_rows(right, model="at-grpo-think", norm="l2", function="generate", sigma=0.5) -> pd.DataFrame:
    """An attack on a smoothed model. right: radius -> letters of those of the questions a to e that it left right."""
    frames = []
    for eps, letters in right.items():
        outcomes = ["right" if letter in letters else "wrong" for letter in "abcde"]
        rows = attack_rows(model, f"smoothed-{norm}-{function}", eps, [*outcomes, "wrong"])[:5].assign(norm=norm)
        rows["question_id"] = rows["image_path"] = list("abcde")
        frames.append(rows.assign(function=function, sigma=sigma, l2=eps if norm == "l2" else 0.0, attacked=True))
    return pd.concat(frames, ignore_index=True)


def smoothed_and_plain() -> tuple[pd.DataFrame, pd.DataFrame]:
    """The five certified questions of one smoothed model under a linf attack, and of the model itself, clean and under
    pgd, which was asked five more.
    """
    plain = smoothed_rows({0: "abcd", 8: "a", 16: ""}, norm="linf", sigma=0.0)
    plain["attack"] = plain.eps.map({0: "clean", 8: "pgd", 16: "pgd"})
    beyond = plain[plain.eps <= 8].assign(question_id=list("vwxyz") * 2, outcome="wrong", answer="A")  # not smoothed
    return smoothed_rows({0: "abc", 8: "ab"}, norm="linf"), pd.concat([plain, beyond], ignore_index=True)


def failed(rows: pd.DataFrame, question: str, eps: float) -> pd.DataFrame:
    """The rows with one question not evaluated at one radius."""
    one = (rows.question_id == question) & (rows.eps == eps)
    return rows.assign(outcome=rows.outcome.mask(one, "failed"), answer=rows.answer.mask(one, ""))


def texts_of(rows: pd.DataFrame) -> pd.DataFrame:
    """The prepared questions of some rows, as far as tables read them."""
    known = rows.drop_duplicates("question_id")[["question_id", "image_path", "question_type", "gold"]]
    made = known.reset_index(drop=True).assign(dataset="Phantoms", finding="")
    made["question"] = "What does " + made.question_id + " show?"
    return made.assign(options=[["cyst", "nodule", "fissure", "normal"]] * len(made))


def attack_costs(rows: pd.DataFrame) -> pd.DataFrame:
    """A cost record of each attack in the rows."""
    runs = rows[["model", "attack"]].drop_duplicates()
    return runs.assign(stage="attack", wall_s=1.0, forward_passes=1, backward_passes=1, peak_rss_mb=1)


def target_rows(model="sft-think") -> pd.DataFrame:
    """Four training questions, of which the start model answers three rightly itself."""
    return pd.DataFrame(
        {
            "question_id": list("abcd"), "model": model, "target": ["one", "two", "", "three"],
            "samples": [1, 2, 4, 1], "cut": [0, 1, 3, 0], "tokens": [10, 20, 0, 60], "why": "",
        }
    )  # fmt: skip
