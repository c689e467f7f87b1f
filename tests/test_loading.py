"""Loading without the collector."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator

import pytest

from app.loading import uncollected


@pytest.fixture(autouse=True)
def _thawed() -> Iterator[None]:
    yield
    gc.unfreeze()
    gc.enable()


def test_the_collector_is_off_meanwhile_and_on_afterwards() -> None:
    with uncollected():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_a_module_that_does_not_load_leaves_the_collector_on() -> None:
    with pytest.raises(ImportError), uncollected():
        raise ImportError("no such module")
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    with uncollected():
        pass
    assert not gc.isenabled()


def test_what_was_loaded_is_not_walked_over_again() -> None:
    gc.unfreeze()
    with uncollected():
        made = [[] for _ in range(1000)]
    assert gc.get_freeze_count() >= len(made)


def test_the_command_line_is_loaded_so() -> None:
    script = (
        "import gc, sys; from app.__main__ import main; sys.argv = ['greenroom', '--version']\n"
        "try: main()\n"
        "except SystemExit: print(gc.get_freeze_count() > 10_000, gc.isenabled())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "True True", done.stdout + done.stderr
