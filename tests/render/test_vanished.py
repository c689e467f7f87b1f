"""A counterpart counts as lost after 60 s without a break, not before. # R0.3"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.render.vanished import LOST_AFTER_S, Presence
from app.retry.taxonomy import CodedError, FailureCode


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_what_is_missing_for_less_than_a_minute_may_come_back(clock: Clock) -> None:
    presence = Presence("prompt 17", clock=clock)
    presence.missing()
    clock.now += 59.9
    presence.missing()
    presence.seen()


def test_what_is_missing_for_a_minute_is_lost(clock: Clock) -> None:
    presence = Presence("prompt 17", clock=clock)
    presence.missing()
    clock.now += 60.1
    with pytest.raises(CodedError) as lost:
        presence.missing(url="http://comfy:8188")
    assert lost.value.code is FailureCode.TASK_LOST
    assert str(lost.value) == "prompt 17 vanished: it was not there for 60 s."
    assert lost.value.failure.hint
    assert lost.value.failure.detail == {"missing_s": 60.1, "url": "http://comfy:8188"}


def test_one_sight_of_it_begins_the_minute_anew(clock: Clock) -> None:
    presence = Presence("prompt 17", clock=clock)
    presence.missing()
    clock.now += 59.9
    presence.seen()
    clock.now += 0.2
    presence.missing()
    clock.now += 59.9
    presence.missing()
    clock.now += 0.2
    with pytest.raises(CodedError):
        presence.missing()


def test_the_minute_begins_when_it_is_first_missed_and_not_when_it_was_last_seen(clock: Clock) -> None:
    presence = Presence("prompt 17", clock=clock)
    presence.seen()
    clock.now += 3600
    presence.missing()


@given(st.lists(st.tuples(st.sampled_from(["seen", "missing", "no answer"]), st.floats(0.01, 30)), max_size=40))
def test_it_is_lost_exactly_when_all_looks_of_the_last_minute_missed_it(looks: list[tuple[str, float]]) -> None:
    clock = Clock()
    presence = Presence("prompt 17", clock=clock)
    missed_since: float | None = None
    for found, pause in looks:
        clock.now += pause
        if found == "seen":
            presence.seen()
            missed_since = None
        elif found == "missing":
            missed_since = clock.now if missed_since is None else missed_since
            if clock.now - missed_since >= LOST_AFTER_S:
                with pytest.raises(CodedError):
                    presence.missing()
                return
            presence.missing()
