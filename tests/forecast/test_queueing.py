"""The queue played through: who starts when, and on which tier."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.forecast.queueing import UNKNOWN, Line, Server, Stand, Turn, Waiting
from app.forecast.spread import Spread

WARP, OTHER = Stand("warp", "Devices"), Stand("other", "other")
STANDS = {"warp": WARP, "other": OTHER}


def waiting(n: float, *route: str, takes: float | None = 10.0, client: str = "") -> Waiting:
    spread = None if takes is None else Spread(takes, 0.1)
    return Waiting((float(n), f"task_{n}"), route or ("warp",), lambda _tier: spread, client)


def start(turn: Turn) -> float:
    assert turn is not UNKNOWN
    return turn.start.mid if turn.start is not None else 0.0


def busy(left: float, group: str = "Devices", tier: str = "warp") -> Server:
    return Server(group, Spread(left, 0.1), tier)


def test_with_a_free_slot_nobody_waits() -> None:
    turn = Line(STANDS, [Server("Devices")], []).turn(waiting(1))
    assert (start(turn), turn.waits) == (0.0, False)
    assert turn.end is not None
    assert turn.end.mid == pytest.approx(10.0)


def test_each_waits_for_those_before_it_and_for_what_runs() -> None:
    line = Line(STANDS, [busy(4.0)], [waiting(n) for n in range(3)])
    assert [start(line.turn(waiting(n))) for n in range(3)] == pytest.approx([4.0, 14.0, 24.0])
    assert start(line.turn(waiting(3))) == pytest.approx(34.0)
    assert start(line.turn(waiting(4))) == pytest.approx(44.0), "the one before it is in the line now"


def test_two_slots_share_the_line() -> None:
    line = Line(STANDS, [busy(4.0), busy(9.0)], [waiting(n) for n in range(4)])
    assert [start(line.turn(waiting(n))) for n in range(4)] == pytest.approx([4.0, 9.0, 14.0, 19.0])


def test_a_tier_admits_no_more_at_once_than_it_may() -> None:
    one_only = {"warp": Stand("warp", "Devices", limit=1)}
    line = Line(one_only, [busy(4.0), Server("Devices")], [waiting(n) for n in range(2)])
    assert [start(line.turn(waiting(n))) for n in range(2)] == pytest.approx([4.0, 14.0])


def test_a_loaded_tier_is_passed_over_after_its_patience() -> None:
    line = Line(STANDS, [busy(8.0), Server("other")], [waiting(n, "warp", "other") for n in range(4)])
    assert [line.turn(waiting(n)).tier for n in range(4)] == ["warp", "other", "warp", "other"]


def test_a_degraded_tier_serves_where_no_other_can() -> None:
    still = Stand("still", "still", degraded=True)
    servers = [busy(1000.0), Server("still")]
    line = Line({"warp": WARP, "still": still}, servers, [])
    assert start(line.turn(waiting(1, "warp", "still"))) == pytest.approx(1000.0)
    down = Line({"warp": Stand("warp", "Devices", usable=False), "still": still}, servers, [])
    assert down.turn(waiting(1, "warp", "still")).tier == "still"


def test_what_nobody_knows_is_not_told() -> None:
    assert Line(STANDS, [], []).turn(waiting(1)) is UNKNOWN, "no slot"
    assert Line(STANDS, [Server("Devices")], []).turn(waiting(1, "gone")) is UNKNOWN
    endless = Server("Devices", tier="warp", endless=True)
    assert Line(STANDS, [endless], []).turn(waiting(1)) is UNKNOWN
    line = Line(STANDS, [busy(3.0)], [waiting(1, takes=None)])
    first = line.turn(waiting(1))
    assert (start(first), first.end) == (pytest.approx(3.0), None), "it starts, and then takes nobody knows how long"
    assert line.turn(waiting(2)) is UNKNOWN, "and so nobody knows when the next one starts"
    both = Line(STANDS, [endless, busy(5.0)], [])
    assert start(both.turn(waiting(1))) == pytest.approx(5.0)


def test_an_urgent_task_goes_before_others() -> None:
    line = Line(STANDS, [busy(4.0)], [waiting(n) for n in range(5)])
    assert start(line.turn(waiting(-1))) == pytest.approx(4.0)
    assert start(line.turn(waiting(2.5))) == pytest.approx(44.0)
    assert start(line.turn(waiting(4))) == pytest.approx(64.0), "those behind them wait longer"
    assert start(line.newcomer(waiting(9))) == pytest.approx(74.0)
    for n in range(100):
        line.turn(waiting(0.5 + n / 1000))
    assert start(line.turn(waiting(0.9))) >= 24.0, "many at once go by those around them"


def test_behind_the_part_that_was_played_the_pace_goes_on() -> None:
    line = Line(STANDS, [busy(10.0)], [waiting(n) for n in range(100)], more=100)
    assert start(line.turn(waiting(1000))) == pytest.approx(2010.0, rel=0.02)
    assert start(line.turn(waiting(1000), position=150)) == pytest.approx(1510.0, rel=0.02)


def test_room_comes_when_the_next_task_starts() -> None:
    queue = [waiting(1, client="anna"), waiting(2, client="bert"), waiting(3, client="anna")]
    line = Line(STANDS, [busy(4.0)], queue)
    room, of_bert = line.room(), line.room("bert")
    assert room is not None
    assert of_bert is not None
    assert (room.mid, of_bert.mid) == pytest.approx((4.0, 14.0))
    assert line.room("carl") is None
    assert Line(STANDS, [busy(4.0)], []).room() is None


@given(
    takes=st.lists(st.floats(0.01, 1000), max_size=30),
    runs=st.lists(st.floats(0.0, 1000), min_size=1, max_size=4),
    more=st.integers(0, 1000),
)
def test_nobody_starts_before_those_ahead_and_all_work_is_done(
    takes: list[float], runs: list[float], more: int
) -> None:
    queue = [waiting(n, takes=seconds) for n, seconds in enumerate(takes)]
    line = Line(STANDS, [busy(left) for left in runs], queue, more)
    starts = [start(line.turn(one)) for one in queue]
    assert starts == sorted(starts)
    assert all(at >= 0.0 for at in starts)
    last = line.turn(waiting(1e6))
    busiest = (sum(runs) + sum(takes)) / len(runs)
    assert start(last) <= (busiest + max(takes, default=0.0)) * (1 + more) + 1.0
