"""What holds over several trainings of each method."""

from safemed.report.results_page import markdown
from safemed.report.results_page.markdown import NONE, p_value, percent
from safemed.report.results_page.study import Section, Study
from safemed.report.tables.comparisons import WORST
from safemed.report.tables.rows import CLEAN

SHOWN = (CLEAN, "pgd", WORST)


def means(study: Study, condition: str) -> dict[str, tuple[float]]:
    """Model -> its mean accuracy over all seeds, clean, under an attack or in the worst case; none for one seed."""
    return {model: (row["mean"],) for model, row in _accuracies(study, condition).items()}


def _accuracies(study: Study, condition: str) -> dict[str, dict]:
    """Model -> its row of the table of seeds, of those that are complete."""
    if "seeds" not in study.tables:
        return {}
    table = study.tables["seeds"]
    found = table[(table.measure == "accuracy") & (table.condition == condition)].dropna(subset="mean")
    return {f"{row['method']}-{row['variant']}": row for row in found.to_dict("records")}


def _spread(study: Study) -> str:
    shown = [_accuracies(study, condition) for condition in SHOWN]
    models = [model for model in study.models("robustness") if model in shown[0]]
    rows = [[model, *(_cell(rows.get(model)) for rows in shown)] for model in models]
    trained = len(study.config["further_seeds"]) + 1
    said = (
        f"Accuracy in %: the mean of {trained} trainings; in brackets the least and the greatest, then the mean's 95 % "
        "interval by Student's t over the trainings: where the mean over many seeds lies."
    )
    return markdown.text(said, ["model", "clean", f"PGD, {study.eps}/255", "worst case of the suite"], rows)


def _cell(row: dict | None) -> str:
    if row is None:
        return NONE
    mean, *ends = (percent(row[name]) for name in ("mean", "least", "greatest", "low", "high"))
    return "{} ({} to {}; {} to {})".format(mean, *ends)


def _comparisons(study: Study) -> str:
    table = study.tables.get("seed_comparisons")
    if table is None:
        return ""
    rows = [
        [
            f"{row.first} less {row.second}", row.images, percent(row.difference, row.least, row.greatest, sign="+"),
            _interval(row.ci_low, row.ci_high), _interval(row.seeds_low, row.seeds_high), p_value(row.p_holm),
        ]
        for row in table.dropna(subset="difference").itertuples()
    ]  # fmt: skip
    said = (
        "Differences in points, paired by seed and by question: the mean over seeds, with the least and the greatest. "
        "The first interval says what other questions would give these models, the second where the mean over many "
        "seeds lies on these questions. p is that of flipped signs over images, with Holm's adjustment over all pairs "
        "of a kind; like the first interval it is about these very trainings."
    )
    return markdown.text(said, ["models", "images", "difference", "over images", "over seeds", "p"], rows)


def _interval(low: float, high: float) -> str:
    return f"{percent(low, sign='+')} to {percent(high, sign='+')}"


SECTION = Section("Over seeds", (_spread, _comparisons), {"seeds": "Accuracies over several trainings"})
