"""What AT-GRPO's savings save: an attack step, the rollouts and the loss of one step, each beside the plain way.

    python benchmarks/at_grpo.py --data results/phantoms/data --weights results/phantoms/models/at-grpo-instruct

Plain are the library's own vision tower, `generate` for every repetition of a prompt, and every repetition of a rollout
in the loss. Both sides are timed in turn, several times, and the medians printed with their ratio.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from safemed.attacks.losses import loss_and_gradient
from safemed.data import prompts
from safemed.data.dataset import as_arrays, load_questions, subset
from safemed.models.geometry import to_float
from safemed.models.packing import pack, packed_hidden
from safemed.models.tower import QUICK, quicken
from safemed.models.vlm import VLM
from safemed.training import common, targets
from safemed.training.rollouts import sample_groups
from safemed.training.step_rows import target_loss

GROUP, LIMIT, TIMES = 16, 8, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True, help="an instruct model")
    parser.add_argument("--questions", type=int, default=32)
    args = parser.parse_args()
    torch.manual_seed(0)
    vlm, questions = VLM.load(args.weights), subset(load_questions(args.data, "train"), args.questions, 0)
    rows = list(common.training_rows(questions, "instruct", targets.plain(questions, "instruct")))
    images = to_float(torch.from_numpy(as_arrays(row["image"] for row in rows)), vlm.device)
    compare("attack step", lambda: attack_step(vlm, rows, images), lambda: with_library(vlm, attack_step, rows, images))
    asked = vlm.encode([prompts.conversation(row, "instruct") for row in questions], [""] * len(rows), images.shape[-1])
    draws = torch.Generator().manual_seed(0)
    compare(
        f"rollouts of {GROUP}",
        lambda: sample_groups(vlm, images, asked, GROUP, 1.0, LIMIT, draws),
        lambda: repeated_rollouts(vlm, images, asked),
    )
    groups = sample_groups(vlm, images, asked, GROUP, 1.0, LIMIT, draws)
    vlm.model.requires_grad_(True)
    compare(
        "loss and gradient",
        lambda: packed_loss(vlm, images, asked, groups),
        lambda: plain_loss(vlm, images, asked, groups),
    )


def compare(name: str, ours: Callable[[], object], plain: Callable[[], object]) -> None:
    """Print the median seconds of both, taken in turn, and their ratio."""
    seconds: dict[str, list[float]] = {"ours": [], "plain": []}
    for _ in range(TIMES):
        for side, run in (("ours", ours), ("plain", plain)):
            start = time.perf_counter()
            run()
            seconds[side].append(time.perf_counter() - start)
    ours_s, plain_s = (statistics.median(seconds[side]) for side in ("ours", "plain"))
    print(f"{name:>20}: plain {plain_s:.3f} s, ours {ours_s:.3f} s, {plain_s / ours_s:.1f} times as fast", flush=True)


def attack_step(vlm: VLM, rows: list[dict], images: torch.Tensor) -> torch.Tensor:
    return loss_and_gradient(target_loss(vlm, rows), images, torch.arange(len(images)))[2]


def with_library(vlm: VLM, run: Callable, *args) -> object:
    """Run with the library's own vision tower."""
    back = {ours: theirs for theirs, ours in QUICK.items()}
    for module in vlm.visual.modules():
        module.__class__ = back.get(type(module), type(module))
    try:
        return run(vlm, *args)
    finally:
        quicken(vlm.visual)


def repeated_rollouts(vlm: VLM, images: torch.Tensor, asked) -> list[str]:
    """Every repetition of a prompt by `generate`, as many at a time as there are prompts."""
    return [vlm.sample(images, asked, LIMIT, seed) for seed in range(GROUP)]


def packed_loss(vlm: VLM, images: torch.Tensor, asked, groups: list) -> None:
    found = [(row, words) for row, group in enumerate(groups) for words in dict.fromkeys(group)]
    packed = pack(vlm, asked, images, [row for row, _ in found], [words for _, words in found])
    logits = vlm.head(packed_hidden(vlm.model, vlm, images, packed)).log_softmax(-1)
    logits.gather(1, packed.token[:, None]).sum().backward()


def plain_loss(vlm: VLM, images: torch.Tensor, asked, groups: list) -> None:
    """Each repetition after a prompt of its own, a group's first, then its second, and so on."""
    for repetition in zip(*groups, strict=True):
        encoded = vlm.encode_ids(asked, list(repetition))
        logits = vlm.completion_logits(images, encoded)[:, :-1].log_softmax(-1)
        logits.gather(2, encoded.completion_ids[..., None]).sum().backward()


if __name__ == "__main__":
    main()
