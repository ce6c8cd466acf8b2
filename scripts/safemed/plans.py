"""From an attack of the config to what runs it: its plan, the exam it is put to, and the function of its kind."""

from dataclasses import fields
from pathlib import Path

from datasets import Dataset
from torch import Tensor

from safemed import gradient_free
from safemed.attacks import Attacked, Plan
from safemed.evaluation import Exam, SmoothedExam
from safemed.hints import Templates, hinted_by_one
from safemed.vlm import VLM

KINDS = {"noise": gradient_free.noise, "square": gradient_free.square}  # all others are Exam.attack


def exam_of(
    vlm: VLM, questions: Dataset, variant: str, max_new_tokens: int, settings: dict | None, seed: int,
    templates: Path | None = None,
) -> Exam:  # fmt: skip
    """The model itself, or where an attack's settings name a sigma, the smoothed model.

    Where they name a hint, each question comes after one that no training draws, of the file `templates`; its row says
    which.
    """
    told = settings or {}
    if "sigma" in told:
        exam = SmoothedExam(
            vlm, questions, variant, max_new_tokens, told["sigma"], told["draws"], told["votes"], told["function"], seed
        )
    else:
        exam = Exam(vlm, questions, variant, max_new_tokens)
    if "hint" not in told:
        return exam
    if templates is None:
        raise ValueError("an attack with a hint needs the file of templates: --templates")
    wordings = Templates.read(templates).untaught()
    return exam.altered([hinted_by_one(row, wordings, told["hint"], seed) for row in exam.rows], exam.images)


def plan_of(name: str, settings: dict, variant: str, amp: bool = False) -> Plan:
    """The plan of the config's attack `name`, with its targets for a variant."""
    known = {field.name for field in fields(Plan)}
    given = {key: value for key, value in settings.items() if key in known and key != "targets"}
    return Plan(name=name, **given, targets=tuple((settings.get("targets") or {}).get(variant, ())), amp=amp)


def carry_out(exam: Exam, words: list[str], rows: Tensor, plan: Plan, eps: float, seed: int) -> Attacked:
    """Attack the questions `rows` [b] of an exam, whose right clean texts are `words`."""
    return KINDS.get(plan.kind, Exam.attack)(exam, words, rows, plan, eps, seed)
