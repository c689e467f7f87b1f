"""The bell that wakes a waiting thread: it never holds up who rings it, and is nobody else's file once it is closed."""

from __future__ import annotations

import os
from multiprocessing.connection import wait

from app.retry.taxonomy import Failure, FailureCode
from app.worker.bell import Bell
from app.worker.orders import Orders


def test_a_bell_that_nobody_hears_can_be_rung_for_ever():
    bell = Bell()
    for _ in range(100_000):  # more than a pipe holds
        bell.ring()
    assert wait([bell.handle], 0) == [bell.handle]
    bell.close()


def test_a_bell_that_was_silenced_before_can_be_silenced_again():
    bell = Bell()
    bell.ring()
    bell.silence()
    bell.silence()
    assert wait([bell.handle], 0) == []
    bell.ring()
    assert wait([bell.handle], 0) == [bell.handle]
    bell.close()


def test_a_ring_after_the_end_reaches_no_file_that_was_opened_since(tmp_path):
    bell = Bell()
    bell.close()
    path = tmp_path / "mine"
    handles = [os.open(path, os.O_RDWR | os.O_CREAT) for _ in range(8)]  # these take the numbers that became free
    bell.ring()
    bell.silence()
    bell.close()
    assert path.read_bytes() == b""
    for handle in handles:
        os.close(handle)


def test_orders_that_come_too_late_are_none():
    orders = Orders()
    orders.close()
    orders.nudge()
    orders.end(Failure(FailureCode.CANCELLED))
    assert orders.ending is None


def test_the_first_order_counts():
    orders = Orders()
    orders.end(Failure(FailureCode.CANCELLED))
    orders.end(Failure(FailureCode.INTERRUPTED))
    assert wait([orders.bell], 0) == [orders.bell]
    assert orders.ending is not None
    assert orders.ending.code is FailureCode.CANCELLED
    orders.close()
