"""Rows about reports: each version as it was made, who signed what, and critical results until they are acknowledged."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, String, Table, Text

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
