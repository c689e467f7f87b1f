"""Writes about uploads, and the switch that pauses the queue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import delete, insert

from app.store.claiming import IS_PAUSED, PAUSED
from app.store.records import UploadRecord
from app.store.schema import settings, uploads
from app.store.transaction import Transaction


def put_upload(tx: Transaction, upload: UploadRecord) -> None:
    """Remember an upload. An id is used once: a second one raises the database's IntegrityError."""
    tx.connection.execute(insert(uploads), asdict(upload))


def delete_uploads(tx: Transaction, ids: Sequence[str]) -> None:
    """Forget uploads; unknown ids are ignored."""
    tx.connection.execute(delete(uploads).where(uploads.c.id.in_(ids)))


def set_paused(tx: Transaction, paused: bool) -> None:
    """Pause or resume claiming; repeating it changes nothing."""
    already = tx.connection.execute(IS_PAUSED).scalar_one()
    if paused and not already:
        tx.connection.execute(insert(settings), {"name": PAUSED, "value": {"since": tx.now}})
    elif already and not paused:
        tx.connection.execute(delete(settings).where(settings.c.name == PAUSED))
