"""Tasks that retry a failed one, limits per client, and what retention needs to find its work."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def _where(condition: str) -> dict[str, Any]:
    """The options of a partial index."""
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def upgrade() -> None:
    """Add two columns and the indexes."""
    op.add_column("tasks", sa.Column("retry_of", sa.String(length=40)))
    op.add_column("tasks", sa.Column("result_removed_at", sa.Double()))
    op.create_index("ix_tasks_live_client", "tasks", ["client", "status"], **_where("finished_at IS NULL"))
    op.create_index("ix_tasks_failed_source", "tasks", ["source_sha256"], **_where("status = 'FAILED'"))
    op.create_index("ix_tasks_failed_audio", "tasks", ["audio_sha256"], **_where("status = 'FAILED'"))
    op.create_index("ix_tasks_finished", "tasks", ["finished_at"], **_where("finished_at IS NOT NULL"))
    op.create_index(
        "ix_tasks_result", "tasks", ["finished_at"], **_where("output IS NOT NULL AND result_removed_at IS NULL")
    )
    op.create_index("ix_tasks_retry_of", "tasks", ["retry_of", "created_at", "id"], **_where("retry_of IS NOT NULL"))
    op.create_index("ix_idempotency_keys_task", "idempotency_keys", ["task_id"])
    op.create_index("ix_outbox_event", "outbox", ["event_id"])
    op.create_index("ix_outbox_task", "outbox", ["task_id"])
