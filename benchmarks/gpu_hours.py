"""GPU hours of the paper's scale, estimated from the passes that a finished study has counted. No GPU is measured here.

    python benchmarks/gpu_hours.py --results results/phantoms

Each stage's passes (its cost.json) are scaled by the questions, or by the training rows, of workflow/studies/
omnimedvqa.yaml over those of the default study, and turned into hours by the floating point operations of a pass of
Qwen3-VL-4B at the study's image size, at a rate that is assumed (--tflops). Not counted: tokens written one by one,
whose time is that of reading the weights (rollouts and answers of the thinking variant), the second forward pass of
gradient checkpointing, what bfloat16 left to fp32, loading, and waiting: hours are at least so many. A run at that
scale has its own seconds in cost.csv.
"""

import argparse
import json
import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
STUDIES = ROOT / "workflow" / "studies"
sys.path.insert(0, str(ROOT / "scripts"))

from safemed.workflow import config as configuration  # noqa: E402

# Qwen/Qwen3-VL-4B-Instruct: weights of its layers without embeddings; a patch is 16 pixels, an image token 32.
TEXT, VISION, PATCH, TOKEN = 3.63e9, 0.30e9, 16, 32
PROMPT = 100  # tokens of a question and its options, about
BACKWARD = 2  # a backward pass costs two forward passes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True, help="a finished run of the default study")
    parser.add_argument("--tflops", type=float, default=200, help="assumed 1e12 operations a second in bfloat16")
    parser.add_argument("--tflops-fp32", type=float, default=40, help="and in fp32")
    args = parser.parse_args()
    small, large = with_all_methods(), with_all_methods(STUDIES / "omnimedvqa.yaml")
    told = [priced(path, args, small, large) for path in sorted(args.results.rglob("cost.json"))]
    table = pd.DataFrame([line for line in told if line]).groupby(["stage", "what"], sort=False)
    told = table.agg(jobs=("jobs", "sum"), passes=("passes", "mean"), hours=("hours", "mean"))
    print(told.round(1).to_string())
    print(f"all jobs together: {(told.jobs * told.hours).sum():.0f} GPU hours at least")


def with_all_methods(*studies: Path) -> dict:
    """The config of a study, with the methods of those that are laid over it as well."""
    added = [STUDIES / f"{name}.yaml" for name in ("smoothing", "words", "ablation")]
    return {**configuration.read(*studies), "methods": configuration.read(*studies, *added)["methods"]}


def priced(path: Path, args, small: dict, large: dict) -> dict | None:
    """stage, what, jobs, passes and hours of one result at the large study's scale; None for what is not run there."""
    cost, (stage, model, *rest) = json.loads(path.read_text()), path.parent.relative_to(args.results).parts
    method = model.rpartition("-")[0]
    if stage == "models" and method not in small["methods"]:  # a base: a pretrained one is taken as it is
        return None
    what = method if stage == "models" else rest[0] if rest else "all"
    ratio = scale(stage, what, small, large)
    seen = (large["data"]["image_size"] // PATCH) ** 2 * VISION
    if not (stage == "models" and small["methods"][method]["trainer"] == "fare"):  # which runs the tower alone
        seen += ((large["data"]["image_size"] // TOKEN) ** 2 + PROMPT) * TEXT
    passes = ratio * (cost["forward_passes"] + BACKWARD * cost["backward_passes"])
    # Restarts of attacks run in bfloat16 first; certificates, and what has no gradient, are in fp32 throughout.
    halved = stage == "models" or (large["attack"]["amp"] and cost["backward_passes"])
    hours = 2 * seen * passes / (args.tflops if halved else args.tflops_fp32) / 1e12 / 3600
    jobs = len(large["certify"]["sigma"]) / len(small["certify"]["sigma"]) if stage == "certificates" else 1
    return {"stage": stage, "what": what, "jobs": jobs, "passes": passes, "hours": hours}


def scale(stage: str, what: str, small: dict, large: dict) -> float:
    """How many times the small study's questions, draws or training rows the large one has."""
    if stage == "models":
        return rows(large, what) / rows(small, what)
    certified = large["certify"]["questions"] / small["certify"]["questions"]
    if stage == "certificates":  # at most: many are decided before n draws
        return certified * large["certify"]["n"] / small["certify"]["n"]
    plan = small["attack"]["attacks"].get(what, {})
    if "sigma" in plan:
        return certified
    if stage == "stress" or "hint" in plan:
        return large["stress"]["questions"] / small["stress"]["questions"]
    asked = (study["attack"]["sanity"] if stage == "sanity" else study["attack"] for study in (large, small))
    return next(asked)["questions"] / next(asked)["questions"]


def rows(config: dict, method: str) -> int:
    """Rows, or completions, that a method trains on."""
    settings = configuration.training_settings(config, method)
    return settings["steps"] * settings["batch_size"] * settings["gradient_accumulation"]


if __name__ == "__main__":
    main()
