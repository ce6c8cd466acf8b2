"""Training beside retrieved reports: true ones; of the questions that get any, a share gets one with a wrong claim."""

from pathlib import Path

import pandas as pd

from safemed.data import prompts
from safemed.retrieval.entries import read_entries
from safemed.retrieval.reports import beside
from safemed.stress.hints import claimed
from safemed.utils.draws import RANKS, draw


class Retrieved:
    """Puts reports before the rows of `training.training_rows`; their targets stay.

    folder: a corpus with each training question's neighbours, which are of other images. k: the most reports of a
    question, of which the best 0, 1, ... or k are taken, each number as often: a model that never sees a question
    without reports forgets to look at the image. share: of the questions that get at least one report, the share in
    which one of these, drawn, claims a wrong answer, drawn too. All draws are by seed, question and purpose. Raises
    ValueError where the corpus lacks the neighbours.
    """

    def __init__(self, folder: Path, template: str, k: int, share: float, seed: int):
        path = folder / "neighbours.parquet"
        if not path.exists():
            raise ValueError(f"{path}: there is none; delete {folder} and run build_corpus again")
        found = pd.read_parquet(path)
        self.entries = read_entries(folder)
        self.found = dict(zip(found.question_id, found.entries, strict=True))
        self.template, self.k, self.share, self.seed = template, k, share, seed

    def __call__(self, row: dict, purpose: str, poisoned: bool = True) -> dict:
        """The row after its reports. purpose: that the draws are for, such as a step; poisoned: False for the same
        reports of which none claims a wrong answer.
        """

        def drawn(what: str, n: int = RANKS) -> int:
            return draw(self.seed, row["question_id"], f"{what} {purpose}", n)

        n = drawn("reports", self.k + 1)
        reports = [self.entries[place].report for place in self.found[row["question_id"]][:n]]
        if n and poisoned and drawn("poisoned") < round(self.share * RANKS):
            place = drawn("poisoned report", len(reports))
            reports[place] = reports[place].claiming(row, claimed(row, "negative", drawn("poisoned claim")))
        asked = beside(row, reports, self.template)
        return asked | {"prompt": prompts.conversation(asked, row["variant"])}
