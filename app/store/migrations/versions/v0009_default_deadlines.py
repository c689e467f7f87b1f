"""Whose deadline it is: the caller's own, or the service's for tasks that name none."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a column of tasks. Of those that are there nobody knows any more: they count as their callers' own."""
    op.add_column("tasks", sa.Column("default_deadline", sa.Boolean(), nullable=False, server_default=sa.false()))
