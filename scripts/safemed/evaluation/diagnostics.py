"""Direct attacks, each from nothing, and measurements of the gradient: what the sanity table is made of.

The sweeps carry broken images over to larger radii and the suite attacks survivors alone, so that their accuracies fall
by construction. Here nothing is carried over: a broken attack has nowhere to hide.
"""

import functools

import pandas as pd
import torch
from torch import Tensor

from safemed.attacks.engine import AttackConfig
from safemed.attacks.losses import climb, look
from safemed.attacks.pgd import pgd
from safemed.attacks.threat_model import Ball, l2_levels
from safemed.data.prompts import FAILED
from safemed.evaluation.batching import halving
from safemed.evaluation.evaluator import Evaluator
from safemed.models.geometry import to_float


def probe_rows(evaluator: Evaluator, settings: dict, seed: int) -> pd.DataFrame:
    """One row a question and probe (PROBE_ROWS of safemed.sanity), for all questions of the evaluator.

    settings: batch_size; eps, the radius probed by all but `radii`; radii, ascending, the largest leaving at most
    chance; steps, ascending; restarts, the number compared with one; l2, the radius of a probe in that norm. The probes
    are pgd with the largest steps unless they say other. A question that cannot be probed has one row, of the probe
    "failed".
    """
    tables = []
    for batch in evaluator.batches(torch.arange(len(evaluator)), settings["batch_size"]):
        tables += halving(
            batch,
            lambda part: _probed(evaluator, part, settings, seed),
            lambda part, why: _table(evaluator, part, probe=FAILED),
        )
    return pd.concat(tables, ignore_index=True).merge(_about(evaluator))


def _probed(evaluator: Evaluator, batch: Tensor, settings: dict, seed: int) -> pd.DataFrame:
    """The rows of a batch. An attack that stands in two probes is run once."""
    words = evaluator.answers(evaluator.images[batch], batch)
    right = evaluator.right(words, batch)
    rows, kept = batch[right], [text for text, ok in zip(words, right, strict=True) if ok]
    most, eps = max(settings["steps"]), settings["eps"]
    budgets = [("eps", 0, min(settings["steps"]), 1)]
    budgets += [("eps", radius, most, 1) for radius in settings["radii"]]
    budgets += [("steps", eps, steps, 1) for steps in settings["steps"]]
    budgets += [("restarts", eps, most, restarts) for restarts in (1, settings["restarts"])]
    once = functools.cache(lambda *budget: _attacked(evaluator, kept, rows, seed, *budget))
    tables = [_table(evaluator, batch[~right], probe="clean")]
    if kept:
        tables += [once(*budget).assign(probe=probe) for probe, *budget in budgets]
        tables.append(_attacked(evaluator, kept, rows, seed, settings["l2"], min(settings["steps"]), 1, "l2"))
        targets = dict.fromkeys(target for target, _ in evaluator.chosen(AttackConfig(restarts=settings["restarts"])))
        tables += [_measured(evaluator, target, kept, rows, eps, most) for target in targets]
    return pd.concat(tables, ignore_index=True)


def _attacked(
    evaluator: Evaluator, words, rows: Tensor, seed: int, eps, steps: int, restarts: int, norm="linf"
) -> pd.DataFrame:
    """The rows of one direct attack."""
    found = evaluator.attack(words, rows, AttackConfig(norm=norm, steps=steps, restarts=restarts), eps, seed)
    linf = (found.images.int() - evaluator.images[rows].int()).abs().flatten(1).amax(1)
    size = {"linf": linf, "l2": l2_levels(found.images, evaluator.images[rows])}
    budget = {"probe": norm, "eps": eps, "steps": steps, "restarts": restarts}
    return _table(evaluator, rows, **budget, **size, broken=found.broken, spent=found.steps)


def _measured(evaluator: Evaluator, target: str, words, rows: Tensor, eps: int, steps: int) -> pd.DataFrame:
    """For one target: its gradient at the clean image; verdicts on floats, on the stored image and teacher-forced,
    after PGD.
    """
    clean, ball = to_float(evaluator.images[rows], evaluator.vlm.device), Ball("linf", eps / 255)
    everything = torch.arange(len(rows), device=clean.device)
    attack_loss = evaluator.attack_loss(target, words, rows)
    _, _, gradient = climb(attack_loss, clean, everything)
    images, _ = pgd(attack_loss, clean, ball, steps, clean, 2.5 * ball.eps / steps)
    stored = ball.store(images, evaluator.images[rows])
    texts = evaluator.answers(stored, rows)
    rounding = (stored.permute(0, 3, 1, 2) - 255 * images.cpu()).abs().flatten(1).amax(1)  # [b], levels
    stored_right, float_right = evaluator.right(texts, rows), evaluator.right(evaluator.answers_to(images, rows), rows)
    return _table(
        evaluator, rows, probe="measured", target=target, eps=eps, steps=steps, restarts=1, broken=~stored_right,
        float_broken=~float_right, forced_broken=_forced(evaluator, texts, rows, to_float(stored, clean.device)),
        rounding=rounding, zero_gradient=(gradient == 0).flatten(1).float().mean(1),
    )  # fmt: skip


def _forced(evaluator: Evaluator, texts: list[str], rows: Tensor, images: Tensor) -> list[bool | None]:
    """Whether the letter that comes next looks wrong after the model's own generated words; None where those name no
    letter.
    """
    answered = [
        i for i, (text, row) in enumerate(zip(texts, rows.tolist(), strict=True)) if evaluator.answer(text, row)
    ]
    verdicts: list[bool | None] = [None] * len(texts)
    if answered:
        own = evaluator.attack_loss("answer", [texts[i] for i in answered], rows[answered])
        _, broken = look(own, images[answered], torch.arange(len(answered), device=images.device))
        for place, verdict in zip(answered, broken.tolist(), strict=True):
            verdicts[place] = verdict
    return verdicts


def _about(evaluator: Evaluator) -> pd.DataFrame:
    kept = ("question_id", "image_path")
    return pd.DataFrame(
        [{name: row[name] for name in kept} | {"n_options": len(row["options"])} for row in evaluator.rows]
    )


def _table(evaluator: Evaluator, rows: Tensor, **columns) -> pd.DataFrame:
    ids = [evaluator.rows[i]["question_id"] for i in rows.tolist()]
    values = {k: v.cpu().numpy() if isinstance(v, Tensor) else v for k, v in columns.items()}
    return pd.DataFrame({"question_id": ids, **values})


PROBE_ROWS = [
    "model", "question_id", "image_path", "n_options", "probe", "target", "eps", "steps", "restarts", "broken", "spent",
    "linf", "l2", "float_broken", "forced_broken", "zero_gradient", "rounding",
]  # fmt: skip
