"""Reads: on connections of their own, which see what is committed and never wait for the writer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    Connection,
    FromClause,
    Select,
    and_,
    bindparam,
    func,
    literal,
    literal_column,
    not_,
    or_,
    select,
    tuple_,
    union_all,
)

from app.store.claiming import IS_PAUSED
from app.store.cursor import decode_cursor, encode_cursor
from app.store.errors import IdempotencyConflict
from app.store.figures import QueueStats
from app.store.records import EventRecord, IdempotencyKey, Page, TaskFilter, TaskRecord, UploadRecord
from app.store.rows import ATTEMPT, EVENT, TASK, UPLOAD, event_record, task_record, upload_record
from app.store.schema import attempts, counters, dependencies, events, tasks, uploads
from app.store.schema import idempotency_keys as keys
from app.store.transaction import EVENTS
from app.tasks.status import CLAIMABLE, Status

PAGE_LIMIT = 1000
_ALL = 10**9
_COMMA = literal(",")
RATE_WINDOW_S, RATE_SAMPLE, _RATE_LEAST = 300.0, 100, 2
"""The pace of the last minutes is what can be foretold with; a sample bounds the work however fast tasks end."""


def ping(connection: Connection) -> None:
    """Read something."""
    connection.execute(select(counters.c.value).limit(1)).scalar_one()


def get(connection: Connection, task_id: str) -> TaskRecord | None:
    """One task with its attempts."""
    row = connection.execute(select(*TASK).where(tasks.c.id == task_id)).one_or_none()
    if row is None:
        return None
    rows = connection.execute(select(*ATTEMPT).where(attempts.c.task_id == task_id).order_by(attempts.c.n)).all()
    return task_record(row, rows)


def get_some(connection: Connection, task_ids: Sequence[str]) -> dict[str, TaskRecord]:
    """Those of some tasks that are there, without attempts."""
    rows = connection.execute(_SOME, {"wanted": list(task_ids)})
    return {task.id: task for task in map(task_record, rows)}


def find_replay(connection: Connection, key: IdempotencyKey, now: float) -> TaskRecord | None:
    """The task that a key made, while the key is good. Raises `IdempotencyConflict`."""
    row = connection.execute(
        select(keys.c.fingerprint, keys.c.expires_at, keys.c.task_id).where(
            keys.c.client == key.client, keys.c.key == key.key
        )
    ).one_or_none()
    if row is None:
        return None
    task = get(connection, row.task_id)
    if task is None or (row.expires_at <= now and task.status.is_terminal):
        return None
    if row.fingerprint != key.fingerprint:
        raise IdempotencyConflict(task.id)
    return task


def list_tasks(
    connection: Connection, where: TaskFilter, cursor: str | None, limit: int, *, oldest_first: bool = False
) -> Page:
    """One page, newest first (or oldest). Raises ValueError for a foreign cursor or a limit outside 1 to 1000."""
    if not 1 <= limit <= PAGE_LIMIT:
        raise ValueError(f"limit must be 1 to {PAGE_LIMIT}, not {limit}")
    among = _among(where)
    query, place = _filtered(where, among), (among.c.created_at, among.c.id)
    if cursor is not None:
        seen = tuple_(*decode_cursor(cursor))
        query = query.where(tuple_(*place) > seen if oldest_first else tuple_(*place) < seen)
    query = query.order_by(*(place if oldest_first else (at.desc() for at in place))).limit(limit + 1)
    # One query per status, each a walk along an index; with IN (...) the database would sort all tasks of these.
    statuses = None if where.status is None else sorted(set(where.status))
    queries = [query] if statuses is None else [query.where(among.c.status == status.value) for status in statuses]
    found = [task_record(row) for one in queries for row in connection.execute(one)]
    found.sort(key=lambda task: (task.created_at, task.id), reverse=not oldest_first)
    page = tuple(found[:limit])
    more = len(found) > limit
    return Page(page, encode_cursor(page[-1].created_at, page[-1].id) if more else None)


def queue(connection: Connection, now: float) -> QueueStats:
    """The queue now."""
    by_status = dict.fromkeys(Status, 0)
    for name, value in connection.execute(select(counters.c.name, counters.c.value)):
        if name != EVENTS:
            by_status[Status(name)] = value
    scheduled = connection.execute(select(func.count()).where(tasks.c.due_at > now)).scalar_one()
    joined = connection.execute(
        select(func.count()).where(tasks.c.twin_of.is_not(None), tasks.c.finished_at.is_(None))
    ).scalar_one()
    chained = connection.execute(select(func.count()).where(tasks.c.waits_for.is_not(None))).scalar_one()
    since = connection.execute(
        select(
            select(func.min(tasks.c.ready_at)).where(tasks.c.ready_at.is_not(None)).scalar_subquery(),
            select(func.min(tasks.c.due_at)).where(tasks.c.due_at <= now).scalar_subquery(),
        )
    ).one()
    return QueueStats(
        by_status=by_status,
        runnable=sum(by_status[status] for status in CLAIMABLE) - scheduled - joined - chained,
        scheduled=scheduled,
        joined=joined,
        chained=chained,
        oldest_runnable_at=min((at for at in since if at is not None), default=None),
        paused=paused(connection),
    )


def paused(connection: Connection) -> bool:
    """Whether claiming is paused."""
    return connection.execute(IS_PAUSED).scalar_one()


def finish_rate(connection: Connection, now: float) -> float | None:
    """Tasks per second that ended lately, None where fewer than two did."""
    lately = (
        select(tasks.c.finished_at, tasks.c.cached)
        .where(tasks.c.finished_at.is_not(None), tasks.c.finished_at > now - RATE_WINDOW_S)
        .order_by(tasks.c.finished_at.desc())
        .limit(RATE_SAMPLE)
        .subquery()
    )
    # What was served from the cache took no slot's time: it says nothing of how long the others will take.
    made = func.count().filter(not_(lately.c.cached))
    count, since = connection.execute(select(made, func.min(lately.c.finished_at)).select_from(lately)).one()
    return None if count < _RATE_LEAST or since >= now else count / (now - since)


def queue_position(connection: Connection, task_id: str, now: float, at_most: int | None) -> int | None:
    """How many runnable tasks go before this one, counted up to `at_most`; None if it does not wait for a slot."""
    row = connection.execute(
        select(tasks.c.rank).where(tasks.c.id == task_id, or_(tasks.c.ready_at.is_not(None), tasks.c.due_at <= now))
    ).one_or_none()
    if row is None:
        return None
    before = tuple_(tasks.c.rank, tasks.c.id) < tuple_(row.rank, task_id)
    ahead = 0
    for waits in (tasks.c.ready_at.is_not(None), tasks.c.due_at <= now):
        some = select(tasks.c.rank).where(waits, before).limit(at_most).subquery()
        ahead += connection.execute(select(func.count()).select_from(some)).scalar_one()
    return ahead if at_most is None else min(ahead, at_most)


def list_events(connection: Connection, task_id: str | None, after: int, limit: int) -> list[EventRecord]:
    """Events with an id above `after`, oldest first."""
    query = select(*EVENT).where(events.c.id > after).order_by(events.c.id).limit(limit)
    if task_id is not None:
        query = query.where(events.c.task_id == task_id)
    return [event_record(row) for row in connection.execute(query)]


def last_event_id(connection: Connection) -> int:
    """The newest id that was given, also if its event is purged by now."""
    return int(connection.execute(select(counters.c.value).where(counters.c.name == EVENTS)).scalar_one())


def next_due(connection: Connection, since: float) -> float | None:
    """The earliest of: a task falls due after `since`, a lease expires, a waiting task's deadline passes."""
    row = connection.execute(_NEXT_DUE, {"since": since}).one()
    return min((at for at in row if at is not None), default=None)


def get_upload(connection: Connection, upload_id: str, now: float) -> UploadRecord | None:
    """An upload that has not expired."""
    row = connection.execute(select(*UPLOAD).where(uploads.c.id == upload_id, uploads.c.expires_at > now)).one_or_none()
    return None if row is None else upload_record(row)


def get_uploads(connection: Connection, upload_ids: Sequence[str], now: float) -> list[UploadRecord]:
    """Those of some uploads that are there and have not expired."""
    rows = connection.execute(_UPLOADS, {"wanted": upload_ids, "now": now})
    return [upload_record(row) for row in rows]


def expired_uploads(connection: Connection, now: float, limit: int) -> list[UploadRecord]:
    """Uploads past their time, oldest first."""
    rows = connection.execute(
        select(*UPLOAD).where(uploads.c.expires_at <= now).order_by(uploads.c.expires_at).limit(limit)
    )
    return [upload_record(row) for row in rows]


def blobs_in_use(connection: Connection, wanted: Sequence[str], failed_since: float | None) -> set[str]:
    """Those contents that an upload, a task that has not ended, or one that failed at or after a time refers to."""
    found: set[str] = set()
    for start in range(0, len(wanted), _IN_LIMIT):
        some = wanted[start : start + _IN_LIMIT]
        live = tasks.c.finished_at.is_(None)
        queries = [
            select(uploads.c.sha256).where(uploads.c.sha256.in_(some)),
            select(tasks.c.source_sha256).where(tasks.c.source_sha256.in_(some), live),
            select(tasks.c.audio_sha256).where(tasks.c.audio_sha256.in_(some), live),
        ]
        if failed_since is not None:
            lately = and_(_FAILED, tasks.c.finished_at >= failed_since)
            queries += [
                select(tasks.c.source_sha256).where(tasks.c.source_sha256.in_(some), lately),
                select(tasks.c.audio_sha256).where(tasks.c.audio_sha256.in_(some), lately),
            ]
        for query in queries:
            found.update(connection.execute(query.distinct()).scalars())
    return found


_NEXT_DUE = select(
    select(func.min(tasks.c.due_at)).where(tasks.c.due_at > bindparam("since")).scalar_subquery(),
    *(
        select(func.min(at)).where(at.is_not(None)).scalar_subquery()
        for at in (tasks.c.lease_expires_at, tasks.c.give_up_at)
    ),
)
_FAILED = tasks.c.status == literal_column("'FAILED'")
"""Spelled out as in the partial indexes: a database cannot match a parameter with their condition."""

_SOME = select(*TASK).where(tasks.c.id.in_(bindparam("wanted", expanding=True)))
_UPLOADS = select(*UPLOAD).where(
    uploads.c.id.in_(bindparam("wanted", expanding=True)), uploads.c.expires_at > bindparam("now")
)
_IN_LIMIT = 500
"""Values of one IN list: databases bound the parameters of a statement."""


def _among(where: TaskFilter) -> FromClause:
    """The tasks that a filter looks through: all of them, or those few that wait for one."""
    if where.waits_for is None:
        return tasks
    chained = select(dependencies.c.task_id).where(dependencies.c.predecessor_id == where.waits_for)
    twin = tasks.alias("twin")
    following = select(twin.c.id).where(twin.c.twin_of == where.waits_for, twin.c.finished_at.is_(None))
    # A dependant's row stays until all its predecessors have ended: whether this one has, the task itself knows.
    listed = _COMMA + tasks.c.waits_for + _COMMA
    still = or_(tasks.c.twin_of == where.waits_for, func.replace(listed, f",{where.waits_for},", ",") != listed)
    found = select(tasks).where(tasks.c.id.in_(union_all(chained, following)), still)
    # With a limit it is done first. Else a database may walk over all tasks in the order of the page instead.
    return found.limit(_ALL).subquery()


def _filtered(where: TaskFilter, among: FromClause) -> Select[Any]:
    found = among.c
    query = select(*(found[column.name] for column in TASK))
    if where.renderer is not None:
        query = query.where(found.renderer == where.renderer)
    if where.client is not None:
        query = query.where(found.client == where.client)
    if where.retry_of is not None:
        query = query.where(found.retry_of == where.retry_of)
    if where.derived_from is not None:
        query = query.where(found.derived_from == where.derived_from)
    if where.created_after is not None:
        query = query.where(found.created_at > where.created_after)
    if where.created_before is not None:
        query = query.where(found.created_at < where.created_before)
    return query
