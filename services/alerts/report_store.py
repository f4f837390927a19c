"""Rows about reports: each version as it was made, who signed what, and critical results until they are acknowledged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, Row, String, Table, Text, insert, select, update
from sqlalchemy.orm import Session

from services.alerts.reports.communication import Communication, Step
from services.alerts.reports.model import Report, from_json, to_json
from services.alerts.worklist_store import metadata
from services.platform.tables import UtcDateTime

REPORT = Table(
    "alerts_report",
    metadata,
    Column("report_id", String(36), primary_key=True),
    Column("study_instance_uid", String(64), nullable=False, unique=True),
    Column("patient_key", String(64), nullable=False, index=True),
    Column("announced_key", String(64), nullable=False),
    Column("latest_version", Integer, nullable=False),
    # 0 while nobody has signed.
    Column("signed_version", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
)

# Append-only but for the signature: what a reader changed is the difference between versions.
VERSION = Table(
    "alerts_report_version",
    metadata,
    Column("report_id", String(36), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("author", String(255), nullable=False),
    # "machine" or "person".
    Column("author_kind", String(16), nullable=False),
    Column("made_at", UtcDateTime, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("body_sha256", String(64), nullable=False),
    Column("signed_by", String(255), nullable=False),
    Column("signed_at", UtcDateTime),
)

COMMUNICATION = Table(
    "alerts_communication",
    metadata,
    Column("task_id", String(36), primary_key=True),
    Column("report_id", String(36), nullable=False, index=True),
    Column("study_instance_uid", String(64), nullable=False),
    Column("patient_key", String(64), nullable=False, index=True),
    Column("announced_key", String(64), nullable=False),
    Column("category", String(16), nullable=False),
    Column("statement", Text, nullable=False),
    Column("found_at", UtcDateTime, nullable=False),
    Column("state", String(16), nullable=False),
    Column("recipient", String(255), nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Index("ix_alerts_communication_state_found_at", "state", "found_at"),
)

# What was done about a critical result, append-only.
COMMUNICATION_STEP = Table(
    "alerts_communication_step",
    metadata,
    Column("step_id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("task_id", String(36), nullable=False, index=True),
    Column("at", UtcDateTime, nullable=False),
    Column("by", String(255), nullable=False),
    Column("action", String(32), nullable=False),
    Column("detail", Text, nullable=False),
)


@dataclass(frozen=True)
class ReportRow:
    """A report's place. `signed_version` is 0 while nobody has signed."""

    report_id: str
    study_instance_uid: str
    patient_key: str
    latest_version: int
    signed_version: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class VersionRow:
    """One version. `author_kind`: "machine" or "person"; `signed_at` is None for what nobody signed."""

    report_id: str
    version: int
    author: str
    author_kind: str
    made_at: datetime
    report: Report
    body_sha256: str
    signed_by: str
    signed_at: datetime | None


def _report(row: Row[Any]) -> ReportRow:
    return ReportRow(
        row.report_id,
        row.study_instance_uid,
        row.patient_key,
        row.latest_version,
        row.signed_version,
        row.created_at,
        row.updated_at,
    )


def add_report(session: Session, report_id: str, report: Report, at: datetime) -> None:
    """An empty place for the versions of a report."""
    session.execute(
        insert(REPORT).values(
            report_id=report_id,
            study_instance_uid=report.study_instance_uid,
            patient_key=report.patient_key,
            announced_key=report.patient_key,
            latest_version=0,
            signed_version=0,
            created_at=at,
            updated_at=at,
        )
    )


def find_report(session: Session, report_id: str) -> ReportRow | None:
    row = session.execute(select(REPORT).where(REPORT.c.report_id == report_id)).first()
    return _report(row) if row else None


def report_of_study(session: Session, study_uid: str) -> ReportRow | None:
    row = session.execute(select(REPORT).where(REPORT.c.study_instance_uid == study_uid)).first()
    return _report(row) if row else None


def reports(session: Session, limit: int = 200) -> list[ReportRow]:
    """The newest reports first."""
    rows = session.execute(select(REPORT).order_by(REPORT.c.updated_at.desc()).limit(limit))
    return [_report(row) for row in rows]


def add_version(session: Session, version: VersionRow) -> bool:
    """Appends a version after `version.version - 1`. False when somebody else appended first."""
    previous = version.version - 1
    moved = (
        update(REPORT)
        .where(REPORT.c.report_id == version.report_id, REPORT.c.latest_version == previous)
        .values(latest_version=version.version, updated_at=version.made_at)
        .returning(REPORT.c.report_id)
    )
    if session.execute(moved).first() is None:
        return False
    session.execute(
        insert(VERSION).values(
            report_id=version.report_id,
            version=version.version,
            author=version.author,
            author_kind=version.author_kind,
            made_at=version.made_at,
            body=to_json(version.report),
            body_sha256=version.body_sha256,
            signed_by="",
            signed_at=None,
        )
    )
    return True


def _version(row: Row[Any]) -> VersionRow:
    return VersionRow(
        row.report_id,
        row.version,
        row.author,
        row.author_kind,
        row.made_at,
        from_json(row.body),
        row.body_sha256,
        row.signed_by,
        row.signed_at,
    )


def versions(session: Session, report_id: str) -> list[VersionRow]:
    """All versions, oldest first."""
    rows = session.execute(select(VERSION).where(VERSION.c.report_id == report_id).order_by(VERSION.c.version))
    return [_version(row) for row in rows]


def sign(session: Session, report_id: str, version: int, by: str, at: datetime) -> bool:
    """Signs the latest version. False when it is not the latest any more, or is signed."""
    moved = (
        update(REPORT)
        .where(REPORT.c.report_id == report_id, REPORT.c.latest_version == version, REPORT.c.signed_version < version)
        .values(signed_version=version, updated_at=at)
        .returning(REPORT.c.report_id)
    )
    if session.execute(moved).first() is None:
        return False
    here = (VERSION.c.report_id == report_id) & (VERSION.c.version == version)
    session.execute(update(VERSION).where(here).values(signed_by=by, signed_at=at))
    return True


def _communication(row: Row[Any]) -> Communication:
    return Communication(
        row.task_id,
        row.report_id,
        row.study_instance_uid,
        row.patient_key,
        row.category,
        row.statement,
        row.found_at,
        row.state,
        row.recipient,
    )


def add_communication(session: Session, item: Communication, step: Step) -> bool:
    """A new task; False when it is known."""
    if find_communication(session, item.task_id) is not None:
        return False
    values = {**asdict(item), "announced_key": item.patient_key, "updated_at": step.at}
    session.execute(insert(COMMUNICATION).values(values))
    _add_step(session, item.task_id, step)
    return True


def move_communication(session: Session, before: Communication, after: Communication, step: Step) -> bool:
    """Writes a step and the state that follows. False when the state changed meanwhile."""
    moved = (
        update(COMMUNICATION)
        .where(COMMUNICATION.c.task_id == before.task_id, COMMUNICATION.c.state == before.state)
        .values(state=after.state, recipient=after.recipient, updated_at=step.at)
        .returning(COMMUNICATION.c.task_id)
    )
    if session.execute(moved).first() is None:
        return False
    _add_step(session, before.task_id, step)
    return True


def _add_step(session: Session, task_id: str, step: Step) -> None:
    session.execute(insert(COMMUNICATION_STEP).values({"task_id": task_id, **asdict(step)}))


def find_communication(session: Session, task_id: str) -> Communication | None:
    row = session.execute(select(COMMUNICATION).where(COMMUNICATION.c.task_id == task_id)).first()
    return _communication(row) if row else None


def communications(
    session: Session, *, states: Sequence[str] = (), report_id: str = "", limit: int = 1000
) -> list[Communication]:
    """Tasks, oldest first."""
    query = select(COMMUNICATION)
    if states:
        query = query.where(COMMUNICATION.c.state.in_(states))
    if report_id:
        query = query.where(COMMUNICATION.c.report_id == report_id)
    return [_communication(row) for row in session.execute(query.order_by(COMMUNICATION.c.found_at).limit(limit))]


def steps(session: Session, task_id: str) -> list[Step]:
    """What was done about a result, oldest first."""
    query = select(COMMUNICATION_STEP).where(COMMUNICATION_STEP.c.task_id == task_id)
    rows = session.execute(query.order_by(COMMUNICATION_STEP.c.step_id))
    return [Step(row.at, row.by, row.action, row.detail) for row in rows]
