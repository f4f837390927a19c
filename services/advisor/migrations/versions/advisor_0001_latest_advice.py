"""latest advice"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "advisor_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "advisor_advice",
        sa.Column("patient_key", sa.String(length=128), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("snapshot_ref", sa.LargeBinary(), nullable=False),
        sa.Column("advice", sa.LargeBinary(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("patient_key", name=op.f("pk_advisor_advice")),
    )


def downgrade() -> None:
    op.drop_table("advisor_advice")
