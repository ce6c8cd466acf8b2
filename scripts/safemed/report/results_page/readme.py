"""The README's result rows, as Markdown, from the tables of studies; the paper's own numbers stand beside them."""

from collections.abc import Mapping, Sequence
from math import isnan

from safemed.report.results_page import markdown
from safemed.report.results_page.cost import duration
from safemed.report.results_page.findings import lead
from safemed.report.results_page.header import seeds
from safemed.report.results_page.markdown import NONE, Markup, percent
from safemed.report.results_page.robustness import under, worst_case
from safemed.report.results_page.seeds import means
from safemed.report.results_page.study import Study, commits
from safemed.report.tables.comparisons import WORST
from safemed.report.tables.rows import CLEAN

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
METHODS = ("sft", "grpo", "at-sft", "at-grpo-no-reward", "at-grpo", "fare-at-grpo")
ARMS = {"at-grpo-no-reward": "The rewards add", "grpo": "The attack in training adds"}  # what each lacks of AT-GRPO
# What the papers report of themselves, not measured here: model, clean, PGD, worst case of a suite.
PAPER = (
    Markup("[paper](https://arxiv.org/abs/2512.19317), on its own images: fine-tuned → SafeMed-R1"),
    "95 → –",
    "≈ 25 → 84.45",
    "–",
)


def filled(text: str, block: str) -> str:
    """The text with the block between its markers BEGIN and END; ValueError unless it has each of them once."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"the markers {BEGIN} and {END} must stand in the text once each, in this order")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{block}\n{END}{rest.split(END)[1]}"


def block(studies: Sequence[Study]) -> str:
    """The finding in some sentences, and rows for the paper and the METHODS of the first study, a value a variant.

    Raises ValueError where the first study has no attacks, or lacks one of the two methods that they are about.
    """
    study = studies[0]
    if not ({"robustness", "cost"} <= set(study.tables) and {"sft", "at-grpo"} <= set(study.config["study_methods"])):
        raise ValueError(
            f"study {study.name} has no attacks, or not on both sft and at-grpo, which the README's rows are of: name "
            "one first that has them"
        )
    variants = " / ".join(study.config["variants"])
    n = int(study.tables["robustness"].n.max())
    mean = f", mean of {len(study.config['further_seeds']) + 1} trainings" if "seeds" in study.tables else ""
    of = f"{n} questions, accuracy in %{mean} ({variants})"
    head = [of, "clean", f"PGD, {study.eps}/255", "worst case of the suite"]
    studied = [method for method in METHODS if method in study.config["study_methods"]]
    rows = [PAPER, *(_row(study, method) for method in studied)]
    return f"{markdown.text(_finding(studies), head, rows)}\n\n{_origin(study)}"


def _finding(studies: Sequence[Study]) -> str:
    """What became of standard fine-tuning and of AT-GRPO, and what parts of AT-GRPO add to it, each by the first study
    that compared it.
    """
    study = studies[0]
    clean, worst = (_shown(study)[name] for name in (CLEAN, WORST))
    said = (
        f"Here, supervised fine-tuning is right on {_both(study, 'sft', clean)} % of the clean images "
        f"({' / '.join(study.config['variants'])}) and on {_both(study, 'sft', worst)} % {study.worst} "
        f"at {study.eps}/255; AT-GRPO on {_both(study, 'at-grpo', clean)} % and "
        f"{_both(study, 'at-grpo', worst)} %."
    )
    told = [next(filter(None, (_added(one, arm) for one in studies)), None) for arm in ARMS]
    return " ".join([said, *filter(None, told)])


def _added(study: Study, arm: str) -> str | None:
    """What the part that one of ARMS lacks adds to AT-GRPO, in points; None unless all variants were compared."""
    variants = study.config["variants"]
    leads = {
        images: [one for name in variants for one in lead(study, f"at-grpo-{name}", f"{arm}-{name}", images)]
        for images in (CLEAN, WORST)
    }
    if any(len(found) < len(variants) or any(isnan(one.value) for one in found) for found in leads.values()):
        return None
    clean, worst = (
        " / ".join(percent(one.value, one.low, one.high, sign="+") for one in found) for found in leads.values()
    )
    where = f"{' / '.join(variants)}, study [{study.name}](docs/{study.page})"
    return f"{ARMS[arm]} {clean} points to AT-GRPO's accuracy on clean images and {worst} {study.worst} ({where})."


def _row(study: Study, method: str) -> list[str]:
    return [method, *(_both(study, method, cells) for cells in _shown(study).values())]


def _shown(study: Study) -> dict[str, Mapping[str, tuple[float, ...]]]:
    """Clean, PGD and worst case -> model -> accuracy, the mean over seeds where there are several."""
    of_own = {CLEAN: under(study, CLEAN), "pgd": under(study, "pgd"), WORST: worst_case(study)}
    return {name: means(study, name) for name in of_own} if "seeds" in study.tables else of_own


def _both(study: Study, method: str, cells: Mapping[str, tuple[float, ...]]) -> str:
    """A method's value for each variant, without intervals."""
    found = [cells.get(f"{method}-{variant}") for variant in study.config["variants"]]
    return " / ".join(NONE if one is None else percent(one[0]) for one in found)


def _origin(study: Study) -> str:
    """One line on where the rows come from."""
    took = duration(study.tables["cost"])
    known = ", ".join(f"`{one[:12]}{'+' * one.endswith('+')}`" for one in commits(study.provenance))
    return (
        f"Study [{study.name}](docs/{study.page}), computed at {known}, {seeds(study)}; its jobs took {took} one after "
        "another. [Results and claims](docs/results.md), and [what each method is](docs/methods.md#what-to-compare)."
    )
