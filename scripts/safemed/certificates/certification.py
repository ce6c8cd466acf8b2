"""The certificates of the evaluation questions of one shard: one row a question."""

import logging
from argparse import Namespace

import pandas as pd
from tqdm import tqdm

from safemed.certificates.certifier import Certifier, Open
from safemed.certificates.smoothing import ABSTAIN, Certificate, Procedure
from safemed.data.dataset import load_questions, subset
from safemed.data.prompts import FAILED
from safemed.evaluation import results
from safemed.evaluation.arguments import asking, load, model_columns
from safemed.evaluation.evaluator import Evaluator
from safemed.evaluation.partial_results import PartialResults
from safemed.utils import cli, cost

log = logging.getLogger(__name__)


def run(args: Namespace, script: str) -> None:
    """Write the folder args.out: rows.parquet, one row a question, cost.json, provenance.json."""
    settings, meter, vlm = args.settings, cost.CostMeter("certify", args.model), load(args)
    questions = subset(load_questions(args.data, "test"), settings["questions"], args.seed)
    evaluator = asking(vlm, questions, args)
    identity = {"sigma": args.sigma, "function": args.function, "shard": args.shard}
    with results.resumable(args, script, meter, vlm, [], identity) as (folder, parts):
        certify(evaluator, args, parts)
        parts.rows().to_parquet(folder / "rows.parquet", index=False)


def certify(evaluator: Evaluator, args: Namespace, parts: PartialResults) -> None:
    """Certify the questions of the shard that are not among the parts, and store each as soon as it is done."""
    mine = shard(args.shard, len(evaluator))
    certifier = Certifier(evaluator, args.function, procedure(args), args.settings["batch_size"], args.seed)
    found = certifier.run([row for row in mine if not parts.has(row)])
    for done, (row, question) in enumerate(tqdm(found, total=len(mine), disable=not cli.watched()), 1):
        parts.write(row, pd.DataFrame([certificate_row(evaluator, row, question, args)]))
        if done % 20 == 0:
            log.info("%d questions of %d done", done, len(mine))


def shard(which: str, n: int) -> range:
    """The questions of n that the shard "I-of-K" certifies: every K-th, from the I-th on. ValueError without any."""
    number, of = map(int, which.split("-of-"))
    if not 1 <= number <= min(of, n):
        raise ValueError(f"shard {which} of {n} questions holds none; lower certify.shards")
    return range(number - 1, n, of)


def procedure(args: Namespace) -> Procedure:
    """How votes become certificates, from the settings."""
    own = {key: args.settings[key] for key in ("n0", "n", "alpha", "mode", "randomised")}
    return Procedure(sigma=args.sigma, radii=tuple(args.settings["radii"]), **own)


def certificate_row(evaluator: Evaluator, row: int, question: Open, args: Namespace) -> dict:
    """What the tables count: the certificate of a question, and the votes that it rests on."""
    votes, settings = question.votes, args.settings
    found = Certificate(ABSTAIN, 0.0) if question.stopped == FAILED else votes.certificate()
    successes, n = votes.evidence
    return {
        **evaluator.about(row), **model_columns(args), "function": args.function, "sigma": args.sigma,
        **{name: settings[name] for name in ("mode", "randomised", "alpha", "n0")}, "coin": votes.coin,
        "n": n, "successes": successes, "samples": votes.drawn, "p_lower": votes.p_lower,
        "stopped": question.stopped, "why": question.why, "prediction": found.prediction,
        "certified": found.prediction == evaluator.rows[row]["gold"], "radius": found.radius,
        "shard": args.shard, "seconds": round(question.seconds, 3),
    }  # fmt: skip
