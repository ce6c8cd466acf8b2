"""Probe the attack on a model: direct attacks of several budgets, and what the gradient and the verdicts are like."""

import pandas as pd

from safemed.data.dataset import load_questions, subset
from safemed.evaluation import arguments
from safemed.evaluation.diagnostics import PROBE_ROWS, probe_rows
from safemed.evaluation.evaluator import Evaluator
from safemed.models.vlm import VLM
from safemed.utils import cli, cost, files, provenance


def main() -> None:
    """Write a folder with rows.parquet (one row a question and probe) and cost.json."""
    args = arguments.evaluation_parser(__doc__).parse_args()
    cli.start_logging()
    meter = cost.CostMeter("sanity", args.model)
    settings, vlm = args.settings, VLM.load(args.weights)
    questions = subset(load_questions(args.data, "test"), settings["questions"], args.seed)
    evaluator = Evaluator(vlm, questions, args.variant, settings["max_new_tokens"][args.variant])
    rows: pd.DataFrame = probe_rows(evaluator, settings, args.seed).assign(model=args.model).reindex(columns=PROBE_ROWS)
    with files.atomic_folder(args.out) as folder:
        rows.to_parquet(folder / "rows.parquet", index=False)
        meter.write(folder / "cost.json", vlm.passes)
        provenance.write(folder, args, __file__)


if __name__ == "__main__":
    main()
