"""Score stored adversarial images on a model: no attack is run, only the text generated from each image is read.

With --same the rows must be those that the attack wrote, and the program fails where one is not.
"""

from pathlib import Path

from safemed.evaluation import arguments, replay
from safemed.utils import cli


def main() -> None:
    """Write a folder with rows.parquet, one row a source model, attack, eps and question, and cost.json."""
    parser = arguments.evaluation_parser(__doc__)
    parser.add_argument("--attacks", type=Path, nargs="+", required=True, help="folders of scripts/attack.py")
    parser.add_argument("--templates", type=Path, nargs="?", help="the file of templates, where an attack knew a hint")
    parser.add_argument("--same", action="store_true", help="fail unless the rows are those of the attack")
    args = parser.parse_args()
    cli.start_logging()
    replay.run(args, __file__)


if __name__ == "__main__":
    main()
