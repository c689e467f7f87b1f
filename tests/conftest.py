"""What the tests of several folders take."""

from __future__ import annotations

import pytest
from hypothesis import settings

LONG = "long"
"""The profile of Hypothesis under `--long`."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="random histories and requests at length (minutes)")


def pytest_configure(config: pytest.Config) -> None:
    settings.register_profile(LONG, max_examples=1000)
    if config.getoption("--long"):
        settings.load_profile(LONG)


@pytest.fixture
def long(pytestconfig: pytest.Config) -> bool:
    """Whether to run at length."""
    return bool(pytestconfig.getoption("--long"))
