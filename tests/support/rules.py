"""The workflow's rules, as their files have them."""

import re
import textwrap

from safemed.report.products import FIGURES, PAGES, TABLES
from support.paths import ROOT

RULE_FILES = sorted((ROOT / "workflow" / "rules").glob("*.smk"))


def rules() -> dict[str, str]:
    """Rule -> its text, of all rule files; after the text of the rule that it uses.

    The one rule of a loop stands under the name of each product of the report.
    """
    texts = "".join(path.read_text() for path in RULE_FILES)
    parts = re.split(r"^ *(?:use )?rule(?: (\w+) as)?(?: (\w+))?(?: with)?:\n", texts, flags=re.M)[1:]
    found: dict[str, str] = {}
    for base, name, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        if name:
            found[name] = found.get(base, "") + text
        else:
            own = textwrap.indent(textwrap.dedent(re.match(r"(?:(?: +\S.*)?\n)*", text)[0]), "    ")
            found |= dict.fromkeys((product.rule for product in (*TABLES, *FIGURES, *PAGES)), own)
    return found
