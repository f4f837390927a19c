"""RECIST 1.1 over the visits of a lesion table."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.advisor.response.criteria import assess
from services.advisor.response.diameters import assess as recist
from services.advisor.response.lesions import Lesion, Options
from services.platform.errors import RefusedError
from tests.unit.advisor.response.build import course, labels, reasons, visit

OPTIONS = Options()


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((100, 70, 50, 60), ["PR", "PR", "PD"]),  # 20 % from the nadir of 50
        ((100, 70, 50, 59.9), ["PR", "PR", "PR"]),
        ((20, 15, 19), ["SD", "SD"]),  # 4 mm, 27 %
        ((20, 15, 20), ["SD", "PD"]),  # exactly 5 mm
        ((20, 14, 19), ["PR", "PD"]),
        ((100, None, 60), ["NE", "PR"]),
        ((100, 0, 3), ["CR", "PD"]),  # came back after CR (table 3, footnote a)
        ((0.3 + 30, 21.21, 21.22), ["PR", "SD"]),
    ],
)
def test_a_course_of_one_lesion(sizes, expected):
    assert labels(recist(course(*sizes), OPTIONS)) == expected


def test_the_arithmetic_is_spelled_out():
    visits = [
        visit(0, Lesion("a", "liver", 42), Lesion("n", "neck", 28, 20, True)),
        visit(56, Lesion("a", "liver", 25), Lesion("n", "neck", 20, 12, True)),
    ]
    (item,) = recist(visits, OPTIONS).judged
    words = " ".join(item.arithmetic)
    assert "a 42 + n 20 short axis = 62.0 mm" in words
    assert "(37.0 - 62.0) / 62.0 = -40.3 %" in words
    assert "Together: PR (table 1)." in words
    assert (item.baseline, item.current, item.unit) == (62, 37, "mm")


def test_a_node_that_grows_again_after_cr_counts_by_the_sum_alone():
    sizes = (20, 9, 11)
    visits = [visit(56 * index, Lesion("n", "neck", 30, short, True)) for index, short in enumerate(sizes)]
    assert labels(recist(visits, OPTIONS)) == ["CR", "PR"]


@pytest.mark.parametrize(("state", "expected"), [("measured", "PD"), ("present", "PD"), ("equivocal", "SD")])
def test_a_new_lesion_is_progression_unless_doubtful(state, expected):
    new = Lesion("n1", "liver", 8 if state == "measured" else None, state=state, role="new")
    visits = [visit(0, Lesion("a", "lung", 30)), visit(56, Lesion("a", "lung", 29), new)]
    assert labels(recist(visits, OPTIONS)) == [expected]


def test_a_doubtful_new_lesion_that_turns_out_real_dates_back():
    visits = [
        visit(0, Lesion("a", "lung", 30)),
        visit(56, Lesion("a", "lung", 30), Lesion("n1", "liver", state="equivocal")),
        visit(112, Lesion("a", "lung", 30), Lesion("n1", "liver", 14)),
    ]
    answer = recist(visits, OPTIONS)
    assert labels(answer) == ["SD", "PD"]
    assert "doubtful before" in " ".join(answer.judged[1].notes)


def test_non_target_progression_and_tumour_markers():
    base = (Lesion("a", "lung", 30, role="target"), Lesion("b", "bone", role="non-target", state="present"))
    gone = Lesion("a", "lung", state="absent")
    assert labels(recist([visit(0, *base), visit(56, gone, replace(base[1], state="progressed"))], OPTIONS)) == ["PD"]
    clear = [gone, replace(base[1], state="absent")]
    assert labels(recist([visit(0, *base), visit(56, *clear)], OPTIONS)) == ["CR"]
    assert labels(recist([visit(0, *base), visit(56, *clear, tumour_markers="elevated")], OPTIONS)) == ["PR"]


def test_without_measurable_disease_table_2_counts():
    base = Lesion("b", "bone", role="non-target", state="present")
    answer = recist([visit(0, base), visit(56, base), visit(112, replace(base, state="progressed"))], OPTIONS)
    assert labels(answer) == ["non-CR/non-PD", "PD"]
    assert answer.best == "non-CR/non-PD"


def test_split_and_merged_targets_keep_the_sum_honest():
    base = visit(0, Lesion("a", "liver", 40), Lesion("b", "liver", 30))
    split = visit(56, Lesion("a", "liver", 15), Lesion("a2", "liver", 10, part_of="a"), Lesion("b", "liver", 25))
    merged = visit(112, Lesion("a", "liver", 48), Lesion("b", "liver", merged_into="a"))
    answer = recist([base, split, merged], OPTIONS)
    assert [item.current for item in answer.judged] == [50, 48]
    assert labels(answer) == ["SD", "PR"]


def test_progression_stays_and_the_later_visit_says_so():
    answer = recist(course(50, 70, 30), OPTIONS)
    assert labels(answer) == ["PD", "PR"]
    assert "no longer counts" in answer.judged[1].notes[0]
    assert (answer.best, answer.progressed_at) == ("PD", answer.judged[0].at)


@pytest.mark.parametrize(
    ("lesions", "reason"),
    [
        ([Lesion("a", "lung", 9.9, role="target")], "recist.target_not_measurable"),
        ([Lesion("n", "neck", 20, 14.9, True, role="target")], "recist.target_not_measurable"),
        ([Lesion(str(i), f"o{i}", 20, role="target") for i in range(6)], "recist.too_many_targets"),
        ([Lesion(str(i), "lung", 20, role="target") for i in range(3)], "recist.too_many_targets"),
    ],
)
def test_a_baseline_that_contradicts_the_criterion_is_refused(lesions, reason):
    with pytest.raises(RefusedError) as refusal:
        recist([visit(0, *lesions), visit(56, *lesions)], OPTIONS)
    assert refusal.value.reason == reason
    assert "radiologist" in refusal.value.remedy


def test_a_target_that_the_baseline_lacks_makes_the_visit_not_evaluable():
    visits = [
        visit(0, Lesion("a", "lung", 30, role="target")),
        visit(56, Lesion("a", "lung", 30, role="target"), Lesion("b", "liver", 20, role="target")),
    ]
    answer = recist(visits, OPTIONS)
    assert labels(answer) == ["NE"]
    assert "recist.not_at_baseline" in reasons(answer)


def test_a_missing_target_is_named_with_who_supplies_it():
    visits = [visit(0, Lesion("a", "lung", 30), Lesion("b", "liver", 20)), visit(56, Lesion("a", "lung", 10))]
    (item,) = recist(visits, OPTIONS).judged
    (concern,) = item.concerns
    assert (item.label, concern.missing, concern.stops) == ("NE", ("b",), True)
    assert "radiologist" in concern.who
    assert "b not measured; those measured: 10.0 mm" in item.arithmetic[1]
    assert not any("%" in line for line in item.arithmetic)
    assert (item.change_percent, item.from_nadir_percent) == (None, None)


def test_growth_of_the_measured_is_told_beside_a_missing_target():
    visits = [visit(0, Lesion("a", "lung", 30), Lesion("b", "liver", 20)), visit(56, Lesion("a", "lung", 70))]
    (item,) = recist(visits, OPTIONS).judged
    assert any("+40.0 %" in line for line in item.arithmetic)


def test_a_lesion_called_new_at_baseline_is_told():
    visits = [visit(0, Lesion("a", "lung", 30, role="new")), visit(56, Lesion("a", "lung", 30, role="new"))]
    assert "recist.new_at_baseline" in reasons(recist(visits, OPTIONS))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_order_of_visits_and_lesions_does_not_matter(data):
    organs = ("lung", "liver", "bone")
    count = data.draw(st.integers(1, 4))
    visits = []
    for index in range(3):
        sizes = [data.draw(st.one_of(st.none(), st.integers(10, 90))) for _ in range(count)]
        found = [Lesion(f"l{i}", organs[i % 3], size) for i, size in enumerate(sizes) if size is not None]
        visits.append(visit(56 * index, *found))
    shuffled = [
        replace(item, lesions=dict(data.draw(st.permutations(list(item.lesions.items())))))
        for item in data.draw(st.permutations(visits))
    ]
    assert assess("recist1.1", shuffled) == assess("recist1.1", visits)
