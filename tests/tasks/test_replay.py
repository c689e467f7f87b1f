"""Events replay to the state (R1.7)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.tasks.replay import CANCEL_REQUESTED, EVENT_OF, replay
from app.tasks.status import LEGAL, IllegalTransition, Status


@dataclass(frozen=True)
class Happened:
    type: str


def test_every_status_has_its_own_event() -> None:
    assert set(EVENT_OF) == set(Status)
    assert len(set(EVENT_OF.values())) == len(Status)


def test_the_cancel_flag_leaves_the_status_alone() -> None:
    assert replay([Happened("task.queued"), Happened("task.running"), Happened(CANCEL_REQUESTED)]) is Status.RUNNING


def test_a_history_whose_beginning_is_missing_is_refused() -> None:
    with pytest.raises(ValueError, match="history"):
        replay([Happened(CANCEL_REQUESTED), Happened("task.queued")])


@given(st.lists(st.sampled_from(list(Status)), max_size=6))
def test_any_history_replays_or_is_refused(path: list[Status]) -> None:  # R1.7
    history = [Happened(EVENT_OF[status]) for status in path]
    legal = all(after in LEGAL[before] for before, after in pairwise(path))
    if not path or path[0] is not Status.QUEUED:
        with pytest.raises(ValueError, match="history"):
            replay(history)
    elif legal:
        assert replay(history) is path[-1]
    else:
        with pytest.raises(IllegalTransition):
            replay(history)
