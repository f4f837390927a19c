"""The board's tables: its copy of what was announced, reviews of findings, meetings, access, and second readings.

Free text that people write (comments, reasons, decisions) stays here: it never goes into an event, a log or a URL.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Date, Float, Index, Integer, LargeBinary, String, Table, Text

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
    # The key that its images came with, whoever that is by now: a merge that is taken back goes by it.
    Column("came_with", String(64), nullable=False),
)

REGISTRATION = Table(
    "board_registration",
    metadata,
    Column("registration_id", String(64), primary_key=True),
    Column("patient_key", String(64), nullable=False, index=True),
    Column("payload", LargeBinary, nullable=False),
)

# What imaging found, before any person's review.
ANALYSIS = Table(
    "board_analysis",
    metadata,
    Column("study_instance_uid", String(64), primary_key=True),
    Column("patient_key", String(64), nullable=False, index=True),
    Column("revision", BigInteger, nullable=False),
    Column("payload", LargeBinary, nullable=False),
)

# A person's word on a finding; rows are only added, the newest of a finding counts.
REVIEW = Table(
    "board_review",
    metadata,
    Column("review_id", String(36), primary_key=True),
    Column("patient_key", String(64), nullable=False, index=True),
    Column("study_instance_uid", String(64), nullable=False, index=True),
    Column("finding_id", String(128), nullable=False),
    Column("verdict", String(16), nullable=False),
    Column("reason", String(64), nullable=False),
    Column("note", Text, nullable=False),
    Column("corrections", Text, nullable=False),
    Column("author", String(255), nullable=False),
    Column("at", UtcDateTime, nullable=False),
)

MEETING = Table(
    "board_meeting",
    metadata,
    Column("meeting_id", String(36), primary_key=True),
    Column("title", String(200), nullable=False),
    Column("starts_at", UtcDateTime, nullable=False),
    Column("place", String(200), nullable=False),
    Column("status", String(16), nullable=False),
    Column("created_by", String(255), nullable=False),
)

ITEM = Table(
    "board_item",
    metadata,
    Column("item_id", String(36), primary_key=True),
    Column("meeting_id", String(36), nullable=False, index=True),
    Column("patient_key", String(64), nullable=False, index=True),
    Column("position", Integer, nullable=False),
    Column("question", Text, nullable=False),
    Column("presenter", String(255), nullable=False),
)

PARTICIPANT = Table(
    "board_participant",
    metadata,
    Column("meeting_id", String(36), primary_key=True),
    Column("subject", String(255), primary_key=True),
    Column("discipline", String(32), nullable=False),
    Column("remote", Boolean, nullable=False),
    Column("joined_at", UtcDateTime, nullable=False),
)

COMMENT = Table(
    "board_comment",
    metadata,
    Column("comment_id", String(36), primary_key=True),
    Column("item_id", String(36), nullable=False, index=True),
    Column("author", String(255), nullable=False),
    Column("discipline", String(32), nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("text", Text, nullable=False),
)

# Each change of a decision is a version of its own; votes and signatures belong to one version.
DECISION = Table(
    "board_decision",
    metadata,
    Column("decision_id", String(36), primary_key=True),
    Column("item_id", String(36), nullable=False, index=True),
    Column("version", Integer, nullable=False),
    Column("content", Text, nullable=False),
    Column("author", String(255), nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Index("uq_board_decision_version", "item_id", "version", unique=True),
)

VOTE = Table(
    "board_vote",
    metadata,
    Column("decision_id", String(36), primary_key=True),
    Column("subject", String(255), primary_key=True),
    Column("choice", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", UtcDateTime, nullable=False),
)

SIGNATURE = Table(
    "board_signature",
    metadata,
    Column("decision_id", String(36), primary_key=True),
    Column("subject", String(255), primary_key=True),
    Column("discipline", String(32), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("at", UtcDateTime, nullable=False),
)

TASK = Table(
    "board_task",
    metadata,
    Column("task_id", String(36), primary_key=True),
    Column("item_id", String(36), nullable=False, index=True),
    Column("patient_key", String(64), nullable=False, index=True),
    Column("title", String(300), nullable=False),
    Column("owner", String(255), nullable=False),
    Column("due_on", Date),
    Column("status", String(16), nullable=False),
    Column("changed_by", String(255), nullable=False),
    Column("changed_at", UtcDateTime, nullable=False),
)

# Who may open a case, until when (empty: until taken back), and how they got in: "team" or "glass".
GRANT = Table(
    "board_grant",
    metadata,
    Column("grant_id", String(36), primary_key=True),
    Column("patient_key", String(64), nullable=False, index=True),
    Column("subject", String(255), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("granted_by", String(255), nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("until", UtcDateTime),
)

RESTRICTION = Table(
    "board_restriction",
    metadata,
    Column("patient_key", String(64), primary_key=True),
    Column("restricted_by", String(255), nullable=False),
    Column("at", UtcDateTime, nullable=False),
)

# A blinded double reading of one case, and the two readings.
READ = Table(
    "board_read",
    metadata,
    Column("read_id", String(36), primary_key=True),
    Column("patient_key", String(64), nullable=False, index=True),
    Column("first_reader", String(255), nullable=False),
    Column("second_reader", String(255), nullable=False),
    Column("asked_by", String(255), nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("adjudicated", String(16), nullable=False),
    Column("adjudicated_by", String(255), nullable=False),
    Column("adjudicated_note", Text, nullable=False),
)

READING = Table(
    "board_reading",
    metadata,
    Column("read_id", String(36), primary_key=True),
    Column("reader", String(255), primary_key=True),
    Column("category", String(16), nullable=False),
    Column("sum_mm", Float),
    Column("new_lesions", Integer, nullable=False),
    Column("note", Text, nullable=False),
    Column("at", UtcDateTime, nullable=False),
)
