"""Rows of retrieved reports by hand: four questions of two types, beside sound reports and poisoned ones."""

import pandas as pd

from safemed.report.tables.rag import RAG_ROWS

# reports, poison, per_question -> of each question: the answer, whether it is recalled, whether a poison is there.
# The right answers are A, B, A, B, and what is claimed is the other one.
HEARD = {
    ("none", "none", 0): ("AAAA", "0000", "0000"),
    ("retrieved", "none", 0): ("ABAA", "1110", "0000"),
    ("shuffled", "none", 0): ("AAAA", "1000", "0000"),
    ("checked", "none", 0): ("ABAA", "1110", "0000"),
    ("retrieved", "text", 1): ("BBAA", "0110", "1100"),
    ("unclaimed", "text", 1): ("AB-A", "0110", "1100"),
    ("checked", "text", 1): ("ABAA", "0110", "0000"),
    ("retrieved", "conflict", 1): ("BABA", "0000", "1111"),
}
GOLD, TYPES = "ABAB", ("size", "size", "finding", "finding")
OPTIONS = {"size": {"A": "small", "B": "large"}, "finding": {"A": "cyst", "B": "nodule"}}


def rag_rows(model: str = "sft-rag-think", retriever: str = "fare-think") -> pd.DataFrame:
    """RAG_ROWS of one model and retriever, on clean images, and without reports and with sound ones on pgd's."""
    rows = [one for key in HEARD for one in _rows(model, retriever, "clean", *key)]
    for reports in ("none", "retrieved"):
        rows += _rows(model, retriever, "pgd", reports, "none", 0)
    return pd.DataFrame(rows)[RAG_ROWS]


def _rows(model: str, retriever: str, shown: str, reports: str, poison: str, per_question: int) -> list[dict]:
    method, _, variant = model.rpartition("-")
    heard, recalled, poisoned = HEARD[reports, poison, per_question]
    made = []
    for i, (gold, kind) in enumerate(zip(GOLD, TYPES, strict=True)):
        answer = heard[i].replace("-", "")
        outcome = "unparsable" if not answer else "right" if answer == gold else "wrong"
        made.append(
            {
                "question_id": f"q{i}", "image_path": f"i{i}", "modality": "CT", "question_type": kind, "n_options": 2,
                "gold": gold, "gold_said": OPTIONS[kind][gold], "model": model, "method": method, "variant": variant,
                "precision": "fp32", "retriever": "none" if reports == "none" else retriever, "shown": shown,
                "poison": poison, "rate": 0.0, "per_question": per_question, "reports": reports,
                "poisons": 4 * per_question, "aimed": per_question,
                "claimed": "B" if gold == "A" else "A", "given": 0 if reports == "none" else 2 - (reports == "checked"),
                "recalled": recalled[i] == "1", "poisoned": int(poisoned[i]), "dropped": int(reports == "checked"),
                "text": f"<answer> {answer} </answer>", "answer": answer,
                "said": OPTIONS[kind].get(answer, ""), "outcome": outcome,
            }
        )  # fmt: skip
    return made
