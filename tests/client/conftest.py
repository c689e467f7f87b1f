"""The API's test server, for its client."""

from __future__ import annotations

from tests.api.conftest import *  # noqa: F403
