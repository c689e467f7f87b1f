"""Chains: tasks that wait for others; the link of a derived task; whether a caller lets its task be cached."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def _index(name: str, table: str, columns: list[str], where: str) -> None:
    condition = sa.text(where)
    op.create_index(name, table, columns, sqlite_where=condition, postgresql_where=condition)


def upgrade() -> None:
    """Add a table, five columns of tasks and their indexes. What took no part in the cache takes none further."""
    op.add_column("tasks", sa.Column("use_cache", sa.Boolean(), nullable=False, server_default=sa.true()))
    op.add_column("tasks", sa.Column("derived_from", sa.String(length=40)))
    op.add_column("tasks", sa.Column("after", sa.Text(), nullable=False, server_default=""))
    op.add_column("tasks", sa.Column("waits_for", sa.Text()))
    op.add_column("tasks", sa.Column("broken_by", sa.String(length=40)))
    tasks = sa.table("tasks", sa.column("cache_keys"), sa.column("use_cache", sa.Boolean()))
    op.execute(sa.update(tasks).where(tasks.c.cache_keys.is_(None)).values(use_cache=False))
    _index("ix_tasks_waits_for", "tasks", ["waits_for"], "waits_for IS NOT NULL")
    _index("ix_tasks_broken_by", "tasks", ["broken_by"], "broken_by IS NOT NULL")
    _index("ix_tasks_derived_from", "tasks", ["derived_from", "created_at", "id"], "derived_from IS NOT NULL")
    op.create_table(
        "dependencies",
        sa.Column("task_id", sa.String(length=40), sa.ForeignKey("tasks.id"), nullable=False),
        sa.Column("predecessor_id", sa.String(length=40), sa.ForeignKey("tasks.id"), nullable=False),
        sa.PrimaryKeyConstraint("task_id", "predecessor_id"),
    )
    op.create_index("ix_dependencies_predecessor", "dependencies", ["predecessor_id"])
