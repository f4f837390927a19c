"""advice cards feedback"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "alerts_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "alerts_advice",
        sa.Column("patient_key", sa.String(length=64), nullable=False),
        sa.Column("snapshot_revision", sa.Integer(), nullable=False),
        sa.Column("priority", sa.Float(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("patient_key", name=op.f("pk_alerts_advice")),
    )
    op.create_table(
        "alerts_card",
        sa.Column("card_id", sa.String(length=36), nullable=False),
        sa.Column("patient_key", sa.String(length=64), nullable=False),
        sa.Column("rule_id", sa.String(length=128), nullable=False),
        sa.Column("hook", sa.String(length=64), nullable=False),
        sa.Column("served_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("card_id", name=op.f("pk_alerts_card")),
    )
    with op.batch_alter_table("alerts_card", schema=None) as batch_op:
        batch_op.create_index("ix_alerts_card_served_at", ["served_at"], unique=False)

    op.create_table(
        "alerts_feedback",
        sa.Column("feedback_id", sa.String(length=36), nullable=False),
        sa.Column("card_id", sa.String(length=36), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("outcome_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("feedback_id", name=op.f("pk_alerts_feedback")),
    )


def downgrade() -> None:
    op.drop_table("alerts_feedback")
    with op.batch_alter_table("alerts_card", schema=None) as batch_op:
        batch_op.drop_index("ix_alerts_card_served_at")

    op.drop_table("alerts_card")
    op.drop_table("alerts_advice")
