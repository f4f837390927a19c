"""the key that a study came with"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "board_0003"
down_revision = "board_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("board_study", schema=None) as batch_op:
        batch_op.add_column(sa.Column("came_with", sa.String(length=64), nullable=True))
    # Of studies merged before this, the key that they are filed under is all that is known here.
    op.execute("UPDATE board_study SET came_with = patient_key")
    with op.batch_alter_table("board_study", schema=None) as batch_op:
        batch_op.alter_column("came_with", existing_type=sa.String(length=64), nullable=False)


def downgrade() -> None:
    with op.batch_alter_table("board_study", schema=None) as batch_op:
        batch_op.drop_column("came_with")
