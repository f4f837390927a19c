"""tokens used once silences and what cards stand on"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "alerts_0003"
down_revision = "alerts_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "alerts_silence",
        sa.Column("patient_key", sa.String(length=64), nullable=False),
        sa.Column("rule_id", sa.String(length=128), nullable=False),
        sa.Column("user_hash", sa.String(length=32), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reason_code", sa.String(length=64), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("patient_key", "rule_id", "user_hash", name=op.f("pk_alerts_silence")),
    )
    with op.batch_alter_table("alerts_silence", schema=None) as batch_op:
        batch_op.create_index("ix_alerts_silence_until", ["until"], unique=False)

    op.create_table(
        "alerts_used_token",
        sa.Column("token_hash", sa.String(length=64), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_alerts_used_token")),
    )
    with op.batch_alter_table("alerts_used_token", schema=None) as batch_op:
        batch_op.create_index("ix_alerts_used_token_expires_at", ["expires_at"], unique=False)

    with op.batch_alter_table("alerts_card", schema=None) as batch_op:
        batch_op.add_column(sa.Column("client", sa.String(length=64), server_default="", nullable=False))
        batch_op.add_column(sa.Column("user_hash", sa.String(length=32), server_default="", nullable=False))
        batch_op.add_column(sa.Column("fingerprint", sa.String(length=64), server_default="", nullable=False))
        batch_op.add_column(sa.Column("category", sa.String(length=64), server_default="", nullable=False))
        batch_op.add_column(sa.Column("urgency", sa.String(length=16), server_default="", nullable=False))


def downgrade() -> None:
    with op.batch_alter_table("alerts_card", schema=None) as batch_op:
        batch_op.drop_column("urgency")
        batch_op.drop_column("category")
        batch_op.drop_column("fingerprint")
        batch_op.drop_column("user_hash")
        batch_op.drop_column("client")

    with op.batch_alter_table("alerts_used_token", schema=None) as batch_op:
        batch_op.drop_index("ix_alerts_used_token_expires_at")

    op.drop_table("alerts_used_token")
    with op.batch_alter_table("alerts_silence", schema=None) as batch_op:
        batch_op.drop_index("ix_alerts_silence_until")

    op.drop_table("alerts_silence")
