"""What the text of OmniMedVQA's real test questions gives away, as published and hardened, side by side.

    OMNIMEDVQA_QA=folder python benchmarks/blind.py

Those that hardening leaves out are left out of both. One half of the questions is learned from, the other tested; no
image is read.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pandas as pd

from safemed.data import audit
from safemed.data.hardening import harden
from support.records import QA, halves, real_questions


def main() -> None:
    if not QA.is_dir():
        raise SystemExit(f"{QA}: no such folder; set OMNIMEDVQA_QA to the folder of the questions")
    questions = real_questions()
    hardened = harden(questions, seed=0)
    print(f"{len(questions)} questions, {len(hardened)} of them hardened")
    wordings = {"published": questions[questions["question_id"].isin(hardened["question_id"])], "hardened": hardened}
    tables = {
        name: audit.baselines(*halves(questions)).set_index("part").drop(columns="kind")
        for name, questions in wordings.items()
    }
    print(audit.tells(wordings).to_string(index=False))
    print(pd.concat(tables, axis=1).round(3).T.to_string())
    for baseline in ("prior", "linear"):
        before, after = (tables[name].loc["four options", baseline] for name in wordings)
        print(f"four options, {baseline}: {before:.3f} -> {after:.3f}, x {after / before:.2f}")


if __name__ == "__main__":
    main()
