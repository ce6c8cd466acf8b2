"""A whole study of a checkpoint as Qwen publishes it: its own vocabulary, and a template that opens the thought.

The checkpoint is tiny, and has learned to answer in the format. Every script of the workflow runs on it.
"""

from pathlib import Path

import pandas as pd
import pytest
import yaml

from safemed.data import prompts
from safemed.models import tiny
from safemed.models.vlm import VLM, save_model
from support import qwen
from support.paths import SMALLEST_STUDY
from support.settings import SIDE, TINY
from support.snakemake_runs import checkout, snakemake
from support.taught_model import teach

pytestmark = pytest.mark.slow  # eight minutes; tests/models/test_chat.py shows the same on fewer scripts
RESULTS = Path("results") / "thinking"
STUDY = {
    "study": "thinking",
    "variants": ["think"],
    "max_new_tokens": {"instruct": 8, "think": 32},
    "training": {
        "sft": {"targets": "own", "target_samples": 2, "learning_rate": 1.0e-5},
        "tower": {"learning_rate": 1.0e-5},
        "grpo": {"learning_rate": 1.0e-5, "vision_learning_rate": 1.0e-5},
    },
    "study_methods": ["at-grpo"],
    "attack": {"suite": ["pgd", "square"], "eps": [8]},
    "certify": {"attacks": [], "shards": 1},
    "stress": {"questions": 4, "adaptive": None, "chains": 2},
}


@pytest.fixture(scope="module")
def checkpoint(vocabulary, train_questions, made_once) -> Path:
    """A tiny Thinking checkpoint that has learned some questions of phantoms, and is sure enough to be sampled."""
    start = made_once("qwen-thinking-start", lambda folder: save_model(*assembled(vocabulary), folder))
    asked = train_questions.select(range(0, len(train_questions), len(train_questions) // 24))
    taught = made_once("qwen-thinking-taught", lambda folder: teach(start, asked, folder, 240, variants=["think"]))

    def sharpen(folder: Path) -> None:
        """Logits times 27: as after long training, the 152 thousand words that are wrong have no weight together."""
        vlm = VLM.load(taught)
        vlm.backbone.language_model.norm.weight.data *= 27
        save_model(vlm.model, vlm.processor, folder)

    return made_once("qwen-thinking", sharpen)


def assembled(vocabulary: Path):
    """Random weights, the vocabulary and the template."""
    return tiny.assemble(qwen.tokenizer(vocabulary, qwen.THINKING), {**TINY, "hidden": 32}, SIDE, seed=0)


@pytest.fixture(scope="module")
def thinking(checkpoint, tmp_path_factory) -> Path:
    """The smallest study on that checkpoint, finished."""
    folder = checkout(tmp_path_factory.mktemp("thinking") / "repository")
    (folder / "thinking.yaml").write_text(yaml.safe_dump({**STUDY, "model": {"name": str(checkpoint)}}))
    files = ["--configfile", SMALLEST_STUDY, folder / "thinking.yaml"]
    done = snakemake("--cores", "2", *files, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    replayed = snakemake("replay", "--cores", "2", *files, cwd=folder)
    assert replayed.returncode == 0, replayed.stderr[-3000:]
    return folder


def rows(folder: Path, pattern: str) -> pd.DataFrame:
    """All rows of some evaluations."""
    found = sorted((folder / RESULTS).glob(f"{pattern}/rows.parquet"))
    assert found, pattern
    return pd.concat([pd.read_parquet(path) for path in found])


def test_every_clean_completion_is_parsed_and_holds_the_thought_that_the_prompt_opened(thinking):
    clean = rows(thinking, "attacks/*/clean")
    assert set(clean.model) == {"at-grpo-think"} and not clean.cut.any()
    assert set(clean.outcome) <= {"right", "wrong"} and (clean.outcome == "right").any()
    read = [prompts.parse(text, n, "think") for text, n in zip(clean.text, clean.n_options, strict=True)]
    assert all(text.startswith("<think>\n") for text in clean.text)
    assert all(prompts.well_formed(completion, "think") for completion in read)


def test_it_was_taught_its_start_models_own_words(thinking, checkpoint):
    targets = rows(thinking, "targets/sft-think")
    taught = targets[targets.target != ""]
    assert len(taught) and taught.target.str.startswith("<think>\n").all()
    table = pd.read_csv(thinking / RESULTS / "tables" / "targets.csv")
    assert table[["n", "with_target"]].values.tolist() == [[len(targets), len(taught)]]


def test_attacks_certificates_and_stress_tests_reach_the_report(thinking):
    attacked = rows(thinking, "attacks/*/pgd")
    assert attacked.attacked.any() and (attacked.linf <= attacked.eps).all()
    certified = rows(thinking, "certificates/*/*/*")
    assert {"choice", "generate"} == set(certified.function) and (certified.prediction != "?").any()
    stressed = rows(thinking, "stress/*")
    assert (stressed.outcome == "unparsable").mean() < 0.2
    assert "at-grpo-think" in (thinking / RESULTS / "report.html").read_text()
