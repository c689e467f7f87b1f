"""The whole trace context of a task: beside the trace's id the span that made it, and whether it is recorded."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add two columns of tasks."""
    op.add_column("tasks", sa.Column("span_id", sa.String(length=16), nullable=False, server_default=""))
    op.add_column("tasks", sa.Column("sampled", sa.Boolean(), nullable=False, server_default=sa.true()))
