"""p-values of several tests at once."""

import pandas as pd
from statsmodels.stats.multitest import multipletests


def holm(p_values: pd.Series) -> pd.Series:
    """The values adjusted by Holm's (1979) method over those that there are; missing ones stay missing."""
    there = p_values.dropna()
    if there.empty:
        return p_values
    return pd.Series(multipletests(there, method="holm")[1], there.index).reindex(p_values.index)
