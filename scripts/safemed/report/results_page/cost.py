"""What the study took."""

import pandas as pd

from safemed.report.results_page import markdown
from safemed.report.results_page.study import Section, Study


def duration(cost: pd.DataFrame) -> str:
    """The wall time of all jobs together. cost: that table."""
    minutes = cost.wall_s.sum() / 60
    return f"{minutes / 60:.1f} hours" if minutes >= 90 else f"{minutes:.0f} minutes"


def _stages(study: Study) -> str:
    table = study.tables["cost"]
    total = table.groupby("stage", sort=False).agg(
        models=("model", "nunique"), wall_s=("wall_s", "sum"), forward_passes=("forward_passes", "sum"),
        backward_passes=("backward_passes", "sum"), peak_rss_mb=("peak_rss_mb", "max"),
    )  # fmt: skip
    rows = [
        [row.Index, row.models, f"{row.wall_s / 60:.1f}", f"{row.forward_passes:,}", f"{row.backward_passes:,}",
         f"{row.peak_rss_mb:,.0f}"]
        for row in total.itertuples()
    ]  # fmt: skip
    said = f"All jobs one after another took {duration(table)}. A pass is one image through the vision tower."
    head = ["stage", "models", "minutes", "forward passes", "backward passes", "peak memory, MB"]
    return markdown.text(said, head, rows)


SECTION = Section("Cost", (_stages,), {})
