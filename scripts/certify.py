"""Certify an L2 radius for each evaluation question by randomized smoothing of the generated answer."""

import logging
import time
import zlib

import pandas as pd
import torch
from tqdm import tqdm

from safemed import run, smoothing
from safemed.data import load_questions, subset
from safemed.evaluation import Exam
from safemed.prompts import parse
from safemed.vlm import VLM, to_float

log = logging.getLogger(__name__)


def main() -> None:
    """Write a folder with rows.parquet (one row a question) and cost.json."""
    parser = run.evaluation_parser(__doc__)
    parser.add_argument("--sigma", type=float, required=True, help="noise in [0, 1] pixel units")
    args = parser.parse_args()
    run.start_logging()
    settings = args.settings
    smoothing.check(args.sigma, settings["alpha"], settings["n"])
    clock = run.Stopwatch("certify", args.model)
    vlm = VLM.load(args.weights)
    questions = subset(load_questions(args.data, "test"), settings["questions"], args.seed)
    exam = Exam(vlm, questions, args.variant, settings["max_new_tokens"][args.variant])
    rows = []
    for i in tqdm(range(len(exam)), desc=f"sigma {args.sigma}", disable=not run.watched()):
        rows.append(certificate_row(exam, i, args))
        if (i + 1) % 20 == 0:
            log.info("%d/%d certificates, %.3f certified", i + 1, len(exam), pd.DataFrame(rows).certified.mean())
    with run.atomic_folder(args.out) as folder:
        pd.DataFrame(rows).to_parquet(folder / "rows.parquet", index=False)
        clock.write(folder / "cost.json", vlm.passes)


def certificate_row(exam: Exam, i: int, args) -> dict:
    """The certificate of question i; seeded by (seed, question id), selection and estimation draws apart."""
    started, settings, question = time.perf_counter(), args.settings, exam.rows[i]
    seed = zlib.crc32(f"{args.seed}:{question['question_id']}:{args.sigma}".encode())
    generator = torch.Generator().manual_seed(seed)
    selection = classes(exam, i, settings["n0"], args, generator)
    estimation = classes(exam, i, settings["n"], args, generator)
    found = smoothing.certify(selection, estimation, args.sigma, settings["alpha"])
    return {
        **exam.about(i, args),
        "sigma": args.sigma,
        "function": "generate",
        "n0": settings["n0"],
        "n": settings["n"],
        "alpha": settings["alpha"],
        "prediction": found.prediction,
        "certified": found.prediction == question["gold"],
        "radius": found.radius,
        "seconds": round(time.perf_counter() - started, 3),
    }


def classes(exam: Exam, i: int, n: int, args, generator: torch.Generator) -> list[str]:
    """The class of the generated answer for n fresh draws of noise on question i's image."""
    clean = to_float(exam.images[i : i + 1], torch.device("cpu"))  # [1, 3, H, W]
    found = []
    for size in torch.ones(n).split(args.settings["batch_size"]):
        noise = torch.randn((len(size), *clean.shape[1:]), generator=generator)
        # Noisy pixels leave [0, 1] on purpose: clipping would make the noise other than the Gaussian of the theorem.
        texts = exam.answers_to((clean + args.sigma * noise).to(exam.vlm.device), torch.full((len(size),), i))
        found += [parse(text, len(exam.rows[i]["options"])).answer or smoothing.UNPARSABLE for text in texts]
    return found


if __name__ == "__main__":
    main()
