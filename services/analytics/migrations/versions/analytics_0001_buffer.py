"""buffer"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "analytics_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "analytics_buffer",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("event_id", sa.String(length=255), nullable=False),
        sa.Column("event_type", sa.String(length=255), nullable=False),
        sa.Column("source", sa.String(length=255), nullable=False),
        sa.Column("patient_key", sa.String(length=64), nullable=False),
        sa.Column("event_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("known_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("received_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("traceparent", sa.String(length=128), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.Column("batch", sa.String(length=36), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_analytics_buffer")),
        sa.UniqueConstraint("event_id", name=op.f("uq_analytics_buffer_event_id")),
    )
    with op.batch_alter_table("analytics_buffer", schema=None) as batch_op:
        batch_op.create_index("ix_analytics_buffer_batch", ["batch", "id"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("analytics_buffer", schema=None) as batch_op:
        batch_op.drop_index("ix_analytics_buffer_batch")

    op.drop_table("analytics_buffer")
