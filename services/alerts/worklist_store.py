"""Rows about what waits to be read: studies with their findings, patients' snapshots and history, and workitems."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from osler.common.v1 import common_pb2
from osler.imaging.v1 import imaging_pb2
from sqlalchemy import BigInteger, Column, Float, Index, LargeBinary, Row, String, Table, Text, insert, select, update
from sqlalchemy.orm import Session

from services.alerts.worklist.priority import Reason
from services.platform.tables import UtcDateTime, room_metadata

metadata = room_metadata()

STUDY = Table(
    "alerts_study",
    metadata,
    Column("study_instance_uid", String(64), primary_key=True),
    Column("patient_key", String(64), nullable=False, index=True),
    # The key that the images came with; tells what a merge that is taken back gives back.
    Column("announced_key", String(64), nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("manifest_ref", LargeBinary, nullable=False),
    Column("modalities", String(255), nullable=False),
    Column("study_time", UtcDateTime),
    Column("arrived_at", UtcDateTime, nullable=False),
    Column("findings_revision", BigInteger, nullable=False),
    Column("findings", LargeBinary, nullable=False),
)

PATIENT = Table(
    "alerts_patient",
    metadata,
    Column("patient_key", String(64), primary_key=True),
    Column("snapshot_revision", BigInteger, nullable=False),
    Column("snapshot_ref", LargeBinary, nullable=False),
    Column("history_json", Text, nullable=False),
)

WORKITEM = Table(
    "alerts_workitem",
    metadata,
    Column("workitem_uid", String(64), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("study_instance_uid", String(64), nullable=False, index=True),
    Column("patient_key", String(64), nullable=False, index=True),
    Column("announced_key", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("transaction_uid", String(64), nullable=False),
    # DICOM JSON of what a client gave; what Osler knows stands in the columns.
    Column("dataset_json", Text, nullable=False),
    Column("urgency", Float, nullable=False),
    Column("reasons_json", Text, nullable=False),
    Column("arrived_at", UtcDateTime, nullable=False),
    Column("due_at", UtcDateTime, nullable=False),
    Column("performer", String(255), nullable=False),
    Column("started_at", UtcDateTime),
    Column("ended_at", UtcDateTime),
    Column("updated_at", UtcDateTime, nullable=False),
    Index("ix_alerts_workitem_state_due_at", "state", "due_at"),
)

# States that end a workitem (PS3.4 table CC.1.1-2).
FINAL = ("COMPLETED", "CANCELED")


@dataclass(frozen=True)
class Study:
    """One study as announced. `findings` is empty until imaging has spoken."""

    study_instance_uid: str
    patient_key: str
    revision: int
    manifest: common_pb2.BlobRef
    modalities: tuple[str, ...]
    study_time: datetime | None
    arrived_at: datetime
    findings: imaging_pb2.StudyFindings


@dataclass(frozen=True)
class PatientRow:
    """The newest snapshot of a patient, and what it says about urgency."""

    patient_key: str
    snapshot_revision: int
    snapshot: common_pb2.BlobRef
    history: tuple[Reason, ...]


@dataclass(frozen=True)
class Workitem:
    """Something to be done about a study or an order. `dataset`: DICOM JSON of what a client gave.

    `kind`: "reading", "acquisition" or "other"; `state`: as in (0074,1000).
    """

    workitem_uid: str
    kind: str
    study_instance_uid: str
    patient_key: str
    state: str
    arrived_at: datetime
    due_at: datetime
    urgency: float
    reasons: tuple[Reason, ...]
    transaction_uid: str = ""
    dataset: dict[str, Any] = field(default_factory=dict)
    performer: str = ""
    started_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def open(self) -> bool:
        return self.state not in FINAL


def _nothing_yet(patient_key: str, now: datetime) -> dict[str, Any]:
    return {
        "patient_key": patient_key,
        "announced_key": patient_key,
        "revision": 0,
        "manifest_ref": b"",
        "modalities": "",
        "study_time": None,
        "arrived_at": now,
        "findings_revision": 0,
        "findings": b"",
    }


def save_study(
    session: Session,
    uid: str,
    patient_key: str,
    revision: int,
    manifest: common_pb2.BlobRef,
    modalities: Sequence[str],
    study_time: datetime | None,
    arrived_at: datetime,
) -> bool:
    """Keeps the newest word about a study. False when this or a newer revision is known."""
    row = session.execute(select(STUDY).where(STUDY.c.study_instance_uid == uid)).first()
    if row is not None and row.revision >= revision:
        return False
    values = {
        "revision": revision,
        "manifest_ref": manifest.SerializeToString(),
        "modalities": "\\".join(modalities),
        "study_time": study_time,
    }
    if row is None:
        rest = _nothing_yet(patient_key, arrived_at)
        session.execute(insert(STUDY).values({"study_instance_uid": uid, **rest, **values}))
    else:
        session.execute(update(STUDY).where(STUDY.c.study_instance_uid == uid).values(values))
    return True


def save_findings(session: Session, findings: imaging_pb2.StudyFindings, now: datetime) -> bool:
    """Keeps the newest findings; topics are read side by side, so they may come before their study. False when older."""
    uid = findings.study_instance_uid
    row = session.execute(select(STUDY.c.findings_revision).where(STUDY.c.study_instance_uid == uid)).first()
    if row is not None and row.findings_revision > findings.study_revision:
        return False
    values = {"findings_revision": findings.study_revision, "findings": findings.SerializeToString(deterministic=True)}
    if row is None:
        rest = _nothing_yet(findings.patient_key, now)
        session.execute(insert(STUDY).values({"study_instance_uid": uid, **rest, **values}))
    else:
        session.execute(update(STUDY).where(STUDY.c.study_instance_uid == uid).values(values))
    return True


def _study(row: Row[Any]) -> Study:
    return Study(
        row.study_instance_uid,
        row.patient_key,
        row.revision,
        common_pb2.BlobRef.FromString(row.manifest_ref),
        tuple(part for part in row.modalities.split("\\") if part),
        row.study_time,
        row.arrived_at,
        imaging_pb2.StudyFindings.FromString(row.findings),
    )


def find_study(session: Session, uid: str) -> Study | None:
    row = session.execute(select(STUDY).where(STUDY.c.study_instance_uid == uid)).first()
    return _study(row) if row else None


def studies_of(session: Session, patient_key: str) -> list[Study]:
    """Studies of a patient, oldest first; those without a time come first."""
    rows = session.execute(select(STUDY).where(STUDY.c.patient_key == patient_key)).all()
    oldest = datetime.min.replace(tzinfo=UTC)
    return sorted((_study(row) for row in rows), key=lambda s: (s.study_time or oldest, s.study_instance_uid))


def save_patient(session: Session, patient: PatientRow) -> bool:
    """Keeps the newest snapshot. False when a newer one is known."""
    known = select(PATIENT.c.snapshot_revision).where(PATIENT.c.patient_key == patient.patient_key)
    row = session.execute(known).first()
    if row is not None and row.snapshot_revision > patient.snapshot_revision:
        return False
    values = {
        "snapshot_revision": patient.snapshot_revision,
        "snapshot_ref": patient.snapshot.SerializeToString(),
        "history_json": _reasons_json(patient.history),
    }
    if row is None:
        session.execute(insert(PATIENT).values({"patient_key": patient.patient_key, **values}))
    else:
        session.execute(update(PATIENT).where(PATIENT.c.patient_key == patient.patient_key).values(values))
    return True


def find_patient(session: Session, patient_key: str) -> PatientRow | None:
    row = session.execute(select(PATIENT).where(PATIENT.c.patient_key == patient_key)).first()
    if row is None:
        return None
    snapshot = common_pb2.BlobRef.FromString(row.snapshot_ref)
    return PatientRow(row.patient_key, row.snapshot_revision, snapshot, _reasons(row.history_json))


def adopt(session: Session, tables: Sequence[Table], patient_key: str, merged_keys: Collection[str]) -> None:
    """Gives a patient what came with its keys, and gives back what came with a key that is no longer one of them."""
    keys = {patient_key, *merged_keys}
    for table in tables:
        ours = table.c.announced_key.in_(keys)
        session.execute(update(table).where(ours).values(patient_key=patient_key))
        strangers = (table.c.patient_key == patient_key) & ~ours
        session.execute(update(table).where(strangers).values(patient_key=table.c.announced_key))


def _reasons_json(reasons: Sequence[Reason]) -> str:
    return json.dumps([asdict(reason) for reason in reasons], ensure_ascii=False)


def _reasons(text: str) -> tuple[Reason, ...]:
    return tuple(Reason(**row) for row in json.loads(text))


def _workitem(row: Row[Any]) -> Workitem:
    return Workitem(
        row.workitem_uid,
        row.kind,
        row.study_instance_uid,
        row.patient_key,
        row.state,
        row.arrived_at,
        row.due_at,
        row.urgency,
        _reasons(row.reasons_json),
        row.transaction_uid,
        json.loads(row.dataset_json),
        row.performer,
        row.started_at,
        row.ended_at,
    )


def save_workitem(session: Session, item: Workitem) -> None:
    """Writes a workitem, new or known."""
    values = {
        "kind": item.kind,
        "study_instance_uid": item.study_instance_uid,
        "patient_key": item.patient_key,
        "state": item.state,
        "transaction_uid": item.transaction_uid,
        "dataset_json": json.dumps(item.dataset, ensure_ascii=False),
        "urgency": item.urgency,
        "reasons_json": _reasons_json(item.reasons),
        "arrived_at": item.arrived_at,
        "due_at": item.due_at,
        "performer": item.performer,
        "started_at": item.started_at,
        "ended_at": item.ended_at,
        "updated_at": datetime.now(UTC),
    }
    here = WORKITEM.c.workitem_uid == item.workitem_uid
    if session.execute(select(WORKITEM.c.workitem_uid).where(here)).first() is None:
        identity = {"workitem_uid": item.workitem_uid, "announced_key": item.patient_key}
        session.execute(insert(WORKITEM).values({**identity, **values}))
    else:
        session.execute(update(WORKITEM).where(here).values(values))


def find_workitem(session: Session, uid: str) -> Workitem | None:
    row = session.execute(select(WORKITEM).where(WORKITEM.c.workitem_uid == uid)).first()
    return _workitem(row) if row else None


def workitems(
    session: Session,
    *,
    kinds: Sequence[str] = (),
    states: Sequence[str] = (),
    study_uid: str = "",
    patient_key: str = "",
    limit: int = 10_000,
) -> list[Workitem]:
    """Workitems that fit every given condition, soonest due first."""
    query = select(WORKITEM)
    if kinds:
        query = query.where(WORKITEM.c.kind.in_(kinds))
    if states:
        query = query.where(WORKITEM.c.state.in_(states))
    if study_uid:
        query = query.where(WORKITEM.c.study_instance_uid == study_uid)
    if patient_key:
        query = query.where(WORKITEM.c.patient_key == patient_key)
    query = query.order_by(WORKITEM.c.due_at, WORKITEM.c.arrived_at, WORKITEM.c.workitem_uid).limit(limit)
    return [_workitem(row) for row in session.execute(query)]


def set_urgency(
    session: Session, item: Workitem, urgency: float, reasons: Sequence[Reason], due_at: datetime
) -> Workitem:
    """The workitem with a new place on the list."""
    moved = replace(item, urgency=urgency, reasons=tuple(reasons), due_at=due_at)
    save_workitem(session, moved)
    return moved
