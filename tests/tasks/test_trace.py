"""Trace contexts, as they come and as they go on."""

from __future__ import annotations

import pytest

from app.tasks.trace import TraceContext, parse, span_id

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("header", "sampled"),
    [
        ("00-{t}-{s}-01", True),
        ("00-{t}-{s}-00", False),
        ("00-{t}-{s}-02", False),
        ("00-{t}-{s}-03", True),
        (" 00-{t}-{s}-01 ", True),
        ("cc-{t}-{s}-01-what-comes", True),
    ],
)
def test_a_good_one_is_taken_with_its_flag(header: str, sampled: bool) -> None:
    assert parse(header.format(t=TRACE, s=SPAN)) == TraceContext(TRACE, SPAN, sampled)


@pytest.mark.parametrize(
    "header",
    [None, "", "rubbish", "00-{t}-{s}", "ff-{t}-{s}-01", "00-{z}-{s}-01", "00-{t}-{zs}-01", "00-{T}-{s}-01",
     "00-{t}-{s}-01-more", "00-{t}x-{s}-01"],
)  # fmt: skip
def test_a_bad_one_is_not_taken(header: str | None) -> None:
    values = {"t": TRACE, "s": SPAN, "z": "0" * 32, "zs": "0" * 16, "T": TRACE.upper()}
    assert parse(header.format(**values) if header else header) is None


@pytest.mark.parametrize("sampled", [True, False])
def test_what_is_handed_on_is_taken_by_the_next(sampled: bool) -> None:
    here = TraceContext(TRACE, SPAN, sampled)
    assert parse(here.traceparent) == here
    assert parse(here.at("ab" * 8).traceparent) == TraceContext(TRACE, "ab" * 8, sampled)


def test_a_span_has_one_name_wherever_it_is_told_of() -> None:
    assert span_id("task_1", "attempt", 2) == span_id("task_1", "attempt", 2)
    assert len({span_id("task_1", "attempt", 2), span_id("task_1", "attempt", 1), span_id("task_2", "attempt", 2)}) == 3
    assert parse(TraceContext(TRACE, span_id("task_1")).traceparent) is not None
