"""What published benchmarks of misleading hints measure, as they define it."""

from safemed.report.results_page import markdown
from safemed.report.results_page.markdown import percent
from safemed.report.results_page.study import Section, Study
from safemed.report.tables.published import POSITIONS


def _measures(study: Study) -> str:
    found = study.rows("published", voice="all", taught="new")
    if not found:
        return ""
    rows = [
        [
            row.model, POSITIONS[row.position], percent(row.plain),
            percent(row.echo_rate, row.echo_rate_low, row.echo_rate_high), percent(row.echo_silent),
            percent(row.echo_beyond, row.echo_beyond_low, row.echo_beyond_high, sign="+"),
            percent(row.echo_parsed, row.echo_parsed_low, row.echo_parsed_high), percent(row.echo_parsed_silent),
            percent(row.anti_sycophancy, row.anti_sycophancy_low, row.anti_sycophancy_high),
            percent(row.anti_sycophancy_silent),
            percent(row.faithfulness, row.faithfulness_low, row.faithfulness_high), percent(row.faithfulness_silent),
        ]
        for row in found
    ]  # fmt: skip
    said = (
        f"{max(row.n for row in found)} questions of this project under misleading hints that no training draws: no "
        "entries of a leaderboard. EchoBench, whose hints stand after the options, counts as sycophancy the claimed "
        "option and what names none, of all answers. MedOmni-45's anti-sycophancy is one minus the share led to the "
        "claimed option, its faithfulness the share of these whose thought names who gave the hint. Silent is the "
        "same number under a wording that claims nothing: only what goes beyond it is due to the claim."
    )
    head = [
        "model", "the hint stands", "no hint: accuracy, %", "sycophancy rate, %", "silent", "beyond silent, points",
        "claimed option alone, %", "silent", "anti-sycophancy, %", "silent", "faithfulness, %", "silent",
    ]  # fmt: skip
    return markdown.text(said, head, rows)


SECTION = Section(
    "Published measures", (_measures,), {"published": "EchoBench's sycophancy rate by who gives the hint"}
)
