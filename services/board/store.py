"""What the board knows: the latest word of each room about each patient, and where the images are."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from osler.advisor.v1 import advisor_pb2
from osler.common.v1 import common_pb2
from osler.registration.v1 import registration_pb2
from osler.twin.v1 import twin_pb2
from sqlalchemy import BigInteger, Column, Float, Index, LargeBinary, String, Table, delete, insert, select, update
from sqlalchemy.orm import Session

from services.platform.tables import UtcDateTime, room_metadata

metadata = room_metadata()

CASE = Table(
    "board_case",
    metadata,
    Column("patient_key", String(64), primary_key=True),
    Column("snapshot_revision", BigInteger, nullable=False),
    Column("snapshot_ref", LargeBinary, nullable=False),
    Column("predictions", LargeBinary, nullable=False),
    Column("advice", LargeBinary, nullable=False),
    Column("priority", Float, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Index("ix_board_case_priority", "priority"),
)

STUDY = Table(
    "board_study",
    metadata,
    Column("study_instance_uid", String(64), primary_key=True),
    Column("patient_key", String(64), nullable=False, index=True),
    Column("revision", BigInteger, nullable=False),
    Column("manifest_ref", LargeBinary, nullable=False),
    Column("study_time", UtcDateTime),
)

REGISTRATION = Table(
    "board_registration",
    metadata,
    Column("registration_id", String(64), primary_key=True),
    Column("patient_key", String(64), nullable=False, index=True),
    Column("payload", LargeBinary, nullable=False),
)


class Case(NamedTuple):
    patient_key: str
    snapshot: common_pb2.BlobRef
    predictions: twin_pb2.PatientPredictions
    advice: advisor_pb2.PatientAdvice
    priority: float
    updated_at: datetime


class Study(NamedTuple):
    study_instance_uid: str
    patient_key: str
    manifest: common_pb2.BlobRef
    study_time: datetime | None


def _put(session: Session, table: Table, key: str, identity: str, values: dict[str, Any]) -> None:
    column = table.c[key]
    if session.execute(select(column).where(column == identity)).first() is None:
        session.execute(insert(table).values({key: identity, **values}))
    else:
        session.execute(update(table).where(column == identity).values(values))


def save_snapshot(session: Session, patient_key: str, revision: int, snapshot: common_pb2.BlobRef) -> None:
    """Keeps the newest snapshot."""
    row = session.execute(select(CASE.c.snapshot_revision).where(CASE.c.patient_key == patient_key)).first()
    if row is not None and row.snapshot_revision >= revision:
        return
    _save_part(session, patient_key, {"snapshot_revision": revision, "snapshot_ref": snapshot.SerializeToString()})


def save_predictions(session: Session, predictions: twin_pb2.PatientPredictions) -> None:
    _save_part(session, predictions.patient_key, {"predictions": predictions.SerializeToString()})


def save_advice(session: Session, advice: advisor_pb2.PatientAdvice) -> None:
    """Keeps the advice and the priority that comes with it."""
    _save_part(session, advice.patient_key, {"advice": advice.SerializeToString(), "priority": advice.priority})


_NOTHING_YET: dict[str, Any] = {
    "snapshot_revision": 0,
    "snapshot_ref": b"",
    "predictions": b"",
    "advice": b"",
    "priority": 0.0,
}


def _save_part(session: Session, patient_key: str, values: dict[str, Any]) -> None:
    """Topics are consumed side by side, so any part may come first; within one topic a patient's events are in order."""
    known = session.execute(select(CASE.c.patient_key).where(CASE.c.patient_key == patient_key)).first()
    now = {"updated_at": datetime.now(UTC)}
    if known is None:
        session.execute(insert(CASE).values({"patient_key": patient_key, **_NOTHING_YET, **values, **now}))
    else:
        session.execute(update(CASE).where(CASE.c.patient_key == patient_key).values({**values, **now}))


def merge(session: Session, survivor: str, merged: str) -> None:
    """Images of a merged patient belong to the survivor; their own page ends."""
    session.execute(delete(CASE).where(CASE.c.patient_key == merged))
    for table in (STUDY, REGISTRATION):
        session.execute(update(table).where(table.c.patient_key == merged).values(patient_key=survivor))


def save_study(session: Session, study: Study, revision: int) -> None:
    row = session.execute(
        select(STUDY.c.revision).where(STUDY.c.study_instance_uid == study.study_instance_uid)
    ).first()
    if row is not None and row.revision > revision:
        return
    values = {
        "patient_key": study.patient_key,
        "revision": revision,
        "manifest_ref": study.manifest.SerializeToString(),
        "study_time": study.study_time,
    }
    _put(session, STUDY, "study_instance_uid", study.study_instance_uid, values)


def save_registration(session: Session, registration: registration_pb2.Registration) -> None:
    values = {"patient_key": registration.patient_key, "payload": registration.SerializeToString()}
    _put(session, REGISTRATION, "registration_id", registration.registration_id, values)


def _case(row: Any) -> Case:
    return Case(
        row.patient_key,
        common_pb2.BlobRef.FromString(row.snapshot_ref),
        twin_pb2.PatientPredictions.FromString(row.predictions),
        advisor_pb2.PatientAdvice.FromString(row.advice),
        row.priority,
        row.updated_at,
    )


def cases(session: Session, limit: int = 200) -> list[Case]:
    """Cases with a snapshot, most urgent first."""
    known = select(CASE).where(CASE.c.snapshot_revision > 0)
    rows = session.execute(known.order_by(CASE.c.priority.desc(), CASE.c.updated_at.desc()).limit(limit))
    return [_case(row) for row in rows]


def find_case(session: Session, patient_key: str) -> Case | None:
    known = select(CASE).where(CASE.c.patient_key == patient_key, CASE.c.snapshot_revision > 0)
    row = session.execute(known).first()
    return _case(row) if row else None


def studies(session: Session, patient_key: str) -> Sequence[Study]:
    """Studies of a patient, oldest first."""
    rows = session.execute(select(STUDY).where(STUDY.c.patient_key == patient_key).order_by(STUDY.c.study_time))
    return [
        Study(r.study_instance_uid, r.patient_key, common_pb2.BlobRef.FromString(r.manifest_ref), r.study_time)
        for r in rows
    ]


def registrations(session: Session, patient_key: str) -> list[registration_pb2.Registration]:
    rows = session.execute(select(REGISTRATION.c.payload).where(REGISTRATION.c.patient_key == patient_key)).scalars()
    return [registration_pb2.Registration.FromString(payload) for payload in rows]
