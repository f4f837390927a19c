"""The platform's own tables, beside those of the rooms in the same database."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Dialect,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

_NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


def room_metadata() -> MetaData:
    """A MetaData with Osler's constraint names, so that migrations can name what they change."""
    return MetaData(naming_convention=_NAMING)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time on every back end (SQLite keeps no zone). Refuses naive times."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone: use aware UTC times")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


# A key that grows by itself: SQLite does that only for INTEGER.
_Sequence = BigInteger().with_variant(Integer, "sqlite")

metadata = room_metadata()

# Events that a transaction announced, until a relay has published them.
OUTBOX = Table(
    "platform_outbox",
    metadata,
    Column("id", _Sequence, primary_key=True, autoincrement=True),
    Column("room", String(64), nullable=False),
    Column("topic", String(255), nullable=False),
    Column("event_id", String(255), nullable=False),
    Column("type", String(255), nullable=False),
    Column("source", String(255), nullable=False),
    Column("event_key", String(255), nullable=False),
    Column("subject", String(255), nullable=False),
    Column("time", UtcDateTime, nullable=False),
    Column("known_time", UtcDateTime, nullable=False),
    Column("traceparent", String(128), nullable=False),
    Column("extensions_json", Text, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("sent_at", UtcDateTime),
    UniqueConstraint("room", "topic", "event_id"),
    Index("ix_platform_outbox_pending", "room", "sent_at", "id"),
)

# Events that a group has handled: written with the effect, so that the effect is once.
INBOX = Table(
    "platform_inbox",
    metadata,
    Column("consumer_group", String(64), primary_key=True),
    Column("event_id", String(255), primary_key=True),
    Column("handled_at", UtcDateTime, nullable=False),
)

# Events in the hands of a group: how often a try began, failed, or never ended because the process died.
ATTEMPT = Table(
    "platform_attempt",
    metadata,
    Column("consumer_group", String(64), primary_key=True),
    Column("event_id", String(255), primary_key=True),
    Column("first_at", UtcDateTime, nullable=False),
    Column("unfinished", Integer, nullable=False),
    Column("failures", Integer, nullable=False),
)

# Input that was refused, with its reason and a reference to its content.
QUARANTINE = Table(
    "platform_quarantine",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("door", String(64), nullable=False),
    Column("reason", String(128), nullable=False),
    Column("message", Text, nullable=False),
    Column("missing_json", Text, nullable=False),
    Column("remedy", Text, nullable=False),
    Column("subject", String(255), nullable=False),
    Column("content_uri", Text, nullable=False),
    Column("content_sha256", String(64), nullable=False),
    Column("content_size", BigInteger, nullable=False),
    Column("content_media_type", String(127), nullable=False),
    Column("added_at", UtcDateTime, nullable=False),
    Column("replayed_at", UtcDateTime),
    Column("replays", Integer, nullable=False),
    Index("ix_platform_quarantine_added_at", "added_at"),
)

# Who did what: append-only (triggers forbid change), each row chained to the one before by its hash.
AUDIT = Table(
    "platform_audit",
    metadata,
    Column("id", _Sequence, primary_key=True, autoincrement=True),
    Column("at", UtcDateTime, nullable=False),
    Column("principal", String(255), nullable=False),
    Column("action", String(127), nullable=False),
    Column("resource_type", String(127), nullable=False),
    Column("resource_id_hash", String(64), nullable=False),
    Column("outcome", String(32), nullable=False),
    Column("trace_id", String(32), nullable=False),
    Column("detail_json", Text, nullable=False),
    Column("prev_hash", String(64), nullable=False, unique=True),
    Column("hash", String(64), nullable=False, unique=True),
)
