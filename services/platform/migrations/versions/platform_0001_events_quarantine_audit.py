"""events quarantine audit"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "platform_0001"
down_revision = None
branch_labels = None
depends_on = None


_MESSAGE = "platform_audit is append-only"


def _forbid_changes_of_audit() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION platform_audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE EXCEPTION '{_MESSAGE}'; END $$"
        )
        op.execute(
            "CREATE TRIGGER platform_audit_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON platform_audit"
            " FOR EACH STATEMENT EXECUTE FUNCTION platform_audit_is_append_only()"
        )
        return
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER platform_audit_no_{change.lower()} BEFORE {change} ON platform_audit"
            f" BEGIN SELECT RAISE(ABORT, '{_MESSAGE}'); END"
        )


def upgrade() -> None:
    op.create_table(
        "platform_attempt",
        sa.Column("consumer_group", sa.String(length=64), nullable=False),
        sa.Column("event_id", sa.String(length=255), nullable=False),
        sa.Column("first_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("unfinished", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("consumer_group", "event_id", name=op.f("pk_platform_attempt")),
    )
    op.create_table(
        "platform_audit",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("principal", sa.String(length=255), nullable=False),
        sa.Column("action", sa.String(length=127), nullable=False),
        sa.Column("resource_type", sa.String(length=127), nullable=False),
        sa.Column("resource_id_hash", sa.String(length=64), nullable=False),
        sa.Column("outcome", sa.String(length=32), nullable=False),
        sa.Column("trace_id", sa.String(length=32), nullable=False),
        sa.Column("detail_json", sa.Text(), nullable=False),
        sa.Column("prev_hash", sa.String(length=64), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_platform_audit")),
        sa.UniqueConstraint("hash", name=op.f("uq_platform_audit_hash")),
        sa.UniqueConstraint("prev_hash", name=op.f("uq_platform_audit_prev_hash")),
    )
    op.create_table(
        "platform_inbox",
        sa.Column("consumer_group", sa.String(length=64), nullable=False),
        sa.Column("event_id", sa.String(length=255), nullable=False),
        sa.Column("handled_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("consumer_group", "event_id", name=op.f("pk_platform_inbox")),
    )
    op.create_table(
        "platform_outbox",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("room", sa.String(length=64), nullable=False),
        sa.Column("topic", sa.String(length=255), nullable=False),
        sa.Column("event_id", sa.String(length=255), nullable=False),
        sa.Column("type", sa.String(length=255), nullable=False),
        sa.Column("source", sa.String(length=255), nullable=False),
        sa.Column("event_key", sa.String(length=255), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("known_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("traceparent", sa.String(length=128), nullable=False),
        sa.Column("extensions_json", sa.Text(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_platform_outbox")),
        sa.UniqueConstraint("room", "topic", "event_id", name=op.f("uq_platform_outbox_room_topic_event_id")),
    )
    with op.batch_alter_table("platform_outbox", schema=None) as batch_op:
        batch_op.create_index("ix_platform_outbox_pending", ["room", "sent_at", "id"], unique=False)

    op.create_table(
        "platform_quarantine",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("door", sa.String(length=64), nullable=False),
        sa.Column("reason", sa.String(length=128), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("missing_json", sa.Text(), nullable=False),
        sa.Column("remedy", sa.Text(), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("content_uri", sa.Text(), nullable=False),
        sa.Column("content_sha256", sa.String(length=64), nullable=False),
        sa.Column("content_size", sa.BigInteger(), nullable=False),
        sa.Column("content_media_type", sa.String(length=127), nullable=False),
        sa.Column("added_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("replayed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("replays", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_platform_quarantine")),
    )
    with op.batch_alter_table("platform_quarantine", schema=None) as batch_op:
        batch_op.create_index("ix_platform_quarantine_added_at", ["added_at"], unique=False)

    _forbid_changes_of_audit()


def downgrade() -> None:
    with op.batch_alter_table("platform_quarantine", schema=None) as batch_op:
        batch_op.drop_index("ix_platform_quarantine_added_at")

    op.drop_table("platform_quarantine")
    with op.batch_alter_table("platform_outbox", schema=None) as batch_op:
        batch_op.drop_index("ix_platform_outbox_pending")

    op.drop_table("platform_outbox")
    op.drop_table("platform_inbox")
    op.drop_table("platform_audit")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION platform_audit_is_append_only")
    op.drop_table("platform_attempt")
