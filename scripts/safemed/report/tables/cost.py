"""What each stage of each model took."""

import pandas as pd

from safemed.report.tables.rows import COST_RECORD, describe, require_columns

COST = COST_RECORD


def cost(records: pd.DataFrame) -> pd.DataFrame:
    """What each stage of each model took: wall time and passes summed over its runs, the peak memory of the largest.

    records: COST_RECORD, one row a run (a model has a run for each attack). wall_s in seconds, a pass
    is one image through the model, peak_rss_mb in MB.

    Raises ValueError if a column is missing or a number is missing or negative.
    """
    if records.empty:
        return pd.DataFrame(columns=COST)
    require_columns(records, COST_RECORD, "cost records")
    bad = records[~(records[COST_RECORD[2:]] >= 0).all(axis=1)]  # NaN is not >= 0 either
    if len(bad):
        raise ValueError(f"cost of {describe(bad, ['stage', 'model'])} is missing or negative: re-run that stage")
    summed = dict.fromkeys(["wall_s", "forward_passes", "backward_passes"], "sum")
    return records.groupby(["stage", "model"], as_index=False).agg(summed | {"peak_rss_mb": "max"})[COST]
