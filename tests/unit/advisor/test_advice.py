"""Advice from a snapshot: the next step, safety, priority, and that it can be traced."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import protovalidate
import pytest
from osler.advisor.v1 import advisor_pb2
from osler.common.v1 import common_pb2
from osler.imaging.v1 import imaging_pb2
from osler.twin.v1 import twin_pb2

from services.advisor.advice import advise
from services.clinical import codes
from services.twin.predictions import predict

NOW = datetime(2024, 6, 1, tzinfo=UTC)
BASELINE = datetime(2024, 3, 1, 9, 0, tzinfo=UTC)


def _advise(snapshot, predictions=None):
    made = predictions if predictions is not None else predict(snapshot, "0" * 64, NOW)
    advice = advise(snapshot, made, "0" * 64, NOW)
    protovalidate.validate(advice)
    return advice


def _rule(advice, name):
    (found,) = [item for item in advice.recommendations if item.rule_id == name]
    return found


def _step(advice):
    (found,) = [item for item in advice.recommendations if item.rule_id.startswith("next_step.")]
    return found


def _forecast(probability):
    forecast = twin_pb2.TumourForecast(quantity="Sum", probability_of_progression=probability)
    forecast.curve.add()
    forecast.horizon.FromDatetime(NOW)
    interval = common_pb2.Uncertainty(interval=common_pb2.Interval(lower=1, upper=9, level=0.9))
    forecast.time_to_nadir.CopyFrom(common_pb2.Quantity(value=5, unit="d", uncertainty=interval))
    return twin_pb2.PatientPredictions(patient_key="key-1", snapshot_revision=3, forecasts=[forecast])


@pytest.mark.parametrize(
    ("now_mm", "rule", "urgency"),
    [
        (30, "next_step.response_continues", advisor_pb2.URGENCY_INFO),
        (50, "next_step.stable", advisor_pb2.URGENCY_INFO),
        (80, "next_step.progression", advisor_pb2.URGENCY_WARNING),
        (0, "next_step.complete_response", advisor_pb2.URGENCY_INFO),
    ],
)
def test_the_step_follows_the_response(snapshot, on_ct, now_mm, rule, urgency):
    step = _step(_advise(snapshot([*on_ct("1", 0, {"a": 50}), *on_ct("2", 60, {"a": now_mm})])))
    assert (step.rule_id, step.urgency) == (rule, urgency)
    assert step.proposed_order.code == "77477000"
    assert step.alternatives
    assert all(alternative.reason for alternative in step.alternatives)


@pytest.mark.parametrize(("probability", "weeks"), [(0.5, 6), (0.49, 8), (0.2, 8), (0.19, 12), (None, 8)])
def test_the_forecast_draws_the_interval_inside_the_published_range(snapshot, on_ct, probability, weeks):
    made = snapshot([*on_ct("1", 0, {"a": 50}), *on_ct("2", 60, {"a": 48})])
    empty = twin_pb2.PatientPredictions(patient_key="key-1", snapshot_revision=3)
    step = _step(_advise(made, empty if probability is None else _forecast(probability)))
    assert step.due_at.ToDatetime(UTC) == BASELINE + timedelta(days=60, weeks=weeks)
    assert step.provenance.parameters["weeks"] == str(weeks)
    assert any("forecast" in text for text in step.not_found) is (probability is None)


def test_the_worst_criterion_leads_but_not_evaluable_only_when_alone(snapshot, on_ct, on_pet):
    entries = [
        *on_pet("1", 0, {"a": 10}, liver=None),
        *on_pet("2", 60, {"a": 20}, liver=None),
        *on_ct("1", 0, {"a": 50}),
        *on_ct("2", 60, {"a": 30}),
    ]
    advice = _advise(snapshot(entries))
    assert [response.label for response in advice.responses] == ["NE", "PMD", "PR"]
    step = _step(advice)
    assert step.rule_id == "next_step.progression"
    assert step.proposed_order.code == "450436003"


def test_lesions_seen_once_ask_for_the_first_response_scan(snapshot, on_pet):
    step = _step(_advise(snapshot(on_pet("1", 0, {"a": 10}), as_of_day=5)))
    assert step.rule_id == "next_step.first_response"
    assert step.due_at.ToDatetime(UTC) == BASELINE + timedelta(weeks=8)


def test_a_patient_without_lesions_has_no_imaging_step(snapshot):
    advice = _advise(snapshot(age_years=50.0))
    assert not advice.recommendations
    assert advice.priority == pytest.approx(0.05)


def test_an_overdue_scan_warns_and_says_by_how_much(snapshot, on_ct):
    step = _step(_advise(snapshot(on_ct("1", 0, {"a": 50}), as_of_day=100)))
    assert step.urgency == advisor_pb2.URGENCY_WARNING
    assert "44 days ago" in step.detail
    stable = _step(_advise(snapshot([*on_ct("1", 0, {"a": 50}), *on_ct("2", 60, {"a": 50})], as_of_day=200)))
    assert " was due on 2024-" in stable.summary
    assert " again in " not in stable.summary


def test_poor_kidney_function_reaches_the_imaging_step(snapshot, on_ct):
    made = snapshot(
        [*on_ct("1", 0, {"a": 50}), *on_ct("2", 60, {"a": 30})], creatinine_mg_dl=2.6, age_years=70.0, sex_female=True
    )
    advice = _advise(made)
    assert _rule(advice, "contrast.iodine.egfr_below_30").evidence[0].statement.startswith("eGFR 19")
    step = _step(advice)
    assert "eGFR 19" in step.detail
    assert "MR with a group II gadolinium agent" in [alternative.title for alternative in step.alternatives]


def test_prevent_risk_becomes_a_recommendation(snapshot):
    made = snapshot(
        age_years=60.0,
        sex_female=False,
        systolic_bp_mmhg=150.0,
        total_cholesterol_mg_dl=240.0,
        hdl_mg_dl=40.0,
        diabetes=True,
        current_smoker=True,
        antihypertensive_treatment=False,
        statin_treatment=False,
        creatinine_mg_dl=1.0,
    )
    found = _rule(_advise(made), "risk.prevent.blood_pressure_treatment")
    assert "PREVENT 10-year risk" in found.summary
    assert "entry-systolic_bp_mmhg" in {entry_id for item in found.evidence for entry_id in item.entry_ids}


def _hippocampus(finding, study, day, left, right):
    return [
        finding(study, day, side, {codes.VOLUME: mm3}, kind=imaging_pb2.FINDING_KIND_ORGAN, site=codes.HIPPOCAMPUS)
        for side, mm3 in (("left", left), ("right", right))
        if mm3
    ]


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([("1", 0, 3000, 3000)], {"imaging.hippocampus.second_scan"}),
        ([("1", 0, 3000, 3000), ("2", 365, 2880, 2880)], {"imaging.hippocampus.fast_loss"}),
        ([("1", 0, 3000, 3000), ("2", 365, 2960, 2960)], set()),
        ([("1", 0, 3000, 3000), ("2", 90, 2500, 2500)], set()),
        ([("1", 0, 3000, 3000), ("2", 365, 2880, None)], set()),
    ],
)
def test_hippocampal_volume_over_visits(snapshot, finding, entries, expected):
    made = snapshot([entry for visit in entries for entry in _hippocampus(finding, *visit)], as_of_day=400)
    assert {item.rule_id for item in _advise(made).recommendations} == expected


def test_priority_rises_with_what_is_wrong_and_says_why(snapshot, on_ct):
    response = _advise(snapshot([*on_ct("1", 0, {"a": 50}), *on_ct("2", 60, {"a": 30})]))
    growth = [*on_ct("1", 0, {"a": 50}), *on_ct("2", 60, {"a": 80})]
    progression = _advise(snapshot(growth))
    allergic = _advise(snapshot(growth, iodinated_contrast_allergy=True))
    assert response.priority < progression.priority < allergic.priority < 1
    assert progression.priority_reason.startswith("RECIST 1.1 PD")
    assert "critical" in allergic.priority_reason


def test_the_same_evidence_keeps_its_ids_and_new_evidence_gets_new_ones(snapshot, on_ct):
    entries = [*on_ct("1", 0, {"a": 50}), *on_ct("2", 60, {"a": 30})]
    ids = [[item.recommendation_id for item in _advise(snapshot(entries)).recommendations] for _ in range(2)]
    assert ids[0] == ids[1]
    later = _advise(snapshot([*entries, *on_ct("3", 65, {"a": 29})]))
    assert _step(later).recommendation_id not in ids[0]


def test_everything_can_be_traced(snapshot, on_ct, on_pet):
    entries = [
        *on_ct("1", 0, {"a": 50}),
        *on_ct("2", 60, {"a": 80}),
        *on_pet("1", 0, {"a": 8}),
        *on_pet("2", 60, {"a": 9}),
    ]
    advice = _advise(snapshot(entries, iodinated_contrast_allergy=True, cardiac_device=True, pregnant=True))
    held = {entry.entry_id for entry in entries} | {f"entry-{name}" for name in ("pregnant", "cardiac_device")}
    held.add("entry-iodinated_contrast_allergy")
    for item in [*advice.responses, *advice.recommendations]:
        assert item.provenance.citations
        assert item.provenance.inputs[0].sha256 == "0" * 64
    for item in advice.recommendations:
        assert item.strength
        assert item.evidence
        assert {entry_id for fact in item.evidence for entry_id in fact.entry_ids} <= held
