"""What the text of OmniMedVQA's real test questions gives away, as published and hardened, side by side.

    OMNIMEDVQA_QA=folder python tests/bench/blind.py

One half of the questions is learned from, the other tested; no image is read.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pandas as pd

from records import QA, halves, real_questions
from safemed import audit
from safemed.harden import harden


def main() -> None:
    if not QA.is_dir():
        raise SystemExit(f"{QA}: no such folder; set OMNIMEDVQA_QA to the folder of the questions")
    published = real_questions()
    wordings = {"published": published, "hardened": harden(published, seed=0)}
    tables = {name: audit.baselines(*halves(questions)).set_index("part") for name, questions in wordings.items()}
    print(audit.tells(wordings).to_string(index=False))
    print(pd.concat(tables, axis=1).round(3).T.to_string())
    for baseline in ("prior", "linear"):
        before, after = (tables[name].loc["four options", baseline] for name in wordings)
        print(f"four options, {baseline}: {before:.3f} -> {after:.3f}, x {after / before:.2f}")


if __name__ == "__main__":
    main()
