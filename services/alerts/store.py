"""State of the alerts room: the latest advice of each patient, the cards served, the feedback received."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from osler.advisor.v1 import advisor_pb2
from sqlalchemy import Column, Float, Index, Integer, LargeBinary, String, Table, delete, insert, select, update
from sqlalchemy.orm import Session

import services.alerts.report_store  # noqa: F401 - its tables belong to the metadata
from services.alerts.worklist_store import metadata
from services.platform.tables import UtcDateTime

ADVICE = Table(
    "alerts_advice",
    metadata,
    Column("patient_key", String(64), primary_key=True),
    Column("snapshot_revision", Integer, nullable=False),
    Column("priority", Float, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
)

CARD = Table(
    "alerts_card",
    metadata,
    Column("card_id", String(36), primary_key=True),
    Column("patient_key", String(64), nullable=False),
    Column("rule_id", String(128), nullable=False),
    Column("hook", String(64), nullable=False),
    Column("served_at", UtcDateTime, nullable=False),
    Index("ix_alerts_card_served_at", "served_at"),
)

FEEDBACK = Table(
    "alerts_feedback",
    metadata,
    Column("feedback_id", String(36), primary_key=True),
    Column("card_id", String(36), nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("outcome_at", UtcDateTime, nullable=False),
)


class ServedCard(NamedTuple):
    card_id: str
    patient_key: str
    rule_id: str
    hook: str


def save_advice(session: Session, advice: advisor_pb2.PatientAdvice) -> bool:
    """Keeps the newest advice of a patient; False when a newer snapshot's advice is already there."""
    row = session.execute(select(ADVICE.c.snapshot_revision).where(ADVICE.c.patient_key == advice.patient_key)).first()
    if row is not None and row.snapshot_revision > advice.snapshot_revision:
        return False
    values = {
        "snapshot_revision": advice.snapshot_revision,
        "priority": advice.priority,
        "payload": advice.SerializeToString(deterministic=True),
        "updated_at": datetime.now(UTC),
    }
    if row is None:
        session.execute(insert(ADVICE).values(patient_key=advice.patient_key, **values))
    else:
        session.execute(update(ADVICE).where(ADVICE.c.patient_key == advice.patient_key).values(**values))
    return True


def load_advice(session: Session, patient_key: str) -> advisor_pb2.PatientAdvice | None:
    payload = session.execute(select(ADVICE.c.payload).where(ADVICE.c.patient_key == patient_key)).scalar()
    return advisor_pb2.PatientAdvice.FromString(payload) if payload is not None else None


def drop_advice(session: Session, patient_key: str) -> None:
    """Forgets a key that was merged into another."""
    session.execute(delete(ADVICE).where(ADVICE.c.patient_key == patient_key))


def save_cards(session: Session, cards: Sequence[ServedCard]) -> None:
    """Remembers what was served, so that feedback can be told by rule. The same card twice is one row."""
    ids = [c.card_id for c in cards]
    known = set(session.execute(select(CARD.c.card_id).where(CARD.c.card_id.in_(ids))).scalars())
    now = datetime.now(UTC)
    fresh = {c.card_id: {**c._asdict(), "served_at": now} for c in cards if c.card_id not in known}
    if fresh:
        session.execute(insert(CARD), list(fresh.values()))


def find_card(session: Session, card_id: str) -> ServedCard | None:
    row = session.execute(select(CARD).where(CARD.c.card_id == card_id)).first()
    return ServedCard(row.card_id, row.patient_key, row.rule_id, row.hook) if row else None


def save_feedback(session: Session, feedback_id: str, card_id: str, outcome: str, outcome_at: datetime) -> bool:
    """False when this very feedback was received before."""
    if session.execute(select(FEEDBACK.c.card_id).where(FEEDBACK.c.feedback_id == feedback_id)).first():
        return False
    session.execute(
        insert(FEEDBACK).values(feedback_id=feedback_id, card_id=card_id, outcome=outcome, outcome_at=outcome_at)
    )
    return True
