"""What all parts of a service stand on: its node, its folders, its database, its telemetry."""

from __future__ import annotations

import shutil
import socket
import time
from functools import partial
from pathlib import Path

from app.cleanup.disk import DiskWatch
from app.cleanup.janitor import ORPHAN_AGE_S
from app.config import Settings
from app.database import open_database
from app.intake.blobs import BlobStore
from app.service.terms import tracing
from app.store.records import InputRef
from app.telemetry.metrics import Metrics
from app.worker.node import Node
from app.worker.publish import RESULTS, discard
from app.worker.strays import end_marked

ATTEMPTS = "attempts"
RUN = "run"


class Ground:
    """Opened by the constructor, given back by `close`."""

    def __init__(self, settings: Settings, data_dir: Path) -> None:
        """`data_dir` exists. Raises `ConfigError`, OSError, `SchemaTooNew`, `StoreUnavailable`."""
        self.settings = settings
        self.data_dir = data_dir
        machine = settings.machine or socket.gethostname() if settings.database_url is not None else ""
        self.node = Node(data_dir, machine)
        self.metrics = Metrics()
        self.tracing = tracing(settings, instance=self.node.id)
        self.store = open_database(settings, data_dir)
        self.disk = DiskWatch(data_dir, settings.disk_low_bytes)
        self.blobs = BlobStore(data_dir / "blobs")
        self.results_dir = data_dir / RESULTS
        self.run_dir = data_dir / RUN / self.node.id
        self.attempts_dir = data_dir / ATTEMPTS / self.node.id
        self.attempts_dir.mkdir(parents=True, exist_ok=True)

    def locate(self, reference: InputRef) -> Path:
        """The file of an input."""
        return self.blobs.path(reference.sha256)

    def sweep_blobs(self) -> int:
        """Remove contents that nothing needs any more; how many they were."""
        failed_since = time.time() - self.settings.failed_input_ttl_s
        in_use = partial(self.store.blobs_in_use, failed_since=failed_since)
        return len(self.blobs.sweep(in_use, grace_s=ORPHAN_AGE_S))

    def discard(self, task_id: str, attempt: int) -> None:
        """Remove what an attempt that lost its lease left, and all that is left of nodes that are gone."""
        discard(task_id, attempt, self.data_dir)
        attempts = self.data_dir / ATTEMPTS
        dead: list[Path] = []
        for node in self.node.dead():
            end_marked(f"{node}/")
            dead += (attempts / node).glob("*")
        for folder in (*attempts.glob(f"*/{task_id}-{attempt}"), *dead):
            shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Close what the constructor opened."""
        self.store.close()
        self.tracing.close()
        self.node.release()
