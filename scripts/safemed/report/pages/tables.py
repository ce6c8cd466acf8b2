"""All tables of a study on one page, each of which a click on a column sorts."""

import pandas as pd

from safemed.report import html


def tables(**tables: pd.DataFrame) -> str:
    """The tables by name, as a page. Shares have three decimals; the CSV beside it holds all digits."""
    captions = {
        name: (name, "A click on a column sorts by it, and a second one the other way round.") for name in tables
    }
    return html.page("Tables", captions, tables)
