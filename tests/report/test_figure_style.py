"""Models look different from each other, in every figure alike, and their labels never overlap."""

import numpy as np

from safemed.data.prompts import VARIANTS
from safemed.report.figures.style import MARKERS, NAMES, label, look, spread


def test_twelve_models_keep_labels_apart_and_ablations_distinct():
    methods = [*NAMES, "at-grpo-no-anchor", "at-grpo-no-features"]
    models = [f"{method}-{variant}" for method in methods for variant in VARIANTS]
    looks = [tuple(map(str, look(model, models).values())) for model in models]
    assert len(set(looks)) == len(models)
    placed = spread(np.linspace(0.1, 0.12, 14), gap=0.052)
    assert np.diff(placed).min() >= 0.0519 and placed.min() >= 0 and placed.max() <= 1
    assert label("at-grpo-no-anchor-think") == "AT-GRPO no anchor, think" and label("base") == "base"
    assert label("fare-hsat-at-grpo-think") == "FARE HSAT + AT-GRPO, think" and label("my-own-think") == "my-own, think"
    assert label("tecoa-at-grpo-think") == "TeCoA + AT-GRPO, think" and label("grpo-rag-think") == "GRPO RAG, think"


def test_without_colour_methods_differ_by_marker_and_variants_by_line_and_filling():
    assert MARKERS.keys() == NAMES.keys() and len(set(MARKERS.values())) == len(MARKERS)
    looks = {variant: look(f"sft-{variant}", []) for variant in VARIANTS}
    for key, different in (("marker", 1), ("linestyle", 3), ("markerfacecolor", 3)):
        assert len({str(drawn[key]) for drawn in looks.values()}) == different, key
    assert looks["instruct"]["markerfacecolor"] == "white" and label("sft-after") == "SFT, after"
