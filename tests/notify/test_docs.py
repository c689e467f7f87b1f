"""The code in docs/webhooks.md does what it says."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from app.notify.signing import key_of, signature
from app.tasks.notices import NOTICES

TEXT = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()
BODY = b'{"type": "task.succeeded"}'


def verify(*given: Any) -> bool:
    [code] = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    return bool(names["verify"](*given))


def headers(*secrets: str, at: int) -> dict[str, str]:
    signed = signature([key_of(secret) for secret in secrets], "task_1_7", at, BODY)
    return {"webhook-id": "task_1_7", "webhook-timestamp": str(at), "webhook-signature": signed}


@pytest.mark.parametrize("secret", ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "any text"])
def test_the_shown_function_accepts_what_is_ours_and_nothing_else(secret: str) -> None:
    now = int(time.time())
    assert verify(secret, headers(secret, at=now), BODY)
    assert verify(secret, headers("another", secret, at=now), BODY)
    assert not verify(secret, headers("another", at=now), BODY)
    assert not verify(secret, headers(secret, at=now), BODY + b" ")
    assert not verify(secret, headers(secret, at=now - 301), BODY)


def test_every_notice_is_explained() -> None:
    assert all(f"`{kind}`" in TEXT for kind in NOTICES)
