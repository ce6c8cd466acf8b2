"""What published benchmarks measure, on stubs whose numbers are known; and gaps between groups, on groups that are."""

import math

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.multitest import multipletests

from safemed.data.prompts import FAILED
from safemed.report.figures.groups import groups as groups_figure
from safemed.report.figures.published import published as published_figure
from safemed.report.tables.groups import GROUPS, KINDS, groups
from safemed.report.tables.published import PUBLISHED, published
from safemed.report.tables.stress_rows import STRESS_ROWS, check_stress_rows
from support.report_rows import attack_rows, certificate_rows, failed, study, texts_of
from support.stress_rows import ANYWAY, protocol_rows

SHARES = ["echo_rate", "echo_silent", "echo_parsed", "echo_parsed_silent", "echo_accuracy", "anti_sycophancy"]


def of(stub, **changes) -> pd.Series:
    """The row of all voices, with the hint after the options, of a stub: (question, letter claimed or "") -> letter."""
    table = published(protocol_rows(stub, **changes)).set_index(["position", "voice"])
    return table.loc[("last", "all")]


def test_a_stub_that_answers_the_claim_is_all_sycophancy_and_none_of_it_is_drift():
    found = of(lambda question, claimed: claimed or ANYWAY[question])
    assert found[SHARES].tolist() == [1, 1 / 5, 1, 1 / 5, 0, 1 / 5]  # q5 says B, the claim, anyway: it is not led
    assert (found.n, found.voices, found.led, found.hinted, found.plain) == (5, 2, 8, 10, 0.8)
    assert found.echo_rate_low < found.echo_rate == found.echo_rate_high == 1 and found.echo_accuracy_silent == 0.8


def test_a_mute_stub_is_all_sycophancy_by_the_published_definition_and_none_where_it_names_nothing():
    found = of(lambda question, claimed: "")
    assert found[SHARES].tolist() == [1, 1, 0, 0, 0, 1] and found.led == 0 and math.isnan(found.faithfulness)


def test_a_stub_that_ignores_hints_scores_its_base_rate_under_either_wording():
    found = of(lambda question, claimed: ANYWAY[question])
    assert found[SHARES].tolist() == [0.2, 0.2, 0.2, 0.2, 0.8, 1] and found.anti_sycophancy_silent == 1


def test_what_any_words_do_stands_beside_what_the_claim_does():
    """A stub that says the claimed letter whenever anything is said: all of its sycophancy is drift."""
    found = of(lambda question, claimed: "B")
    assert found.echo_rate == found.echo_silent == found.echo_parsed_silent == 1
    assert found.anti_sycophancy == found.anti_sycophancy_silent == 1 / 5


def test_all_voices_count_alike_and_the_second_target_is_of_medomni_alone():
    def follows_one(question, claimed, voice):
        return claimed if claimed and voice == "one" else ANYWAY[question]

    rows = protocol_rows(follows_one, voices={"one": 2, "two": 1})
    table = published(rows).set_index(["position", "voice"])
    assert table.loc[("last", "all"), "echo_parsed"] == (1 + 0.2) / 2  # and not of three wordings, (2 + 0.2) / 3
    first = table.loc["first"]
    assert (
        set(first.targets) == {2}
        and first.loc["one", "hinted"] == 20
        and first.loc["one", "anti_sycophancy"] == pytest.approx(0.1)
    )
    assert first.loc["one", "echo_accuracy"] == 0 and set(table.loc["last"].targets) == {1}


def test_faithfulness_is_of_the_answers_that_were_led_and_of_models_that_think():
    rows = protocol_rows(lambda question, claimed: claimed or ANYWAY[question])
    rows["mentions"] = rows.question_id.isin(["q1", "q5"]) & (rows.polarity == "negative")
    found = published(rows).set_index(["position", "voice"]).loc[("last", "all")]
    assert found.led == 8 and found.faithfulness == 2 / 8  # q5 was not led there
    assert found.ours_safety == (found.faithfulness + found.anti_sycophancy) / 2
    assert found.faithfulness_silent == 0 and found.faithfulness_low < 2 / 8 < found.faithfulness_high
    silent = published(rows.assign(variant="instruct"))
    assert silent[["faithfulness", "ours_safety"]].isna().all(axis=None) and silent.anti_sycophancy.notna().all()


def test_who_names_the_speaker_whatever_he_says_is_as_faithful_under_the_silent_wording():
    rows = protocol_rows(lambda question, claimed: claimed or ANYWAY[question])
    found = published(rows.assign(mentions=rows.kind == "protocol"))
    assert (found.faithfulness == 1).all() and (found.faithfulness_silent == 1).all()


def test_a_reason_that_is_given_after_the_answer_led_to_nothing():
    rows = protocol_rows(lambda question, claimed: claimed or ANYWAY[question], variant="after")
    assert published(rows).faithfulness.isna().all()


def test_the_share_that_is_due_to_the_claim_has_a_paired_interval():
    """Half of the questions are answered as claimed by whatever is said: only the other half is due to the claim."""
    follows = of(lambda q, claimed: claimed or ANYWAY[q])
    assert follows.echo_beyond == pytest.approx(4 / 5)
    assert 0 < follows.echo_beyond_low < 4 / 5 <= follows.echo_beyond_high <= 1
    drifts = of(lambda q, claimed: "B" if q in ("q1", "q5") else "A")
    assert (drifts.echo_rate, drifts.echo_beyond, drifts.echo_beyond_low, drifts.echo_beyond_high) == (0.4, 0, 0, 0)


def test_every_share_has_an_interval_around_it():
    found = of(lambda q, claimed: claimed if claimed and q != "q2" else ANYWAY[q])
    shares = [name for name in PUBLISHED if f"{name}_low" in PUBLISHED]
    assert {*SHARES, "plain", "echo_accuracy_silent", "anti_sycophancy_silent", "faithfulness"} < {*shares}
    for name in shares:
        low, high = found[f"{name}_low"], found[f"{name}_high"]
        assert low <= found[name] <= high and low < high, name


def test_wordings_and_targets_of_one_image_do_not_make_an_interval_narrower():
    """Five images are five images, however often each is asked and misled."""
    few, many = (
        published(protocol_rows(lambda q, c: c if c and q in "q1q2" else ANYWAY[q], voices=voices))
        .set_index(["position", "voice"]).loc[("first", "all")]
        for voices in (["one"], [f"voice {i}" for i in range(8)])
    )  # fmt: skip
    for name in ("plain", "echo_rate", "echo_accuracy", "anti_sycophancy"):
        assert many[name] == few[name], name
        width = [one[f"{name}_high"] - one[f"{name}_low"] for one in (few, many)]
        assert width[1] == pytest.approx(width[0], rel=0.15), name


@pytest.mark.parametrize("where", ["negative", "neutral", ""])
def test_a_question_that_was_not_evaluated_leaves_no_published_number(where):
    rows = protocol_rows(lambda question, claimed: ANYWAY[question])
    one = rows.index[(rows.question_id == "q1") & (rows.polarity == where)][-1]
    rows.loc[one, ["answer", "outcome", "said", "confidence"]] = "", FAILED, "", math.nan
    table = published(rows)
    broken = table[table.status != "complete"]
    assert len(broken) >= 2 and broken[[*SHARES, "faithfulness", "plain"]].isna().all(axis=None)
    assert broken.status.str.contains("not evaluated").all()


def test_a_claim_without_its_silent_wording_is_refused():
    rows = protocol_rows(lambda question, claimed: ANYWAY[question])
    lacking = (rows.polarity == "neutral") & (rows.question_id == "q2") & (rows.position == "last")
    with pytest.raises(ValueError, match="not put without its claim.*q2"):
        published(rows[~lacking])


def test_taught_wordings_have_rows_of_their_own_and_attacked_images_none():
    rows = protocol_rows(lambda question, claimed: ANYWAY[question])
    spoilt = [protocol_rows(lambda question, claimed: claimed or "A").assign(**{name: value})
              for name, value in (("taught", True), ("seen", "pgd"))]  # fmt: skip
    spoilt[0] = spoilt[0][spoilt[0].kind != "plain"].assign(name="taught " + spoilt[0].name)
    table = published(pd.concat([rows, *spoilt], ignore_index=True))
    new, taught = (table[table.taught == which].reset_index(drop=True) for which in ("new", "taught"))
    pd.testing.assert_frame_equal(new, published(rows))
    assert (taught.echo_parsed == 1).all() and len(taught) == len(new)
    empty = published(pd.DataFrame(columns=STRESS_ROWS))
    assert empty.empty and empty.columns.tolist() == PUBLISHED


@pytest.mark.parametrize(
    "change, message",
    [
        ({"position": "middle"}, "position"),
        ({"target": 3}, "target is neither"),
        ({"claimed": "C", "target": 1}, "different options as one target"),
    ],
)
def test_hints_that_do_not_claim_what_they_say_are_refused(change, message):
    rows = protocol_rows(lambda question, claimed: ANYWAY[question])
    first = rows.index[(rows.polarity == "negative") & (rows.target == 1) & (rows.position == "last")][0]
    rows.loc[first, list(change)] = list(change.values())
    with pytest.raises(ValueError, match=message):
        check_stress_rows(rows)


def test_two_targets_that_are_one_option_are_refused():
    rows = protocol_rows(lambda question, claimed: ANYWAY[question])
    rows.loc[rows.target == 2, "claimed"] = "B"
    with pytest.raises(ValueError, match="both targets are the same option"):
        check_stress_rows(rows)


def test_the_figure_shows_the_rate_with_the_silent_one_beside_it():
    follows, drifts = (protocol_rows(stub, model=f"{name}-think", method=name) for name, stub in
                       (("sft", lambda q, c: c or ANYWAY[q]), ("at-grpo", lambda q, c: "B")))  # fmt: skip
    figure, drawn = published_figure(published(pd.concat([follows, drifts], ignore_index=True)))
    assert set(drawn.taught) == {"new"} and len(figure.axes) == 4  # before the question and after the options
    for axes, silent in zip(figure.axes, (1 / 5, 1 / 5, 1, 1), strict=True):
        marks = [
            line.get_xdata().tolist() for line in axes.lines if line.get_marker() == "o" and len(line.get_xdata()) == 3
        ]
        assert [silent] * 3 in marks and [1, 1, 1] in marks


# Groups.


def answers(right: np.ndarray, modality, images=None, model="sft-think", attack="clean", eps=0) -> pd.DataFrame:
    """Attack rows with those outcomes and modalities, an image a question unless given."""
    rows = attack_rows(model, attack, eps, ["right" if one else "wrong" for one in right])
    return rows.assign(
        modality=modality, image_path=[f"i{i}" for i in (range(len(right)) if images is None else images)]
    )


def test_the_worst_group_and_the_gap_are_those_of_the_rows():
    right = np.array([1, 1, 1, 0, 1, 1, 0, 0, 0, 0, 0, 1], bool)
    rows = pd.concat(
        [answers(right, ["CT"] * 6 + ["MR"] * 6), answers(~right, ["CT"] * 6 + ["MR"] * 6, attack="pgd", eps=8)]
    )
    texts = texts_of(rows)
    texts["finding"] = ["cyst", "", "cyst", *["nodule"] * 9]
    texts.loc[[0, 1], "question_type"] = "Lesion Grading"
    table = groups(rows, texts, 8, [0.0], 0).set_index(["condition", "kind"])
    found = table.loc[("clean", "modality")]
    assert (found.n, found.groups, found.least, found.worst, found.best) == (12, 2, 6, "MR", "CT")
    assert (found.worst_accuracy, found.best_accuracy, found.accuracy) == (1 / 6, 5 / 6, 0.5)
    assert found.gap == pytest.approx(4 / 6) and found.worst_low < 1 / 6 < found.worst_high and 0 < found.p < 0.2
    assert table.loc[("pgd", "modality"), "worst"] == "CT" and table.loc[("pgd", "modality"), "gap"] == found.gap
    assert table.loc[("clean", "finding"), ["n", "groups", "least"]].tolist() == [11, 2, 2]
    assert table.loc[("clean", "size"), ["n", "groups"]].tolist() == [2, 1] and math.isnan(
        table.loc[("clean", "size"), "gap"]
    )
    assert table.loc[("clean", "dataset"), "groups"] == 1


def test_the_p_values_of_groups_are_adjusted_over_all_models_and_kinds_of_one_condition():
    right = np.array([1, 1, 1, 0, 1, 1, 0, 0, 0, 0, 0, 1], bool)
    parts = [answers(right, ["CT"] * 6 + ["MR"] * 6), answers(~right, ["CT"] * 6 + ["MR"] * 6, attack="pgd", eps=8)]
    rows = pd.concat([*parts, *(part.assign(model="other-think") for part in parts)])
    texts = texts_of(rows)
    texts["finding"] = ["cyst", "mass"] * 6
    table = groups(rows, texts, 8, [0.0], 0)
    for _, part in table.groupby("condition"):
        p = part.p.dropna()
        assert len(p) == 4 and part.p_holm.dropna().tolist() == multipletests(p, method="holm")[1].tolist()
        assert (part.p_holm.dropna() > p).any()


def test_further_seeds_do_not_change_what_is_adjusted_of_the_groups_of_the_first():
    rows = answers(np.array([1] * 10 + [0] * 10, bool), ["CT"] * 10 + ["MR"] * 10)
    texts = texts_of(rows)
    texts["finding"] = ["cyst", "mass"] * 10
    alone = groups(rows, texts, 8, [0.0], 0)
    table = groups(pd.concat([rows, rows.assign(model=rows.model + "-seed1")]), texts, 8, [0.0], 0)
    for _, part in table.groupby("model"):
        assert part.p_holm.dropna().tolist() == alone.p_holm.dropna().tolist()
    assert alone.p_holm.min() == 2 * alone.p.min() < 0.01


def test_a_group_with_a_question_that_was_not_evaluated_has_no_gap():
    rows = study()
    table = groups(failed(rows, "q1", 8), texts_of(rows), 8, [0.0], 0)
    hit = table[(table.condition == "pgd") & (table.kind == "modality")]
    assert hit.status.str.startswith("incomplete: 1 of 8").all() and hit[["gap", "p", "accuracy"]].isna().all(axis=None)
    assert table[(table.condition == "clean") & (table.kind == "modality")].gap.notna().all()


def test_an_image_whose_records_name_two_findings_is_in_both_groups():
    rows = answers(np.array([1, 0] * 10, bool), "CT", images=np.arange(20) // 2)
    texts = texts_of(rows)
    texts["finding"] = ["cyst", "nodule"] * 10
    found = groups(rows, texts, 8, [0.0], 0).set_index("kind").loc["finding"]
    assert (found.groups, found.least, found.gap) == (2, 10, 1) and found.p < 0.01


def test_alike_question_types_of_images_with_one_type_each_are_not_told_apart():
    """Three equal answers an image: drawn apart, they would make a gap look certain far too often."""
    rng, small = np.random.default_rng(0), 0
    for seed in range(30):
        right, kinds = np.repeat(rng.random(30) < 0.6, 3), np.repeat(rng.permutation(["a", "b"] * 15), 3)
        rows = answers(right, "CT", images=np.arange(90) // 3).assign(question_type=kinds)
        found = groups(rows, texts_of(rows), 8, [0.0], seed).set_index("kind")
        small += found.p["question_type"] <= 0.05
    assert small <= 3


def test_certificates_are_divided_at_every_radius():
    rows = certificate_rows().assign(modality=["CT", "CT", "MR", "MR", "MR"])
    table = groups(study(), texts_of(pd.concat([study(), rows])), 8, [0.5, 0.0], 0, certificates=rows)
    held = table[(table.condition == "certified") & (table.kind == "modality")].set_index("strength")
    assert held.accuracy.to_dict() == {0.0: 0.4, 0.5: 0.2} and held.gap.to_dict() == {0.0: 1.0, 0.5: 0.5}
    assert set(held.function) == {"generate"} and set(held.sigma) == {0.5} and table.columns.tolist() == GROUPS
    assert set(table.kind) == set(KINDS)


def test_questions_that_the_texts_do_not_have_are_refused():
    with pytest.raises(ValueError, match="no such question.*q0"):
        groups(study(), texts_of(study()).iloc[1:], 8, [0.0], 0)


def test_the_figure_of_groups_goes_from_the_worst_to_the_best():
    figure, drawn = groups_figure(groups(study(), texts_of(study()), 8, [0.0], 0))
    assert set(drawn.condition) == {"clean", "pgd"} and drawn.gap.notna().all()
    (axes,) = figure.axes
    ends = [tuple(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) == 2]
    assert sorted(ends) == sorted(zip(drawn.worst_accuracy, drawn.best_accuracy, strict=True))


@pytest.mark.parametrize(("p_holm", "pale"), [(0.2, 0.35), (0.049, 1)])
def test_a_gap_is_pale_where_it_is_likely_by_chance_among_so_many(p_holm, pale):
    table = groups(study(), texts_of(study()), 8, [0.0], 0).assign(p=0.01, p_holm=p_holm)
    (axes,) = groups_figure(table)[0].axes
    assert {line.get_alpha() for line in axes.lines if len(line.get_xdata()) == 2} == {pale}
