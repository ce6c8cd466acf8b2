"""Accuracy on clean images and under attack, methods against each other, and whether the attacks can be believed."""

from collections.abc import Mapping
from math import hypot, isnan

from safemed.report.results_page import markdown
from safemed.report.results_page.markdown import NONE, p_value, percent
from safemed.report.results_page.study import Section, Study
from safemed.report.tables.comparisons import WORST
from safemed.report.tables.rows import CLEAN, COMPLETE


def under(study: Study, attack: str) -> dict[str, tuple[float, float, float]]:
    """Model -> accuracy and interval under `clean`, or under an attack at the headline radius."""
    if "robustness" not in study.tables:
        return {}
    table = study.tables["robustness"]
    chosen = table[(table.attack == attack) & (table.eps == (0 if attack == CLEAN else study.eps))]
    complete = chosen[chosen.status == COMPLETE]
    return {row.model: (row.accuracy, row.ci_low, row.ci_high) for row in complete.itertuples()}


def worst_case(study: Study) -> dict[str, tuple[float, float, float]]:
    """Model -> accuracy and interval under every linf attack of the suite together."""
    suite = study.tables.get("suite")
    if suite is None:
        return {}
    last = suite[suite.norm == "linf"].groupby("model").tail(1)
    return {row.model: (row.worst, row.ci_low, row.ci_high) for row in last.itertuples()}


def _lead(study: Study, method: str, variant: str, images: str) -> tuple[str, str] | None:
    """AT-GRPO less a method on `clean` images or in the worst case: points with their interval, and Holm's p.

    None where they were not compared.
    """
    signs = {f"at-grpo-{variant}": 1, f"{method}-{variant}": -1}
    table = study.tables["comparisons"]
    table = table[(table.family == "methods") & (table.images == images)]
    for row in table[table["first"].isin(signs) & table["second"].isin(signs)].itertuples():
        if isnan(row.difference):
            return None
        sign = signs[row.first]
        low, high = sorted(sign * end for end in interval(row._asdict()))
        return percent(sign * row.difference, low, high, sign="+"), p_value(row.p_holm)
    return None


def interval(row: Mapping) -> tuple[float, float]:
    """The 95 % interval of a row's `difference`: over images, and where there are several, over seeds as well.

    The two are taken as independent: on each side, their distances from the difference are added in squares. NaN where
    one is missing.
    """
    kinds = [kind for kind in ("ci", "seeds") if f"{kind}_low" in row]
    ends = [hypot(*(row[f"{kind}_{side}"] - row["difference"] for kind in kinds)) for side in ("low", "high")]
    return row["difference"] - ends[0], row["difference"] + ends[1]


def _accuracy(study: Study) -> str:
    table = study.tables.get("robustness")
    if table is None:
        return ""
    columns = [under(study, CLEAN), under(study, "pgd"), worst_case(study)]
    rows = [[model, *(_cell(cells, model) for cells in columns)] for model in study.models("robustness")]
    head = ["accuracy in %", "clean", f"PGD, {study.eps}/255", "worst case of the suite"]
    said = (
        f"{int(table.n.max())} questions. Chance is {percent(table.chance.mean())} %; a text-only model, which sees no "
        f"image, reaches {percent(table.blind.mean())} % on the whole test split."
    )
    return markdown.text(said, head, rows)


def _cell(cells: Mapping[str, tuple[float, float, float]], model: str) -> str:
    return percent(*cells[model]) if model in cells else NONE


def _by_attack(study: Study) -> str:
    suite = study.tables.get("suite")
    if suite is None:
        return ""
    norms = suite.drop_duplicates("attack").set_index("attack").norm
    cells = suite.set_index(["attack", "model"]).accuracy
    rows = [
        [model, *(percent(cells.get((attack, model))) for attack in norms.index)] for model in study.models("suite")
    ]
    head = ["model", *(attack if norm == "linf" else f"{attack} ({norm.upper()})" for attack, norm in norms.items())]
    said = "Accuracy after each attack of the suite, in %. Those in L2 or L0 are no part of the worst case."
    return markdown.text(said, head, rows)


def _comparisons(study: Study) -> str:
    if "comparisons" not in study.tables:
        return ""
    rows = []
    for method in study.config["study_methods"]:
        for variant in study.config["variants"]:
            leads = [_lead(study, method, variant, images) for images in (CLEAN, WORST)]
            if all(leads):
                rows.append([method, variant, *(cell for found in leads for cell in found)])
    said = (
        "AT-GRPO less each other method, in points; p is that of flipped signs, with Holm's adjustment over all pairs "
        "of methods."
    )
    return markdown.text(said, ["method", "variant", "clean", "p", "worst case", "p"], rows)


def _sanity(study: Study) -> str:
    table = study.tables.get("sanity")
    if table is None:
        return ""
    of_model = dict(list(table.groupby("model")))
    rows = [
        [model, f"{int(part.passed.sum())} of {len(part)}", "; ".join(part[~part.passed].check) or "none"]
        for model, part in ((model, of_model[model]) for model in study.models("sanity"))
    ]
    said = "Checks of the attacks themselves: how many pass, and which do not."
    return markdown.text(said, ["model", "passed", "failed checks"], rows)


SECTION = Section(
    "Robustness",
    (_accuracy, _by_attack, _comparisons, _sanity),
    {"accuracy_vs_eps": "Accuracy against the radius of the PGD attack"},
)
