"""Notices: a task's callback, the outbox with the state that each notice tells, and the tries to deliver it."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_JSON = sa.JSON(none_as_null=True)
_BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _where(condition: str) -> dict[str, Any]:
    """The options of a partial index."""
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def upgrade() -> None:
    """Replace the first outbox, which no version has ever written to."""
    op.add_column("tasks", sa.Column("callback", _JSON))
    op.drop_table("outbox")
    op.create_table(
        "outbox",
        sa.Column("event_id", _BIG_ID, autoincrement=False, nullable=False),
        sa.Column("task_id", sa.String(length=40), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("snapshot", _JSON, nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("next_at", sa.Double()),
        sa.Column("lease_owner", sa.Text()),
        sa.Column("taken", sa.Integer(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("total_tries", sa.Integer(), nullable=False),
        sa.Column("ended_at", sa.Double()),
        sa.ForeignKeyConstraint(["event_id"], ["events.id"]),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"]),
        sa.PrimaryKeyConstraint("event_id"),
    )
    op.create_index("ix_outbox_task", "outbox", ["task_id", "event_id"])
    op.create_index("ix_outbox_state", "outbox", ["state", "event_id"])
    op.create_index("ix_outbox_next_at", "outbox", ["next_at", "endpoint"], **_where("next_at IS NOT NULL"))
    op.create_index("ix_outbox_lease", "outbox", ["lease_owner"], **_where("lease_owner IS NOT NULL"))
    op.create_table(
        "delivery_tries",
        sa.Column("event_id", _BIG_ID, nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("status", sa.Integer()),
        sa.Column("error", sa.Text()),
        sa.Column("message", sa.Text()),
        sa.ForeignKeyConstraint(["event_id"], ["outbox.event_id"]),
        sa.PrimaryKeyConstraint("event_id", "n"),
    )
