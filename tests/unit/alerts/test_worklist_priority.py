"""Who is read first, why, and that nobody starves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from osler.advisor.v1 import advisor_pb2
from osler.fusion.v1 import fusion_pb2
from osler.imaging.v1 import imaging_pb2

from services.alerts import critical
from services.alerts.worklist import priority, signals
from services.alerts.worklist.priority import Place, Reason
from services.clinical.provenance import timestamp

NOW = datetime(2026, 8, 26, 12, 0, tzinfo=UTC)
URGENCY = st.floats(0.0, 1.0, allow_nan=False, allow_subnormal=False)
SECONDS = st.integers(0, 10**7)


def test_routine_has_a_reason_too() -> None:
    judged = priority.judge([])
    assert judged.urgency == 0.02
    assert [reason.text for reason in judged.reasons] == ["routine"]
    assert judged.band == "LOW"


def test_reasons_combine_and_none_hides_another() -> None:
    judged = priority.judge([Reason("b", 0.3), Reason("a", 0.7)])
    assert judged.urgency == pytest.approx(1 - 0.98 * 0.3 * 0.7, abs=1e-4)
    assert [reason.text for reason in judged.reasons] == ["a", "b"]
    assert judged.band == "HIGH"


def test_the_two_ends_of_the_scale_are_those_of_the_table() -> None:
    assert priority.target(1.0) == timedelta(minutes=15)
    assert priority.target(0.0) == timedelta(minutes=2880)
    # Half way on a logarithmic scale: sqrt(15 * 2880) minutes.
    assert priority.target(0.5).total_seconds() == pytest.approx(60 * (15 * 2880) ** 0.5, abs=1)


@pytest.mark.parametrize("urgency", [-0.01, 1.01])
def test_an_urgency_outside_its_range_is_an_error(urgency: float) -> None:
    with pytest.raises(ValueError, match="outside"):
        priority.target(urgency)


@given(URGENCY, URGENCY)
def test_the_more_urgent_is_never_due_later(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert priority.target(high) <= priority.target(low)


@settings(max_examples=50)
@given(URGENCY, SECONDS, st.lists(st.tuples(URGENCY, SECONDS), max_size=20))
def test_what_comes_later_than_the_bound_is_never_read_first(
    urgency: float, at: int, others: list[tuple[float, int]]
) -> None:
    """The proof that nobody starves: only what arrived within the bound can come before a study, whatever its urgency."""

    def place(name: str, level: float, seconds: int) -> Place:
        arrived = NOW + timedelta(seconds=seconds)
        return Place(name, arrived, arrived + priority.target(level))

    mine = place("mine", urgency, at)
    order = priority.in_order([mine, *(place(f"{n:02d}", *other) for n, other in enumerate(others))])
    ahead = order[: order.index(mine)]
    assert all(other.arrived_at <= mine.arrived_at + priority.overtaking_bound() for other in ahead)


@settings(max_examples=50)
@given(st.lists(st.tuples(URGENCY, SECONDS), min_size=1, max_size=20), st.randoms(use_true_random=False))
def test_the_order_depends_on_nothing_but_the_work(rows: list[tuple[float, int]], dice) -> None:
    places = [
        Place(f"{n:02d}", NOW + timedelta(seconds=s), NOW + timedelta(seconds=s) + priority.target(u))
        for n, (u, s) in enumerate(rows)
    ]
    shuffled = list(places)
    dice.shuffle(shuffled)
    assert priority.in_order(shuffled) == priority.in_order(places)


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (timedelta(minutes=5), "waiting 5 min, due in 55 min"),
        (timedelta(hours=2, minutes=3), "waiting 2 h 03 min, 1 h 03 min late"),
        (timedelta(days=3), "waiting 3 d 0 h, 2 d 23 h late"),
    ],
)
def test_waiting_in_words(after: timedelta, words: str) -> None:
    assert priority.waiting(NOW, NOW + timedelta(hours=1), NOW + after) == words


def finding(words: str = "", code: str = "", **more: str) -> imaging_pb2.Finding:
    found = imaging_pb2.Finding(finding_id="f1", kind=imaging_pb2.FINDING_KIND_LESION)
    found.finding_type.system, found.finding_type.code, found.finding_type.display = (
        "http://snomed.info/sct",
        code,
        words,
    )
    for name, text in more.items():
        getattr(found, name).display = text
    return found


@pytest.mark.parametrize(
    ("made", "rule", "category"),
    [
        (finding("Tension pneumothorax"), "tension-pneumothorax", "immediate"),
        (finding("Pneumothorax"), "pneumothorax", "hours"),
        (finding("", "36118008"), "pneumothorax", "hours"),
        (finding("", "59282003"), "pulmonary-embolism", "immediate"),
        (finding("Acute subdural haematoma"), "intracranial-haemorrhage", "immediate"),
    ],
)
def test_critical_findings_are_known_by_code_or_words(made: imaging_pb2.Finding, rule: str, category: str) -> None:
    (result,) = critical.find([made], None, "1.2")
    assert (result.rule, result.category, result.source) == (rule, category, "f1")


def test_a_finding_that_is_not_critical_is_not_proposed() -> None:
    assert critical.find([finding("Neoplasm", "108369006")], None, "1.2") == []


def test_the_place_of_a_critical_finding_is_told() -> None:
    (result,) = critical.find([finding("Pneumothorax", laterality="Left", site="Lung")], None, "1.2")
    assert result.statement == "Pneumothorax, left lung"


def test_progression_counts_for_the_study_that_shows_it_and_is_history_for_others() -> None:
    advice = advisor_pb2.PatientAdvice(patient_key="p")
    advice.responses.add(
        criterion="RECIST 1.1", label="PD", category=advisor_pb2.RESPONSE_CATEGORY_PROGRESSIVE, current_study_uid="1.2"
    )
    (here,) = critical.find([], advice, "1.2")
    assert (here.category, here.statement) == ("days", "Progression of disease (RECIST 1.1 PD)")
    assert critical.find([], advice, "1.3") == []
    assert [r.text for r in signals.of_study(None, advice, "1.3")] == ["RECIST 1.1 PD at an earlier visit"]


def test_advice_is_critical_for_the_study_that_its_evidence_is_from() -> None:
    advice = advisor_pb2.PatientAdvice(patient_key="p")
    item = advice.recommendations.add(
        recommendation_id="r", rule_id="lung_rads.4B", summary="Lung-RADS 4B", category="screening",
        urgency=advisor_pb2.URGENCY_CRITICAL,
    )  # fmt: skip
    item.evidence.add(statement="solid nodule 16 mm", entry_ids=["e1"])
    (here,) = critical.find([], advice, "1.2", {"e1", "e2"})
    assert (here.rule, here.category, here.statement) == (
        "suspicious-nodule",
        "days",
        "Suspicious pulmonary nodule: Lung-RADS 4B",
    )
    assert critical.find([], advice, "1.2", {"e3"}) == []
    item.urgency = advisor_pb2.URGENCY_WARNING
    assert critical.find([], advice, "1.2", {"e1"}) == []


@pytest.mark.parametrize(
    ("minutes", "to", "overdue"),
    [
        (0, "ordering clinician", False),
        (14, "ordering clinician", False),
        (15, "clinician covering for the ordering clinician", False),
        (30, "consultant on call of the treating service", False),
        (60, "head of imaging on call", False),
        (61, "head of imaging on call", True),
    ],
)
def test_escalation_follows_the_clock(minutes: int, to: str, overdue: bool) -> None:
    now = critical.escalation("immediate", NOW, NOW + timedelta(minutes=minutes))
    assert (now.to, now.overdue, now.deadline) == (to, overdue, NOW + timedelta(minutes=60))


def test_every_category_gives_more_time_than_the_one_before() -> None:
    rows = list(critical.categories().values())
    assert [row.within for row in rows] == sorted(row.within for row in rows)
    assert all(row.escalation[0].after == timedelta(0) for row in rows)


def snapshot(*entries: fusion_pb2.TimelineEntry) -> fusion_pb2.PatientSnapshot:
    return fusion_pb2.PatientSnapshot(patient_key="p", revision=1, entries=entries)


def test_history_speaks_by_code_sets_and_says_so() -> None:
    cancer = fusion_pb2.TimelineEntry(entry_id="1", kind=fusion_pb2.ENTRY_KIND_CONDITION, title="Cancer of colon")
    cancer.codes.add(system="http://snomed.info/sct", code="363406005")
    assert [r.text for r in signals.of_history(snapshot(cancer), NOW)] == ["history of cancer"]
    cancer.status = fusion_pb2.ENTRY_STATUS_RETRACTED
    assert signals.of_history(snapshot(cancer), NOW) == []


def test_an_emergency_encounter_counts_while_it_lasts() -> None:
    stay = fusion_pb2.TimelineEntry(entry_id="1", kind=fusion_pb2.ENTRY_KIND_ENCOUNTER, title="Visit")
    stay.codes.add(system="http://terminology.hl7.org/CodeSystem/v3-ActCode", code="EMER")
    stay.effective_at.CopyFrom(timestamp(NOW - timedelta(hours=3)))
    assert [r.text for r in signals.of_history(snapshot(stay), NOW)] == ["in the emergency department"]
    assert signals.of_history(snapshot(stay), NOW + timedelta(days=31)) == []
    stay.effective_end.CopyFrom(timestamp(NOW - timedelta(hours=1)))
    assert signals.of_history(snapshot(stay), NOW) == []


def test_images_that_cannot_be_used_move_a_study_up() -> None:
    found = imaging_pb2.StudyFindings(study_instance_uid="1.2", patient_key="p")
    found.quality.add(series_instance_uid="1", verdict=imaging_pb2.QUALITY_VERDICT_ACCEPT)
    found.quality.add(series_instance_uid="2", verdict=imaging_pb2.QUALITY_VERDICT_REJECT)
    (reason,) = signals.of_study(found, None, "1.2")
    assert reason.weight == 0.35
