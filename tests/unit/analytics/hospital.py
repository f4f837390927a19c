"""A hospital as recorded events, in the rooms' own messages."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from osler.advisor.v1 import advisor_pb2
from osler.common.v1 import common_pb2
from osler.events.v1 import events_pb2
from osler.fusion.v1 import fusion_pb2
from osler.imaging.v1 import imaging_pb2
from osler.ingest.v1 import ingest_pb2
from osler.twin.v1 import twin_pb2

from services.clinical.provenance import timestamp
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


def recommended(key: str, days: float, due: float, code: str = "77477000") -> Event:
    message = events_pb2.RecommendationReady()
    message.advice.patient_key, message.advice.snapshot_revision = key, int(days) + 1
    rule = message.advice.recommendations.add(
        rule_id="next_step.stable", summary="CT", urgency=advisor_pb2.URGENCY_INFO
    )
    rule.proposed_order.code = code
    rule.due_at.CopyFrom(at(due))
    return event(message, "advisor", key, f"advice-{days}", days)


def feedback(card: str, outcome: str, days: float, patient: str = "p", rule: str = "duplicate.recent") -> Event:
    message = events_pb2.AlertFeedback(
        patient_key=patient, card_id=card, rule_id=rule, outcome=outcome, outcome_at=at(days)
    )
    return event(message, "alerts", patient, f"{card}-{days}", days)


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


def hospital_events(lake_of: Lake) -> Iterator[Event]:
    """80 patients: men are scanned on a worse scanner, and SUV more than doubles from day 50 on."""
    draw = np.random.default_rng(7)
    for n in range(PATIENTS):
        key, man, late = f"p{n}", n % 2 == 0, n >= PATIENTS // 2
        uid, days = f"1.2.{n}", 100.0 if late else 1.0
        yield updated(lake_of, key, "male" if man else "female", "1925-03-01" if n == 0 else "1970-03-01")
        yield study(lake_of, key, uid, "Old" if man else "New", days)
        suv = float(draw.lognormal(2 if late else 1, 0.3))
        yield findings(key, uid, "REJECT" if man and n % 3 else "ACCEPT", suv, days)
