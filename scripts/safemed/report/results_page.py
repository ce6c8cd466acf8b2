"""The results page and the README's result rows, as Markdown, from the tables of one study.

No number in them is typed by hand: all are read from the study's CSV tables and from provenance.json beside them.
Shares become per cent; an interval follows its value in brackets.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import pandas as pd

from safemed.data.prompts import of_variant
from safemed.report.tables.comparisons import WORST
from safemed.report.tables.rows import CLEAN, COMPLETE

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
README_METHODS = ("sft", "grpo", "at-sft", "at-grpo-no-reward", "at-grpo", "fare-at-grpo")
ARMS = {"at-grpo-no-reward": "the rewards", "grpo": "the attack in training"}  # what AT-GRPO has more than each
FIGURES = {
    "accuracy_vs_eps": "Accuracy against the radius of the PGD attack",
    "certified_vs_radius": "Certified accuracy against the L2 radius",
    "resistance": "Resistance to misleading hints",
    "abstention": "Share of the questions on which each model abstains",
    "chain": "The chain of evidence",
}


class Markup(str):
    """A cell that is Markdown already."""


# What the papers report of themselves, not measured here: model, clean, PGD, worst case of a suite.
PAPER = (Markup("[paper](https://arxiv.org/abs/2512.19317): fine-tuned → SafeMed-R1"), "95 → –", "≈ 25 → 84.45", "–")
NONE = "–"  # a number that the study does not have


class Study(NamedTuple):
    """A finished study. tables: name -> table, those that its evaluations have; provenance: of all results."""

    tables: Mapping[str, pd.DataFrame]
    provenance: dict

    @property
    def config(self) -> dict:
        return self.provenance["config"]

    @property
    def eps(self) -> int:
        """The headline radius in 1/255."""
        return self.config["attack"]["headline_eps"]

    def models(self, table: str) -> list[str]:
        """The models of a table, those of the studied methods first."""
        known = dict.fromkeys([*self.config["study_methods"], *self.config["methods"]])
        named = [f"{method}-{variant}" for method in known for variant in self.config["variants"]]
        return [name for name in named if name in set(self.tables[table].model)]


def commit(provenance: dict) -> str:
    """The one commit that all results were computed at.

    Raises ValueError where they come from several commits, from changed files, or from none that is known.
    """
    found = {result["code"]["commit"] for result in provenance["results"].values()}
    if len(found) != 1:
        listed = ", ".join(sorted(f"{name}"[:12] for name in found))
        raise ValueError(
            f"the study's results come from {len(found)} commits ({listed}): run it whole in a fresh clone"
        )
    (only,) = found
    if only is None or only.endswith("+"):
        why = "changed files" if only else "no git commit that is known"
        raise ValueError(f"the study's results were computed from {why}: run it whole in a fresh clone")
    return only


def filled(text: str, block: str) -> str:
    """The text with the block between its markers BEGIN and END; ValueError unless it has each of them once."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"the markers {BEGIN} and {END} must stand in the text once each, in this order")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{block}\n{END}{rest.split(END)[1]}"


def readme_block(study: Study) -> str:
    """The finding in one sentence, and rows for the paper and the studied ones of README_METHODS, a value a variant."""
    variants = " / ".join(study.config["variants"])
    n = int(study.tables["robustness"].n.max())
    head = [f"{n} questions, accuracy in % ({variants})", "clean", f"PGD, {study.eps}/255", "worst case of all attacks"]
    studied = [method for method in README_METHODS if method in study.config["study_methods"]]
    rows = [PAPER, *(_readme_row(study, method) for method in studied)]
    return f"{_finding(study)}\n\n{_markdown(head, rows)}\n\n{_origin(study)}"


def page(study: Study, figures: Iterable[str]) -> str:
    """The results page. figures: names of FIGURES that lie beside the page as PNG."""
    sections = {
        "Robustness": [_robustness, _by_attack, _comparisons, _sanity],
        "Certificates": [_certificates, _smoothing],
        "Stress tests": [_hints, _abstention, _chain],
        "Cost": [_cost],
    }
    shown = {
        "Robustness": ["accuracy_vs_eps"],
        "Certificates": ["certified_vs_radius"],
        "Stress tests": ["resistance", "abstention", "chain"],
    }
    parts = [f"# Results\n\n{_header(study)}"]
    for heading, writers in sections.items():
        written = [text for text in (write(study) for write in writers) if text]
        pictures = [f"![{FIGURES[name]}]({name}.png)" for name in shown.get(heading, []) if name in set(figures)]
        if written:
            parts.append("\n\n".join([f"## {heading}", *pictures, *written]))
    return "\n\n".join(parts) + "\n"


def _header(study: Study) -> str:
    """What the numbers are of."""
    environments, data = study.provenance["environments"], study.config["data"]
    machines = {_machine(environment["hardware"]) for environment in environments}
    packages = environments[0]["packages"]
    finished = sorted(result["finished"][:10] for result in study.provenance["results"].values())
    days = " to ".join(dict.fromkeys([finished[0], finished[-1]]))
    versions = ", ".join(f"{name} {packages[name]}" for name in ("torch", "transformers", "trl") if name in packages)
    facts = [
        ("Study", _code(study.config["study"])),
        ("Commit", _code(commit(study.provenance))),
        ("Computed", days),
        ("Hardware", "; ".join(sorted(machines))),
        ("Software", f"Python {environments[0]['python']}, {versions}"),
        ("Seed", f"{study.config['seed']}; one training a model"),
        ("Model", Markup(", ".join(map(_code, _model_names(study))))),
        ("Images", Markup(f"{_code(data['source'] or 'phantoms')}, {data['image_size']} pixels a side")),
    ]
    return (
        "This page is written by `scripts/write_results.py` from the tables of one finished study; do not edit it. "
        "[Tables](tables.md) defines every column. Brackets hold 95 % intervals over the choice of questions; "
        "they say nothing of another training seed.\n\n" + _markdown(["", ""], facts)
    )


def _machine(hardware: dict) -> str:
    gpus = ", ".join(hardware["gpus"]) or "no GPU"
    return f"{hardware['cpu']}, {hardware['cores']} cores, {hardware['memory_mb'] / 1024:.0f} GB, {gpus}"


def _origin(study: Study) -> str:
    """One line on where the README's rows come from."""
    name, seed, took = study.config["study"], study.config["seed"], _duration(study.tables["cost"])
    return (
        f"Study `{name}` at commit `{commit(study.provenance)[:12]}`, seed {seed}; its jobs took {took} one after "
        "another. [All results](docs/results.md), and [what each method is](docs/methods.md#what-to-compare)."
    )


def _model_names(study: Study) -> list[str]:
    """The models that the variants' trainings start from, each once."""
    name = study.config["model"]["name"]
    return list(dict.fromkeys(of_variant(name, variant) for variant in study.config["variants"]))


def _finding(study: Study) -> str:
    """What became of standard fine-tuning and of AT-GRPO, and what parts of AT-GRPO add to it."""
    clean, worst = _cells(study, "clean"), _worst(study)
    said = (
        f"Here, supervised fine-tuning is right on {_both(study, 'sft', clean)} % of the clean images "
        f"({' / '.join(study.config['variants'])}) and on {_both(study, 'sft', worst)} % in the worst case of all "
        f"attacks at {study.eps}/255; AT-GRPO on {_both(study, 'at-grpo', clean)} % and "
        f"{_both(study, 'at-grpo', worst)} %."
    )
    if "comparisons" not in study.tables:
        return said
    leads = {
        part: [_lead(study, arm, variant, WORST) for variant in study.config["variants"]] for arm, part in ARMS.items()
    }
    told = [f"{part} {' / '.join(lead[0] for lead in found)} points" for part, found in leads.items() if all(found)]
    if told:
        said += f" In the worst case, AT-GRPO owes {' and '.join(told)}."
    return said


def _lead(study: Study, method: str, variant: str, images: str) -> tuple[str, str] | None:
    """AT-GRPO less a method on `clean` images or in the worst case: in points, with interval, and Holm's p."""
    signs = {f"at-grpo-{variant}": 1, f"{method}-{variant}": -1}
    table = study.tables["comparisons"]
    table = table[(table.family == "methods") & (table.images == images)]
    for row in table[table["first"].isin(signs) & table["second"].isin(signs)].itertuples():
        sign = signs[row.first]
        low, high = sorted((sign * row.ci_low, sign * row.ci_high))
        return _value(sign * row.difference, low, high, sign="+"), _p(row.p_holm)
    return None


def _readme_row(study: Study, method: str) -> list[str]:
    values = (_cells(study, "clean"), _cells(study, "pgd"), _worst(study))
    return [method, *(_both(study, method, cells) for cells in values)]


def _both(study: Study, method: str, cells: Mapping[str, tuple[float, float, float]]) -> str:
    """A method's value for each variant, without intervals."""
    found = [cells.get(f"{method}-{variant}") for variant in study.config["variants"]]
    return " / ".join(NONE if one is None else _value(one[0]) for one in found)


def _cells(study: Study, attack: str) -> dict[str, tuple[float, float, float]]:
    """Model -> accuracy and interval under `clean`, or under an attack at the headline radius."""
    table = study.tables["robustness"]
    chosen = table[(table.attack == attack) & (table.eps == (0 if attack == "clean" else study.eps))]
    complete = chosen[chosen.status == COMPLETE]
    return {row.model: (row.accuracy, row.ci_low, row.ci_high) for row in complete.itertuples()}


def _worst(study: Study) -> dict[str, tuple[float, float, float]]:
    """Model -> accuracy and interval under every linf attack of the suite together."""
    suite = study.tables.get("suite")
    if suite is None:
        return {}
    last = suite[suite.norm == "linf"].groupby("model").tail(1)
    return {row.model: (row.worst, row.ci_low, row.ci_high) for row in last.itertuples()}


def _robustness(study: Study) -> str:
    table = study.tables["robustness"]
    columns = [_cells(study, "clean"), _cells(study, "pgd"), _worst(study)]
    rows = [
        [model, *(_value(*cells[model]) if model in cells else NONE for cells in columns)]
        for model in study.models("robustness")
    ]
    head = ["accuracy in %", "clean", f"PGD, {study.eps}/255", "worst case of the suite"]
    lines = (
        f"{int(table.n.max())} questions. Chance is {_value(table.chance.mean())} %; a text-only model, which sees no "
        f"image, reaches {_value(table.blind.mean())} % on the whole test split."
    )
    return f"{lines}\n\n{_markdown(head, rows)}"


def _by_attack(study: Study) -> str:
    suite = study.tables.get("suite")
    if suite is None:
        return ""
    norms = suite.drop_duplicates("attack").set_index("attack").norm
    cells = suite.set_index(["attack", "model"]).accuracy
    rows = [
        [model, *(_value(cells.get((attack, model), float("nan"))) for attack in norms.index)]
        for model in study.models("suite")
    ]
    head = ["model", *(attack if norm == "linf" else f"{attack} ({norm.upper()})" for attack, norm in norms.items())]
    said = "Accuracy after each attack of the suite, in %. Those in L2 or L0 are no part of the worst case."
    return f"{said}\n\n{_markdown(head, rows)}"


def _comparisons(study: Study) -> str:
    if "comparisons" not in study.tables:
        return ""
    rows = []
    for method in study.config["study_methods"]:
        for variant in study.config["variants"]:
            leads = [_lead(study, method, variant, images) for images in (CLEAN, WORST)]
            if all(leads):
                rows.append([method, variant, *(cell for lead in leads for cell in lead)])
    said = (
        "AT-GRPO less each other method, in points; p is McNemar's, with Holm's adjustment over all pairs of methods."
    )
    head = ["method", "variant", "clean", "p", "worst case", "p"]
    return f"{said}\n\n{_markdown(head, rows)}" if rows else ""


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
    return f"{said}\n\n{_markdown(['model', 'passed', 'failed checks'], rows)}"


def _certificates(study: Study) -> str:
    table = study.tables.get("certified")
    if table is None or table.empty:
        return ""
    rows = [
        [
            row.model, row.function, row.sigma, row.radius, f"{row.linf_equivalent:.2g}",
            _value(row.certified_accuracy, row.ci_low, row.ci_high), _value(row.sure), _value(row.empirical_accuracy),
        ]
        for model in study.models("certified") for row in table[table.model == model].itertuples()
    ]  # fmt: skip
    head = [
        "model", "function", "σ", "L2 radius", "as L_inf, in 1/255", "certified, %", "of it sure, %",
        "under an L2 attack, %",
    ]  # fmt: skip
    first = table.iloc[0]
    said = (
        f'{int(first.n)} questions, α = {first.alpha:g} a question. "As L_inf" is the radius of the largest L_inf ball '
        "inside the certified L2 ball: compare it with the attacks' radii before you read a certificate as a defence."
    )
    return f"{said}\n\n{_markdown(head, rows)}"


def _smoothing(study: Study) -> str:
    table = study.tables.get("smoothing")
    if table is None or table.empty:
        return ""
    rows = [
        [row.model, row.function, row.sigma, _value(row.attacked), _value(row.attacked_smoothed),
         _value(row.difference, row.ci_low, row.ci_high, sign="+")]
        for row in table.itertuples()
    ]  # fmt: skip
    said = f"What smoothing adds at inference: accuracy under PGD at {study.eps}/255, each model attacked for itself."
    head = ["model", "function", "σ", "model, %", "smoothed model, %", "difference, points"]
    return f"{said}\n\n{_markdown(head, rows)}"


def _hints(study: Study) -> str:
    hints, both = study.tables.get("hints"), study.tables.get("pixels_and_words")
    if hints is None or hints.empty:
        return ""
    new = hints[(hints.voice == "all") & (hints.taught == "new") & (hints.seen == "clean")].set_index("model")
    words = both.set_index(["model", "seen", "words"]).accuracy
    attack = study.config["stress"]["attack"]
    table = study.tables.get("adaptive")  # where the study has such an attack
    adaptive = {} if table is None else table.set_index("model").adaptive
    rows = [
        [
            model, _value(new.plain[model]), _value(new.negative[model]), _value(words.get((model, "clean", "worst"))),
            _value(new.sycophancy[model]), _value(new.drift[model]),
            _value(words.get((model, attack, "none"))), _value(words.get((model, attack, "worst"))),
            _value(adaptive.get(model)),
        ]
        for model in study.models("hints") if model in new.index
    ]  # fmt: skip
    head = [
        "accuracy in %", "no hint", "misleading hint", "worst wording", "sycophancy", "drift", f"{attack}, no hint",
        f"{attack}, worst wording", "attack that knows the hint",
    ]  # fmt: skip
    said = (
        f"{int(new.n.max())} questions under wordings that no training draws. Sycophancy is the share of right answers "
        "that a misleading hint makes not right; drift is the same under a hint that claims nothing."
    )
    return f"{said}\n\n{_markdown(head, rows)}"


def _abstention(study: Study) -> str:
    table = study.tables.get("abstention")
    if table is None or table.empty:
        return ""
    rows = [
        [
            model,
            *(
                _mean(table[(table.model == model) & chosen])
                for chosen in (table.image == "sound", table.lacks == "yes")
            ),
        ]
        for model in study.models("abstention")
    ]
    said = 'Share of the questions, in %, answered by the offered option "the image does not show it".'
    head = ["model", "nothing erased: abstaining is wrong", "what is asked for is erased: abstaining is right"]
    return f"{said}\n\n{_markdown(head, rows)}"


def _mean(part: pd.DataFrame) -> str:
    """The share that abstains of all questions of some rows, with their number."""
    n = part.n.sum()
    return f"{_value((part.abstained * part.n).sum(skipna=False) / n)} (n = {n})" if n else NONE


def _chain(study: Study) -> str:
    table = study.tables.get("chain_summary")
    if table is None or table.empty:
        return ""
    rows = [
        [row.model, row.condition, row.n, _value(row.joint, row.ci_low, row.ci_high), _value(row.product),
         _value(row.diagnosis_when_seen), _value(row.diagnosis_when_missed)]
        for model in study.models("chain_summary") for row in table[table.model == model].itertuples()
    ]  # fmt: skip
    said = (
        "Chains of evidence: all questions of an image in the order of the clinical workflow, under no hint or a hint."
    )
    head = [
        "model", "condition", "images", "all stages right, %", "if errors were independent, %",
        "diagnosis right where the lesion was found, %", "where it was missed, %",
    ]  # fmt: skip
    return f"{said}\n\n{_markdown(head, rows)}"


def _cost(study: Study) -> str:
    table = study.tables["cost"]
    total = table.groupby("stage", sort=False).agg(
        models=("model", "nunique"), wall_s=("wall_s", "sum"), forward_passes=("forward_passes", "sum"),
        backward_passes=("backward_passes", "sum"), peak_rss_mb=("peak_rss_mb", "max"),
    )  # fmt: skip
    rows = [
        [row.Index, row.models, f"{row.wall_s / 60:.1f}", f"{row.forward_passes:,}", f"{row.backward_passes:,}",
         f"{row.peak_rss_mb:,.0f}"]
        for row in total.itertuples()
    ]  # fmt: skip
    said = f"All jobs one after another took {_duration(table)}. A pass is one image through the vision tower."
    head = ["stage", "models", "minutes", "forward passes", "backward passes", "peak memory, MB"]
    return f"{said}\n\n{_markdown(head, rows)}"


def _duration(cost: pd.DataFrame) -> str:
    """The wall time of all jobs together."""
    minutes = cost.wall_s.sum() / 60
    return f"{minutes / 60:.1f} hours" if minutes >= 90 else f"{minutes:.0f} minutes"


def _value(share: float | None, low: float | None = None, high: float | None = None, sign: str = "") -> str:
    """A share in per cent with at most one decimal, and its interval where there is one; NONE where it is missing."""
    if share is None or pd.isna(share):
        return NONE
    value = f"{100 * share:{sign}z.1f}".removesuffix(".0")
    return value if low is None or pd.isna(low) else f"{value} ({100 * low:{sign}z.1f} to {100 * high:{sign}z.1f})"


def _p(value: float) -> str:
    return NONE if pd.isna(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _markdown(head: list[str], rows: Iterable[Iterable]) -> str:
    """A Markdown table, its cells shown as they are but for those that are Markup."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(value: object) -> str:
    return value if isinstance(value, Markup) else _escaped(str(value))


def _escaped(text: str) -> str:
    """Text that Markdown, and the HTML made of it, show as it is, on one line."""
    text = re.sub(r"&(?=#?\w+;)", "&amp;", " ".join(text.split()))
    return re.sub(r"([\\`*|\[\]])", r"\\\1", re.sub(r"<(?=[\w!/?])", "&lt;", text))


def _code(text: str) -> Markup:
    """Text as code, on one line."""
    text = " ".join(text.split()).replace("|", "\\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if "`" in text else ""
    return Markup(f"{fence}{space}{text}{space}{fence}")
