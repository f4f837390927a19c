"""From recorded events of many patients to the figures that an analyst reads."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from osler.advisor.v1 import advisor_pb2
from osler.common.v1 import common_pb2
from osler.events.v1 import events_pb2
from osler.fusion.v1 import fusion_pb2
from osler.imaging.v1 import imaging_pb2
from osler.ingest.v1 import ingest_pb2
from osler.twin.v1 import twin_pb2

from services.advisor.tables import table as advisor_table
from services.analytics import export, figures, lake
from services.clinical.provenance import timestamp
from services.platform.errors import OslerError
from services.platform.events import Event, pack
from tests.fixtures.dicom_files import instance
from tests.unit.analytics.conftest import Lake

START = datetime(2026, 1, 5, 8, tzinfo=UTC)
PATIENTS = 80


def at(days: float) -> Timestamp:
    return timestamp(START + timedelta(days=days))


def event(message: object, source: str, key: str, name: str, days: float) -> Event:
    made = pack(message, source=source, key=key, id=f"{key}-{name}", time=START + timedelta(days=days))  # type: ignore[arg-type]
    return Event(**{**made.__dict__, "known_time": START + timedelta(days=days)})


def updated(lake_of: Lake, key: str, sex: str, born: str, merged: tuple[str, ...] = ()) -> Event:
    snapshot = fusion_pb2.PatientSnapshot(patient_key=key, revision=1)
    snapshot.demographics.sex, snapshot.demographics.birth_date = sex, born
    snapshot.demographics.family_name = "Doe"
    blob = lake_of.blobs.put(snapshot.SerializeToString(), "application/protobuf", "snapshot")
    message = events_pb2.PatientUpdated(patient_key=key, revision=1, snapshot=blob, merged_patient_keys=merged)
    return event(message, "fusion", key, "updated", 0)


def study(lake_of: Lake, key: str, uid: str, scanner: str, days: float = 0, modality: str = "CT") -> Event:
    stream = BytesIO()
    instance(study=uid, Manufacturer="Acme", ManufacturerModelName=scanner, InstitutionName="Ward 3").save_as(stream)
    content = lake_of.blobs.put(stream.getvalue(), "application/dicom", "instance")
    manifest = ingest_pb2.StudyManifest(study_instance_uid=uid, patient_key=key, revision=1)
    manifest.series.add(series_instance_uid="1", modality=modality).instances.add(sop_instance_uid="1", content=content)
    blob = lake_of.blobs.put(manifest.SerializeToString(), "application/protobuf", "manifest")
    message = events_pb2.StudyReceived(
        patient_key=key, study_instance_uid=uid, revision=1, manifest=blob, modalities=[modality], study_time=at(days)
    )
    return event(message, "ingest", key, f"study-{uid}", days)


def findings(key: str, uid: str, verdict: str, suv: float, days: float) -> Event:
    message = events_pb2.FindingsReady()
    found = message.findings
    found.patient_key, found.study_instance_uid, found.study_revision = key, uid, 1
    found.quality.add(series_instance_uid="1", verdict=f"QUALITY_VERDICT_{verdict}")
    finding = found.findings.add(study_instance_uid=uid, kind=imaging_pb2.FINDING_KIND_LESION)
    finding.provenance.method = "pet@1"
    finding.measurements.add(concept=common_pb2.Code(display="SUVmax"), value=common_pb2.Quantity(value=suv, unit="1"))
    return event(message, "imaging", key, f"findings-{uid}", days)


@pytest.fixture
def hospital(lake_of: Lake) -> Path:
    """80 patients: men are scanned on a worse scanner, and its SUV doubles in the last month."""
    draw = np.random.default_rng(7)

    def events() -> Iterator[Event]:
        for n in range(PATIENTS):
            key, man, late = f"p{n}", n % 2 == 0, n >= PATIENTS // 2
            uid, days = f"1.2.{n}", 100.0 if late else 1.0
            yield updated(lake_of, key, "male" if man else "female", "1925-03-01" if n == 0 else "1970-03-01")
            yield study(lake_of, key, uid, "Old" if man else "New", days)
            suv = float(draw.lognormal(2 if late else 1, 0.3))
            yield findings(key, uid, "REJECT" if man and n % 3 else "ACCEPT", suv, days)

    lake_of.fill(events())
    return lake_of.folder


def test_groups_come_from_chart_and_images_and_nothing_else_does(hospital: Path) -> None:
    (row,) = lake.query(hospital, "SELECT sex, age, site, manufacturer, scanner FROM studies WHERE patient_key = 'p1'")
    assert row == {"sex": "female", "age": "40-64", "site": "Ward 3", "manufacturer": "Acme", "scanner": "New"}
    born = lake.query(hospital, "SELECT birth_year FROM people WHERE key = 'p0'")[0]["birth_year"]
    assert born == datetime.now(UTC).year - 90
    text = "".join(str(pq.read_table(file).to_pylist()) for file in hospital.rglob("*.parquet"))
    assert "Acme" in text
    for secret in ("Doe", "MRN-1", "19600101", "1970-03-01", "Roe"):
        assert secret not in text


def test_fairness_shows_who_is_rejected_more_often(hospital: Path) -> None:
    by_sex = {row.group: row for row in figures.fairness_of(hospital, "rejected", "sex")}
    assert by_sex["female"].events == 0
    assert by_sex["male"].differs
    assert {row.group for row in figures.fairness_of(hospital, "lesion", "scanner")} == {"Old", "New"}
    with pytest.raises(ValueError, match="unknown attribute"):
        figures.fairness_of(hospital, "rejected", "patient_key")  # type: ignore[arg-type]


def test_drift_of_a_measurement_is_found_by_its_name(hospital: Path) -> None:
    rows = figures.drift_of(hospital, START + timedelta(days=50))
    assert [(row.signal, row.verdict) for row in rows] == [("measurement: SUVmax [1], pet@1", "alarm")]
    assert figures.drift_of(hospital, START + timedelta(days=500))[0].verdict == "too few"


def recommended(key: str, days: float, due: float, code: str = "77477000") -> Event:
    message = events_pb2.RecommendationReady()
    message.advice.patient_key, message.advice.snapshot_revision = key, int(days) + 1
    rule = message.advice.recommendations.add(
        rule_id="next_step.stable", summary="CT", urgency=advisor_pb2.URGENCY_INFO
    )
    rule.proposed_order.code = code
    rule.due_at.CopyFrom(at(due))
    return event(message, "advisor", key, f"advice-{days}", days)


def test_adherence_follows_a_patient_through_a_merge(lake_of: Lake) -> None:
    lake_of.fill(
        [
            recommended("a", 0, 60), recommended("a", 2, 60), study(lake_of, "a", "1.1", "New", 55),
            recommended("b", 0, 60), study(lake_of, "b2", "1.2", "New", 70), updated(lake_of, "b2", "male", "", ("b",)),
            recommended("c", 0, 60), study(lake_of, "c", "1.3", "New", 75),
            recommended("d", 0, 60), study(lake_of, "d", "1.4", "New", 55, modality="MR"),
            recommended("e", 0, 5000), recommended("f", 0, 60, code="1"),
        ]
    )  # fmt: skip
    rows = lake.query(lake_of.folder, "SELECT patient_key, outcome FROM adherence ORDER BY patient_key")
    assert [(row["patient_key"], row["outcome"]) for row in rows] == [
        ("a", "done"), ("b", "done"), ("c", "not done"), ("d", "not done"), ("e", "open"),
    ]  # fmt: skip


def test_order_modalities_are_those_that_are_proposed() -> None:
    proposed = {order["code"] for order in advisor_table("imaging_steps.yaml")["orders"].values()}
    connection = lake.connect(Path("nowhere"))
    assert {row[0] for row in connection.execute("SELECT code FROM order_modality").fetchall()} == proposed


def feedback(card: str, outcome: str, days: float, patient: str = "p", rule: str = "duplicate.recent") -> Event:
    message = events_pb2.AlertFeedback(
        patient_key=patient, card_id=card, rule_id=rule, outcome=outcome, outcome_at=at(days)
    )
    return event(message, "alerts", patient, f"{card}-{days}", days)


def test_the_last_word_on_a_card_counts_and_a_repeated_study_was_not_avoided(lake_of: Lake) -> None:
    lake_of.fill(
        [
            feedback("1", "overridden", 0), feedback("1", "accepted", 1), feedback("2", "overridden", 0),
            feedback("3", "accepted", 0, patient="q"), study(lake_of, "q", "1.9", "New", 3),
        ]
    )  # fmt: skip
    assert lake.query(lake_of.folder, "SELECT rule_id, answered, accepted FROM alert_acceptance") == [
        {"rule_id": "duplicate.recent", "answered": 3, "accepted": 2}
    ]
    (row,) = lake.query(lake_of.folder, "SELECT warnings, accepted, avoided FROM duplicates_avoided")
    assert row == {"warnings": 3, "accepted": 2, "avoided": 1}


def predicted(key: str, days: float, seen: list[tuple[float, float]], probability: float) -> Event:
    message = events_pb2.PredictionReady()
    message.predictions.patient_key, message.predictions.snapshot_revision = key, int(days) + 1
    forecast = message.predictions.forecasts.add(quantity="sum")
    for when, value in seen:
        forecast.observed.add(at=at(when), value=value)
    last = seen[-1][1]
    for when in (days, days + 200):
        band = {"median": last, "lower_50": last - 1, "upper_50": last + 1, "lower_90": last - 4, "upper_90": last + 4}
        forecast.curve.append(twin_pb2.CurvePoint(at=at(when), **band))
    forecast.progression_by.add(by=at(days + 50), probability=probability)
    return event(message, "twin", key, f"prediction-{days}", days)


def judged(key: str, days: float, category: str) -> Event:
    message = events_pb2.RecommendationReady()
    message.advice.patient_key, message.advice.snapshot_revision = key, int(days) + 1
    response = message.advice.responses.add(criterion="RECIST 1.1")
    response.visits.add(at=at(days), category=f"RESPONSE_CATEGORY_{category}")
    return event(message, "advisor", key, f"judged-{days}", days)


def test_forecasts_are_held_beside_what_came_later(lake_of: Lake) -> None:
    lake_of.fill(
        [
            predicted("p", 0, [(0, 20)], 0.9), predicted("p", 70, [(0, 20), (70, 23)], 0.9), judged("p", 40, "PROGRESSIVE"),
            predicted("q", 0, [(0, 20)], 0.2), predicted("q", 70, [(0, 20), (70, 30)], 0.9), judged("q", 60, "STABLE"),
        ]
    )  # fmt: skip
    (row,) = figures.coverage_of(lake_of.folder)
    assert (row.forecasts, row.inside_90, row.inside_50, row.median_absolute_error) == (2, 0.5, 0.0, pytest.approx(6.5))
    found = figures.calibration_of(lake_of.folder)
    assert found is not None
    assert (found.count, found.brier) == (2, pytest.approx((0.1**2 + 0.2**2) / 2))


def test_small_cells_lose_their_figures_on_the_way_out(lake_of: Lake, tmp_path: Path) -> None:
    lake_of.fill(
        [feedback(str(n), "accepted", 0, rule="a") for n in range(12)]
        + [feedback(f"b{n}", "overridden", 0, rule="b") for n in range(4)]
    )
    rows = {row["rule_id"]: row for row in export.rows_of(lake_of.folder, "alert_acceptance")}
    assert (rows["a"]["answered"], rows["a"]["suppressed"]) == (12, False)
    assert rows["b"] == dict.fromkeys(rows["b"]) | {"rule_id": "b", "suppressed": True}
    assert export.write(lake_of.folder, "alert_acceptance", tmp_path / "x.csv") == 2
    assert "b" in (tmp_path / "x.csv").read_text(encoding="utf-8")
    for view, out in (("findings", "x.csv"), ("volumes", "x.docx")):
        with pytest.raises(OslerError):
            export.write(lake_of.folder, view, tmp_path / out)
