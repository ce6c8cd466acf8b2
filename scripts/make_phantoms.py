"""Write a study of procedural phantom images and questions in OmniMedVQA's layout."""

import argparse
import shutil
from pathlib import Path

from safemed.data.phantoms.study import MIN_IMAGES, QUESTIONS, write_study


def main() -> None:
    """Render into a sibling folder and rename it at the end, so that `--out` is either absent or complete."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to create")
    parser.add_argument("--images", type=int, required=True, help=f"number of images, at least {MIN_IMAGES}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--side", type=int, default=64, help="pixels (default: 64)")
    parser.add_argument("--questions", choices=QUESTIONS, default="basic", help="asked of each image (default: basic)")
    args = parser.parse_args()
    if args.images < MIN_IMAGES:
        parser.error(f"--images must be at least {MIN_IMAGES} for a balanced study, got {args.images}")
    if args.out.exists():
        parser.error(f"--out {args.out} exists already; remove it first")
    partial = args.out.with_name(args.out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    write_study(partial, args.images, args.seed, args.side, args.questions)
    partial.rename(args.out)


if __name__ == "__main__":
    main()
