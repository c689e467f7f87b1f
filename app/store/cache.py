"""The result cache: finished results by key, for as long as they may be served to equal tasks.

An entry names the file that a task published; the file is shared, never copied. It goes when neither an entry nor a
task that still has its result names it: see `results_in_use`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from app.store.figures import CacheStats
from app.store.records import Artifact, CachedResult, KeepFor, TaskRecord
from app.store.schema import cached_results as results
from app.store.schema import tasks
from app.store.transaction import Transaction
from app.store.transitions import finish
from app.tasks.status import Status

_r = results.c
_good = select(_r.key, _r.output, _r.served_by, _r.degraded, _r.quality).where(_r.expires_at > bindparam("now"))
_FIND_ONE = _good.where(_r.key == bindparam("wanted"))
_FIND = _good.where(_r.key.in_(bindparam("wanted", expanding=True)))
_USED = update(results).where(_r.key == bindparam("used")).values(used_at=bindparam("at"))


def find(connection: Connection, keys: Sequence[str], now: float) -> CachedResult | None:
    """The result of the first of `keys` that has one which may still be served."""
    if not keys:
        return None
    # Most requests have one key, and a list in a statement takes longer to lay out than to look up.
    query, wanted = (_FIND_ONE, keys[0]) if len(keys) == 1 else (_FIND, list(keys))
    found = {row.key: row for row in connection.execute(query, {"wanted": wanted, "now": now})}
    row = next((found[key] for key in keys if key in found), None)
    if row is None:
        return None
    return CachedResult(row.key, Artifact(**row.output), row.served_by, row.degraded, row.quality)


def remember(tx: Transaction, task: TaskRecord, terms: KeepFor) -> None:
    """Keep the result of a task that has just succeeded; the longest unused go where there are too many bytes.

    A result that is larger than all room is not kept.
    """
    output = task.output
    tx.connection.execute(delete(results).where((_r.expires_at <= tx.now) | (_r.key == terms.key)))
    if output is None or output.bytes > terms.max_bytes:
        return
    _make_room(tx, terms.max_bytes - output.bytes)
    tx.connection.execute(
        insert(results),
        {
            "key": terms.key,
            "output": asdict(output),
            "path": output.path,
            "bytes": output.bytes,
            "served_by": task.served_by,
            "degraded": task.degraded,
            "quality": task.quality,
            "expires_at": tx.now + terms.ttl_s,
            "used_at": tx.now,
        },
    )


def _make_room(tx: Transaction, most: int) -> None:
    """Forget the longest unused entries until the others have at most so many bytes together."""
    taken = tx.connection.execute(select(func.coalesce(func.sum(_r.bytes), 0))).scalar_one()
    if taken <= most:
        return
    gone = []
    for key, size in tx.connection.execute(select(_r.key, _r.bytes).order_by(_r.used_at)):
        gone.append(key)
        taken -= size
        if taken <= most:
            break
    for key in gone:
        tx.connection.execute(delete(results).where(_r.key == key))


def serve(tx: Transaction, task: TaskRecord, result: CachedResult) -> TaskRecord:
    """QUEUED -> SUCCEEDED with the result of another task."""
    tx.connection.execute(_USED, {"used": result.key, "at": tx.now})
    return finish(
        tx,
        task,
        Status.SUCCEEDED,
        {"served_by": result.served_by, "degraded": result.degraded, "cached": True},
        output=asdict(result.output),
        served_by=result.served_by,
        degraded=result.degraded,
        quality=result.quality,
        error=None,
        cached=True,
    )


def drop(tx: Transaction, key: str, path: str) -> None:
    """Forget an entry whose file is not what it should be, unless another has taken its place."""
    tx.connection.execute(delete(results).where(_r.key == key, _r.path == path))


def expire(tx: Transaction) -> int:
    """Forget the entries whose time is up; how many they were."""
    return tx.connection.execute(delete(results).where(_r.expires_at <= tx.now)).rowcount


def stats(connection: Connection) -> CacheStats:
    """How much the cache holds."""
    return CacheStats(*connection.execute(select(func.count(), func.coalesce(func.sum(_r.bytes), 0))).one())


def results_in_use(connection: Connection, paths: Sequence[str]) -> set[str]:
    """See `Store.results_in_use`."""
    wanted = list(paths)
    of_tasks = select(tasks.c.output_path).where(tasks.c.output_path.in_(wanted), tasks.c.result_removed_at.is_(None))
    of_cache = select(_r.path).where(_r.path.in_(wanted))
    return {path for query in (of_tasks, of_cache) for path in connection.execute(query).scalars()}
