"""The claims table: a verdict follows from its interval alone, and what was not measured is not confirmed."""

import numpy as np
import pandas as pd
import pytest

from safemed.report.results_page import claims, findings
from safemed.report.results_page.findings import Finding
from safemed.report.results_page.study import Study
from support.finished_study import COMMIT, provenance, tables, tables_of_seeds


def study(**changed: pd.DataFrame) -> Study:
    """The finished study with some tables changed, or left out where they are None."""
    made = {name: table for name, table in (tables() | changed).items() if table is not None}
    return Study(made, provenance(COMMIT))


def line(text: str, claim: str) -> list[str]:
    """The cells of the rows of a claim that begins so, joined by |."""
    return [row for row in text.splitlines() if f"| {claim}" in row]


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.01, 0.2, "confirmed"), (-0.2, -0.01, "contradicted here"), (-0.1, 0.1, "not confirmed"),
     (0.0, 0.1, "not confirmed"), (float("nan"), float("nan"), "not confirmed")],
)  # fmt: skip
def test_a_verdict_is_that_of_the_whole_interval(low, high, verdict):
    assert Finding("", 0.05, low, high).verdict == verdict


def test_fine_tuning_collapses_where_less_than_half_is_left_whatever_the_intervals_allow():
    robustness = tables()["robustness"]
    robustness = robustness.assign(
        ci_low=robustness.accuracy - 0.05, ci_high=robustness.accuracy + 0.05
    )  # sft: 91 clean, 12 under pgd
    (found,) = findings.collapse(study(robustness=robustness))
    assert (found.value, found.low, found.high) == pytest.approx((0.335, 0.26, 0.41)) and found.verdict == "confirmed"
    kept = robustness.assign(
        accuracy=robustness.accuracy.where(robustness.attack == "clean", 0.8), ci_low=0.7, ci_high=0.95
    )
    assert next(findings.collapse(study(robustness=kept))).verdict == "contradicted here"


def test_a_difference_is_turned_round_with_its_interval():
    found, clean = findings.rewards(study())
    assert (found.value, found.low, found.high) == pytest.approx(
        (0.05, -0.013, 0.092)
    ) and found.verdict == "not confirmed"
    assert (clean.value, clean.low, clean.high) == pytest.approx((-0.01, -0.043, 0.022))
    (more,) = findings.robust_rewards(study())  # 5 less -1, as far apart as both intervals allow
    assert (more.value, more.low, more.high) == pytest.approx((0.06, -0.035, 0.135))


def test_a_number_over_seeds_is_their_mean_and_its_interval_allows_for_both():
    several = tables_of_seeds()
    robustness = tables()["robustness"]
    robustness = robustness.assign(ci_low=robustness.accuracy - 0.03, ci_high=robustness.accuracy + 0.03)
    (one,) = findings.collapse(study(robustness=robustness))
    (found,) = findings.collapse(study(robustness=robustness, **several))
    rows = several["seeds"].query("method == 'sft' and measure == 'accuracy'").set_index("condition")
    clean, pgd = rows.loc["clean"], rows.loc["pgd"]
    assert found.value == pytest.approx(clean["mean"] / 2 - pgd["mean"]) != one.value
    ends = [np.hypot(0.03, clean["mean"] - clean["low"]) / 2, np.hypot(0.03, pgd["high"] - pgd["mean"])]
    assert found.low == pytest.approx(found.value - sum(ends)) and found.low < one.low


def test_over_several_seeds_both_intervals_must_exclude_0():
    several = tables_of_seeds()
    (found,) = findings.holds(study(**several))
    half = np.hypot([0.095, 0.095], [0.115, 0.115])  # over images and over seeds: their squares add
    assert (found.low, found.high) == pytest.approx(0.835 + np.array([-1, 1]) * half) and found.verdict == "confirmed"
    wide = several["seed_comparisons"].assign(seeds_high=0.1)
    (found,) = findings.holds(study(seeds=several["seeds"], seed_comparisons=wide))
    assert found.low < 0 and found.verdict == "not confirmed"


def test_what_a_study_does_not_measure_is_neither_confirmed_nor_contradicted():
    bare = study(**{name: None for name in tables() if name not in ("robustness", "cost")})
    rows = line(claims.claims([bare]), "Thinking is more robust")
    assert len(rows) == 1 and "| not measured |" in rows[0] and "–" in rows[0]
    written = claims.claims([bare, bare])
    assert len([row for row in written.splitlines() if "| not measured |" in row]) == len(claims.CLAIMS) - 1


def test_every_claim_has_a_source_and_what_would_settle_it():
    for claim in claims.CLAIMS:
        assert "arXiv" in claim.source and claim.says.endswith(".") and claim.settles
        assert claim.found.__doc__


def test_sound_reports_are_held_against_the_most_poisons_of_each_kind_whatever_the_intervals_allow():
    rag = tables()["rag"].query("poison != 'text'").assign(model="sft-rag-instruct")
    poisoned = (rag.poison == "conflict") & (rag.reports == "retrieved")
    rag.loc[poisoned, ["ci_low", "ci_high"]] = (0.5, 0.7)
    fewer = rag[poisoned].assign(per_question=1, accuracy=0.9)
    known = provenance(COMMIT)
    known["config"]["methods"]["sft-rag"] = {}
    (found,) = findings.poisoned(Study(tables() | {"rag": pd.concat([fewer, rag])}, known))
    assert (found.value, found.low, found.high) == pytest.approx((0.33, 0.145, 0.465)) and found.verdict == "confirmed"
    assert not list(findings.poisoned(study()))  # sft was not trained with reports


def test_sycophancy_is_told_for_hints_after_the_options_and_before_the_question():
    published = tables()["published"]
    found = {one.of.rpartition("hint ")[2]: one.value for one in findings.sycophantic(study())}
    rows = published[(published.voice == "all") & (published.taught == "new")].groupby("position").echo_beyond
    assert found == {
        "after the options, as EchoBench's": rows.last()["last"],
        "before the question": rows.last()["first"],
    }


def test_a_difference_without_one_of_its_intervals_confirms_nothing():
    without = tables_of_seeds()["seed_comparisons"].assign(seeds_low=float("nan"), seeds_high=float("nan"))
    found = list(findings.holds(study(**tables_of_seeds() | {"seed_comparisons": without})))
    assert [one.verdict for one in found] == ["not confirmed"]


def test_the_loop_is_held_against_attacks_that_know_it():
    table = tables()["defences"].assign(difference=[0.1, -0.2], ci_low=[0.02, -0.3], ci_high=[0.2, -0.1])
    verdicts = [found.verdict for found in findings.loop(study(defences=table))]
    assert verdicts == ["confirmed", "contradicted here"]


def test_every_other_claim_is_confirmed_by_a_difference_in_its_favour_and_contradicted_by_one_against_it():
    """For each finding: the table, its rows, and the columns of the number and its interval."""
    known = provenance(COMMIT)
    known["config"] |= {
        "variants": ["instruct", "think"],
        "methods": {name: {} for name in ("base", "sft", "at-grpo", "hsat", "acl", "sft-hsat", "sft-acl")},
    }
    own = {"model": "sft-think"}
    cases = {
        findings.smoothing: ("smoothing", [own], "difference", "ci_low", "ci_high"),
        findings.cues: (
            "image_edits", [own | {"kind": "mark", "polarity": "negative", "about": "all", "name": "label"}],
            "beyond", "beyond_low", "beyond_high",
        ),
        findings.sycophantic: (
            "published", [own | {"voice": "all", "taught": "new", "position": "last"}],
            "echo_beyond", "echo_beyond_low", "echo_beyond_high",
        ),
        findings.fooled: (
            "redteam", [own | {"strategy": "adaptive"}], "beyond_random", "beyond_random_low", "beyond_random_high",
        ),
        findings.misled: (
            "redteam", [own | {"strategy": "adaptive"}], "beyond_silent", "beyond_silent_low", "beyond_silent_high",
        ),
        findings.vote_share: (
            "gradient_summary", [own | {"order": "seeded", "estimator": "noise", "seen": "clean"}],
            "beyond", "beyond_low", "beyond_high",
        ),
    }  # fmt: skip
    for found, (name, rows, *columns) in cases.items():
        for sign, verdict in ((1, "confirmed"), (-1, "contradicted here")):
            values = dict(zip(columns, sorted([sign * 0.1, sign * 0.2, sign * 0.3]), strict=True))
            values = dict(zip([columns[1], columns[0], columns[2]], values.values(), strict=True))
            table = pd.DataFrame([row | values for row in rows])
            (one,) = found(Study({name: table}, known))
            assert (one.value, one.verdict) == (sign * 0.2, verdict), found.__name__


def test_claims_of_two_numbers_take_the_one_that_should_be_greater_first():
    known = provenance(COMMIT)
    known["config"] |= {
        "variants": ["instruct", "think"],
        "methods": {name: {} for name in ("base", "sft", "at-grpo", "hsat", "acl", "sft-hsat", "sft-acl")},
    }

    def verdicts(found, name: str, rows: list[dict]) -> list[str]:
        return [one.verdict for one in found(Study({name: pd.DataFrame(rows)}, known))]

    high, low = ({"accuracy": one, "ci_low": one - 0.1, "ci_high": one + 0.1} for one in (0.8, 0.3))
    stages = [{"model": "sft-think", "condition": "plain", "stage": stage} for stage in ("quality", "diagnosis")]
    assert verdicts(findings.degrades, "chain", [stages[0] | high, stages[1] | low]) == ["confirmed"]
    assert verdicts(findings.degrades, "chain", [stages[0] | low, stages[1] | high]) == ["contradicted here"]
    hinted = {"model": "sft-think", "seen": "clean", "voice": "all", "taught": "new"}
    misled = {"sycophancy": 0.8, "sycophancy_low": 0.7, "sycophancy_high": 0.9}
    drifted = {"drift": 0.3, "drift_low": 0.2, "drift_high": 0.4}
    assert verdicts(findings.relies, "hints", [hinted | misled | drifted]) == ["confirmed"]
    joint = {"condition": "plain", "joint": 0.8, "ci_low": 0.7, "ci_high": 0.9}
    less = {"condition": "plain", "joint": 0.3, "ci_low": 0.2, "ci_high": 0.4}
    chains = [{"model": "at-grpo-think"} | joint, {"model": "sft-think"} | less]
    assert verdicts(findings.reasoning, "chain_summary", chains) == ["confirmed"]
    votes = [
        {
            "model": f"{model}-instruct",
            "level": "CT",
            "knn_pgd": one,
            "knn_pgd_low": one - 0.1,
            "knn_pgd_high": one + 0.1,
        }
        for model, one in {"hsat": 0.8, "base": 0.3, "acl": 0.4, "sft": 0.5, "sft-hsat": 0.9, "sft-acl": 0.6}.items()
    ]
    assert verdicts(findings.towers, "towers", votes) == ["confirmed"] * 2
    found = list(findings.hierarchy(Study({"towers": pd.DataFrame(votes)}, known)))
    assert [(one.of.split(", ")[1], round(one.value, 2)) for one in found] == [
        ("hsat-instruct less acl-instruct", 0.4),
        ("sft-hsat-instruct less sft-acl-instruct", 0.3),
    ]


def test_a_certificate_is_held_against_a_model_that_sees_no_image():
    made = tables()
    above = made["certified"].assign(certified_accuracy=0.5, ci_low=0.4, ci_high=0.6)  # blind is right on 34.5 %
    (found,) = findings.certificate(study(certified=above))
    assert found.value == pytest.approx(0.155) and found.verdict == "confirmed"
    (found,) = findings.certificate(study(certified=above.assign(certified_accuracy=0.3, ci_low=0.2, ci_high=0.4)))
    assert found.verdict == "not confirmed"
