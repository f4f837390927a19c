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
    # The caller that it was served to ("" for Osler's own tokens): nobody else may say what became of it.
    Column("client", String(64), nullable=False, server_default=""),
    # Keyed hash of the user that saw it.
    Column("user_hash", String(32), nullable=False, server_default=""),
    # Hash of the facts behind it: another one is another card.
    Column("fingerprint", String(64), nullable=False, server_default=""),
    Column("category", String(64), nullable=False, server_default=""),
    Column("urgency", String(16), nullable=False, server_default=""),
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

# Tokens of callers that were used once already, until they expire.
USED_TOKEN = Table(
    "alerts_used_token",
    metadata,
    Column("token_hash", String(64), primary_key=True),
    Column("expires_at", UtcDateTime, nullable=False),
    Index("ix_alerts_used_token_expires_at", "expires_at"),
)

# Cards that are held back: one row for a patient, a rule and a user ("" for everybody).
SILENCE = Table(
    "alerts_silence",
    metadata,
    Column("patient_key", String(64), primary_key=True),
    Column("rule_id", String(128), primary_key=True),
    Column("user_hash", String(32), primary_key=True),
    Column("fingerprint", String(64), nullable=False),
    Column("until", UtcDateTime, nullable=False),
    Column("reason_code", String(64), nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Index("ix_alerts_silence_until", "until"),
)


class ServedCard(NamedTuple):
    card_id: str
    patient_key: str
    rule_id: str
    hook: str
    client: str = ""
    user_hash: str = ""
    fingerprint: str = ""
    category: str = ""
    urgency: str = ""


class Silence(NamedTuple):
    """Holds a card back for one user, or for everybody where `user_hash` is empty, until a time, while its facts stay."""

    patient_key: str
    rule_id: str
    user_hash: str
    fingerprint: str
    until: datetime
    reason_code: str


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
    columns = [CARD.c[name] for name in ServedCard._fields]
    row = session.execute(select(*columns).where(CARD.c.card_id == card_id)).first()
    return ServedCard(*row) if row else None


def save_feedback(session: Session, feedback_id: str, card_id: str, outcome: str, outcome_at: datetime) -> bool:
    """False when this very feedback was received before."""
    if session.execute(select(FEEDBACK.c.card_id).where(FEEDBACK.c.feedback_id == feedback_id)).first():
        return False
    session.execute(
        insert(FEEDBACK).values(feedback_id=feedback_id, card_id=card_id, outcome=outcome, outcome_at=outcome_at)
    )
    return True


def use_token(session: Session, token_hash: str, expires_at: datetime) -> None:
    """Marks a token as used. Raises sqlalchemy's IntegrityError when it was used before."""
    session.execute(insert(USED_TOKEN).values(token_hash=token_hash, expires_at=expires_at))


def save_silence(session: Session, silence: Silence) -> None:
    """Keeps one silence for a patient, rule and user: the latest facts count, and the later end for the same facts."""
    key = (
        (SILENCE.c.patient_key == silence.patient_key)
        & (SILENCE.c.rule_id == silence.rule_id)
        & (SILENCE.c.user_hash == silence.user_hash)
    )
    known = session.execute(select(SILENCE.c.fingerprint, SILENCE.c.until).where(key)).first()
    if known is not None and known.fingerprint == silence.fingerprint and known.until >= silence.until:
        return
    values = {**silence._asdict(), "updated_at": datetime.now(UTC)}
    session.execute(insert(SILENCE).values(**values) if known is None else update(SILENCE).where(key).values(**values))


def silences(session: Session, patient_key: str, now: datetime) -> list[Silence]:
    """What is held back for a patient at `now`."""
    columns = [SILENCE.c[name] for name in Silence._fields]
    found = session.execute(select(*columns).where(SILENCE.c.patient_key == patient_key, SILENCE.c.until > now))
    return [Silence(*row) for row in found]


def forget_old(session: Session, now: datetime, tokens_before: datetime, cards_before: datetime) -> None:
    """Deletes used tokens that expired, silences that ended, and cards with their feedback that are long past."""
    session.execute(delete(USED_TOKEN).where(USED_TOKEN.c.expires_at < tokens_before))
    session.execute(delete(SILENCE).where(SILENCE.c.until < now))
    session.execute(delete(CARD).where(CARD.c.served_at < cards_before))
    session.execute(delete(FEEDBACK).where(FEEDBACK.c.outcome_at < cards_before))
