"""Probe a model's vision tower: what the nearest training images tell of a test image, clean and attacked.

An image whose features are not numbers, or that has no memory alone, is stored as "failed", which no table counts.
"""

from safemed.evaluation import arguments, tower_probe
from safemed.utils import cli


def main() -> None:
    """Write a folder with rows.parquet (one row an image, level and sight) and cost.json."""
    args = arguments.evaluation_parser(__doc__).parse_args()
    cli.start_logging()
    tower_probe.run(args, __file__)


if __name__ == "__main__":
    main()
