"""What the attacks cost beside torchattacks' PGD and AutoAttack: same model, images, budget, in one run.

    python benchmarks/attacks.py --data results/phantoms/data --weights results/phantoms/models/sft-instruct

Both sides are judged by the text generated from the stored 8-bit images. Passes are images through the vision tower,
forward and backward together, counted by hooks while the attack runs: for ours with the generated texts by which it
stops, for torchattacks, which asks nobody, without. The suite is that of the default study: its linf attacks in turn,
on survivors.
"""

import argparse
import sys
import time
from functools import partial
from pathlib import Path

import torch
import torchattacks

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from safemed.attacks.engine import AttackConfig, Attacked
from safemed.data.dataset import load_questions, subset
from safemed.evaluation import registry
from safemed.evaluation.evaluator import Evaluator
from safemed.evaluation.torchattacks_adapter import ShownRows, seeded
from safemed.models.geometry import to_uint8
from safemed.models.vlm import VLM
from safemed.workflow import config as configuration
from safemed.workflow import config_files

EPS, STEPS = 8, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True, help="an instruct model")
    parser.add_argument("--questions", type=int, default=100, help="for PGD")
    parser.add_argument("--few", type=int, default=12, help="for AutoAttack, of four options: it fails with fewer")
    args = parser.parse_args()
    config = config_files.read()
    everything = load_questions(args.data, "test")
    vlm, longest = VLM.load(args.weights), config["max_new_tokens"]["instruct"]
    evaluator = Evaluator(vlm, subset(everything, args.questions, 0), "instruct", longest)
    for kind, patience in (("pgd", None), ("apgd", 8), ("mi-fgsm", None), ("mi-fgsm", 8)):
        budget = AttackConfig(kind, steps=STEPS, losses=("answer",), patience=patience)
        ours = partial(attacked, evaluator, budget)
        compare(f"{kind}, patience {patience}", evaluator, upstream_pgd, ours)
    four = everything.select([i for i, options in enumerate(everything["options"]) if len(options) == 4])
    evaluator = Evaluator(vlm, subset(four, args.few, 0), "instruct", longest)
    compare("AutoAttack", evaluator, upstream_autoattack, partial(whole_suite, evaluator, config["attack"]))


def compare(name: str, evaluator: Evaluator, upstream, ours) -> None:
    """Print robust accuracy, passes and seconds of both, and the ratios."""
    everything = torch.arange(len(evaluator))
    words = evaluator.answers(evaluator.images, everything)
    right = evaluator.right(words, everything)
    rows, kept = everything[right], [text for text, ok in zip(words, right, strict=True) if ok]
    cost = {}
    for side, attack in (("torchattacks", partial(upstream, evaluator)), ("ours", ours)):
        evaluator.vlm.passes.forward = evaluator.vlm.passes.backward = 0
        started = time.perf_counter()
        images = attack(kept, rows).images
        seconds, passes = time.perf_counter() - started, evaluator.vlm.passes.forward + evaluator.vlm.passes.backward
        robust = evaluator.is_right(images, rows).sum().item() / len(evaluator)
        cost[side] = (passes, seconds)
        print(f"{name:10} {side:12} robust {100 * robust:5.1f} % of {len(evaluator)}, {passes} passes, {seconds:.1f} s")
    passes, seconds = (theirs / mine for theirs, mine in zip(cost["torchattacks"], cost["ours"], strict=True))
    print(f"{name:10} torchattacks / ours: {passes:.2f} in passes, {seconds:.2f} in time", flush=True)


def attacked(evaluator: Evaluator, budget: AttackConfig, words: list[str], rows: torch.Tensor) -> Attacked:
    """Our attack of one budget."""
    return evaluator.attack(words, rows, budget, EPS, 0)


class Rounded:
    """What an upstream attack returned, as stored images."""

    def __init__(self, images: torch.Tensor):
        self.images = images


def upstream_pgd(evaluator: Evaluator, words: list[str], rows: torch.Tensor) -> Rounded:
    """torchattacks.PGD, for each number of options apart."""
    return by_options(
        evaluator, words, rows, lambda shown: torchattacks.PGD(shown, EPS / 255, 2.5 * EPS / 255 / STEPS, STEPS)
    )


def upstream_autoattack(evaluator: Evaluator, words: list[str], rows: torch.Tensor) -> Rounded:
    """torchattacks.AutoAttack, the standard version."""
    return by_options(
        evaluator, words, rows, lambda shown: torchattacks.AutoAttack(shown, eps=EPS / 255, n_classes=shown.k, seed=0)
    )


def by_options(evaluator: Evaluator, words: list[str], rows: torch.Tensor, make) -> Rounded:
    """An upstream attack on questions of one number of options at a time; what it returns is stored as it is."""
    images, n_options = evaluator.images[rows].clone(), evaluator.n_options[rows].cpu()
    for k in n_options.unique().tolist():
        same = torch.nonzero(n_options == k)[:, 0]
        shown = ShownRows(evaluator, [words[i] for i in same], rows[same], k, "linf", EPS)
        with seeded(0):
            images[same] = to_uint8(make(shown)(shown.start, shown.gold).detach().as_subclass(torch.Tensor))
    return Rounded(images)


def whole_suite(evaluator: Evaluator, attack: dict, words: list[str], rows: torch.Tensor) -> Rounded:
    """The linf attacks of the suite in turn, each on what those before it left."""
    images, live = evaluator.images[rows].clone(), torch.arange(len(rows))
    for name in configuration.suite(attack, evaluator.variant):
        settings = attack["attacks"][name]
        if settings.get("norm", "linf") != "linf" or not len(live):
            continue
        budget = registry.read_attack_config(name, settings, evaluator.variant)
        found = registry.run_attack(evaluator, [words[i] for i in live], rows[live], budget, EPS, 0)
        images[live] = found.images
        live = live[~found.broken]
    return Rounded(images)


if __name__ == "__main__":
    main()
