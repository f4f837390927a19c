"""studies and results"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "registration_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "registration_result",
        sa.Column("registration_id", sa.String(length=64), nullable=False),
        sa.Column("patient_key", sa.String(length=128), nullable=False),
        sa.Column("registration", sa.LargeBinary(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("registration_id", name=op.f("pk_registration_result")),
    )
    with op.batch_alter_table("registration_result", schema=None) as batch_op:
        batch_op.create_index("ix_registration_result_patient_key", ["patient_key"], unique=False)

    op.create_table(
        "registration_study",
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("patient_key", sa.String(length=128), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("manifest", sa.LargeBinary(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("study_instance_uid", name=op.f("pk_registration_study")),
    )
    with op.batch_alter_table("registration_study", schema=None) as batch_op:
        batch_op.create_index("ix_registration_study_patient_key", ["patient_key"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("registration_study", schema=None) as batch_op:
        batch_op.drop_index("ix_registration_study_patient_key")

    op.drop_table("registration_study")
    with op.batch_alter_table("registration_result", schema=None) as batch_op:
        batch_op.drop_index("ix_registration_result_patient_key")

    op.drop_table("registration_result")
