"""docs/failures.md says what the code does."""

from __future__ import annotations

import re

import pytest

from app.config import Settings
from app.retry.taxonomy import FAILURE_TABLE, FailureCode
from tests.retry.failures_page import ADVICE, PAGE, page

WRITTEN = PAGE.read_text(encoding="utf-8")


def test_the_page_is_what_the_failure_table_makes_of_it():
    assert page() == WRITTEN, "run `python -m tests.retry.failures_page`"


@pytest.mark.parametrize("code", FailureCode)
def test_every_code_has_a_row_that_tells_meaning_and_advice(code):
    [row] = re.findall(rf"^\| `{code}` \|.*$", WRITTEN, re.MULTILINE)
    assert FAILURE_TABLE[code].message in row
    assert ADVICE[code] in row


def test_every_setting_that_the_page_names_exists():
    named = set(re.findall(r"`((?:max|phase|health|backoff|lease|cancel|media|upload|data)_[a-z_*]+)`", WRITTEN))
    assert len(named) > 10
    assert {name for name in named if "*" not in name} <= set(Settings.model_fields)
