"""Attack a model on the evaluation questions and score the text it generates from the stored 8-bit images.

Goes on after a kill with the batch that it was at. A batch that runs out of memory is halved; a question whose loss,
gradient or logits are not numbers is stored as "failed", which no table counts as an answer.

An attack that knows a hint is on the question after it: the clean words, the loss and the verdict are under the hint.
One that knows a second turn is on the answer to a push after the model's own first answer, that to the clean image.
"""

from pathlib import Path

from safemed.evaluation import arguments, sweep
from safemed.utils import cli


def main() -> None:
    """Write a folder with rows.parquet (one row a question and eps), images.npz (clean, eps1, ...) and cost.json."""
    parser = arguments.evaluation_parser(__doc__)
    parser.add_argument("--attack", required=True, help="clean, or the name of the settings' attack")
    parser.add_argument("--eps", type=float, nargs="+", required=True, help="radii: 8-bit levels, or L2; 0 for clean")
    parser.add_argument("--before", type=Path, nargs="*", default=[], help="attacks whose survivors alone are attacked")
    parser.add_argument("--templates", type=Path, nargs="?", help="the file of templates, for a hint or a turn")
    args = parser.parse_args()
    cli.start_logging()
    if args.attack == "clean" and args.eps != [0]:
        parser.error(f"attack clean has eps 0, not {args.eps}")
    sweep.run(args, __file__)


if __name__ == "__main__":
    main()
