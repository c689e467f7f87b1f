"""A PostgreSQL server of a test process's own: in a temporary folder, on a Unix socket, gone with the process."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

WAIT_S = 60.0
USER = "greenroom"
_CALM = ("-c", "listen_addresses=", "-c", "max_connections=400", "-c", "fsync=off", "-c", "full_page_writes=off")
"""A test that kills the server kills a process, not a machine: what was written is in the kernel's hands."""


@cache
def programs() -> Path | None:
    """The folder of PostgreSQL's programs, None where there are none."""
    found = [Path(name).resolve().parent for name in filter(None, [shutil.which("initdb")])]
    versions = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    found += [path.parent for path in sorted(versions, key=lambda path: int(path.parent.parent.name), reverse=True)]
    return next((folder for folder in found if (folder / "postgres").exists()), None)


def why_not() -> str:
    """Why no server can be started here; empty where it can."""
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        return f"PostgreSQL's driver is not installed: {error}"
    if programs() is None:
        return "PostgreSQL's server is not installed: no initdb on the PATH or below /usr/lib/postgresql"
    return (
        "" if os.getuid() != 0 or _other_user() else "PostgreSQL's server does not run as root, and nobody else is here"
    )


def _other_user() -> str | None:
    """Who runs the server where the tests run as root, which the server refuses."""
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in names), None)


class Cluster:
    """One server. Safe beside others of its kind: each has a folder of its own and listens nowhere else."""

    def __init__(self, primary: Cluster | None = None) -> None:
        """With `primary`: its standby."""
        self._folder = Path(tempfile.mkdtemp(prefix="greenroom-pg-"))
        self._folder.chmod(0o755)
        self._as: dict[str, Any] = {}
        if os.getuid() == 0:
            user = pwd.getpwnam(_other_user() or "")
            os.chown(self._folder, user.pw_uid, user.pw_gid)
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        self._numbers = itertools.count()
        if primary is None:
            self._run("initdb", "-A", "trust", "-U", USER, "-N", "-E", "UTF8", "--locale=C", "--no-instructions")
        else:
            self._run("pg_basebackup", "-h", str(primary._folder), "-U", USER, "-R", "-X", "stream", "-c", "fast", "-N")
        self.start()

    def url(self, database: str = "postgres", *, also: Cluster | None = None) -> str:
        """The address of a database, here or on `also`, wherever it can be written."""
        hosts = ",".join(str(cluster._folder) for cluster in (self, also) if cluster is not None)
        return f"postgresql://{USER}@/{database}?host={quote(hosts, safe=',')}"

    def start(self) -> None:
        programs_at = programs()
        assert programs_at is not None
        command = [str(programs_at / "postgres"), "-D", str(self._folder / "data"), "-k", str(self._folder), *_CALM]
        if setpriv := shutil.which("setpriv"):  # Whoever kills the tests must not leave a server behind.
            command = [setpriv, "--pdeathsig", "QUIT", "--", *command]
        with (self._folder / "log").open("ab") as log:
            self._server = subprocess.Popen(command, cwd="/", stdout=log, stderr=log, **self._as)
        end = time.monotonic() + WAIT_S
        while not self._answers():
            assert self._server.poll() is None, self.log()[-4000:]
            assert time.monotonic() < end, self.log()[-4000:]
            time.sleep(0.02)

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """End the server: SIGINT in order but at once, SIGQUIT as a crash does."""
        self._server.send_signal(number)
        self._server.wait(WAIT_S)

    def close(self) -> None:
        if self._server.poll() is None:
            self.stop(signal.SIGQUIT)
        shutil.rmtree(self._folder, ignore_errors=True)

    def execute(self, statement: str, database: str = "postgres") -> list[Any]:
        return self.fetch(self.url(database), statement)

    @staticmethod
    def fetch(url: str, statement: str) -> list[Any]:
        """Run one or more statements; the rows of the first."""
        import psycopg

        with psycopg.connect(url, autocommit=True) as connection:
            done = connection.execute(statement)
            return done.fetchall() if done.description else []

    def create(self, template: str = "template0", **options: str) -> str:
        """A new database's name."""
        name = f"test_{next(self._numbers)}"
        more = " ".join(f"{option} {value}" for option, value in options.items())
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY {more}")
        return name

    def log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")

    def _answers(self) -> bool:
        import psycopg

        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, program: str, *arguments: str) -> None:
        folder = programs()
        assert folder is not None
        command = [str(folder / program), "-D", str(self._folder / "data"), *arguments]
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=WAIT_S, **self._as)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The server of this process, started for the first test that asks for it."""
    if reason := why_not():
        pytest.skip(reason)
    made = Cluster()
    yield made
    made.close()
