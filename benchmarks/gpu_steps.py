"""What the steps that `snakemake preflight` prices take on this GPU: seconds, memory, and operations a second.

    python benchmarks/gpu_steps.py --model PATH_OR_HUB_ID --out steps.csv

Only config.json of the model is read; the weights are random. Operations are counted as preflight counts them: the
column tflops, as a share of the card's peak, is what `preflight.efficiency` should be. gb is what a batch adds to the
weights. Completions have 16 tokens, prompts 100 beside those of the image, and trainings adapters of rank 16.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen3VLConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from safemed.models.vlm import VLM
from safemed.preflight import shapes, steps
from safemed.preflight.factors import EVALUATION, TRAINING
from safemed.training.common import adapter
from safemed.training.rollouts import sample_groups
from safemed.utils import files

TEXT, TOKENS, TIMES, GROUP = 100, 16, 5, 8
LORA = {"r": 16, "alpha": 32, "dropout": 0.05}
BATCHES = {"bf16": (1, 8, 20, 40), "fp32": (8,), "LoRA": (1, 8, 32)}  # of evaluations in a precision, and of trainings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a folder with config.json, or a model of the hub")
    parser.add_argument("--revision", help="of a model of the hub")
    parser.add_argument("--side", type=int, default=384, help="of the images, in pixels")
    parser.add_argument("--out", type=Path, required=True, help="CSV file to write")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("there is no GPU here that torch can use: run this where one is")
    shape = shapes.read_shape({"name": args.model, "revision": args.revision}, args.side)
    found = []
    for row in measured(shape, args.side):
        print(row, flush=True)
        found.append(row)
    files.write_csv(pd.DataFrame(found), args.out)
    print(torch.cuda.get_device_name(), torch.__version__)


def measured(shape: Qwen3VLConfig, side: int) -> Iterator[dict]:
    """A row for each step, kind of model (bf16, fp32 or LoRA) and batch."""
    for kind, sizes in BATCHES.items():
        layers = shape.text_config.num_hidden_layers, shape.vision_config.depth
        vlm = shapes.shallow(shape, *layers, "bf16" if kind == "bf16" else "fp32", "cuda")
        scatter(vlm)
        if kind == "LoRA":
            vlm = steps.trained(vlm, adapter(LORA))
            vlm.model.to("cuda")  # the adapters
        prompt = (side // vlm.geometry.patch // vlm.geometry.merge) ** 2 + TEXT
        for rows in sizes:
            batch = steps.Batch(vlm, rows, side, prompt, TOKENS)
            for name, step in (TRAINING if kind == "LoRA" else EVALUATION).items():
                yield {"step": name, "model": kind, "rows": rows} | cost(vlm, partial(step, vlm, batch))
        if kind == "bf16":
            asked = steps.Batch(vlm, sizes[-1], side, prompt, 0)
            yield {"step": "rollout", "model": kind, "rows": GROUP * sizes[-1]} | cost(vlm, partial(write, vlm, asked))
        vlm = None  # before the next one is made


def scatter(vlm: VLM) -> None:
    """Random matrices: with equal weights, all rollouts would be the same."""
    for weights in vlm.model.parameters():
        weights.data.normal_(0, 0.02) if weights.ndim > 1 else weights.data.fill_(1)


def write(vlm: VLM, batch: steps.Batch) -> None:
    """GROUP rollouts of each prompt."""
    draws = torch.Generator().manual_seed(0)
    sample_groups(vlm, batch.images, batch.encoded, GROUP, 1.0, TOKENS, draws)


def cost(vlm: VLM, work: Callable[[], object]) -> dict:
    """The median time of some work, the most memory that it adds, and its operations a second."""
    counted = FlopCounterMode(display=False)
    with counted:
        work()
    spent = []
    for _ in range(TIMES):
        vlm.model.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before, began = torch.cuda.memory_allocated(), time.perf_counter()
        work()
        torch.cuda.synchronize()
        spent.append(time.perf_counter() - began)
    seconds, added = statistics.median(spent), torch.cuda.max_memory_allocated() - before
    return {"seconds": seconds, "gb": added / 1e9, "tflops": counted.get_total_flops() / seconds / 1e12}


if __name__ == "__main__":
    main()
