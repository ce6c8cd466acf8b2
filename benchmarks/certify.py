"""What sequential certificates cost beside a fixed n = 10,000 (Cohen et al. 2019): same model, questions and noise.

    python benchmarks/certify.py --data results/phantoms/data --weights results/phantoms/models/at-grpo-instruct

Both sides draw their noise by the same names, so that they see the same images. For each grid of radii: samples and
seconds of the fixed procedure over the sequential one's, and certified accuracy of both at every radius.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from safemed.certificates.certifier import Certifier
from safemed.certificates.smoothing import Procedure
from safemed.data.dataset import load_questions, subset
from safemed.evaluation.evaluator import FUNCTIONS, Evaluator
from safemed.models.vlm import VLM

N0, N, ALPHA = 100, 10_000, 0.001
GRIDS = {"seven radii": [0.0, 0.4, 0.8, 1.2, 1.6, 2.0, 2.4], "0 and sigma": [0.0, 1.0]}  # in units of sigma
FEWER = 20  # selection votes of the sequential side, whose selection need not serve 10,000 draws


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True, help="an instruct model")
    parser.add_argument("--questions", type=int, default=20)
    parser.add_argument("--sigma", type=float, default=0.25)
    parser.add_argument("--function", choices=FUNCTIONS, default="choice")
    args = parser.parse_args()
    evaluator = Evaluator(
        VLM.load(args.weights), subset(load_questions(args.data, "test"), args.questions, 0), "instruct", 8
    )
    fixed = certified(evaluator, args, Procedure(args.sigma, N0, N, ALPHA, "fixed"))
    print(f"fixed, n = {N}: {fixed.samples:.0f} samples and {fixed.seconds:.2f} s a question")
    for name, grid in GRIDS.items():
        radii = tuple(args.sigma * radius for radius in grid)
        ours = certified(evaluator, args, Procedure(args.sigma, FEWER, N, ALPHA, "sequential", radii))
        print(f"{name}: {ours.samples:.0f} samples and {ours.seconds:.2f} s a question; fixed / sequential:", end=" ")
        print(f"{fixed.samples / ours.samples:.1f} in samples, {fixed.seconds / ours.seconds:.1f} in time")
        for radius in radii:
            print(
                f"  radius {radius:.3f}: fixed {fixed.at(radius):5.1f} %, sequential {ours.at(radius):5.1f} %",
                flush=True,
            )


class Measured:
    """Radii of right answers [n], mean samples and seconds a question."""

    def __init__(self, radii: list[float], samples: float, seconds: float):
        self.radii, self.samples, self.seconds = np.array(radii), samples, seconds

    def at(self, radius: float) -> float:
        """Certified accuracy at a radius, in per cent."""
        return 100 * float((self.radii >= radius).mean())


def certified(evaluator: Evaluator, args, procedure: Procedure) -> Measured:
    """Certificates of all questions; an answer that is not right counts as a radius of -1."""
    started = time.perf_counter()
    found = list(Certifier(evaluator, args.function, procedure, 200, 0).run(list(range(len(evaluator)))))
    seconds = (time.perf_counter() - started) / len(found)
    radii = []
    for row, question in found:
        made = question.votes.certificate()
        radii.append(made.radius if made.prediction == evaluator.rows[row]["gold"] else -1.0)
    return Measured(radii, float(np.mean([question.votes.drawn for _, question in found])), seconds)


if __name__ == "__main__":
    main()
