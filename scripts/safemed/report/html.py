"""Tables on one self-contained HTML page."""

from html import escape

import pandas as pd

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .5rem 0 2rem }
th, td { padding: .2rem .7rem; border-bottom: 1px solid #ddd; text-align: left; overflow-wrap: anywhere }
th { border-bottom: 2px solid #888 }
p { max-width: 50rem; color: #444 }
"""
MOST_ROWS = 200  # of a table on the page; its CSV holds all


def page(title: str, captions: dict[str, tuple[str, str]], tables: dict[str, pd.DataFrame]) -> str:
    """The tables that there are, in the captions' order; captions: name -> (heading, what it says), in plain text."""
    parts = [_section(*captions[name], name, tables[name]) for name in captions if name in tables]
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    body = f"<h1>{escape(title)}</h1>{''.join(parts)}"
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>'


def _section(heading: str, caption: str, name: str, table: pd.DataFrame) -> str:
    body = table.head(MOST_ROWS).to_html(index=False, border=0, float_format="{:.3f}".format, na_rep="")
    more = f"<p>{len(table) - MOST_ROWS} more rows in {escape(name)}.csv.</p>" if len(table) > MOST_ROWS else ""
    return f"<h2>{escape(heading)}</h2><p>{escape(caption)} ({escape(name)}.csv)</p>{body}{more}"
