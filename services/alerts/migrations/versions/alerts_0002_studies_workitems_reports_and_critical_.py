"""studies workitems reports and critical results"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "alerts_0002"
down_revision = "alerts_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "alerts_communication",
        sa.Column("task_id", sa.String(length=36), nullable=False),
        sa.Column("report_id", sa.String(length=36), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("patient_key", sa.String(length=64), nullable=False),
        sa.Column("announced_key", sa.String(length=64), nullable=False),
        sa.Column("category", sa.String(length=16), nullable=False),
        sa.Column("statement", sa.Text(), nullable=False),
        sa.Column("found_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("recipient", sa.String(length=255), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("task_id", name=op.f("pk_alerts_communication")),
    )
    with op.batch_alter_table("alerts_communication", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_alerts_communication_patient_key"), ["patient_key"], unique=False)
        batch_op.create_index(batch_op.f("ix_alerts_communication_report_id"), ["report_id"], unique=False)
        batch_op.create_index("ix_alerts_communication_state_found_at", ["state", "found_at"], unique=False)

    op.create_table(
        "alerts_communication_step",
        sa.Column("step_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("task_id", sa.String(length=36), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("by", sa.String(length=255), nullable=False),
        sa.Column("action", sa.String(length=32), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("step_id", name=op.f("pk_alerts_communication_step")),
    )
    with op.batch_alter_table("alerts_communication_step", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_alerts_communication_step_task_id"), ["task_id"], unique=False)

    op.create_table(
        "alerts_patient",
        sa.Column("patient_key", sa.String(length=64), nullable=False),
        sa.Column("snapshot_revision", sa.BigInteger(), nullable=False),
        sa.Column("snapshot_ref", sa.LargeBinary(), nullable=False),
        sa.Column("history_json", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("patient_key", name=op.f("pk_alerts_patient")),
    )
    op.create_table(
        "alerts_report",
        sa.Column("report_id", sa.String(length=36), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("patient_key", sa.String(length=64), nullable=False),
        sa.Column("announced_key", sa.String(length=64), nullable=False),
        sa.Column("latest_version", sa.Integer(), nullable=False),
        sa.Column("signed_version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("report_id", name=op.f("pk_alerts_report")),
        sa.UniqueConstraint("study_instance_uid", name=op.f("uq_alerts_report_study_instance_uid")),
    )
    with op.batch_alter_table("alerts_report", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_alerts_report_patient_key"), ["patient_key"], unique=False)

    op.create_table(
        "alerts_report_version",
        sa.Column("report_id", sa.String(length=36), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("author", sa.String(length=255), nullable=False),
        sa.Column("author_kind", sa.String(length=16), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("body_sha256", sa.String(length=64), nullable=False),
        sa.Column("signed_by", sa.String(length=255), nullable=False),
        sa.Column("signed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("report_id", "version", name=op.f("pk_alerts_report_version")),
    )
    op.create_table(
        "alerts_study",
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("patient_key", sa.String(length=64), nullable=False),
        sa.Column("announced_key", sa.String(length=64), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("manifest_ref", sa.LargeBinary(), nullable=False),
        sa.Column("modalities", sa.String(length=255), nullable=False),
        sa.Column("study_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("arrived_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("findings_revision", sa.BigInteger(), nullable=False),
        sa.Column("findings", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("study_instance_uid", name=op.f("pk_alerts_study")),
    )
    with op.batch_alter_table("alerts_study", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_alerts_study_patient_key"), ["patient_key"], unique=False)

    op.create_table(
        "alerts_workitem",
        sa.Column("workitem_uid", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("patient_key", sa.String(length=64), nullable=False),
        sa.Column("announced_key", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("dataset_json", sa.Text(), nullable=False),
        sa.Column("urgency", sa.Float(), nullable=False),
        sa.Column("reasons_json", sa.Text(), nullable=False),
        sa.Column("arrived_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("performer", sa.String(length=255), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("workitem_uid", name=op.f("pk_alerts_workitem")),
    )
    with op.batch_alter_table("alerts_workitem", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_alerts_workitem_patient_key"), ["patient_key"], unique=False)
        batch_op.create_index("ix_alerts_workitem_state_due_at", ["state", "due_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_alerts_workitem_study_instance_uid"), ["study_instance_uid"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("alerts_workitem", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_alerts_workitem_study_instance_uid"))
        batch_op.drop_index("ix_alerts_workitem_state_due_at")
        batch_op.drop_index(batch_op.f("ix_alerts_workitem_patient_key"))

    op.drop_table("alerts_workitem")
    with op.batch_alter_table("alerts_study", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_alerts_study_patient_key"))

    op.drop_table("alerts_study")
    op.drop_table("alerts_report_version")
    with op.batch_alter_table("alerts_report", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_alerts_report_patient_key"))

    op.drop_table("alerts_report")
    op.drop_table("alerts_patient")
    with op.batch_alter_table("alerts_communication_step", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_alerts_communication_step_task_id"))

    op.drop_table("alerts_communication_step")
    with op.batch_alter_table("alerts_communication", schema=None) as batch_op:
        batch_op.drop_index("ix_alerts_communication_state_found_at")
        batch_op.drop_index(batch_op.f("ix_alerts_communication_report_id"))
        batch_op.drop_index(batch_op.f("ix_alerts_communication_patient_key"))

    op.drop_table("alerts_communication")
