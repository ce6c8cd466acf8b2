"""Right answers that are given up in a second turn."""

import pandas as pd

from safemed.report.figures.style import Drawn, count, sentence
from safemed.report.figures.wordings import by_wording

PANELS = {"doubt": "A doubt", "wrong": "A wrong claim"}
DRAWN = {"flipped": "share", "flipped_low": "low", "flipped_high": "high", "flipped_silent": "silent"}


def turns(turns: pd.DataFrame) -> Drawn:
    """The share of right first answers that each model gives up, a row a model, a panel a push, on clean images.

    turns: that table. A large mark with its interval is for wordings that no training draws, a small one below it for
    those that a training with second turns may draw. The grey circle beside each is the share after a push that says
    nothing.
    """
    points = turns[(turns.seen == "clean") & turns.push.isin(list(PANELS))].dropna(subset="flipped")
    points = points.reset_index(drop=True)
    if points.empty:
        return sentence("No first answer was right, or not all were evaluated: see the table of turns."), points
    panels = {}
    for push, named in PANELS.items():
        part = points[points.push == push]
        note = f"{count(part.n_right) if len(part) else 'none'} answers right at first · 95% intervals"
        panels[f"{named} after the answer", note] = part.rename(columns=DRAWN)
    below = (
        "right answers given up in a second turn, after new wordings (large) and taught ones (small)\n"
        "grey: after a second turn that says nothing"
    )
    return by_wording(panels, below), points
