"""Certify an L2 radius for each evaluation question by randomized smoothing of a function of a model.

Goes on after a kill with the questions that are not done. One job may take a shard of the questions.
"""

import logging

import pandas as pd
from tqdm import tqdm

from safemed import provenance, run, smoothing
from safemed.certifier import Certifier, Open
from safemed.data import load_questions, subset
from safemed.evaluation import FUNCTIONS, Exam
from safemed.prompts import FAILED
from safemed.shards import Shards
from safemed.smoothing import ABSTAIN, Certificate, Procedure
from safemed.vlm import VLM

log = logging.getLogger(__name__)


def main() -> None:
    """Write a folder with rows.parquet (one row a question) and cost.json."""
    parser = run.evaluation_parser(__doc__)
    parser.add_argument("--sigma", type=float, required=True, help="noise in [0, 1] pixel units")
    parser.add_argument("--function", choices=FUNCTIONS, required=True, help="what is smoothed")
    parser.add_argument("--shard", default="1-of-1", metavar="I-of-K", help="every K-th question, from the I-th on")
    args = parser.parse_args()
    run.start_logging()
    settings = args.settings
    smoothing.check(args.sigma, settings["alpha"], settings["n"], settings["mode"])
    clock, vlm = run.Stopwatch("certify", args.model), VLM.load(args.weights)
    questions = subset(load_questions(args.data, "test"), settings["questions"], args.seed)
    exam = Exam(vlm, questions, args.variant, settings["max_new_tokens"][args.variant])
    with run.atomic_folder(args.out, resume=True) as folder:
        told = {"sigma": args.sigma, "function": args.function, "shard": args.shard}
        identity = run.identity(args, __file__, args.weights / "cost.json", args.data / "splits.csv") | told
        shards = Shards(folder / "shards", identity, clock, vlm.passes, ("parquet", "json"))
        certify(exam, args, shards)
        shards.rows().to_parquet(folder / "rows.parquet", index=False)
        clock.write(folder / "cost.json", vlm.passes)
        provenance.write(folder, args, __file__)
        shards.remove()


def certify(exam: Exam, args, shards: Shards) -> None:
    """Certify the questions of the shard that are not done, each stored as soon as it is."""
    number, of = map(int, args.shard.split("-of-"))
    if not 1 <= number <= min(of, len(exam)):
        raise ValueError(f"shard {args.shard} of {len(exam)} questions holds none; lower certify.shards")
    mine = range(number - 1, len(exam), of)
    certifier = Certifier(exam, args.function, procedure(args), args.settings["batch_size"], args.seed)
    found = certifier.run([row for row in mine if not shards.has(row)])
    for done, (row, question) in enumerate(tqdm(found, total=len(mine), disable=not run.watched()), 1):
        shards.write(row, pd.DataFrame([certificate_row(exam, row, question, args)]))
        if done % 20 == 0:
            log.info("%d questions of %d done", done, len(mine))


def procedure(args) -> Procedure:
    """How votes become certificates, from the settings."""
    own = {key: args.settings[key] for key in ("n0", "n", "alpha", "mode", "randomised")}
    return Procedure(sigma=args.sigma, radii=tuple(args.settings["radii"]), **own)


def certificate_row(exam: Exam, row: int, question: Open, args) -> dict:
    """What the tables count: the certificate of a question, and the votes that it rests on."""
    votes, settings = question.votes, args.settings
    found = Certificate(ABSTAIN, 0.0) if question.stopped == FAILED else votes.certificate()
    successes, n = votes.evidence
    return {
        **exam.about(row, args), "function": args.function, "sigma": args.sigma,
        **{name: settings[name] for name in ("mode", "randomised", "alpha", "n0")}, "coin": votes.coin,
        "n": n, "successes": successes, "samples": votes.drawn, "p_lower": votes.p_lower,
        "stopped": question.stopped, "why": question.why, "prediction": found.prediction,
        "certified": found.prediction == exam.rows[row]["gold"], "radius": found.radius,
        "shard": args.shard, "seconds": round(question.seconds, 3),
    }  # fmt: skip


if __name__ == "__main__":
    main()
