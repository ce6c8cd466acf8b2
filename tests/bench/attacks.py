"""What the attacks cost beside torchattacks' PGD and AutoAttack: same model, images, budget, in one run.

    python tests/bench/attacks.py --data results/phantoms/data --weights results/phantoms/models/sft-instruct

Both sides are judged by the text generated from the stored 8-bit images. Passes are images through the vision tower,
forward and backward together, counted by hooks while the attack runs: for ours with the generated texts by which it
stops, for torchattacks, which asks nobody, without. The suite is that of config.yaml: its linf attacks in turn, on
survivors.
"""

import argparse
import sys
import time
from pathlib import Path

import torch
import torchattacks
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from safemed import configuration, gradient_free, plans  # noqa: E402
from safemed.attacks import Plan  # noqa: E402
from safemed.data import load_questions, subset  # noqa: E402
from safemed.evaluation import Exam  # noqa: E402
from safemed.vlm import VLM  # noqa: E402

EPS, STEPS = 8, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True, help="an instruct model")
    parser.add_argument("--questions", type=int, default=100, help="for PGD")
    parser.add_argument("--few", type=int, default=12, help="for AutoAttack, of four options: it fails with fewer")
    args = parser.parse_args()
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    everything = load_questions(args.data, "test")
    vlm, longest = VLM.load(args.weights), config["max_new_tokens"]["instruct"]
    exam = Exam(vlm, subset(everything, args.questions, 0), "instruct", longest)
    for kind, patience in (("pgd", None), ("apgd", 8), ("mi-fgsm", None), ("mi-fgsm", 8)):
        plan = Plan(kind, steps=STEPS, patience=patience)
        compare(
            f"{kind}, patience {patience}",
            exam,
            upstream_pgd,
            lambda *given, plan=plan: exam.attack(*given, plan, EPS, 0),
        )
    four = everything.select([i for i, options in enumerate(everything["options"]) if len(options) == 4])
    exam = Exam(vlm, subset(four, args.few, 0), "instruct", longest)
    compare("AutoAttack", exam, upstream_autoattack, lambda *given: whole_suite(exam, *given, config["attack"]))


def compare(name: str, exam: Exam, upstream, ours) -> None:
    """Print robust accuracy, passes and seconds of both, and the ratios."""
    everything = torch.arange(len(exam))
    words = exam.answers(exam.images, everything)
    right = exam.right(words, everything)
    rows, kept = everything[right], [text for text, ok in zip(words, right, strict=True) if ok]
    cost = {}
    for side, attack in (("torchattacks", lambda *given: upstream(exam, *given)), ("ours", ours)):
        exam.vlm.passes.forward = exam.vlm.passes.backward = 0
        started = time.perf_counter()
        images = attack(kept, rows).images
        seconds, passes = time.perf_counter() - started, exam.vlm.passes.forward + exam.vlm.passes.backward
        robust = exam.is_right(images, rows).sum().item() / len(exam)
        cost[side] = (passes, seconds)
        print(f"{name:10} {side:12} robust {100 * robust:5.1f} % of {len(exam)}, {passes} passes, {seconds:.1f} s")
    passes, seconds = (theirs / mine for theirs, mine in zip(cost["torchattacks"], cost["ours"], strict=True))
    print(f"{name:10} torchattacks / ours: {passes:.2f} in passes, {seconds:.2f} in time", flush=True)


class Rounded:
    """What an upstream attack returned, as stored images."""

    def __init__(self, images: torch.Tensor):
        self.images = images


def upstream_pgd(exam: Exam, words: list[str], rows: torch.Tensor) -> Rounded:
    """torchattacks.PGD, for each number of options apart."""
    return by_options(
        exam, words, rows, lambda shown: torchattacks.PGD(shown, EPS / 255, 2.5 * EPS / 255 / STEPS, STEPS)
    )


def upstream_autoattack(exam: Exam, words: list[str], rows: torch.Tensor) -> Rounded:
    """torchattacks.AutoAttack, the standard version."""
    return by_options(
        exam, words, rows, lambda shown: torchattacks.AutoAttack(shown, eps=EPS / 255, n_classes=shown.k, seed=0)
    )


def by_options(exam: Exam, words: list[str], rows: torch.Tensor, make) -> Rounded:
    """An upstream attack on questions of one number of options at a time, on floats, as it is meant."""
    images, n_options = exam.images[rows].clone(), exam.n_options[rows].cpu()
    for k in n_options.unique().tolist():
        same = torch.nonzero(n_options == k)[:, 0]
        shown = gradient_free.ShownRows(exam, [words[i] for i in same], rows[same], k, rounded=False)
        torch.manual_seed(0)
        images[same] = shown.images_of(make(shown)(shown.start, exam.gold[rows[same]]).detach())
    return Rounded(images)


def whole_suite(exam: Exam, words: list[str], rows: torch.Tensor, attack: dict) -> Rounded:
    """The linf attacks of the suite in turn, each on what those before it left."""
    images, live = exam.images[rows].clone(), torch.arange(len(rows))
    for name in configuration.suite(attack, exam.variant):
        settings = attack["attacks"][name]
        if settings.get("norm") == "l2" or not len(live):
            continue
        plan = plans.plan_of(name, settings, exam.variant)
        found = plans.carry_out(exam, [words[i] for i in live], rows[live], plan, EPS, 0)
        images[live] = found.images
        live = live[~found.broken]
    return Rounded(images)


if __name__ == "__main__":
    main()
