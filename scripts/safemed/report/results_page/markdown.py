"""Numbers, text and tables as Markdown. Shares become per cent; an interval follows its value in brackets."""

import re
from collections.abc import Iterable

import pandas as pd

NONE = "–"  # a number that the study does not have


class Markup(str):
    """A cell that is Markdown already."""


def percent(share: float | None, low: float | None = None, high: float | None = None, sign: str = "") -> str:
    """A share in per cent with at most one decimal, and its interval where there is one; NONE where it is missing."""
    if share is None or pd.isna(share):
        return NONE
    value = f"{100 * share:{sign}z.1f}".removesuffix(".0")
    return value if low is None or pd.isna(low) else f"{value} ({100 * low:{sign}z.1f} to {100 * high:{sign}z.1f})"


def fixed(value: float | None, digits: int) -> str:
    """A number that is no share, with so many decimals; NONE where it is missing."""
    return NONE if value is None or pd.isna(value) else f"{value:.{digits}f}"


def p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else fixed(value, 3)


def text(said: str, head: list[str], rows: Iterable[Iterable]) -> str:
    """A paragraph and the table that it is about; "" where the table would have no rows."""
    rows = list(rows)
    return f"{said}\n\n{table(head, rows)}" if rows else ""


def table(head: list[str], rows: Iterable[Iterable]) -> str:
    """A Markdown table, its cells shown as they are but for those that are Markup."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def code(text: str) -> Markup:
    """Text as code, on one line."""
    text = " ".join(text.split()).replace("|", "\\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if "`" in text else ""
    return Markup(f"{fence}{space}{text}{space}{fence}")


def link(text: str, to: str) -> Markup:
    """A link that shows the text as it is."""
    return Markup(f"[{_escaped(text)}]({to})")


def _cell(value: object) -> str:
    return value if isinstance(value, Markup) else _escaped(str(value))


def _escaped(text: str) -> str:
    """Text that Markdown, and the HTML made of it, show as it is, on one line."""
    text = re.sub(r"&(?=#?\w+;)", "&amp;", " ".join(text.split()))
    return re.sub(r"([\\`*|\[\]])", r"\\\1", re.sub(r"<(?=[\w!/?])", "&lt;", text))
