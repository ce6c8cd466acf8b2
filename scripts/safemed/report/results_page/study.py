"""A finished study, as the sections of the results page read it."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from safemed.utils.provenance import modules

OF_SEEDS = ("seeds", "seed_comparisons")


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
        """The models of a table that have the study's own seed, those of the studied methods first."""
        known = dict.fromkeys([*self.config["study_methods"], *self.config["methods"]])
        named = [f"{method}-{variant}" for method in known for variant in self.config["variants"]]
        return [name for name in named if name in set(self.tables[table].model)]

    def rows(self, table: str, **values: str) -> list[NamedTuple]:
        """The rows of a table whose columns have these values, in the order of `models`; none where it is lacking."""
        if table not in self.tables:
            return []
        found = self.tables[table]
        for column, value in values.items():
            found = found[found[column] == value]
        return [row for model in self.models(table) for row in found[found.model == model].itertuples()]


def together(studies: Sequence[Study]) -> Study:
    """The first study, with the tables that it lacks of those after it, and with all their methods and provenance.

    Tables of seeds are the first study's or none. Raises ValueError where a study is of other data, another model,
    radius or seed: its numbers would stand beside what is not true of them.
    """
    first, *others = studies
    tables, known = dict(first.tables), dict(first.provenance)
    for other in others:
        _refuse_unlike(first.config, other.config)
        added = {name: one for name, one in other.tables.items() if name not in (*OF_SEEDS, *tables)}
        tables |= added
        known["added"] = known.get("added", {}) | {other.config["study"]: sorted(added)}
        methods = dict.fromkeys([*known["config"]["study_methods"], *other.config["study_methods"]])
        config = known["config"] | {
            "methods": other.config["methods"] | known["config"]["methods"],
            "study_methods": list(methods),
        }
        before = len(known["environments"])
        own = {
            folder: result | {"environment": before + result["environment"]}
            for folder, result in other.provenance["results"].items()
        }
        environments = [*known["environments"], *other.provenance["environments"]]
        known |= {"config": config, "environments": environments, "results": known["results"] | own}
    return Study(tables, known)


def _refuse_unlike(first: dict, other: dict) -> None:
    """Raise ValueError naming a setting in which a further study differs from the first, of those that count."""
    pairs = {key: (first[key], other[key]) for key in ("data", "model", "seed")}
    pairs["attack.headline_eps"] = tuple(config["attack"]["headline_eps"] for config in (first, other))
    for key, (here, there) in pairs.items():
        if here != there:
            raise ValueError(
                f"study {other['study']} has another {key} than {first['study']}: write a page for each of them"
            )


class Section(NamedTuple):
    """A part of the page. writers: each returns a paragraph and its table, or "" where the study has none of it;
    figures: name -> what each shows.
    """

    heading: str
    writers: tuple[Callable[[Study], str], ...]
    figures: Mapping[str, str]


def commits(provenance: dict) -> list[str]:
    """The commits that results were computed at, oldest result first; one with + after it had changed files."""
    results = sorted(provenance["results"].values(), key=lambda result: result["finished"])
    return list(dict.fromkeys(f"{result['code']['commit']}" for result in results))


def check_code(provenance: dict, hash_here: Callable[..., str | None]) -> None:
    """Refuse results of other code than that of this checkout, from which nobody could compute them again.

    hash_here: a script and further modules that it imports -> the hash of their code here, or None without them. Equal
    code may be of several commits. Raises ValueError naming a result of each commit that differs, and the way out.
    """
    other = {
        result["code"]["commit"]: f"{folder} ({result['script']} of commit {result['code']['commit']})"
        for folder, result in provenance["results"].items()
        if result["code"]["hash"] != hash_here(result["script"], *modules(result["arguments"]))
    }
    if other:
        raise ValueError(
            f"not computed by the scripts as they are here: {', '.join(other.values())}. Run the study again, which "
            "makes these anew, or check out their commit"
        )
