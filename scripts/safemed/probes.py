"""Direct attacks, each from nothing, and measurements of the gradient: what the sanity table is made of.

The sweeps carry broken images over to larger radii and the suite attacks survivors alone, so that their accuracies fall
by construction. Here nothing is carried over: a broken attack has nowhere to hide.
"""

import functools

import pandas as pd
import torch
from torch import Tensor

from safemed.attacks import Ball, Plan, climb, l2_levels, look, pgd
from safemed.evaluation import Exam
from safemed.halving import halving
from safemed.prompts import FAILED
from safemed.vlm import to_float


def probe_rows(exam: Exam, settings: dict, seed: int) -> pd.DataFrame:
    """One row a question and probe (PROBE_ROWS of safemed.sanity), for all questions of the exam.

    settings: batch_size; eps, the radius probed by all but `radii`; radii, ascending, the largest leaving at most
    chance; steps, ascending; restarts, the number compared with one; l2, the radius of a probe in that norm. The probes
    are pgd with the largest steps unless they say other. A question that cannot be probed has one row, of the probe
    "failed".
    """
    tables = []
    for batch in exam.batches(torch.arange(len(exam)), settings["batch_size"]):
        tables += halving(
            batch,
            lambda part: _probed(exam, part, settings, seed),
            lambda part, why: _table(exam, part, probe=FAILED),
        )
    return pd.concat(tables, ignore_index=True).merge(_about(exam))


def _probed(exam: Exam, batch: Tensor, settings: dict, seed: int) -> pd.DataFrame:
    """The rows of a batch. An attack that stands in two probes is run once."""
    words = exam.answers(exam.images[batch], batch)
    right = exam.right(words, batch)
    rows, kept = batch[right], [text for text, ok in zip(words, right, strict=True) if ok]
    most, eps = max(settings["steps"]), settings["eps"]
    budgets = [("eps", 0, min(settings["steps"]), 1)]
    budgets += [("eps", radius, most, 1) for radius in settings["radii"]]
    budgets += [("steps", eps, steps, 1) for steps in settings["steps"]]
    budgets += [("restarts", eps, most, restarts) for restarts in (1, settings["restarts"])]
    once = functools.cache(lambda *budget: _attacked(exam, kept, rows, seed, *budget))
    tables = [_table(exam, batch[~right], probe="clean")]
    if kept:
        tables += [once(*budget).assign(probe=probe) for probe, *budget in budgets]
        tables.append(_attacked(exam, kept, rows, seed, settings["l2"], min(settings["steps"]), 1, "l2"))
        targets = dict.fromkeys(target for target, _ in exam.chosen(Plan(restarts=settings["restarts"])))
        tables += [_measured(exam, target, kept, rows, eps, most) for target in targets]
    return pd.concat(tables, ignore_index=True)


def _attacked(exam: Exam, words, rows: Tensor, seed: int, eps, steps: int, restarts: int, norm="linf") -> pd.DataFrame:
    """The rows of one direct attack."""
    found = exam.attack(words, rows, Plan(norm=norm, steps=steps, restarts=restarts), eps, seed)
    linf = (found.images.int() - exam.images[rows].int()).abs().flatten(1).amax(1)
    size = {"linf": linf, "l2": l2_levels(found.images, exam.images[rows])}
    budget = {"probe": norm, "eps": eps, "steps": steps, "restarts": restarts}
    return _table(exam, rows, **budget, **size, broken=found.broken, spent=found.steps)


def _measured(exam: Exam, target: str, words, rows: Tensor, eps: int, steps: int) -> pd.DataFrame:
    """For one target: its gradient at the clean image; verdicts on floats, on the stored image and teacher-forced,
    after PGD.
    """
    clean, ball = to_float(exam.images[rows], exam.vlm.device), Ball("linf", eps / 255)
    everything = torch.arange(len(rows), device=clean.device)
    objective = exam.objective(target, words, rows)
    _, _, gradient = climb(objective, clean, everything)
    images, _ = pgd(objective, clean, ball, steps, clean, 2.5 * ball.eps / steps)
    stored = ball.store(images, exam.images[rows])
    texts = exam.answers(stored, rows)
    rounding = (stored.permute(0, 3, 1, 2) - 255 * images.cpu()).abs().flatten(1).amax(1)  # [b], levels
    stored_right, float_right = exam.right(texts, rows), exam.right(exam.answers_to(images, rows), rows)
    return _table(
        exam, rows, probe="measured", target=target, eps=eps, steps=steps, restarts=1, broken=~stored_right,
        float_broken=~float_right, forced_broken=_forced(exam, texts, rows, to_float(stored, clean.device)),
        rounding=rounding, zero_gradient=(gradient == 0).flatten(1).float().mean(1),
    )  # fmt: skip


def _forced(exam: Exam, texts: list[str], rows: Tensor, images: Tensor) -> list[bool | None]:
    """Whether the letter that comes next looks wrong after the model's own generated words; None where those name no
    letter.
    """
    answered = [i for i, (text, row) in enumerate(zip(texts, rows.tolist(), strict=True)) if exam.answer(text, row)]
    verdicts: list[bool | None] = [None] * len(texts)
    if answered:
        own = exam.objective("answer", [texts[i] for i in answered], rows[answered])
        _, broken = look(own, images[answered], torch.arange(len(answered), device=images.device))
        for place, verdict in zip(answered, broken.tolist(), strict=True):
            verdicts[place] = verdict
    return verdicts


def _about(exam: Exam) -> pd.DataFrame:
    kept = ("question_id", "image_path")
    return pd.DataFrame([{name: row[name] for name in kept} | {"n_options": len(row["options"])} for row in exam.rows])


def _table(exam: Exam, rows: Tensor, **columns) -> pd.DataFrame:
    ids = [exam.rows[i]["question_id"] for i in rows.tolist()]
    values = {k: v.cpu().numpy() if isinstance(v, Tensor) else v for k, v in columns.items()}
    return pd.DataFrame({"question_id": ids, **values})
