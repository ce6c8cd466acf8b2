"""Probe the attack on a model: direct attacks of several budgets, and what the gradient and the verdicts are like."""

import pandas as pd

from safemed import provenance, run
from safemed.data import load_questions, subset
from safemed.evaluation import Exam
from safemed.probes import probe_rows
from safemed.sanity import PROBE_ROWS
from safemed.vlm import VLM


def main() -> None:
    """Write a folder with rows.parquet (one row a question and probe) and cost.json."""
    args = run.evaluation_parser(__doc__).parse_args()
    run.start_logging()
    clock = run.Stopwatch("sanity", args.model)
    settings, vlm = args.settings, VLM.load(args.weights)
    questions = subset(load_questions(args.data, "test"), settings["questions"], args.seed)
    exam = Exam(vlm, questions, args.variant, settings["max_new_tokens"][args.variant])
    rows: pd.DataFrame = probe_rows(exam, settings, args.seed).assign(model=args.model).reindex(columns=PROBE_ROWS)
    with run.atomic_folder(args.out) as folder:
        rows.to_parquet(folder / "rows.parquet", index=False)
        clock.write(folder / "cost.json", vlm.passes)
        provenance.write(folder, args, __file__)


if __name__ == "__main__":
    main()
