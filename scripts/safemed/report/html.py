"""Pages of HTML that load nothing: tables that a click sorts, and parts that are paged through."""

from collections.abc import Sequence
from html import escape

import pandas as pd

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .5rem 0 2rem }
th, td { padding: .2rem .7rem; border-bottom: 1px solid #ddd; text-align: left }
td { overflow-wrap: break-word; max-width: 30rem }
th { border-bottom: 2px solid #888 }
th button { all: unset; cursor: pointer; font-weight: bold }
th button:focus-visible { outline: 2px solid #0072b2 }
th[aria-sort=ascending] button::after { content: " \\25b2" }
th[aria-sort=descending] button::after { content: " \\25bc" }
p { max-width: 50rem; color: #444 }
.row { display: flex; flex-wrap: wrap; gap: 1rem }
figure { margin: 0 } figcaption { font-size: 13px; color: #666 }
img { image-rendering: pixelated; max-width: 100% }
.words { flex: 1 1 18rem } .right { color: #005a8f; font-weight: bold } .wrong { color: #b34700; font-weight: bold }
.failed { color: #666; font-style: italic }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0 }
nav button, nav select { font: inherit; padding: .3rem .8rem; max-width: 100% }
"""
SORT = """
for (const button of document.querySelectorAll("th button")) button.onclick = () => {
  const head = button.closest("th"), table = head.closest("table"), body = table.tBodies[0];
  const down = head.getAttribute("aria-sort") === "ascending", place = head.cellIndex;
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const value = row => row.cells[place].dataset.value ?? row.cells[place].textContent, empty = text => text === "";
  const compared = (a, b) => isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b;
  const rows = [...body.rows].map(row => [value(row), row]);
  rows.sort(([a], [b]) => empty(a) || empty(b) ? empty(a) - empty(b) : (down ? -1 : 1) * compared(a, b));
  body.append(...rows.map(([, row]) => row));
};
"""
PAGING = """
const parts = [...document.querySelectorAll("section")], chosen = document.querySelector("select");
const show = place => {
  const at = (place + parts.length) % parts.length;
  parts.forEach((part, i) => part.hidden = i !== at);
  chosen.selectedIndex = at;
};
chosen.onchange = () => show(chosen.selectedIndex);
const step = by => show(chosen.selectedIndex + by);
document.getElementById("back").onclick = () => step(-1);
document.getElementById("on").onclick = () => step(1);
document.addEventListener("keydown", event => {
  if (event.target === chosen || event.altKey || event.ctrlKey || event.metaKey) return;
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
});
show(0);
"""
MOST_ROWS = 2000  # of a table on the page; its CSV holds all


def page(title: str, captions: dict[str, tuple[str, str]], tables: dict[str, pd.DataFrame]) -> str:
    """The tables that there are, in the captions' order; captions: name -> (heading, what it says), in plain text."""
    parts = [_section(*captions[name], name, tables[name]) for name in captions if name in tables]
    return _whole(title, "".join(parts), SORT)


def paged(title: str, said: str, parts: Sequence[tuple[str, str]]) -> str:
    """Parts, at least one, of which one is shown at a time. said: plain text; parts: (heading in plain text, HTML)."""
    choice = "".join(f"<option>{escape(heading)}</option>" for heading, _ in parts)
    moves = '<button id="back">back</button> <button id="on">on</button>'
    shown = "".join(f"<section hidden><h2>{escape(heading)}</h2>{body}</section>" for heading, body in parts)
    head = f"<p>{escape(said)}</p><nav>{moves} <select aria-label='question'>{choice}</select></nav>"
    return _whole(title, head + shown, PAGING)


def text_page(title: str, said: str) -> str:
    """A page that says something in plain text."""
    return _whole(title, f"<p>{escape(said)}</p>", "")


def _whole(title: str, body: str, script: str) -> str:
    size = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    head = f'<meta charset="utf-8">{size}<title>{escape(title)}</title><style>{STYLE}</style>'
    run = f"<script>{script}</script>" if script else ""
    return f'<!doctype html><html lang="en"><head>{head}</head><body><h1>{escape(title)}</h1>{body}{run}</body></html>'


def _section(heading: str, caption: str, name: str, table: pd.DataFrame) -> str:
    shown = table.head(MOST_ROWS)
    heads = "".join(f"<th><button>{escape(str(column))}</button></th>" for column in shown)
    rows = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in shown.itertuples(index=False))
    body = f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
    more = f" The first {MOST_ROWS} rows of {len(table)}." if len(table) > MOST_ROWS else ""
    return f"<h2>{escape(heading)}</h2><p>{escape(caption)} ({escape(name)}.csv){more}</p>{body}"


def _cell(value: object) -> str:
    """A cell; nothing for what is missing. A number that is not whole has three decimals, or three digits where it is
    small; it is sorted by all of them.
    """
    if not isinstance(value, (list, dict)) and pd.isna(value):
        return "<td></td>"
    if not isinstance(value, float) or value.is_integer():
        return f"<td>{escape(f'{value:g}' if isinstance(value, float) else str(value))}</td>"
    return f'<td data-value="{value!r}">{f"{value:.3f}" if abs(value) >= 0.001 else f"{value:.3g}"}</td>'
