"""What the board knows: the latest word of each room about each patient, and where the images are."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from osler.advisor.v1 import advisor_pb2
from osler.common.v1 import common_pb2
from osler.imaging.v1 import imaging_pb2
from osler.registration.v1 import registration_pb2
from osler.twin.v1 import twin_pb2
from sqlalchemy import Table, delete, insert, select, update
from sqlalchemy.orm import Session

from services.board.tables import ANALYSIS, CASE, GRANT, ITEM, READ, REGISTRATION, RESTRICTION, REVIEW, STUDY, TASK
from services.board.tables import metadata as metadata  # read by the migrations


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
    """Images, reviews, meetings and readings of a merged patient belong to the survivor; their own page ends.

    A restriction of either holds for the survivor.
    """
    session.execute(delete(CASE).where(CASE.c.patient_key == merged))
    restricted = select(RESTRICTION.c.patient_key)
    if session.execute(restricted.where(RESTRICTION.c.patient_key == survivor)).first() is None:
        moved = update(RESTRICTION).where(RESTRICTION.c.patient_key == merged)
        session.execute(moved.values(patient_key=survivor))
    for table in (STUDY, REGISTRATION, ANALYSIS, REVIEW, ITEM, TASK, GRANT, READ):
        session.execute(update(table).where(table.c.patient_key == merged).values(patient_key=survivor))


def unmerge(session: Session, survivor: str, merged: str) -> None:
    """Images that came with another key than the survivor's go back to it, with what was found in them and said of that;
    a registration of two patients' images goes. A restriction holds for both; meetings and grants stay where they are."""
    away = STUDY.c.came_with != survivor
    query = select(STUDY.c.study_instance_uid, STUDY.c.came_with).where(STUDY.c.patient_key == survivor, away)
    for uid, key in session.execute(query).all():
        for table in (STUDY, ANALYSIS, REVIEW):
            session.execute(update(table).where(table.c.study_instance_uid == uid).values(patient_key=key))
    for row in session.execute(select(REGISTRATION).where(REGISTRATION.c.patient_key == survivor)).all():
        _part_registration(session, row)
    restriction = session.execute(select(RESTRICTION).where(RESTRICTION.c.patient_key == survivor)).first()
    if restriction is not None:
        values = {"restricted_by": restriction.restricted_by, "at": restriction.at}
        _put(session, RESTRICTION, "patient_key", merged, values)


def _part_registration(session: Session, row: Any) -> None:
    pair = registration_pb2.Registration.FromString(row.payload).pair
    uids = [pair.fixed.study_instance_uid, pair.moving.study_instance_uid]
    homes = set(session.scalars(select(STUDY.c.patient_key).where(STUDY.c.study_instance_uid.in_(uids))))
    mine = REGISTRATION.c.registration_id == row.registration_id
    if len(homes) > 1:
        session.execute(delete(REGISTRATION).where(mine))
    elif homes:
        session.execute(update(REGISTRATION).where(mine).values(patient_key=homes.pop()))


def save_study(session: Session, study: Study, revision: int) -> None:
    row = session.execute(
        select(STUDY.c.revision).where(STUDY.c.study_instance_uid == study.study_instance_uid)
    ).first()
    if row is not None and row.revision > revision:
        return
    values = {
        "patient_key": study.patient_key,
        "came_with": study.patient_key,
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


def find_study(session: Session, study_instance_uid: str) -> Study | None:
    r = session.execute(select(STUDY).where(STUDY.c.study_instance_uid == study_instance_uid)).first()
    if r is None:
        return None
    return Study(r.study_instance_uid, r.patient_key, common_pb2.BlobRef.FromString(r.manifest_ref), r.study_time)


def save_analysis(session: Session, findings: imaging_pb2.StudyFindings) -> None:
    """Keeps what imaging found in the newest revision of a study."""
    uid = findings.study_instance_uid
    row = session.execute(select(ANALYSIS.c.revision).where(ANALYSIS.c.study_instance_uid == uid)).first()
    if row is not None and row.revision > findings.study_revision:
        return
    values = {
        "patient_key": findings.patient_key,
        "revision": findings.study_revision,
        "payload": findings.SerializeToString(),
    }
    _put(session, ANALYSIS, "study_instance_uid", uid, values)


def analyses(session: Session, patient_key: str) -> dict[str, imaging_pb2.StudyFindings]:
    """What imaging found in each study of a patient."""
    rows = session.execute(select(ANALYSIS).where(ANALYSIS.c.patient_key == patient_key))
    return {r.study_instance_uid: imaging_pb2.StudyFindings.FromString(r.payload) for r in rows}


def analysis(session: Session, study_instance_uid: str) -> imaging_pb2.StudyFindings | None:
    query = select(ANALYSIS.c.payload).where(ANALYSIS.c.study_instance_uid == study_instance_uid)
    payload = session.execute(query).scalar()
    return imaging_pb2.StudyFindings.FromString(payload) if payload else None


def add_review(session: Session, values: dict[str, Any]) -> None:
    session.execute(insert(REVIEW).values(values))


def reviews(session: Session, patient_key: str) -> list[Any]:
    """Rows of every review of a patient's findings, oldest first."""
    return list(session.execute(select(REVIEW).where(REVIEW.c.patient_key == patient_key).order_by(REVIEW.c.at)))


def reviews_of_study(session: Session, study_instance_uid: str) -> list[Any]:
    query = select(REVIEW).where(REVIEW.c.study_instance_uid == study_instance_uid).order_by(REVIEW.c.at)
    return list(session.execute(query))


def stamps(session: Session, patient_keys: Sequence[str]) -> dict[str, str]:
    """When each case last changed, as text to compare."""
    rows = session.execute(select(CASE.c.patient_key, CASE.c.updated_at).where(CASE.c.patient_key.in_(patient_keys)))
    return {r.patient_key: r.updated_at.isoformat() for r in rows}
