"""Routes: the tiers that may serve a task; why an attempt ran where it did, and what followed it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add three columns and the index that claiming walks along. Waiting tasks get their routes at the next start."""
    op.add_column("tasks", sa.Column("route", sa.Text(), nullable=False, server_default=""))
    op.add_column("attempts", sa.Column("why", sa.JSON(none_as_null=True)))
    op.add_column("attempts", sa.Column("followed_by", sa.Text()))
    ready = sa.text("ready_at IS NOT NULL")
    columns = ["route", "rank", "id"]
    op.create_index("ix_tasks_ready_route", "tasks", columns, sqlite_where=ready, postgresql_where=ready)
