"""What a study says of each claim of the papers, as a difference that is above 0 if the claim holds.

Where a table has no interval of the difference itself, it is made of the two numbers' own, which is wider than need be:
such a claim is confirmed too rarely, not too often.
"""

from collections.abc import Iterator
from math import hypot
from typing import NamedTuple

from safemed.report.results_page.robustness import interval, under
from safemed.report.results_page.study import Study
from safemed.report.tables.comparisons import WORST
from safemed.report.tables.rows import CLEAN

VERDICTS = ("confirmed", "contradicted here", "not confirmed")


class Finding(NamedTuple):
    """of: what the number is; value: above 0 if the claim holds; low, high: its 95 % interval."""

    of: str
    value: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """One of VERDICTS. What has no interval confirms nothing."""
        if self.low > 0:
            return VERDICTS[0]
        return VERDICTS[1] if self.high < 0 else VERDICTS[2]


def _apart(of: str, first: tuple[float, float, float], second: tuple[float, float, float]) -> Finding:
    """First less second, each a number with its interval: the widest difference that the intervals allow."""
    return Finding(of, first[0] - second[0], first[1] - second[2], first[2] - second[1])


def _number_of(row: NamedTuple, name: str, low: str | None = None, high: str | None = None) -> tuple:
    """A number of a table's row with its interval, NAME_low and NAME_high where no others are named."""
    return tuple(getattr(row, one) for one in (name, low or f"{name}_low", high or f"{name}_high"))


def lead(study: Study, first: str, second: str, images: str = WORST) -> Iterator[Finding]:
    """A model's accuracy less another's, clean or in the worst case, over all seeds where there are several."""
    table = study.tables.get("seed_comparisons", study.tables.get("comparisons"))
    if table is None:
        return
    where = study.worst if images == WORST else "on clean images"
    table = table[(table.images == images) & (table.family != "variants by modality")]
    for sign, names in ((1, (first, second)), (-1, (second, first))):
        for row in table[(table["first"] == names[0]) & (table.second == names[1])].to_dict("records"):
            low, high = interval(row)
            ends = (low, high) if sign > 0 else (-high, -low)
            yield Finding(f"{first} less {second}, {where}", sign * row["difference"], *ends)


def _over_seeds(study: Study, model: str, of_own: tuple, measure: str, condition: str) -> tuple:
    """A share of a model and its interval: of its own seed where that is all, else the mean over the seeds.

    The interval of a mean allows for other questions, by that of its own seed, and for other seeds: on each side the
    two distances are added in squares.
    """
    if "seeds" not in study.tables:
        return of_own
    table = study.tables["seeds"]
    named = table.method + "-" + table.variant
    for row in table[(named == model) & (table.measure == measure) & (table.condition == condition)].itertuples():
        below, above = (
            hypot(own - of_own[0], end - row.mean) for own, end in zip(of_own[1:], (row.low, row.high), strict=True)
        )
        return row.mean, max(0, row.mean - below), min(1, row.mean + above)
    return of_own


def _under(study: Study, model: str, attack: str) -> tuple | None:
    """A model's accuracy and interval on clean images or under an attack, over all seeds."""
    of_own = under(study, attack).get(model)
    return of_own and _over_seeds(study, model, of_own, "accuracy", attack)


# The claims of SafeMed-R1.


def collapse(study: Study) -> Iterator[Finding]:
    """Half of the clean accuracy of standard fine-tuning less its accuracy under PGD."""
    for variant in study.config["variants"]:
        clean, attacked = (_under(study, f"sft-{variant}", attack) for attack in (CLEAN, "pgd"))
        if clean and attacked:
            half = tuple(one / 2 for one in clean)
            yield _apart(f"half of sft-{variant}'s clean accuracy less that under PGD", half, attacked)


def holds(study: Study) -> Iterator[Finding]:
    """AT-GRPO less standard fine-tuning, in the worst case."""
    for variant in study.config["variants"]:
        yield from lead(study, f"at-grpo-{variant}", f"sft-{variant}")


def rewards(study: Study) -> Iterator[Finding]:
    """AT-GRPO less the same without rewards, in the worst case and on clean images."""
    for variant in study.config["variants"]:
        for images in (WORST, CLEAN):
            yield from lead(study, f"at-grpo-{variant}", f"at-grpo-no-reward-{variant}", images)


def robust_rewards(study: Study) -> Iterator[Finding]:
    """What AT-GRPO is ahead of the same without rewards in the worst case, less what it is on clean images."""
    for variant in study.config["variants"]:
        names = f"at-grpo-{variant}", f"at-grpo-no-reward-{variant}"
        leads = [(one.value, one.low, one.high) for images in (WORST, CLEAN) for one in lead(study, *names, images)]
        if len(leads) == 2:
            yield _apart(f"lead of at-grpo-{variant} {study.worst} less that on clean images", *leads)


def thinking(study: Study) -> Iterator[Finding]:
    """Thinking less answering at once, of each method, in the worst case."""
    for method in study.config["study_methods"]:
        yield from lead(study, f"{method}-think", f"{method}-instruct")


def certificate(study: Study) -> Iterator[Finding]:
    """Accuracy certified at the smallest radius above 0 less that of the better baseline that sees no image."""
    table = study.tables.get("certified")
    for row in study.rows("certified") if "robustness" in study.tables else ():
        radii = table[(table.model == row.model) & (table.radius > 0)].radius
        if row.model.startswith("at-grpo-") and row.radius == radii.min():
            blind = study.tables["robustness"].blind.max()
            ends = (one - blind for one in (row.certified_accuracy, row.ci_low, row.ci_high))
            smoothed = f"{row.model}, {row.function}, sigma {row.sigma}"
            radius = f"L2 radius {row.radius} ({row.linf_equivalent:.2g}/255 in L_inf)"
            yield Finding(f"{smoothed}, certified at {radius} less blind", *ends)


def smoothing(study: Study) -> Iterator[Finding]:
    """Smoothed models less the models themselves, under PGD."""
    for row in study.rows("smoothing"):
        yield Finding(f"smoothed {row.model} less {row.model}, PGD", row.difference, row.ci_low, row.ci_high)


def reasoning(study: Study) -> Iterator[Finding]:
    """Whole chains of evidence: at-grpo's share less sft's."""
    plain = {row.model: row for row in study.rows("chain_summary", condition="plain")}
    if {"at-grpo-think", "sft-think"} <= set(plain):
        ends = [_number_of(plain[model], "joint", "ci_low", "ci_high") for model in ("at-grpo-think", "sft-think")]
        yield _apart("chains all right, at-grpo-think less sft-think", *ends)


# Those of Med-R2 Bench.


def degrades(study: Study) -> Iterator[Finding]:
    """Accuracy at the first stage of the chain less that at the last."""
    for model in ("sft-think", "sft-instruct"):
        rows = [row for row in study.rows("chain", condition="plain") if row.model == model]
        if len(rows) > 1:
            ends = [_number_of(rows[i], "accuracy", "ci_low", "ci_high") for i in (0, -1)]
            yield _apart(f"{model}, {rows[0].stage} less {rows[-1].stage}", *ends)


def relies(study: Study) -> Iterator[Finding]:
    """Right answers that a misleading hint makes not right, less those that a hint without a claim does."""
    for row in study.rows("hints", voice="all", taught="new", seen=CLEAN):
        if row.model.startswith(("sft-", "at-grpo-")):
            ends = (
                _over_seeds(study, row.model, _number_of(row, name), name, "hints") for name in ("sycophancy", "drift")
            )
            yield _apart(f"{row.model}, misled less drift", *ends)


def cues(study: Study) -> Iterator[Finding]:
    """Answers that follow a wrong label burnt into the image, less those that give this option without its claim."""
    for row in study.rows("image_edits", kind="mark", polarity="negative", about="all"):
        yield Finding(f"{row.model}, follows a wrong {row.name} less a silent one", *_number_of(row, "beyond"))


def stepwise(study: Study) -> Iterator[Finding]:
    """Whole chains of evidence: stepwise fine-tuning's share less that of the standard one."""
    plain = {row.model: row for row in study.rows("chain_summary", condition="plain")}
    if {"stepwise-sft-think", "sft-think"} <= set(plain):
        ends = [_number_of(plain[model], "joint", "ci_low", "ci_high") for model in ("stepwise-sft-think", "sft-think")]
        yield _apart("chains all right, stepwise-sft-think less sft-think", *ends)


# Those of other systems.


def sycophantic(study: Study) -> Iterator[Finding]:
    """EchoBench's sycophancy rate less the share under a wording that claims nothing."""
    for position, words in (("last", "after the options, as EchoBench's"), ("first", "before the question")):
        for row in study.rows("published", voice="all", taught="new", position=position):
            of = f"{row.model}, sycophancy rate less the silent one, hint {words}"
            yield Finding(of, *_number_of(row, "echo_beyond"))


def fooled(study: Study) -> Iterator[Finding]:
    """Right answers that an adaptive red team fools less those that a random one fools."""
    for row in study.rows("redteam", strategy="adaptive"):
        yield Finding(f"{row.model}, fooled adaptively less at random", *_number_of(row, "beyond_random"))


def misled(study: Study) -> Iterator[Finding]:
    """Right answers that an adaptive red team fools less those that it fools without claims."""
    for row in study.rows("redteam", strategy="adaptive"):
        yield Finding(f"{row.model}, fooled with claims less without", *_number_of(row, "beyond_silent"))


def towers(study: Study) -> Iterator[Finding]:
    """The vote of neighbours under attack of a tower that HSAT has trained less that of the same without this training:
    of the tower itself less the base's, and of what standard fine-tuning makes of either.
    """
    yield from _votes(study, (("hsat", "base"), ("sft-hsat", "sft")))


def hierarchy(study: Study) -> Iterator[Finding]:
    """The same less that of a tower trained by ACL, whose contrast has no levels."""
    yield from _votes(study, (("hsat", "acl"), ("sft-hsat", "sft-acl")))


def _votes(study: Study, pairs: tuple[tuple[str, str], ...]) -> Iterator[Finding]:
    """The vote of a method's tower under attack less another's, at each level."""
    rows = {(row.model, row.level): row for row in study.rows("towers")}
    for (model, level), row in rows.items():
        for first, second in pairs:
            method, _, variant = model.rpartition("-")
            other = rows.get((f"{second}-{variant}", level))
            if method == first and other:
                ends = (_number_of(one, "knn_pgd") for one in (row, other))
                yield _apart(f"{level} by neighbours under attack, {model} less {other.model}", *ends)


def vote_share(study: Study) -> Iterator[Finding]:
    """How much better than the letter's probability the share of equal answers under noise ranks the same answers."""
    for row in study.rows("gradient_summary", order="seeded", estimator="noise"):
        yield Finding(f"{row.model} on {row.seen} images, AUROC of noise less the letter's", *_number_of(row, "beyond"))


def retrieved(study: Study) -> Iterator[Finding]:
    """Accuracy beside sound reports less that without reports, of methods trained with reports."""
    rows = _reports(study)
    without = {row.model: row for row in rows if row.reports == "none"}
    for row in rows:
        if row.poison == "none" and row.reports == "retrieved":
            ends = [_number_of(one, "accuracy", "ci_low", "ci_high") for one in (row, without[row.model])]
            yield _apart(f"{row.model}, {row.retriever}'s retriever, sound reports less none", *ends)


def poisoned(study: Study) -> Iterator[Finding]:
    """Accuracy beside sound reports less that beside the most poisons of a kind, of methods trained with reports."""
    rows = [row for row in _reports(study) if row.reports == "retrieved"]
    sound = {(row.model, row.retriever): row for row in rows if row.poison == "none"}
    most: dict[tuple, NamedTuple] = {}
    for row in sorted(rows, key=lambda row: (row.per_question, row.rate)):
        if row.poison != "none":
            most[row.model, row.retriever, row.poison] = row
    for (model, retriever, poison), row in most.items():
        ends = [_number_of(one, "accuracy", "ci_low", "ci_high") for one in (sound[model, retriever], row)]
        yield _apart(f"{model}, {retriever}'s retriever, sound reports less {poison} poisons", *ends)


def _reports(study: Study) -> list[NamedTuple]:
    """The rows of methods trained with reports, on clean images."""
    return [row for row in study.rows("rag", shown=CLEAN) if "-rag-" in row.model]


def loop(study: Study) -> Iterator[Finding]:
    """What asking again until two answers agree is worth against attacks that know it."""
    for row in study.rows("defences", defence="loop"):
        yield Finding(f"{row.model}, loop less none, {row.against}", row.difference, row.ci_low, row.ci_high)
