"""The tables of a small finished study, whose numbers are all different, and where they come from."""

import pandas as pd

from safemed.report import products
from safemed.report.tables import (
    abstention,
    adaptive,
    calibration,
    certified,
    chain,
    comparisons,
    defences,
    gradient,
    groups,
    hints,
    pixels_and_words,
    published,
    rag,
    redteam,
    robustness,
    sanity,
    seed_comparisons,
    seeds,
    suite,
    towers,
    turn_comparisons,
    turns,
)
from safemed.utils.dependencies import fingerprint

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODELS = ("sft-instruct", "at-grpo-no-reward-instruct", "at-grpo-instruct")
ACCURACY = {
    "sft-instruct": (0.91, 0.12, 0.03),
    "at-grpo-no-reward-instruct": (0.92, 0.83, 0.81),
    "at-grpo-instruct": (0.93, 0.87, 0.86),
}


def rows(columns: list[str], *records: dict, **common) -> pd.DataFrame:
    """A table as its function returns it; what is not given is missing."""
    return pd.DataFrame([common | record for record in records]).reindex(columns=columns)


def tables() -> dict[str, pd.DataFrame]:
    """Tables of a small study whose numbers are all different."""
    attacks = (("clean", 0, 0), ("pgd", 8, 1))
    return {
        "robustness": rows(
            robustness.ROBUSTNESS,
            *(
                {"model": m, "attack": a, "eps": eps, "accuracy": ACCURACY[m][i]}
                for m in MODELS
                for a, eps, i in attacks
            ),
            n=100,
            ci_low=0.777,
            ci_high=0.888,
            status="complete",
            chance=0.333,
            blind=0.345,
        ),
        "suite": rows(
            suite.SUITE,
            *({"model": m, "attack": "pgd", "norm": "linf", "worst": 0.5, "accuracy": 0.444} for m in MODELS),
            *(
                {"model": m, "attack": "apgd-t", "norm": "linf", "worst": ACCURACY[m][2], "accuracy": 0.222}
                for m in MODELS
            ),
            *({"model": m, "attack": "cw", "norm": "l2", "accuracy": 0.111} for m in MODELS),
            ci_low=0.666,
            ci_high=0.999,
        ),
        "comparisons": rows(
            comparisons.COMPARISONS,
            {"images": "clean", "difference": 0.01, "ci_low": -0.022, "ci_high": 0.043, "p_holm": 0.444},
            {"images": "worst case", "difference": -0.05, "ci_low": -0.092, "ci_high": 0.013, "p_holm": 0.0314},
            family="methods",
            first="at-grpo-no-reward-instruct",
            second="at-grpo-instruct",
        ),
        "sanity": rows(
            sanity.SANITY, {"check": "eps 0", "passed": True}, {"check": "more steps", "passed": False}, model=MODELS[0]
        ),
        "certified": rows(
            certified.CERTIFIED,
            {},
            model=MODELS[2],
            function="choice",
            sigma=0.25,
            radius=0.6,
            linf_equivalent=1.38,
            n=40,
            certified_accuracy=0.725,
            ci_low=0.571,
            ci_high=0.839,
            sure=0.7,
            empirical_accuracy=0.775,
            alpha=0.001,
        ),
        "hints": rows(
            hints.HINTS,
            {},
            model=MODELS[0],
            seen="clean",
            voice="all",
            taught="new",
            n=100,
            plain=0.96,
            negative=0.371,
            sycophancy=0.632,
            drift=0.413,
        ),
        "pixels_and_words": rows(
            pixels_and_words.PIXELS_AND_WORDS,
            {"seen": "clean", "words": "worst", "accuracy": 0.091},
            {"seen": "pgd", "words": "none", "accuracy": 0.081},
            {"seen": "pgd", "words": "worst", "accuracy": 0.021},
            model=MODELS[0],
        ),
        "adaptive": rows(adaptive.ADAPTIVE, {}, model=MODELS[0], adaptive=0.017),
        "groups": rows(
            groups.GROUPS,
            {"condition": "clean", "worst": "MR", "worst_accuracy": 0.512, "gap": 0.123, "p_holm": 0.0456},
            {"condition": "pgd", "strength": 8, "worst": "CT", "worst_accuracy": 0.212, "gap": 0.234, "p_holm": 0.0004},
            {"condition": "clean", "kind": "dataset", "groups": 1, "worst": "only"},
            {"condition": "certified", "strength": 0.25, "worst": "certainly"},
            model=MODELS[0],
            kind="question_type",
            n=100,
            groups=4,
            least=21,
            worst_low=0.011,
            worst_high=0.888,
            p=0.0123,
            status="complete",
        ),
        "published": rows(
            published.PUBLISHED,
            {
                "taught": "new",
                "voice": "all",
                "position": "first",
                "echo_rate": 0.475,
                "echo_silent": 0.096,
                "echo_beyond": 0.379,
            },
            {
                "taught": "new",
                "voice": "all",
                "position": "last",
                "echo_rate": 0.512,
                "echo_silent": 0.153,
                "echo_beyond": 0.359,
            },
            {"taught": "taught", "voice": "all", "position": "last", "echo_rate": 0.987},
            {"taught": "new", "voice": "patient", "position": "last", "echo_rate": 0.987},
            model=MODELS[0],
            n=40,
            plain=0.951,
            echo_beyond_low=0.26,
            echo_beyond_high=0.49,
            echo_rate_low=0.353,
            echo_rate_high=0.601,
            echo_parsed=0.473,
            echo_parsed_low=0.351,
            echo_parsed_high=0.598,
            echo_parsed_silent=0.094,
            anti_sycophancy=0.548,
            anti_sycophancy_low=0.444,
            anti_sycophancy_high=0.647,
            anti_sycophancy_silent=0.887,
            faithfulness=0.059,
            faithfulness_low=0.032,
            faithfulness_high=0.107,
            faithfulness_silent=0.027,
            ours_safety=0.3035,
        ),
        "turns": rows(
            turns.TURNS,
            {"push": "silent", "flipped": 0.036, "second_accuracy": 0.944},
            {"push": "silent", "seen": "pgd", "second_accuracy": 0.321},
            {"push": "doubt", "flipped": 0.064, "corrected_without": 0.207, "corrected_silent": 0.106},
            {"push": "wrong", "flipped": 0.305, "followed": 0.284, "followed_silent": 0.013},
            {"push": "right", "flipped": 0.027, "corrected_with": 0.818, "corrected_silent": 0.116},
            {"push": "wrong", "taught": "taught", "flipped": 0.987},
            {"push": "wrong", "seen": "pgd", "flipped": 0.987},
            model=MODELS[0],
            seen="clean",
            taught="new",
            n=124,
            n_right=118,
            flipped_low=0.008,
            flipped_high=0.402,
            flipped_silent=0.036,
            corrected_low=0.107,
            corrected_high=0.903,
        ),
        "turn_comparisons": rows(
            turn_comparisons.TURN_COMPARISONS,
            {"push": "wrong", "first_flipped": 0.234, "second_flipped": 0.012},
            {"push": "wrong", "taught": "taught", "first_flipped": 0.987},
            {"push": "doubt", "first_flipped": 0.987},
            seen="clean",
            taught="new",
            first=MODELS[0],
            second=MODELS[1],
            n=111,
            difference=0.222,
            ci_low=0.101,
            ci_high=0.343,
            p=0.001,
            p_holm=0.006,
            beyond=0.212,
            beyond_low=0.09,
            beyond_high=0.334,
        ),
        "adaptive_turns": rows(
            adaptive.ADAPTIVE_TURNS,
            {},
            model=MODELS[0],
            seen="pgd",
            n=123,
            pushed=0.655,
            both=0.287,
            adaptive=0.104,
            adaptive_low=0.053,
            adaptive_high=0.195,
            difference=-0.183,
            ci_low=-0.271,
            ci_high=-0.094,
            p=0.0021,
        ),
        "calibration": rows(
            calibration.CALIBRATION,
            {"kind": "plain", "polarity": "", "accuracy": 0.953, "confidence": 0.934, "ece": 0.037, "auroc": 0.914},
            {"kind": "hint", "polarity": "negative", "auroc": 0.613},
            {"kind": "hint", "polarity": "neutral", "auroc": 0.775},
            {"kind": "erasure", "polarity": "", "confidence": 0.871, "auroc": 0.5},
            {"kind": "plain", "polarity": "", "seen": "pgd", "accuracy": 0.987},
            model=MODELS[0],
            seen="clean",
            n=122,
        ),
        "redteam": rows(
            redteam.REDTEAM,
            {
                "strategy": "adaptive",
                "fooled": 0.625,
                "p_silent": 0.0021,
                "p_silent_holm": 0.0313,
                "followed": 0.444,
                "queries": 7.25,
            },
            {"strategy": "silent", "fooled": 0.375, "queries": 9.5},
            model=MODELS[0],
            n=60,
            n_right=57,
            fooled_low=0.305,
            fooled_high=0.863,
            silent=0.375,
        ),
        "rag": rows(
            rag.RAG,
            {"retriever": "none", "reports": "none", "accuracy": 0.615},
            {"recall": 0.935, "accuracy": 0.925, "ci_low": 0.845, "ci_high": 0.965, "p_none_holm": 0.0123},
            {
                "poison": "conflict",
                "per_question": 5,
                "poisoned": 0.835,
                "accuracy": 0.595,
                "success": 0.345,
                "success_low": 0.255,
                "success_high": 0.455,
                "n_right": 58,
                "p_clean_holm": 0.0004,
            },
            {
                "poison": "text",
                "rate": 0.001,
                "n_poisons": 1,
                "poisoned": 0.016,
                "accuracy": 0.915,
                "success": 0.0,
                "success_low": 0.0,
                "success_high": 0.793,
                "n_right": 1,
                "p_clean_holm": 1.0,
            },
            {"poison": "conflict", "per_question": 5, "reports": "unclaimed", "success": 0.115},
            {"poison": "conflict", "per_question": 5, "reports": "checked", "success": 0.075, "accuracy": 0.885},
            model=MODELS[0],
            retriever="fare-instruct",
            shown="clean",
            poison="none",
            rate=0.0,
            per_question=0,
            reports="retrieved",
            n=64,
            status="complete",
        ),
        "gradient": rows(
            gradient.GRADIENT,
            {"share": 0.2, "accuracy": 0.417},
            {"share": 1.0, "accuracy": 0.953, "pearson": 0.987654, "auroc": 0.883, "ece": 0.067, "n_wrong": 7},
            {"share": 1.0, "accuracy": 0.941, "estimator": "p_A", "auroc": 0.774, "ece": 0.124, "n_wrong": 8},
            model=MODELS[0],
            seen="clean",
            order="seeded",
            estimator="letter",
            n=61,
            status="complete",
        ),
        "gradient_summary": rows(
            gradient.GRADIENT_SUMMARY,
            {"n_wrong": 40, "auroc": 0.862, "auroc_low": 0.731, "auroc_high": 0.944},
            {
                "estimator": "p_A",
                "n_wrong": 42,
                "auroc": 0.815,
                "auroc_low": 0.664,
                "auroc_high": 0.911,
                "beyond": -0.047,
                "beyond_low": -0.103,
                "beyond_high": 0.002,
            },
            {"order": "lesion-last", "n_wrong": 987, "auroc": 0.987},
            model=MODELS[0],
            seen="clean",
            order="seeded",
            estimator="letter",
            shares=2,
            n=122,
            status="complete",
        ),
        "towers": rows(
            towers.TOWERS,
            {"level": "modality", "knn_clean": 0.972, "knn_pgd": 0.614, "p_base_holm": 0.0123},
            {"level": "finding", "knn_clean": 0.718, "knn_pgd": 0.036},
            model=MODELS[0],
            n=87,
            knn_pgd_low=0.026,
            knn_pgd_high=0.906,
            shift=1.456,
            vqa_clean=0.967,
            vqa_pgd=0.247,
            passes=1_234_567,
            status="complete",
        ),
        "defences": rows(
            defences.DEFENCES,
            {
                "against": "pixels",
                "clean": 0.947,
                "plain": 0.421,
                "adaptive": 0.211,
                "p_holm": 0.0313,
                "abstained": 0.158,
            },
            {
                "against": "words",
                "plain": 0.789,
                "adaptive": 0.526,
                "p_holm": 0.62,
                "silent": 0.553,
                "silent_difference": -0.027,
                "silent_low": -0.092,
                "silent_high": 0.037,
                "p_silent_holm": 0.84,
                "any_words": 0.447,
                "followed": 0.105,
                "followed_silent": 0.079,
                "abstained": 0.132,
            },
            model=MODELS[0],
            defence="loop",
            n=38,
            clean_difference=-0.053,
            p_clean_holm=0.5,
            adaptive_low=0.111,
            adaptive_high=0.363,
            difference=0.184,
            ci_low=0.079,
            ci_high=0.316,
            passes=2.25,
        ),
        "abstention": rows(
            abstention.ABSTENTION,
            {"image": "sound", "lacks": "no", "n": 100, "abstained": 0.014},
            {"image": "blank", "lacks": "yes", "n": 30, "abstained": 0.1},
            {"image": "lesion", "lacks": "yes", "n": 10, "abstained": 0.5},
            model=MODELS[0],
        ),
        "chain_summary": rows(
            chain.CHAIN_SUMMARY, {}, model=MODELS[0], condition="plain", n=60, joint=0.867, ci_low=0.7, ci_high=0.9
        ),
        "cost": pd.DataFrame(
            {
                "stage": ["sft", "attack"],
                "model": MODELS[:2],
                "wall_s": [3600.0, 5400.0],
                "forward_passes": [1, 2_345_678],
                "backward_passes": [1, 2],
                "peak_rss_mb": [900, 1100],
            }
        ),
    }


def tables_of_seeds() -> dict[str, pd.DataFrame]:
    """Tables of the same study, were its models trained with three seeds."""
    means = {"sft-instruct": (0.905, 0.125, 0.035), "at-grpo-instruct": (0.935, 0.875, 0.865)}
    return {
        "seeds": rows(
            seeds.SEEDS,
            *(
                {"method": model.removesuffix("-instruct"), "condition": condition, "mean": mean}
                for model, of_model in means.items()
                for condition, mean in zip(("clean", "pgd", "worst case"), of_model, strict=True)
            ),
            variant="instruct", measure="accuracy", trainings=3, missing=0, least=0.021, greatest=0.962, low=0.011,
            high=0.973,
        ),
        "seed_comparisons": rows(
            seed_comparisons.SEED_COMPARISONS,
            {"first": "sft-instruct", "second": "at-grpo-instruct"},
            {"first": "at-grpo-no-reward-instruct", "second": "at-grpo-instruct", "difference": -0.055,
             "ci_low": -0.085, "ci_high": -0.025, "seeds_low": -0.095, "seeds_high": -0.015},
            {"first": "at-grpo-no-reward-instruct", "second": "at-grpo-instruct", "images": "clean",
             "difference": -0.065, "ci_low": -0.095, "ci_high": -0.035, "seeds_low": -0.105, "seeds_high": -0.025},
            family="methods", images="worst case", trainings=3, n=100, failed=0, difference=-0.835, least=-0.91,
            greatest=-0.78, ci_low=-0.93, ci_high=-0.74, seeds_low=-0.95, seeds_high=-0.72, p=0.0001, p_holm=0.0002,
        ),
    }  # fmt: skip


def provenance(*commits: str | None) -> dict:
    """What a study's provenance.json holds of what the page says."""
    hardware = {"host": "node", "cpu": "Some CPU", "cores": 2, "memory_mb": 8192, "gpus": []}
    return {
        "config": {
            "study": "small",
            "seed": 7,
            "further_seeds": [],
            "variants": ["instruct"],
            "evaluations": ["attack", "stress"],
            "study_methods": ["sft", "at-grpo-no-reward", "at-grpo"],
            "methods": {"at-grpo": {}, "at-grpo-no-reward": {}, "sft": {}},
            "attack": {"headline_eps": 8, "suite": ["pgd", "apgd-t"], "questions": 100},
            "stress": {"attack": "pgd"},
            "model": {"name": "tiny"},
            "data": {"source": None, "image_size": 64},
        },
        "products": {
            product.place: fingerprint(product.script, product.module)
            for product in (*products.TABLES, *products.FIGURES)
        },
        "environments": [{"python": "3.11.7", "packages": {"torch": "2.13.0"}, "hardware": hardware}],
        "results": {
            f"results/small/{i}": {
                "script": "attack.py",
                "arguments": {"seed": 7},
                "environment": 0,
                "code": {"commit": commit, "hash": fingerprint("attack.py")},
                "finished": f"2026-01-0{i + 1}T00:00:00+00:00",
            }
            for i, commit in enumerate(commits)
        },
    }
