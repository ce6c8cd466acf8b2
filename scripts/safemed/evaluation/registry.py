"""From an attack in the config to its AttackConfig, the evaluator that it attacks, and the function that runs it."""

from dataclasses import fields
from pathlib import Path

import torch
from datasets import Dataset
from torch import Tensor

from safemed.attacks.engine import AttackConfig, Attacked
from safemed.data.prompts import of_variant
from safemed.evaluation import black_box, torchattacks_adapter, transcripts
from safemed.evaluation.batching import Failure
from safemed.evaluation.evaluator import Evaluator, SmoothedEvaluator
from safemed.models.vlm import VLM
from safemed.stress.hints import Templates, hinted_by_one
from safemed.stress.second_turns import claim_of, own_wording

KINDS = {"noise": black_box.noise, "torchattacks": torchattacks_adapter.attack}  # all others are Evaluator.attack


def evaluator_for(
    vlm: VLM, questions: Dataset, variant: str, max_new_tokens: int, settings: dict | None, seed: int, batch_size: int,
    templates: Path | None = None,
) -> Evaluator:  # fmt: skip
    """The evaluator of a model, or of the smoothed model where an attack's settings name a sigma.

    Where they name a hint, each question is asked after one of those in the file `templates` that no training draws.
    Where they name a turn, each is asked again after the model's own answer to the clean image, given in batches of
    `batch_size`, and a push in one of such wordings. The row of the question says which wording as its `hint`, and as
    `failed` why it cannot be asked.
    """
    attack = settings or {}
    if "sigma" in attack:
        smoothing = (attack["sigma"], attack["draws"], attack["votes"], attack["function"])
        evaluator = SmoothedEvaluator(vlm, questions, variant, max_new_tokens, *smoothing, seed)
    else:
        evaluator = Evaluator(vlm, questions, variant, max_new_tokens)
    if not {"hint", "turn"} & attack.keys():
        return evaluator
    if templates is None:
        raise ValueError("an attack with a hint or a turn needs the file of templates: --templates")
    read = Templates.read(templates)
    if "hint" in attack:
        return _hinted(evaluator, attack["hint"], seed, read)
    return _pushed(evaluator, attack["turn"], seed, read, batch_size)


def _hinted(evaluator: Evaluator, polarity: str, seed: int, templates: Templates) -> Evaluator:
    """The evaluator, each question after a hint."""
    rows = [hinted_by_one(row, templates.untaught(), polarity, seed) for row in evaluator.rows]
    return evaluator.with_questions(rows, evaluator.images)


def _pushed(evaluator: Evaluator, push: str, seed: int, templates: Templates, batch_size: int) -> Evaluator:
    """The evaluator, each question in a second turn."""
    batches, rows = evaluator.batches(torch.arange(len(evaluator)), batch_size), []
    firsts = transcripts.heard(evaluator, batches)
    for i, row in enumerate(evaluator.rows):
        wording = own_wording(row, templates.wordings(push, train=False), seed)
        posed = transcripts.second_turn(evaluator, i, firsts[i], wording, claim_of(row, push, seed))
        posed = row | {"failed": posed.why} if isinstance(posed, Failure) else posed
        rows.append(posed | {"hint": wording.name})
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
