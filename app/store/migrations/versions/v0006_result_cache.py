"""The result cache: results by key, tasks that wait for an equal one, files that several tasks share."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_JSON = sa.JSON(none_as_null=True)


def _where(condition: str) -> dict[str, Any]:
    """The options of a partial index."""
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def upgrade() -> None:
    """Add the table, five columns of tasks and their indexes. Tasks that wait already take no part in the cache."""
    op.add_column("tasks", sa.Column("output_path", sa.Text()))
    op.add_column("tasks", sa.Column("cache_keys", sa.Text()))
    op.add_column("tasks", sa.Column("twin_of", sa.String(length=40)))
    op.add_column("tasks", sa.Column("cached", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("tasks", sa.Column("result_key", sa.String(length=64)))
    tasks = sa.table("tasks", sa.column("output", _JSON), sa.column("output_path"), sa.column("result_removed_at"))
    there = (tasks.c.output.is_not(None), tasks.c.result_removed_at.is_(None))
    op.execute(sa.update(tasks).where(*there).values(output_path=tasks.c.output["path"].as_string()))
    op.create_index(
        "ix_tasks_output_path", "tasks", ["output_path"],
        **_where("output_path IS NOT NULL AND result_removed_at IS NULL"),
    )  # fmt: skip
    op.create_index(
        "ix_tasks_leading", "tasks", ["cache_keys"],
        **_where("cache_keys IS NOT NULL AND finished_at IS NULL AND twin_of IS NULL"),
    )  # fmt: skip
    op.create_index(
        "ix_tasks_following", "tasks", ["twin_of"], **_where("twin_of IS NOT NULL AND finished_at IS NULL")
    )  # fmt: skip
    op.create_table(
        "cached_results",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("output", _JSON, nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("served_by", sa.Text(), nullable=False),
        sa.Column("degraded", sa.Boolean(), nullable=False),
        sa.Column("quality", _JSON),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.Column("used_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_index("ix_cached_results_path", "cached_results", ["path"])
    op.create_index("ix_cached_results_expires_at", "cached_results", ["expires_at"])
    op.create_index("ix_cached_results_used_at", "cached_results", ["used_at", "bytes"])
