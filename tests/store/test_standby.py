"""A second site: a standby that confirms every commit takes over, with all that was acknowledged (R3.15)."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from app.store.sql import SqlStore, open_store
from tests.postgresql import Cluster
from tests.store.kit import Clock, assert_consistent, create, must_get

WAIT_S = 60.0


@pytest.fixture
def pair(cluster: Cluster) -> Iterator[tuple[Cluster, Cluster]]:
    """A primary that waits for its standby with every commit. Not the server of other tests: it dies here."""
    del cluster  # asked for because it skips where there is no server
    primary = Cluster()
    standby = Cluster(primary)
    primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
    primary.execute("SELECT pg_reload_conf()")
    yield primary, standby
    primary.close()
    standby.close()


class Caller:
    """Creates task after task, and knows which were acknowledged."""

    def __init__(self, store: SqlStore) -> None:
        self.acknowledged: list[str] = []
        self._store = store
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._call)
        self._thread.start()

    def _call(self) -> None:
        while not self._stop.is_set():
            self.acknowledged.append(create(self._store).id)

    def until(self, there: Callable[[int], bool]) -> None:
        end = time.monotonic() + WAIT_S
        while not there(len(self.acknowledged)):
            assert self._thread.is_alive()
            assert time.monotonic() < end
            time.sleep(0.01)

    def end(self) -> None:
        self._stop.set()
        self._thread.join(WAIT_S)


def test_nothing_acknowledged_is_lost_when_the_standby_takes_over(pair: tuple[Cluster, Cluster], clock: Clock) -> None:
    primary, standby = pair
    store = open_store(primary.url(primary.create(), also=standby), clock, patience_s=WAIT_S)
    caller = Caller(store)
    try:
        caller.until(lambda count: count >= 20)
        primary.stop(signal.SIGQUIT)
        before = len(caller.acknowledged)
        standby.execute("SELECT pg_promote()")
        began = time.monotonic()
        caller.until(lambda count: count >= before + 20)
        print(f"20 tasks acknowledged {time.monotonic() - began:.1f} s after the promotion")
    finally:
        caller.end()
    assert all(must_get(store, task_id) for task_id in caller.acknowledged)
    assert sum(store.queue().by_status.values()) == len(caller.acknowledged), "none is there twice"
    assert_consistent(store)
    store.close()
