"""The files that the tables and figures of a study are made from."""

from safemed.report.products import with_tables
from safemed.workflow import config as configs
from safemed.workflow.evaluations import Evaluations


def report_inputs(config: dict, evaluations: Evaluations, audit: str) -> dict[str, list[str]]:
    """Each kind of input that safemed.report.products names -> its files, each in a folder that a rule makes.

    Empty where the study makes none. audit: the audit's folder.
    """
    results, trained = evaluations.results, trained_models(config, evaluations.results)
    attacked = evaluations.sweeps(evaluations.studied) + evaluations.suite(evaluations.studied)
    folders = _evaluated(evaluations) | {
        "targets": [f"{results}/targets/{name}" for name in configs.own_targets(config)]
    }
    wanted = config["stress"]["published"]
    published = {f"published/{kind}": folders[kind] * wanted for kind in ("stress", "sweeps", "certificates")}
    several = bool(config["further_seeds"])
    seeds = {"seeds/attacks": attacked * several}
    seeds |= {f"seeds/{kind}": folders[kind] * several for kind in ("certificates", "stress")}
    examples = _examples(config, evaluations)
    bases = [f"{results}/models/{base}" for base in configs.trained_bases(config)]
    evaluated = [folder for found in folders.values() for folder in found]
    everything = [*bases, *trained, *evaluations.every_corpus(), *evaluated]
    files = {
        **{kind: _files(found, "rows.parquet") for kind, found in (folders | examples | published | seeds).items()},
        "attacks": _files(attacked, "rows.parquet"),
        "attack_costs": _files(attacked, "cost.json"),
        "costs": _files(everything, "cost.json"),
        "trainings": _files(trained * bool(folders["towers"]), "cost.json"),
        "baselines": [f"{audit}/baselines.csv"],
        "data/texts": [f"{results}/data/texts.parquet"],
        "curves": _files(trained, "curves.csv"),
        "examples/images": _files(examples["examples/attacked"], "images.npz"),
    }
    return with_tables(files, results)


def trained_models(config: dict, results: str) -> list[str]:
    """The folders of all models that the study trains, but the base."""
    names = configs.models(config, configs.needed(config))
    return [f"{results}/models/{name}" for name in names]


def _evaluated(evaluations: Evaluations) -> dict[str, list[str]]:
    """Kind -> folders of rows, which together are all that the study evaluates."""
    studied, certified = evaluations.studied, evaluations.certified
    return {
        "sweeps": evaluations.sweeps(studied),
        "suite": evaluations.suite(studied),
        "transferred": evaluations.of_every("transfer", studied),
        "probes": evaluations.of_every("sanity", studied),
        "towers": evaluations.of_every("towers", studied),
        "certificates": evaluations.certificates(certified),
        "certified/attacks": evaluations.smoothed(certified, "l2"),
        "smoothing/smoothed": evaluations.smoothed(certified, "linf"),
        "smoothing/plain": evaluations.unsmoothed(certified),
        "stress": evaluations.of_every("stress", studied),
        "hint_attacks": evaluations.adaptive("stress", studied),
        "pushes": evaluations.of_every("turns", studied),
        "turn_attacks": evaluations.adaptive("turns", studied),
        "redteam": evaluations.of_every("redteam", studied),
        "defend": evaluations.of_every("defend", studied),
        "reveal": evaluations.of_every("reveal", studied),
        "retrieved": evaluations.of_every("retrieve", studied),
    }


def _examples(config: dict, evaluations: Evaluations) -> dict[str, list[str]]:
    """Kind -> folders of the examples' rows: of the first and the last method of the study, clean and under pgd.

    Images are shown of the first variant; words of think, or of the last where that is not studied.
    """
    methods = dict.fromkeys(config["study_methods"][i] for i in (0, -1))
    studied = config["variants"]
    variants = {"examples": studied[0], "thoughts": "think" if "think" in studied else studied[-1]}
    attacked = methods if "attack" in evaluations.made else []
    return {
        f"{kind}/{part}": [f"{evaluations.results}/attacks/{method}-{variant}/{name}" for method in attacked]
        for kind, variant in variants.items()
        for part, name in (("clean", "clean"), ("attacked", "pgd"))
    }


def _files(folders: list[str], name: str) -> list[str]:
    """A file in each folder, once."""
    return [f"{folder}/{name}" for folder in dict.fromkeys(folders)]
