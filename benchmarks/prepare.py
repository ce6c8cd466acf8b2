"""Throughput and peak memory of `prepare`, side by side: few images and many, one thread and more.

    python benchmarks/prepare.py [--images 1640 20000] [--workers 1 2] [--side 384]

The images are JPEGs of 384 x 384 pixels with noise, 200 contents under as many names as are asked for, each read anew.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
CONTENTS = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[1640, 20000])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--side", type=int, default=384, help="side of the prepared images")
    args = parser.parse_args()
    first = None
    for n in args.images:
        for workers in args.workers:
            seconds, megabytes = measured(n, workers, args.side)
            first = first or (n / seconds, megabytes)
            print(
                f"{n} images, {workers} threads: {n / seconds:.0f} images/s (x {n / seconds / first[0]:.2f}), "
                f"peak {megabytes:.0f} MB (x {megabytes / first[1]:.2f})",
                flush=True,
            )


def measured(n: int, workers: int, side: int) -> tuple[float, float]:
    """Wall seconds and peak resident megabytes of the command on n images."""
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "source", Path(folder) / "data"
        write(source, n)
        line = [
            sys.executable, ROOT / "scripts" / "prepare.py", "--source", source, "--questions", out / "questions",
            "--texts", out / "texts.parquet", "--drops", out / "drops.csv", "--counts", out / "counts.csv",
            "--workers", workers, "--settings", json.dumps({"image_size": side, "questions": "published"}),
        ]  # fmt: skip
        started = time.perf_counter()
        process = subprocess.Popen(list(map(str, line)), stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0, "prepare failed"
        return time.perf_counter() - started, peak(usage)


def peak(usage: resource.struct_rusage) -> float:
    """Peak resident memory in MB."""
    return usage.ru_maxrss / 1024


def write(source: Path, n: int) -> None:
    """A folder in OmniMedVQA's layout with a question on each of n images."""
    images, rng = source / "Images" / "some", np.random.default_rng(0)
    images.mkdir(parents=True)
    for i in range(min(n, CONTENTS)):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).resize((384, 384))
        noisy = np.clip(np.asarray(coarse, int) + rng.normal(0, 8, (384, 384, 1)), 0, 255)
        Image.fromarray(noisy.astype(np.uint8)).save(images / f"{i}.jpg", quality=90)
    for i in range(CONTENTS, n):
        os.link(images / f"{i % CONTENTS}.jpg", images / f"{i}.jpg")
    records = [
        {
            "dataset": "some", "question_id": f"q{i}", "question_type": "Disease Diagnosis", "question": "What is it?",
            "gt_answer": "Cyst", "image_path": f"Images/some/{i}.jpg", "option_A": "Cyst", "option_B": "Mass",
            "modality_type": "X-Ray",
        }
        for i in range(n)
    ]  # fmt: skip
    (source / "QA_information" / "Open-access").mkdir(parents=True)
    (source / "QA_information" / "Open-access" / "some.json").write_text(json.dumps(records))


if __name__ == "__main__":
    main()
