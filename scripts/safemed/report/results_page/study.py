"""A finished study, as the sections of its results page read it."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from safemed.report.tables.rows import CLEAN
from safemed.utils.provenance import modules

PAGE = "index.md"


class Study(NamedTuple):
    """A finished study. tables: name -> table, those that its evaluations have; provenance: of all results."""

    tables: Mapping[str, pd.DataFrame]
    provenance: dict

    @property
    def name(self) -> str:
        return self.config["study"]

    @property
    def page(self) -> str:
        """Where its page is, below docs/."""
        return f"results/{self.name}/{PAGE}"

    @property
    def worst(self) -> str:
        """In words, under what its worst case is."""
        if "suite" not in self.tables:
            return "in the worst case"
        suite = self.tables["suite"]
        attacks = suite[(suite.norm == "linf") & (suite.attack != CLEAN)].attack.unique()
        return f"under {attacks[0]} alone" if len(attacks) == 1 else f"in the worst case of {len(attacks)} attacks"

    @property
    def config(self) -> dict:
        return self.provenance["config"]

    @property
    def eps(self) -> int:
        """The headline radius in 1/255."""
        return self.config["attack"]["headline_eps"]

    def models(self, table: str) -> list[str]:
        """The models of a table that have the study's own seed, those of the studied methods first; none where it is
        lacking.
        """
        there = set(self.tables[table].model) if table in self.tables else set()
        known = dict.fromkeys([*self.config["study_methods"], *self.config["methods"]])
        named = [f"{method}-{variant}" for method in known for variant in self.config["variants"]]
        return [name for name in named if name in there]

    def rows(self, table: str, **values: str) -> list[NamedTuple]:
        """The rows of a table whose columns have these values, in the order of `models`; none where it is lacking."""
        if table not in self.tables:
            return []
        found = self.tables[table]
        for column, value in values.items():
            found = found[found[column] == value]
        return [row for model in self.models(table) for row in found[found.model == model].itertuples()]


def check_alike(studies: Sequence[Study]) -> None:
    """Raise ValueError naming a setting in which a study differs from the first, of those that claims depend on."""
    first = studies[0].config
    for study in studies[1:]:
        pairs = {key: (first[key], study.config[key]) for key in ("data", "model", "seed")}
        pairs["attack.headline_eps"] = (studies[0].eps, study.eps)
        for key, (here, there) in pairs.items():
            if here != there:
                raise ValueError(
                    f"study {study.name} has another {key} than {first['study']}: write pages for each, by --docs"
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
