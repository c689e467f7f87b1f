"""The first schema."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_JSON = sa.JSON(none_as_null=True)
_BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_COUNTERS = ("events", "QUEUED", "RUNNING", "RETRY_WAIT", "REVIEW", "SUCCEEDED", "FAILED", "CANCELLED")


def _where(condition: str) -> dict[str, Any]:
    """The options of a partial index."""
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def upgrade() -> None:
    """Create all tables."""
    op.create_table(
        "counters",
        sa.Column("name", sa.String(length=20), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "settings",
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("value", _JSON, nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "tasks",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("status", sa.String(length=12), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("rank", sa.Double(), nullable=False),
        sa.Column("ready_at", sa.Double()),
        sa.Column("due_at", sa.Double()),
        sa.Column("give_up_at", sa.Double()),
        sa.Column("source", _JSON, nullable=False),
        sa.Column("audio", _JSON, nullable=False),
        sa.Column("source_sha256", sa.String(length=64), nullable=False),
        sa.Column("audio_sha256", sa.String(length=64), nullable=False),
        sa.Column("renderer", sa.Text()),
        sa.Column("fallback", sa.Text(), nullable=False),
        sa.Column("options", _JSON, nullable=False),
        sa.Column("metadata", _JSON, nullable=False),
        sa.Column("client", sa.Text(), nullable=False),
        sa.Column("trace_id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("enqueued_at", sa.Double(), nullable=False),
        sa.Column("not_before", sa.Double()),
        sa.Column("start_deadline_at", sa.Double()),
        sa.Column("deadline_at", sa.Double()),
        sa.Column("started_at", sa.Double()),
        sa.Column("finished_at", sa.Double()),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("retries", sa.Integer(), nullable=False),
        sa.Column("retry_at", sa.Double()),
        sa.Column("retry_reason", sa.Text()),
        sa.Column("cancel_requested_at", sa.Double()),
        sa.Column("error", _JSON),
        sa.Column("output", _JSON),
        sa.Column("served_by", sa.Text()),
        sa.Column("degraded", sa.Boolean(), nullable=False),
        sa.Column("quality", _JSON),
        sa.Column("lease_owner", sa.Text()),
        sa.Column("lease_expires_at", sa.Double()),
        sa.Column("last_event_id", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("ready_at IS NULL OR due_at IS NULL", name="ck_tasks_ready_or_due"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_tasks_client_created", "tasks", ["client", "created_at", "id"])
    op.create_index("ix_tasks_created", "tasks", ["created_at", "id"])
    op.create_index("ix_tasks_due_at", "tasks", ["due_at", "rank"], **_where("due_at IS NOT NULL"))
    op.create_index("ix_tasks_give_up_at", "tasks", ["give_up_at"], **_where("give_up_at IS NOT NULL"))
    op.create_index("ix_tasks_lease", "tasks", ["lease_expires_at"], **_where("lease_expires_at IS NOT NULL"))
    op.create_index("ix_tasks_live_audio", "tasks", ["audio_sha256"], **_where("finished_at IS NULL"))
    op.create_index("ix_tasks_live_source", "tasks", ["source_sha256"], **_where("finished_at IS NULL"))
    op.create_index("ix_tasks_ready_at", "tasks", ["ready_at"], **_where("ready_at IS NOT NULL"))
    op.create_index("ix_tasks_ready_rank", "tasks", ["rank", "id"], **_where("ready_at IS NOT NULL"))
    op.create_index(
        "ix_tasks_renderer_created", "tasks", ["renderer", "created_at", "id"], **_where("renderer IS NOT NULL")
    )
    op.create_index("ix_tasks_status_created", "tasks", ["status", "created_at", "id"])
    op.create_table(
        "uploads",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_uploads_expires_at", "uploads", ["expires_at"])
    op.create_index("ix_uploads_sha256", "uploads", ["sha256"])
    op.create_table(
        "attempts",
        sa.Column("task_id", sa.String(length=40), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("tier", sa.Text(), nullable=False),
        sa.Column("slot", sa.Text(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double()),
        sa.Column("outcome", sa.String(length=12)),
        sa.Column("error", _JSON),
        sa.Column("backoff_ms", sa.Integer()),
        sa.Column("postmortem", _JSON),
        sa.Column("stages", _JSON, nullable=False),
        sa.Column("facts", _JSON, nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"]),
        sa.PrimaryKeyConstraint("task_id", "n"),
    )
    op.create_table(
        "events",
        sa.Column("id", _BIG_ID, autoincrement=False, nullable=False),
        sa.Column("task_id", sa.String(length=40), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("status", sa.String(length=12), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("data", _JSON, nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_events_task", "events", ["task_id", "id"])
    op.create_table(
        "idempotency_keys",
        sa.Column("client", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("task_id", sa.String(length=40), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"]),
        sa.PrimaryKeyConstraint("client", "key"),
    )
    op.create_index("ix_idempotency_keys_expires_at", "idempotency_keys", ["expires_at"])
    op.create_table(
        "outbox",
        sa.Column("id", _BIG_ID, nullable=False),
        sa.Column("event_id", sa.BigInteger(), nullable=False),
        sa.Column("task_id", sa.String(length=40), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("next_at", sa.Double()),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["event_id"], ["events.id"]),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_outbox_next_at", "outbox", ["next_at"], **_where("next_at IS NOT NULL"))
    counters = sa.table("counters", sa.column("name"), sa.column("value"))
    op.bulk_insert(counters, [{"name": name, "value": 0} for name in _COUNTERS])
