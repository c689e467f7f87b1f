"""Tests of the tests: with a safety switched off, the suites that watch over it must fail."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ZOMBIES = "tests/store/test_claims.py::test_a_zombie_can_do_nothing"
EXPIRY = "tests/store/test_claims.py::test_a_renewed_lease_lives_and_an_expired_one_frees_the_task"
HISTORIES = "tests/store/test_machine.py::test_a_long_busy_history_agrees_with_the_model"
THREADS = "tests/store/test_threads.py::test_threads_on_one_database_agree_on_what_happened"
TROUBLE = "tests/faults/test_store_trouble.py"
LATE = f"{TROUBLE}::test_an_attempt_that_loses_its_lease_after_it_published_leaves_no_file"
OVERTAKEN = f"{TROUBLE}::test_an_attempt_that_loses_its_lease_while_another_runs_changes_nothing"
WHOLE = f"{TROUBLE}::test_the_whole_file_is_in_place_before_success_is_written"


@pytest.mark.parametrize(
    ("mutant", "suite"),
    [
        ("fences", ZOMBIES),
        ("fences", HISTORIES),
        ("fences", THREADS),
        ("fences", OVERTAKEN),
        ("leases", EXPIRY),
        ("leases", HISTORIES),
        ("leases", THREADS),
        ("notices", HISTORIES),
        ("publish-late", WHOLE),
        ("publish-unfenced", LATE),
    ],
    ids=lambda word: word.rpartition("::")[2].rpartition("/")[2],
)
def test_a_suite_catches_the_mutant(mutant, suite):
    command = [sys.executable, "-m", "pytest", "-p", "tests.faults.mutants", "--mutant", mutant, suite, "-q"]
    done = subprocess.run(
        [*command, "-x", "-p", "no:cacheprovider", "--tb=line"], cwd=ROOT, capture_output=True, text=True, timeout=150
    )
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout[-3000:] + done.stderr[-2000:]
    assert int(re.findall(r"(\d+) failed", done.stdout)[-1]) > 0
    assert " error" not in done.stdout.splitlines()[-1], done.stdout[-3000:]
