"""The parts of a delivery that need no network: signatures, schedule, body."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.notify.body import MAX_BYTES, encode
from app.notify.schedule import JITTER, RETRY_AFTER_MOST_S, SCHEDULE_S, next_try, seconds_of
from app.notify.signing import BadSecret, key_of, own_secret, signature

NOW = 1_800_000_000.0


def test_the_signature_is_that_of_the_published_example() -> None:
    """The example of the specification's repository (spec/standard-webhooks.md, its libraries' tests)."""
    body = b'{"test": 2432232314}'
    key = key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    made = signature([key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("secret", ["whsec_", "whsec_not base64", "whsec_YWJ", "whsec_YWJj\n"])
def test_a_prefixed_secret_has_to_be_base64(secret: str) -> None:
    with pytest.raises(BadSecret, match="base64"):
        key_of(secret)


def test_the_own_secret_is_made_once_and_for_the_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "webhook-secret"
    made = own_secret(path)
    assert own_secret(path) == made
    assert len(key_of(made)) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["webhook-secret"]


def test_the_schedule_is_ten_tries_over_three_days() -> None:
    at, times = NOW, []
    for failed in range(1, 10):
        following = next_try(failed, at, schedule=SCHEDULE_S, chance=0)
        assert following is not None
        times.append(following - at)
        at = following
    assert times == [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400]
    assert next_try(10, at, schedule=SCHEDULE_S, chance=0) is None
    assert 75 < (at - NOW) / 3600 < 76


@given(failed=st.integers(1, 9), chance=st.floats(0, 1), wish=st.none() | st.floats(0, 1e9))
def test_no_try_comes_before_its_time_or_long_after(failed: int, chance: float, wish: float | None) -> None:
    at = next_try(failed, 0.0, schedule=SCHEDULE_S, chance=chance, retry_after=wish)
    assert at is not None
    least = max(SCHEDULE_S[failed], min(wish or 0.0, RETRY_AFTER_MOST_S))
    assert least <= at <= max(least, SCHEDULE_S[failed] * (1 + JITTER))


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0), ("", None), ("soon", None), ("-5", None), ("1.5", None), ("9" * 400, 999_999_999_999.0),
        ("Fri, 15 Jan 2027 08:02:00 GMT", 120.0), ("Fri, 15 Jan 2027 07:00:00 GMT", 0.0), ("Fri, 99 Jan 2027", None),
        ("Thu, 01 Jan 1970 00:00:00 +9999999999999", None),
    ],
)  # fmt: skip
def test_retry_after_is_read_in_both_forms(header: str, seconds: float | None) -> None:
    assert seconds_of(header, NOW) == seconds


def notice(**data: Any) -> dict[str, Any]:
    error = {"code": "INTERNAL", "message": "It broke.", "hint": "Look.", "retryable": False}
    attempt = {"n": 1, "error": error | {"detail": {"traceback": "at line 1"}}, "postmortem": {"stacks": "deep"}}
    task = {"id": "task_1", "status": "FAILED", "is_terminal": True, "attempts": [attempt], "metadata": {"order": 7}}
    task |= {"error": error, "links": {"self": "/tasks/task_1"}, "quality": None}
    return {"type": "task.failed", "timestamp": "2026-01-01T00:00:00.000Z", "data": task | data}


def test_a_short_body_is_whole() -> None:
    assert json.loads(encode(notice())) == notice()


def test_long_tracebacks_are_cut_and_it_is_said(tmp_path: Path) -> None:
    body = notice()
    body["data"]["attempts"][0]["error"]["detail"]["traceback"] = "x" * 30_000
    before = json.dumps(body)
    made = encode(body)
    told = json.loads(made)
    assert len(made) < MAX_BYTES
    assert told["truncated"] == ["attempts.0.error.detail.traceback"]
    assert told["data"]["attempts"][0]["error"]["detail"]["traceback"].endswith("... [29700 more characters]")
    assert told["data"]["metadata"] == {"order": 7}
    assert json.dumps(body) == before, "what was given is left as it is"


def test_the_largest_metadata_goes_first() -> None:
    body = notice(metadata={"order": 7, "list": list(range(9000)), "more": {str(n): n for n in range(200)}})
    told = json.loads(encode(body))
    assert told["truncated"] == ["attempts.0.postmortem", "attempts.0.error.detail", "metadata.list"]
    assert told["data"]["metadata"].keys() == {"order", "more"}


_JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=600) | st.sampled_from(["\x00" * 4000, "ä" * 9000]),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=50), inner, max_size=8),
    max_leaves=60,
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(metadata=st.dictionaries(st.text(max_size=50), _JSON, max_size=20), attempts=st.integers(0, 200))
def test_whatever_a_task_holds_its_notice_fits(metadata: dict[str, Any], attempts: int) -> None:
    body = notice(metadata=metadata, attempts=notice()["data"]["attempts"] * attempts)
    made = encode(body)
    told = json.loads(made)
    assert len(made) < MAX_BYTES
    assert told["data"]["error"] == body["data"]["error"]
    assert ("truncated" in told) == (told["data"] != body["data"])
