"""Certify an L2 radius for each evaluation question by randomized smoothing of a function of a model.

Goes on after a kill with the questions that are not done. One job may take a shard of the questions.
"""

import logging

import pandas as pd
from tqdm import tqdm

from safemed.certificates import smoothing
from safemed.certificates.certifier import Certifier, Open
from safemed.certificates.smoothing import ABSTAIN, Certificate, Procedure
from safemed.data.dataset import load_questions, subset
from safemed.data.prompts import FAILED
from safemed.evaluation import arguments
from safemed.evaluation.evaluator import FUNCTIONS, Evaluator
from safemed.evaluation.partial_results import PartialResults
from safemed.models.vlm import VLM
from safemed.utils import cli, cost, files, provenance, resume

log = logging.getLogger(__name__)


def main() -> None:
    """Write a folder with rows.parquet (one row a question) and cost.json."""
    parser = arguments.evaluation_parser(__doc__)
    parser.add_argument("--sigma", type=float, required=True, help="noise in [0, 1] pixel units")
    parser.add_argument("--function", choices=FUNCTIONS, required=True, help="what is smoothed")
    parser.add_argument("--shard", default="1-of-1", metavar="I-of-K", help="every K-th question, from the I-th on")
    args = parser.parse_args()
    cli.start_logging()
    settings = args.settings
    smoothing.check(args.sigma, settings["alpha"], settings["n"], settings["mode"])
    meter, vlm = cost.CostMeter("certify", args.model), VLM.load(args.weights)
    questions = subset(load_questions(args.data, "test"), settings["questions"], args.seed)
    evaluator = Evaluator(vlm, questions, args.variant, settings["max_new_tokens"][args.variant])
    with files.atomic_folder(args.out, resume=True) as folder:
        told = {"sigma": args.sigma, "function": args.function, "shard": args.shard}
        identity = resume.identity(args, __file__, args.weights / "cost.json", args.data / "splits.csv") | told
        shards = PartialResults(folder / "shards", identity, meter, vlm.passes, ("parquet", "json"))
        certify(evaluator, args, shards)
        shards.rows().to_parquet(folder / "rows.parquet", index=False)
        meter.write(folder / "cost.json", vlm.passes)
        provenance.write(folder, args, __file__)
        shards.remove()


def certify(evaluator: Evaluator, args, shards: PartialResults) -> None:
    """Certify the questions of the shard that are not done, each stored as soon as it is."""
    number, of = map(int, args.shard.split("-of-"))
    if not 1 <= number <= min(of, len(evaluator)):
        raise ValueError(f"shard {args.shard} of {len(evaluator)} questions holds none; lower certify.shards")
    mine = range(number - 1, len(evaluator), of)
    certifier = Certifier(evaluator, args.function, procedure(args), args.settings["batch_size"], args.seed)
    found = certifier.run([row for row in mine if not shards.has(row)])
    for done, (row, question) in enumerate(tqdm(found, total=len(mine), disable=not cli.watched()), 1):
        shards.write(row, pd.DataFrame([certificate_row(evaluator, row, question, args)]))
        if done % 20 == 0:
            log.info("%d questions of %d done", done, len(mine))


def procedure(args) -> Procedure:
    """How votes become certificates, from the settings."""
    own = {key: args.settings[key] for key in ("n0", "n", "alpha", "mode", "randomised")}
    return Procedure(sigma=args.sigma, radii=tuple(args.settings["radii"]), **own)


def certificate_row(evaluator: Evaluator, row: int, question: Open, args) -> dict:
    """What the tables count: the certificate of a question, and the votes that it rests on."""
    votes, settings = question.votes, args.settings
    found = Certificate(ABSTAIN, 0.0) if question.stopped == FAILED else votes.certificate()
    successes, n = votes.evidence
    return {
        **evaluator.about(row, args), "function": args.function, "sigma": args.sigma,
        **{name: settings[name] for name in ("mode", "randomised", "alpha", "n0")}, "coin": votes.coin,
        "n": n, "successes": successes, "samples": votes.drawn, "p_lower": votes.p_lower,
        "stopped": question.stopped, "why": question.why, "prediction": found.prediction,
        "certified": found.prediction == evaluator.rows[row]["gold"], "radius": found.radius,
        "shard": args.shard, "seconds": round(question.seconds, 3),
    }  # fmt: skip


if __name__ == "__main__":
    main()
