"""The tables. Times are epoch seconds; JSON columns hold JSON only.

Two nullable times decide whether a waiting task can be claimed: `ready_at` (since when it can) and `due_at` (from when
it will). At most one is set. A claim first promotes what is due, then takes the lowest rank of the partial index over
`ready_at`, so that neither finished nor scheduled tasks are ever walked over, however many there are.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    false,
    text,
    true,
)

metadata = MetaData()

_Json = JSON(none_as_null=True)
_BigId = BigInteger().with_variant(Integer(), "sqlite")  # SQLite's rowid alias must be spelled INTEGER


def _partial(name: str, *columns: Any, where: str) -> Index:
    """An index over those rows alone that fulfil `where`, where the database has such indexes."""
    condition: ColumnElement[Any] | Any = text(where)
    return Index(name, *columns, sqlite_where=condition, postgresql_where=condition)


tasks = Table(
    "tasks",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("status", String(12), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("rank", Double, nullable=False),
    Column("ready_at", Double),
    Column("due_at", Double),
    Column("give_up_at", Double),  # the nearer of start deadline and deadline, while the task waits for a slot
    Column("source", _Json, nullable=False),
    Column("audio", _Json, nullable=False),
    Column("source_sha256", String(64), nullable=False),
    Column("audio_sha256", String(64), nullable=False),
    Column("renderer", Text),
    Column("fallback", Text, nullable=False),
    Column("route", Text, nullable=False, server_default=""),  # see app.tasks.route
    Column("options", _Json, nullable=False),
    Column("metadata", _Json, nullable=False),
    Column("client", Text, nullable=False),
    Column("trace_id", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("enqueued_at", Double, nullable=False),
    Column("not_before", Double),
    Column("start_deadline_at", Double),
    Column("deadline_at", Double),
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("attempt", Integer, nullable=False),
    Column("retries", Integer, nullable=False),
    Column("retry_at", Double),
    Column("retry_reason", Text),
    Column("cancel_requested_at", Double),
    Column("error", _Json),
    Column("output", _Json),
    Column("served_by", Text),
    Column("degraded", Boolean, nullable=False),
    Column("quality", _Json),
    Column("lease_owner", Text),
    Column("lease_expires_at", Double),
    Column("last_event_id", BigInteger, nullable=False),
    Column("retry_of", String(40)),  # no foreign key: the older task may be deleted first
    Column("result_removed_at", Double),
    Column("callback", _Json),  # with the secret to sign with: never shown, never logged
    Column("output_path", Text),  # that of `output`: results of equal tasks share one file
    Column("cache_keys", Text),  # results of which keys would do, best first; NULL: it takes no part in the cache
    Column("twin_of", String(40)),  # the equal task that it waits for, or was served with
    Column("cached", Boolean, nullable=False, server_default=false()),  # its result was made for another task
    Column("result_key", String(64)),  # of what key its own render's result is
    Column("span_id", String(16), nullable=False, server_default=""),  # of the request that made it, in `trace_id`
    Column("sampled", Boolean, nullable=False, server_default=true()),  # whether that trace is recorded
    Column("use_cache", Boolean, nullable=False, server_default=true()),  # whether its caller lets it take part
    Column("derived_from", String(40)),  # no foreign key: the older task may be deleted first
    Column("after", Text, nullable=False, server_default=""),  # all predecessors, see app.tasks.chain
    Column("waits_for", Text),  # those that have not succeeded yet; empty: it can be released; NULL: it waits for none
    Column("broken_by", String(40)),  # the predecessor that has ended without a result, until it is failed for that
    Column("default_deadline", Boolean, nullable=False, server_default=false()),  # `deadline_at` is the service's own
    CheckConstraint("ready_at IS NULL OR due_at IS NULL", name="ck_tasks_ready_or_due"),
)
_t = tasks.c
_partial("ix_tasks_ready_rank", _t.rank, _t.id, where="ready_at IS NOT NULL")
_partial("ix_tasks_ready_route", _t.route, _t.rank, _t.id, where="ready_at IS NOT NULL")
_partial("ix_tasks_ready_at", _t.ready_at, where="ready_at IS NOT NULL")
_partial("ix_tasks_due_at", _t.due_at, _t.rank, where="due_at IS NOT NULL")
_partial("ix_tasks_give_up_at", _t.give_up_at, where="give_up_at IS NOT NULL")
_partial("ix_tasks_lease", _t.lease_expires_at, where="lease_expires_at IS NOT NULL")
_partial("ix_tasks_live_source", _t.source_sha256, where="finished_at IS NULL")
_partial("ix_tasks_live_audio", _t.audio_sha256, where="finished_at IS NULL")
_partial("ix_tasks_live_client", _t.client, _t.status, where="finished_at IS NULL")
_partial("ix_tasks_failed_source", _t.source_sha256, where="status = 'FAILED'")
_partial("ix_tasks_failed_audio", _t.audio_sha256, where="status = 'FAILED'")
_partial("ix_tasks_finished", _t.finished_at, where="finished_at IS NOT NULL")
_partial("ix_tasks_result", _t.finished_at, where="output IS NOT NULL AND result_removed_at IS NULL")
_partial("ix_tasks_retry_of", _t.retry_of, _t.created_at, _t.id, where="retry_of IS NOT NULL")
_partial("ix_tasks_output_path", _t.output_path, where="output_path IS NOT NULL AND result_removed_at IS NULL")
_partial("ix_tasks_leading", _t.cache_keys, where="cache_keys IS NOT NULL AND finished_at IS NULL AND twin_of IS NULL")
_partial("ix_tasks_following", _t.twin_of, where="twin_of IS NOT NULL AND finished_at IS NULL")
_partial("ix_tasks_waits_for", _t.waits_for, where="waits_for IS NOT NULL")
_partial("ix_tasks_broken_by", _t.broken_by, where="broken_by IS NOT NULL")
_partial("ix_tasks_derived_from", _t.derived_from, _t.created_at, _t.id, where="derived_from IS NOT NULL")
Index("ix_tasks_created", _t.created_at, _t.id)
Index("ix_tasks_status_created", _t.status, _t.created_at, _t.id)
_partial("ix_tasks_renderer_created", _t.renderer, _t.created_at, _t.id, where="renderer IS NOT NULL")
Index("ix_tasks_client_created", _t.client, _t.created_at, _t.id)

# Who still needs whom: the rows of a task are there until it is released or has ended.
dependencies = Table(
    "dependencies",
    metadata,
    Column("task_id", String(40), ForeignKey("tasks.id"), primary_key=True),
    Column("predecessor_id", String(40), ForeignKey("tasks.id"), primary_key=True),
)
Index("ix_dependencies_predecessor", dependencies.c.predecessor_id)

attempts = Table(
    "attempts",
    metadata,
    Column("task_id", String(40), ForeignKey("tasks.id"), primary_key=True),
    Column("n", Integer, primary_key=True),
    Column("tier", Text, nullable=False),
    Column("slot", Text, nullable=False),
    Column("device", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("ended_at", Double),
    Column("outcome", String(12)),
    Column("error", _Json),
    Column("backoff_ms", Integer),
    Column("postmortem", _Json),
    Column("stages", _Json, nullable=False),
    Column("facts", _Json, nullable=False),
    Column("why", _Json),  # why this tier
    Column("followed_by", Text),  # what was decided after it, and why
)
_partial("ix_attempts_ended", attempts.c.ended_at, where="ended_at IS NOT NULL")

events = Table(
    "events",
    metadata,
    Column("id", _BigId, primary_key=True, autoincrement=False),  # numbered by the writer, in commit order
    Column("task_id", String(40), ForeignKey("tasks.id"), nullable=False),
    Column("type", Text, nullable=False),
    Column("status", String(12), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("at", Double, nullable=False),
    Column("data", _Json, nullable=False),
)
Index("ix_events_task", events.c.task_id, events.c.id)

uploads = Table(
    "uploads",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("sha256", String(64), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("name", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
)
Index("ix_uploads_sha256", uploads.c.sha256)
Index("ix_uploads_expires_at", uploads.c.expires_at)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("client", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("fingerprint", String(64), nullable=False),
    Column("task_id", String(40), ForeignKey("tasks.id"), nullable=False),
    Column("expires_at", Double, nullable=False),
)
Index("ix_idempotency_keys_expires_at", idempotency_keys.c.expires_at)
Index("ix_idempotency_keys_task", idempotency_keys.c.task_id)

outbox = Table(
    "outbox",
    metadata,
    Column("event_id", _BigId, ForeignKey("events.id"), primary_key=True, autoincrement=False),
    Column("task_id", String(40), ForeignKey("tasks.id"), nullable=False),
    Column("type", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("endpoint", Text, nullable=False),  # scheme, host and port: what is slow or dead together
    Column("snapshot", _Json, nullable=False),  # what of the task can change, as it was after the event
    Column("state", String(12), nullable=False),
    # When it may be taken; of a taken one, when its lease ends. NULL: over, or an earlier one of its task goes first.
    Column("next_at", Double),
    Column("lease_owner", Text),
    Column("taken", Integer, nullable=False),  # how often: the fence of whoever took it
    Column("tries", Integer, nullable=False),  # since it was written or replayed
    Column("total_tries", Integer, nullable=False),
    Column("ended_at", Double),
)
Index("ix_outbox_task", outbox.c.task_id, outbox.c.event_id)
Index("ix_outbox_state", outbox.c.state, outbox.c.event_id)
_partial("ix_outbox_next_at", outbox.c.next_at, outbox.c.endpoint, where="next_at IS NOT NULL")
_partial("ix_outbox_lease", outbox.c.lease_owner, where="lease_owner IS NOT NULL")

delivery_tries = Table(
    "delivery_tries",
    metadata,
    Column("event_id", _BigId, ForeignKey("outbox.event_id"), primary_key=True),
    Column("n", Integer, primary_key=True),
    Column("at", Double, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("status", Integer),
    Column("error", Text),
    Column("message", Text),
)

cached_results = Table(
    "cached_results",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("output", _Json, nullable=False),
    Column("path", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("served_by", Text, nullable=False),
    Column("degraded", Boolean, nullable=False),
    Column("quality", _Json),
    Column("expires_at", Double, nullable=False),
    Column("used_at", Double, nullable=False),
)
Index("ix_cached_results_path", cached_results.c.path)
Index("ix_cached_results_expires_at", cached_results.c.expires_at)
Index("ix_cached_results_used_at", cached_results.c.used_at, cached_results.c.bytes)

counters = Table(
    "counters",
    metadata,
    Column("name", String(20), primary_key=True),  # "events" (the last id given), and one row per status
    Column("value", BigInteger, nullable=False),
)

settings = Table(
    "settings",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("value", _Json, nullable=False),
)
