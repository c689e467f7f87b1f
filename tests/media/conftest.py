"""Fixtures of the media tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from app.retry.taxonomy import CodedError, FailureCode


@pytest.fixture
def refused() -> Callable[..., CodedError]:
    """`refused(call, code, reason)`: run `call`, which must raise CodedError with that code and reason."""

    def check(call: Callable[[], object], code: FailureCode, reason: str | None = None) -> CodedError:
        with pytest.raises(CodedError) as caught:
            call()
        error = caught.value
        assert error.code is code, error
        if reason is not None:
            assert error.failure.detail.get("reason") == reason, error.failure
        assert error.failure.message
        assert error.failure.hint
        return error

    return check


@pytest.fixture
def damaged(tmp_path: Path) -> Callable[[Path, float], Path]:
    """`damaged(path, share)`: a copy of which only the first `share` of the bytes is there."""

    def cut(path: Path, share: float) -> Path:
        target = tmp_path / f"cut {path.name}"
        raw = path.read_bytes()
        target.write_bytes(raw[: int(len(raw) * share)])
        return target

    return cut
