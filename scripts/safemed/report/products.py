"""What the report is made of: every table, every figure and every page, each declared once.

Snakemake makes a rule of each declaration (workflow/rules/report.smk). To add a table, write a function in a module of
safemed.report.tables that returns a data frame, and declare it in TABLES; to add a figure, write a function in a module
of safemed.report.figures that returns a matplotlib Figure and the numbers drawn, and declare it in FIGURES; a page is
a function in a module of safemed.report.pages that returns HTML, declared in PAGES. No rule's script imports this
module, so that a new declaration makes no other table, figure or page again.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar


@dataclass(frozen=True)
class Product:
    """A table, figure or page.

    name: of its file. function: dotted name below its package. inputs: kinds of files that it needs, as report.smk
    names them, tables/NAME for a table, or data/NAME for a file of the data; the function gets each as the parameter
    named as the part after the last slash. caption: of workflow/report/, without suffix. optional: further kinds, which
    a study may lack. settings: parameters that are values of the config -> dotted key. constants: further parameters.
    mem_mb: memory of its job.
    """

    name: str
    function: str
    inputs: tuple[str, ...]
    caption: str
    optional: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, object] = field(default_factory=dict)
    mem_mb: int = 1000

    category: ClassVar[str]  # its heading in the report
    verb: ClassVar[str]  # of its rule
    script: ClassVar[str]
    package: ClassVar[str]  # where its function is, below safemed
    folder: ClassVar[str]  # where its files go, below the study's results
    suffixes: ClassVar[tuple[str, ...]]  # of its files, the one that the report shows first

    @property
    def rule(self) -> str:
        """The name of its rule."""
        return f"{self.verb}_{self.name}"

    @property
    def dotted(self) -> str:
        """Its function's whole name."""
        return f"safemed.{self.package}.{self.function}"

    @property
    def module(self) -> str:
        """The module of its function, which its rule depends on."""
        return self.dotted.rpartition(".")[0]

    @property
    def place(self) -> str:
        """Its files below a study's results, without suffix."""
        return f"{self.folder}/{self.name}"

    def outputs(self, results: str) -> list[str]:
        """Its files below a study's results."""
        return [f"{results}/{self.place}.{suffix}" for suffix in self.suffixes]

    def needs(self, files: Mapping[str, list[str]]) -> list[str]:
        """What rules make of its inputs: tables, files of the data, and of all other files their folders.

        files: kind -> paths.
        """
        return [
            path if kind.startswith(("tables/", "data/")) else path.rpartition("/")[0]
            for kind in (*self.inputs, *self.optional)
            for path in files[kind]
        ]

    def options(self, files: Mapping[str, list[str]]) -> list[str]:
        """The options that name its inputs to its script. files: kind -> paths."""
        kinds = [kind for kind in (*self.inputs, *self.optional) if files[kind]]
        return [" ".join(["--input", kind.rpartition("/")[2], *files[kind]]) for kind in kinds]


class Table(Product):
    """A data frame: tables/NAME.csv."""

    category, verb, script, package, folder = "Tables", "make", "make_table.py", "report.tables", "tables"
    suffixes = ("csv",)


class Figure(Product):
    """A picture, and the numbers drawn: figures/NAME.png, .pdf and .csv."""

    category, verb, script, package, folder = "Figures", "draw", "make_figure.py", "report.figures", "figures"
    suffixes = ("png", "pdf", "csv")


class Page(Product):
    """HTML that loads nothing: pages/NAME.html."""

    category, verb, script, package, folder = "Pages", "write", "make_page.py", "report.pages", "pages"
    suffixes = ("html",)


EPS = {"eps": "attack.headline_eps"}

TABLES = (
    Table("robustness", "robustness.robustness", ("sweeps", "baselines"), "robustness"),
    Table("robustness_by_part", "robustness.robustness_by_part", ("sweeps", "baselines"), "robustness"),
    Table(
        "suite",
        "suite.suite",
        ("attacks", "attack_costs"),
        "suite",
        settings=EPS | {"configs": "attack.attacks"},
    ),
    Table("comparisons", "comparisons.comparisons", ("attacks",), "comparisons", settings=EPS),
    Table(
        "seeds",
        "seeds.seeds",
        ("seeds/attacks",),
        "seeds",
        optional=("seeds/certificates", "seeds/stress"),
        settings=EPS | {"radii": "certify.radii", "side": "data.image_size"},
    ),
    Table(
        "seed_comparisons", "seed_comparisons.seed_comparisons", ("seeds/attacks",), "seed_comparisons", settings=EPS
    ),
    Table("transfer", "transfer.transfer", ("transferred",), "transfer"),
    Table("sanity", "sanity.sanity", ("probes", "attacks"), "sanity", settings=EPS | {"configs": "attack.attacks"}),
    Table(
        "towers",
        "towers.towers",
        ("towers", "trainings"),
        "towers",
        optional=("sweeps",),
        settings=EPS | {"methods": "methods"},
    ),
    Table(
        "certified",
        "certified.certified",
        ("certificates",),
        "certified",
        optional=("certified/attacks",),
        settings={"radii": "certify.radii", "side": "data.image_size"},
    ),
    Table("smoothing", "smoothing.smoothing", ("smoothing/smoothed", "smoothing/plain"), "smoothing", settings=EPS),
    Table("hints", "hints.hints", ("stress",), "hints"),
    Table("question_edits", "question_edits.question_edits", ("stress",), "question_edits"),
    Table("image_edits", "image_edits.image_edits", ("stress",), "image_edits"),
    Table("pixels_and_words", "pixels_and_words.pixels_and_words", ("stress",), "pixels_and_words"),
    Table("published", "published.published", ("published/stress",), "published"),
    Table(
        "groups",
        "groups.groups",
        ("published/sweeps", "data/texts"),
        "groups",
        optional=("published/certificates",),
        settings=EPS | {"radii": "certify.radii", "seed": "seed"},
    ),
    Table("adaptive", "adaptive.adaptive", ("hint_attacks", "stress"), "adaptive", settings=EPS),
    Table("turns", "turns.turns", ("pushes",), "turns"),
    Table("turn_comparisons", "turn_comparisons.turn_comparisons", ("pushes",), "turn_comparisons"),
    Table("adaptive_turns", "adaptive.adaptive_turns", ("turn_attacks", "pushes"), "adaptive_turns", settings=EPS),
    Table("calibration", "calibration.calibration", ("stress",), "calibration"),
    Table("abstention", "abstention.abstention", ("stress",), "abstention"),
    Table("chain", "chain.chain", ("stress",), "chain"),
    Table("chain_summary", "chain.chain_summary", ("stress",), "chain"),
    Table("redteam", "redteam.redteam", ("redteam",), "redteam", settings={"strategies": "redteam.strategies"}),
    Table("gradient", "gradient.gradient", ("reveal",), "gradient"),
    Table("gradient_summary", "gradient.gradient_summary", ("reveal",), "gradient_summary"),
    Table("rag", "rag.rag", ("retrieved",), "rag"),
    Table("rag_by_type", "rag.rag_by_type", ("retrieved",), "rag_by_type"),
    Table("defences", "defences.defences", ("defend",), "defences", settings={"names": "defend.defences"}),
    Table("targets", "targets.targets", ("targets",), "targets"),
    Table("cost", "cost.cost", ("costs",), "cost"),
)

FIGURES = (
    Figure("accuracy_vs_eps", "accuracy_vs_eps.accuracy_vs_eps", ("tables/robustness",), "accuracy_vs_eps"),
    Figure("seeds", "seeds.seeds", ("tables/seeds",), "seeds"),
    Figure("success_vs_eps", "success_vs_eps.success_vs_eps", ("tables/robustness",), "success_vs_eps"),
    Figure("success_vs_steps", "success_vs_steps.success_vs_steps", ("probes",), "success_vs_steps"),
    Figure("transfer_matrix", "transfer_matrix.transfer_matrix", ("tables/transfer",), "transfer"),
    Figure("sanity", "sanity.sanity", ("tables/sanity",), "sanity"),
    Figure("towers", "towers.towers", ("tables/towers",), "towers"),
    Figure("thoughts", "thoughts.thoughts", ("thoughts/clean", "thoughts/attacked"), "thoughts", settings=EPS),
    Figure(
        "certified_vs_radius", "certified_vs_radius.certified_vs_radius", ("tables/certified",), "certified_vs_radius"
    ),
    Figure("smoothed_attack", "smoothed_attack.smoothed_attack", ("tables/smoothing",), "smoothing"),
    Figure("resistance", "resistance.resistance", ("tables/hints",), "resistance"),
    Figure("pixels_and_words", "pixels_and_words.pixels_and_words", ("tables/pixels_and_words",), "pixels_and_words"),
    Figure("published", "published.published", ("tables/published",), "published"),
    Figure("groups", "groups.groups", ("tables/groups",), "groups"),
    Figure("turns", "turns.turns", ("tables/turns",), "turns_figure"),
    Figure("image_edits", "image_edits.image_edits", ("tables/image_edits",), "image_edits"),
    Figure("abstention", "abstention.abstention", ("tables/abstention",), "abstention"),
    Figure("chain", "chain.chain", ("tables/chain",), "chain"),
    Figure("redteam", "redteam.redteam", ("redteam",), "redteam", settings={"strategies": "redteam.strategies"}),
    Figure("defences", "defences.defences", ("tables/defences",), "defences"),
    Figure("gradient", "gradient.gradient", ("tables/gradient",), "gradient"),
    Figure("rag", "rag.rag", ("tables/rag",), "rag_figure"),
    Figure(
        "modality_heatmap",
        "heatmap.heatmap",
        ("tables/robustness_by_part",),
        "heatmap",
        settings=EPS,
        constants={"kind": "modality"},
    ),
    Figure(
        "question_type_heatmap",
        "heatmap.heatmap",
        ("tables/robustness_by_part",),
        "heatmap",
        settings=EPS,
        constants={"kind": "question_type"},
    ),
    Figure("training_curves", "training_curves.training_curves", ("curves",), "training_curves"),
    Figure(
        "adversarial_examples",
        "adversarial_examples.adversarial_examples",
        ("examples/clean", "examples/attacked", "examples/images"),
        "adversarial_examples",
        settings=EPS,
        mem_mb=2000,
    ),
)


PAGES = (
    Page(
        "adversarial_examples",
        "adversarial_examples.adversarial_examples",
        ("examples/clean", "examples/attacked", "examples/images", "data/texts"),
        "adversarial_examples_page",
        settings=EPS,
        mem_mb=2000,
    ),
    Page(
        "tables",
        "tables.tables",
        (),
        "tables_page",
        optional=tuple(f"tables/{table.name}" for table in TABLES),
    ),
)


def with_tables(files: Mapping[str, list[str]], results: str | Path) -> dict[str, list[str]]:
    """The files, and those of each table, of which there are none where an input of it is lacking.

    files: kind -> paths, without tables; results: the study's folder.
    """
    tables = {f"tables/{table.name}": table.outputs(f"{results}") if _there(table, files) else [] for table in TABLES}
    return dict(files) | tables


def made(files: Mapping[str, list[str]]) -> list[Product]:
    """The tables, figures and pages that a study makes: those of whose inputs it lacks none.

    files: kind -> paths, empty where the study has none, such as a table that it does not make.
    """
    return [product for product in (*TABLES, *FIGURES, *PAGES) if _there(product, files)]


def _there(product: Product, files: Mapping[str, list[str]]) -> bool:
    return all(files[kind] for kind in product.inputs)


def parameters(product: Product, config: Mapping) -> dict:
    """What a product's function is given beside its inputs: values of the config, and constants.

    Raises KeyError for a key that the config lacks.
    """
    return {name: _value(config, key.split(".")) for name, key in product.settings.items()} | dict(product.constants)


def _value(config: Mapping, keys: Iterable[str]) -> object:
    for key in keys:
        config = config[key]
    return config
