"""latest predictions"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "twin_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "twin_prediction",
        sa.Column("patient_key", sa.String(length=128), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("snapshot_sha256", sa.String(length=64), nullable=False),
        sa.Column("predictions", sa.LargeBinary(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("patient_key", name=op.f("pk_twin_prediction")),
    )


def downgrade() -> None:
    op.drop_table("twin_prediction")
