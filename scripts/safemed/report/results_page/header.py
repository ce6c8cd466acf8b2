"""What the numbers of a results page are of."""

from safemed.data.prompts import of_variant
from safemed.report.results_page import markdown
from safemed.report.results_page.markdown import Markup, code
from safemed.report.results_page.study import Study, commits

WRITTEN = "This page is written by `scripts/write_results.py` from the tables of finished studies; do not edit it."


def header(study: Study) -> str:
    """How to read the page, and the study's commits, machines, software, seed, model and images."""
    said = (
        f"{WRITTEN} Tables, figures and [where they came from](provenance.json) lie beside it; "
        "[Tables](../../tables.md) defines every column, and [Results](../../results.md) holds the papers' claims "
        f"against all studies. Brackets hold 95 % intervals over the choice of questions; {_of_seeds(study)}"
    )
    return markdown.text(said, ["", ""], _facts(study))


def _of_seeds(study: Study) -> str:
    if study.config["further_seeds"]:
        return "but for [Over seeds](#over-seeds), which says what its brackets hold, all is of the first seed."
    return "they say nothing of another training seed."


def seeds(study: Study) -> str:
    """The seeds of a study in words."""
    first, further = study.config["seed"], study.config["further_seeds"]
    if not further:
        return f"seed {first}, one training a model"
    return f"seeds {', '.join(map(str, [first, *further]))}, one training of each model a seed"


def _facts(study: Study) -> list[tuple[str, str]]:
    environments, data = study.provenance["environments"], study.config["data"]
    finished = sorted(result["finished"][:10] for result in study.provenance["results"].values())
    return [
        ("Commit", Markup(", ".join(map(code, commits(study.provenance))))),
        ("Computed", " to ".join(dict.fromkeys([finished[0], finished[-1]]))),
        ("Hardware", "; ".join(sorted({_machine(environment["hardware"]) for environment in environments}))),
        ("Software", "; ".join(dict.fromkeys(map(_software, environments)))),
        ("Training", seeds(study)),
        ("Model", Markup(", ".join(map(code, _model_names(study))))),
        ("Images", Markup(f"{code(data['source'] or 'phantoms')}, {data['image_size']} pixels a side")),
    ]


def _machine(hardware: dict) -> str:
    gpus = ", ".join(hardware["gpus"]) or "no GPU"
    return f"{hardware['cpu']}, {hardware['cores']} cores, {hardware['memory_mb'] / 1024:.0f} GB, {gpus}"


def _software(environment: dict) -> str:
    packages = environment["packages"]
    versions = [f"{name} {packages[name]}" for name in ("torch", "transformers", "trl") if name in packages]
    return f"Python {environment['python']}, {', '.join(versions)}"


def _model_names(study: Study) -> list[str]:
    """The models that the variants' trainings start from, each once."""
    name = study.config["model"]["name"]
    return list(dict.fromkeys(of_variant(name, variant) for variant in study.config["variants"]))
