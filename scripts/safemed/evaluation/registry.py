"""From an attack in the config to its AttackConfig, the evaluator that it attacks, and the function that runs it."""

from dataclasses import fields
from pathlib import Path

from datasets import Dataset
from torch import Tensor

from safemed.attacks.engine import AttackConfig, Attacked
from safemed.data.prompts import of_variant
from safemed.evaluation import black_box, torchattacks_adapter
from safemed.evaluation.evaluator import Evaluator, SmoothedEvaluator
from safemed.models.vlm import VLM
from safemed.stress.hints import Templates, hinted_by_one

KINDS = {"noise": black_box.noise, "torchattacks": torchattacks_adapter.attack}  # all others are Evaluator.attack


def evaluator_for(
    vlm: VLM, questions: Dataset, variant: str, max_new_tokens: int, settings: dict | None, seed: int,
    templates: Path | None = None,
) -> Evaluator:  # fmt: skip
    """The evaluator of a model, or of the smoothed model where an attack's settings name a sigma.

    Where they name a hint, each question is asked after one of those in the file `templates` that no training draws;
    the row of the question says which.
    """
    attack = settings or {}
    if "sigma" in attack:
        smoothing = (attack["sigma"], attack["draws"], attack["votes"], attack["function"])
        evaluator = SmoothedEvaluator(vlm, questions, variant, max_new_tokens, *smoothing, seed)
    else:
        evaluator = Evaluator(vlm, questions, variant, max_new_tokens)
    return _hinted(evaluator, attack["hint"], seed, templates) if "hint" in attack else evaluator


def _hinted(evaluator: Evaluator, polarity: str, seed: int, templates: Path | None) -> Evaluator:
    """The evaluator, each question after a hint. Raises ValueError without the file of templates."""
    if templates is None:
        raise ValueError("an attack with a hint needs the file of templates: --templates")
    wordings = Templates.read(templates).untaught()
    rows = [hinted_by_one(row, wordings, polarity, seed) for row in evaluator.rows]
    return evaluator.with_questions(rows, evaluator.images)


def read_attack_config(name: str, settings: dict, variant: str, amp: bool = False) -> AttackConfig:
    """The config's attack `name` on a variant: the losses and restarts of that variant."""
    known = {field.name for field in fields(AttackConfig)} - {"losses", "restarts"}
    given = {key: value for key, value in settings.items() if key in known}
    losses = tuple(settings.get("losses", {}).get(variant, ()))
    return AttackConfig(
        name=name, **given, losses=losses, restarts=of_variant(settings.get("restarts", 1), variant), amp=amp
    )


def run_attack(
    evaluator: Evaluator, words: list[str], rows: Tensor, config: AttackConfig, eps: float, seed: int
) -> Attacked:
    """Attack the questions `rows` [b] of an evaluator, whose right clean texts are `words`."""
    return KINDS.get(config.kind, Evaluator.attack)(evaluator, words, rows, config, eps, seed)
