"""From an attack of the config to what runs it: its plan, the evaluator it is put to, and the function of its kind."""

from dataclasses import fields
from pathlib import Path

from datasets import Dataset
from torch import Tensor

from safemed.attacks.engine import AttackConfig, Attacked
from safemed.evaluation import black_box
from safemed.evaluation.evaluator import Evaluator, SmoothedEvaluator
from safemed.models.vlm import VLM
from safemed.stress.hints import Templates, hinted_by_one

KINDS = {"noise": black_box.noise, "square": black_box.square}  # all others are Evaluator.attack


def evaluator_for(
    vlm: VLM, questions: Dataset, variant: str, max_new_tokens: int, settings: dict | None, seed: int,
    templates: Path | None = None,
) -> Evaluator:  # fmt: skip
    """The model itself, or where an attack's settings name a sigma, the smoothed model.

    Where they name a hint, each question comes after one that no training draws, of the file `templates`; its row says
    which.
    """
    told = settings or {}
    if "sigma" in told:
        evaluator = SmoothedEvaluator(
            vlm, questions, variant, max_new_tokens, told["sigma"], told["draws"], told["votes"], told["function"], seed
        )
    else:
        evaluator = Evaluator(vlm, questions, variant, max_new_tokens)
    if "hint" not in told:
        return evaluator
    if templates is None:
        raise ValueError("an attack with a hint needs the file of templates: --templates")
    wordings = Templates.read(templates).untaught()
    return evaluator.altered(
        [hinted_by_one(row, wordings, told["hint"], seed) for row in evaluator.rows], evaluator.images
    )


def read_attack_config(name: str, settings: dict, variant: str, amp: bool = False) -> AttackConfig:
    """The plan of the config's attack `name`, with its targets for a variant."""
    known = {field.name for field in fields(AttackConfig)}
    given = {key: value for key, value in settings.items() if key in known and key != "targets"}
    return AttackConfig(name=name, **given, targets=tuple((settings.get("targets") or {}).get(variant, ())), amp=amp)


def run_attack(
    evaluator: Evaluator, words: list[str], rows: Tensor, plan: AttackConfig, eps: float, seed: int
) -> Attacked:
    """Attack the questions `rows` [b] of an evaluator, whose right clean texts are `words`."""
    return KINDS.get(plan.kind, Evaluator.attack)(evaluator, words, rows, plan, eps, seed)
