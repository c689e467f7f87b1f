"""The cleanup scope of an attempt."""

from __future__ import annotations

from functools import partial

import pytest

from app.cleanup.scope import CleanupScope


def test_steps_run_last_in_first_out():
    done: list[str] = []
    with CleanupScope() as scope:
        for name in ("a", "b", "c"):
            scope.add(name, partial(done.append, name))
    assert done == ["c", "b", "a"]


def test_a_failing_step_does_not_stop_the_next_or_hide_the_error():
    done: list[str] = []
    with pytest.raises(KeyError, match="the real one"), CleanupScope() as scope:  # noqa: PT012 - the scope is the subject
        scope.add("first", lambda: done.append("first"))
        scope.add("broken", lambda: 1 / 0)
        raise KeyError("the real one")
    assert done == ["first"]


def test_a_step_run_early_does_not_run_again():
    done: list[str] = []
    with CleanupScope() as scope:
        scope.add("slot", lambda: done.append("slot"))
        scope.run("slot")
        scope.run("slot")
    assert done == ["slot"]


def test_names_are_unique():
    scope = CleanupScope()
    scope.add("a", print)
    with pytest.raises(ValueError, match="a"):
        scope.add("a", print)
