"""Direct attacks, each from nothing, and measurements of the gradient: what the sanity table is made of.

The sweeps carry broken images over to larger radii and the suite attacks survivors alone, so that their accuracies fall
by construction. Here nothing is carried over: a broken attack has nowhere to hide.
"""

import functools
from argparse import Namespace
from dataclasses import replace

import pandas as pd
import torch
from torch import Tensor

from safemed.attacks.engine import AttackConfig
from safemed.attacks.losses import loss_and_gradient, loss_only
from safemed.attacks.pgd import pgd
from safemed.attacks.threat_model import Ball, l2_levels
from safemed.data.dataset import load_questions, subset
from safemed.data.prompts import FAILED, of_variant
from safemed.evaluation import results
from safemed.evaluation.arguments import asking, load
from safemed.evaluation.batching import Failure, Halving
from safemed.evaluation.evaluator import LOSSES, Evaluator
from safemed.models.geometry import to_float
from safemed.utils import cost


def run(args: Namespace, script: str) -> None:
    """Write the folder args.out: rows.parquet, one row a question and probe, cost.json, provenance.json."""
    meter, vlm, settings = cost.CostMeter("sanity", args.model), load(args), args.settings
    questions = subset(load_questions(args.data, "test"), settings["questions"], args.seed)
    evaluator = asking(vlm, questions, args)
    rows = probe_rows(evaluator, settings, args.seed).assign(model=args.model).reindex(columns=PROBE_ROWS)
    results.write(rows, args, script, meter, vlm)


def probe_rows(evaluator: Evaluator, settings: dict, seed: int) -> pd.DataFrame:
    """One row a question and probe (PROBE_ROWS), for all questions of the evaluator.

    settings: batch_size; eps, the radius of all probes but `radii`; radii, ascending, the largest leaving at most
    chance; steps, ascending; restarts per loss (one number, or one for each variant) of the full attack, which the
    probe "restarts" compares with a single climb; l2, the radius of a probe in that norm. All other probes are a single
    climb of the variant's first loss by pgd, with the most steps unless they vary the steps. A question that cannot be
    probed has one row, of the probe "failed".
    """
    tables, halving = [], Halving()
    for batch in evaluator.batches(torch.arange(len(evaluator)), settings["batch_size"]):
        for part, found in halving(batch, lambda part: _probed(evaluator, part, settings, seed)):
            tables.append(_table(evaluator, part, probe=FAILED) if isinstance(found, Failure) else found)
    return pd.concat(tables, ignore_index=True).merge(_about(evaluator))


def _probed(evaluator: Evaluator, batch: Tensor, settings: dict, seed: int) -> pd.DataFrame:
    """The rows of a batch. An attack that stands in two probes is run once."""
    words = evaluator.answers(evaluator.images[batch], batch)
    right = evaluator.right(words, batch)
    rows, kept = batch[right], [text for text, ok in zip(words, right, strict=True) if ok]
    once = functools.cache(lambda eps, config: _attacked(evaluator, kept, rows, seed, eps, config))
    tables = [_table(evaluator, batch[~right], probe="clean")]
    if kept:
        budgets = _budgets(settings, evaluator.variant)
        tables += [once(eps, config).assign(probe=probe) for probe, eps, config in budgets]
        most = max(settings["steps"])
        for loss in LOSSES[evaluator.variant]:
            tables.append(_measured(evaluator, loss, kept, rows, settings["eps"], most))
    return pd.concat(tables, ignore_index=True)


def _budgets(settings: dict, variant: str) -> list[tuple[str, float, AttackConfig]]:
    """The direct attacks on a variant: probe, eps and attack."""
    fewest, most, eps = min(settings["steps"]), max(settings["steps"]), settings["eps"]
    single = AttackConfig(steps=most, losses=LOSSES[variant][:1])
    full = replace(single, losses=LOSSES[variant], restarts=of_variant(settings["restarts"], variant))
    return [
        ("eps", 0, replace(single, steps=fewest)),
        *(("eps", radius, single) for radius in settings["radii"]),
        *(("steps", eps, replace(single, steps=steps)) for steps in settings["steps"]),
        ("restarts", eps, single),
        ("restarts", eps, full),
        ("l2", settings["l2"], replace(single, norm="l2", steps=fewest)),
    ]


def _attacked(evaluator: Evaluator, words, rows: Tensor, seed: int, eps: float, config: AttackConfig) -> pd.DataFrame:
    """The rows of one direct attack."""
    found = evaluator.attack(words, rows, config, eps, seed)
    linf = (found.images.int() - evaluator.images[rows].int()).abs().flatten(1).amax(1)
    size = {"linf": linf, "l2": l2_levels(found.images, evaluator.images[rows])}
    budget = {"probe": config.norm, "eps": eps, "steps": config.steps, "climbs": len(config.climbs())}
    return _table(evaluator, rows, **budget, **size, broken=found.broken, spent=found.steps)


def _measured(evaluator: Evaluator, loss: str, words, rows: Tensor, eps: int, steps: int) -> pd.DataFrame:
    """For one loss: its gradient at the clean image; verdicts on floats, on the stored image and teacher-forced, after
    PGD.
    """
    clean, ball = to_float(evaluator.images[rows], evaluator.vlm.device), Ball("linf", eps / 255)
    everything = torch.arange(len(rows), device=clean.device)
    attack_loss = evaluator.attack_loss(loss, words, rows)
    _, _, gradient = loss_and_gradient(attack_loss, clean, everything)
    images, _ = pgd(attack_loss, clean, ball, steps, clean, 2.5 * ball.eps / steps)
    stored = ball.store(images, evaluator.images[rows])
    texts = evaluator.answers(stored, rows)
    rounding = (stored.permute(0, 3, 1, 2) - 255 * images.cpu()).abs().flatten(1).amax(1)  # [b], levels
    stored_right, float_right = evaluator.right(texts, rows), evaluator.right(evaluator.answers_to(images, rows), rows)
    return _table(
        evaluator, rows, probe="measured", loss=loss, eps=eps, steps=steps, climbs=1, broken=~stored_right,
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
        _, broken = loss_only(own, images[answered], torch.arange(len(answered), device=images.device))
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
    "model", "question_id", "image_path", "n_options", "probe", "loss", "eps", "steps", "climbs", "broken", "spent",
    "linf", "l2", "float_broken", "forced_broken", "zero_gradient", "rounding",
]  # fmt: skip
