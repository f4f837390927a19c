"""cases studies registrations"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "board_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "board_case",
        sa.Column("patient_key", sa.String(length=64), nullable=False),
        sa.Column("snapshot_revision", sa.BigInteger(), nullable=False),
        sa.Column("snapshot_ref", sa.LargeBinary(), nullable=False),
        sa.Column("predictions", sa.LargeBinary(), nullable=False),
        sa.Column("advice", sa.LargeBinary(), nullable=False),
        sa.Column("priority", sa.Float(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("patient_key", name=op.f("pk_board_case")),
    )
    with op.batch_alter_table("board_case", schema=None) as batch_op:
        batch_op.create_index("ix_board_case_priority", ["priority"], unique=False)

    op.create_table(
        "board_registration",
        sa.Column("registration_id", sa.String(length=64), nullable=False),
        sa.Column("patient_key", sa.String(length=64), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("registration_id", name=op.f("pk_board_registration")),
    )
    with op.batch_alter_table("board_registration", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_board_registration_patient_key"), ["patient_key"], unique=False)

    op.create_table(
        "board_study",
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("patient_key", sa.String(length=64), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("manifest_ref", sa.LargeBinary(), nullable=False),
        sa.Column("study_time", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("study_instance_uid", name=op.f("pk_board_study")),
    )
    with op.batch_alter_table("board_study", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_board_study_patient_key"), ["patient_key"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("board_study", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_board_study_patient_key"))

    op.drop_table("board_study")
    with op.batch_alter_table("board_registration", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_board_registration_patient_key"))

    op.drop_table("board_registration")
    with op.batch_alter_table("board_case", schema=None) as batch_op:
        batch_op.drop_index("ix_board_case_priority")

    op.drop_table("board_case")
