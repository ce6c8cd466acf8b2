"""What each stage of each model took."""

import pandas as pd

from safemed.report.tables.rows import COST_RECORD, describe, require_columns

COST = COST_RECORD  # its columns are those of a record


def cost(costs: pd.DataFrame) -> pd.DataFrame:
    """What each stage of each model took, over all its runs (a model has one for each attack): one row of COST each.

    costs: COST_RECORD, one row a run.

    Columns:
    stage, model: what was done, with which model.
    wall_s: seconds, summed over the runs.
    forward_passes, backward_passes: images through the vision tower, summed over the runs; a long generation counts as
        one.
    peak_rss_mb: the largest peak of resident memory, in MB.

    Raises ValueError if a column is missing or a number is missing or negative.
    """
    if costs.empty:
        return pd.DataFrame(columns=COST)
    require_columns(costs, COST_RECORD, "cost records")
    bad = costs[~(costs[COST_RECORD[2:]] >= 0).all(axis=1)]  # NaN is not >= 0 either
    if len(bad):
        raise ValueError(f"cost of {describe(bad, ['stage', 'model'])} is missing or negative: re-run that stage")
    summed = dict.fromkeys(["wall_s", "forward_passes", "backward_passes"], "sum")
    return costs.groupby(["stage", "model"], as_index=False).agg(summed | {"peak_rss_mb": "max"})[COST]
