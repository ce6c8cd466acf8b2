"""Watching a training: the small accuracies in its curves, and the curves. Nothing here changes what is trained."""

import argparse
import logging

import pandas as pd
import torch
from datasets import Dataset
from transformers import TrainerCallback

from safemed.attacks.engine import AttackConfig
from safemed.data.dataset import load_questions, subset
from safemed.data.prompts import of_variant
from safemed.evaluation.evaluator import LOSSES, Evaluator
from safemed.models.vlm import VLM, frozen

CHANGES_NO_RESULT = True

log = logging.getLogger(__name__)


def probe(vlm: VLM, questions: Dataset, variant: str, settings: dict, seed: int) -> dict[str, float]:
    """Clean and PGD accuracy of generated answers on a few fixed questions, for training curves.

    settings: the config's monitoring.probe, of which eps, steps and restarts (per loss) are read, max_new_tokens, and
    batch_size, the questions that are asked together: as many as a training step sees, which fit.
    """
    config = AttackConfig(
        steps=settings["steps"], losses=LOSSES[variant], restarts=of_variant(settings["restarts"], variant)
    )
    right = robust = 0
    with frozen(vlm.model):
        evaluator = Evaluator(vlm, questions, variant, settings["max_new_tokens"][variant])
        for rows in torch.arange(len(evaluator)).split(settings["batch_size"]):
            words = evaluator.answers(evaluator.images[rows], rows)
            known = evaluator.right(words, rows)
            right += known.sum().item()
            if kept := [text for text, ok in zip(words, known, strict=True) if ok]:
                robust += (~evaluator.attack(kept, rows[known], config, settings["eps"], seed).broken).sum().item()
    return {"clean_accuracy": right / len(evaluator), "robust_accuracy": robust / len(evaluator)}


def probe_callback(vlm: VLM, args: argparse.Namespace) -> "ProbeCallback":
    """The probe of a training. args: of `common.training_parser`."""
    settings = {**args.monitoring["probe"], "max_new_tokens": args.settings["max_new_tokens"]}
    batch = subset(load_questions(args.data, "val"), settings["questions"], args.seed)
    return ProbeCallback(vlm, batch, args.variant, settings | {"together": args.settings["sharded"]}, args.seed)


class ProbeCallback(TrainerCallback):
    """Clean and PGD accuracy of answers generated on a fixed batch of validation questions, some times a training.

    By the first process; by all where they must go `together`, since each has but a part of the model.
    """

    def __init__(self, vlm: VLM, batch: Dataset, variant: str, settings: dict, seed: int):
        self.vlm, self.batch, self.variant, self.settings, self.seed = vlm, batch, variant, settings, seed

    def on_step_end(self, args, state, control, **kwargs):
        done, times = state.global_step, self.settings["times"]
        if done * times // state.max_steps == (done - 1) * times // state.max_steps:
            return
        if not (state.is_world_process_zero or self.settings["together"]):
            return
        settings = self.settings | {"batch_size": args.per_device_train_batch_size}
        found = probe(self.vlm, self.batch, self.variant, settings, self.seed)
        state.log_history.append({"step": state.global_step, **found})
        log.info("step %d: %s", state.global_step, found)


# The trainers' names for what the curves show -> ours.
CURVES = {
    "loss": "loss",
    "eps": "eps",
    "reward_accuracy": "reward_accuracy",
    "reward_format": "reward_format",
    "frac_reward_zero_std": "frac_reward_zero_std",
    "anchor_kl": "anchor_kl",
    "attack_loss": "attack_loss",
    "hint_loss": "hint_loss",
    "completion_length": "completion_length",
    "distinct_rollouts": "distinct_rollouts",
    "cut_rollouts": "cut_rollouts",
    "feature_distance": "feature_distance",
    "entropy": "entropy",
    "clean_accuracy": "clean_accuracy",
    "robust_accuracy": "robust_accuracy",
}


def curves(log_history: list[dict]) -> pd.DataFrame:
    """One row a logged step, the columns of CURVES that were logged; the history survives checkpoints."""
    table = pd.DataFrame([entry for entry in log_history if "train_runtime" not in entry])
    table = table.groupby("step", as_index=False).first()
    return table[["step", *[name for name in CURVES if name in table]]].rename(columns=CURVES)
