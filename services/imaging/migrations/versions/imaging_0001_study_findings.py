"""study findings"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "imaging_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "imaging_study",
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("patient_key", sa.String(length=128), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("manifest_sha256", sa.String(length=64), nullable=False),
        sa.Column("findings", sa.LargeBinary(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("study_instance_uid", name=op.f("pk_imaging_study")),
    )
    op.create_index("ix_imaging_study_patient_key", "imaging_study", ["patient_key"])


def downgrade() -> None:
    op.drop_table("imaging_study")
