"""The code in docs/webhooks.md does what it says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
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


MODULE = """
import {{ verify }} from "./verify.mjs";
const cases = {cases};
console.log(JSON.stringify(cases.map(([secret, headers, body]) => verify(secret, headers, Buffer.from(body)))));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="no node to run JavaScript with (Debian: apt install nodejs)")
@pytest.mark.parametrize("secret", ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "any text"])
def test_the_shown_javascript_agrees_with_the_function(secret: str, tmp_path: Path) -> None:
    now, text = int(time.time()), BODY.decode()
    good = headers("another", secret, at=now)
    cases: list[tuple[str, dict[str, str], str]] = [
        (secret, headers(secret, at=now), text),
        (secret, good, text),
        (secret, headers("another", at=now), text),
        (secret, good, text + " "),
        (secret, headers(secret, at=now - 301), text),
        (secret, good | {"webhook-timestamp": "soon"}, text),
        (secret, good | {"webhook-signature": good["webhook-signature"].replace("v1,", "v2,")}, text),
        (secret, good | {"webhook-signature": "v1,short"}, text),
    ]
    [code] = re.findall(r"```js\n(.*?)```", TEXT, re.DOTALL)
    (tmp_path / "verify.mjs").write_text(code)
    (tmp_path / "run.mjs").write_text(MODULE.format(cases=json.dumps(cases)))
    done = subprocess.run(["node", "run.mjs"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [True, True] + [False] * 6


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a signature with")
def test_the_shown_shell_lines_print_the_signature(tmp_path: Path) -> None:
    [code] = re.findall(r"this prints.*?```sh\n(.*?)```", TEXT, re.DOTALL)
    (tmp_path / "body").write_bytes(BODY)
    values = {"ID": "task_1_7", "TIMESTAMP": "1800000000", "KEY": "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}
    done = subprocess.run(
        ["sh", "-c", code], cwd=tmp_path, env={**os.environ, **values}, capture_output=True, text=True, timeout=60
    )
    wanted = headers(f"whsec_{values['KEY']}", at=1_800_000_000)["webhook-signature"]
    assert (done.stdout.strip(), done.stderr) == (wanted.removeprefix("v1,"), "")


def test_every_notice_is_explained() -> None:
    assert all(f"`{kind}`" in TEXT for kind in NOTICES)
