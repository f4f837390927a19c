"""Quarantine: input that was refused, kept with its reason, so that nothing is lost and all can be replayed."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from osler.common.v1.common_pb2 import BlobRef, Refusal
from sqlalchemy import Row, select, update

from services.platform.blobs import BlobStore
from services.platform.database import Database
from services.platform.errors import RefusedError
from services.platform.outbox import insert_new
from services.platform.tables import QUARANTINE

_NAMESPACE = uuid.UUID("0b0d2d64-9f0e-4f0c-8c7a-5d2c5e3d8a11")
_ROOM = "platform"


@dataclass(frozen=True)
class QuarantineItem:
    """One refused input. `door` is where it came in ("dicom", "hl7", "fhir", "event:<group>")."""

    id: str
    door: str
    refusal: Refusal
    content: BlobRef
    added_at: datetime
    replayed_at: datetime | None
    replays: int


def refusal_of(error: RefusedError, subject: str = "") -> Refusal:
    """The typed refusal of an error; `subject` counts where the error names none."""
    return Refusal(
        reason=error.reason,
        message=error.message,
        missing=list(error.missing),
        remedy=error.remedy,
        subject=error.subject or subject,
    )


class Quarantine:
    """Refused input of all doors. Reasons hold no patient data; contents lie in blob storage."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self._database = database
        self._blobs = blobs
        self._replayers: dict[str, Callable[[bytes], None]] = {}

    def add(self, door: str, content: bytes | BlobRef, refusal: Refusal) -> str:
        """Keeps refused content with its reason; the item's id. The same content and reason again is the same item.

        Raises RetryableError when it cannot be kept now (disk full): then the sender must keep it.
        """
        if isinstance(content, bytes):
            digest = hashlib.sha256(content).hexdigest()
            content = self._blobs.put(
                content, "application/octet-stream", f"quarantine/{_plain(door)}/{digest[:2]}/item"
            )
        item_id = str(uuid.uuid5(_NAMESPACE, "\x1f".join([door, content.sha256 or content.uri, refusal.reason])))
        row = {
            "id": item_id,
            "door": door,
            "reason": refusal.reason,
            "message": refusal.message,
            "missing_json": json.dumps(list(refusal.missing)),
            "remedy": refusal.remedy,
            "subject": refusal.subject[:255],
            "content_uri": content.uri,
            "content_sha256": content.sha256,
            "content_size": content.size_bytes,
            "content_media_type": content.media_type,
            "added_at": datetime.now(UTC),
            "replays": 0,
        }
        with self._database.transaction(_ROOM) as transaction:
            if not insert_new(transaction.session, QUARANTINE, [row]):
                # Refused again after a replay: it waits again.
                statement = update(QUARANTINE).where(QUARANTINE.c.id == item_id).values(replayed_at=None)
                transaction.session.execute(statement)
        return item_id

    def list(self, include_replayed: bool = False) -> list[QuarantineItem]:
        """Items, oldest first."""
        query = select(QUARANTINE).order_by(QUARANTINE.c.added_at, QUARANTINE.c.id)
        if not include_replayed:
            query = query.where(QUARANTINE.c.replayed_at.is_(None))
        with self._database.session() as session:
            return [_item(row) for row in session.execute(query)]

    def get(self, item_id: str) -> QuarantineItem:
        """One item. Raises KeyError for an unknown id."""
        with self._database.session() as session:
            row = session.execute(select(QUARANTINE).where(QUARANTINE.c.id == item_id)).one_or_none()
        if row is None:
            raise KeyError(f"no quarantine item {item_id}: `osler quarantine list` shows them")
        return _item(row)

    def content(self, item_id: str) -> bytes:
        """The refused bytes. Raises KeyError or RefusedError ("blob.missing", "blob.hash_mismatch")."""
        return self._blobs.get(self.get(item_id).content)

    def mark_replayed(self, item_id: str) -> None:
        """Notes that the item went in again."""
        values: dict[str, Any] = {"replayed_at": datetime.now(UTC), "replays": QUARANTINE.c.replays + 1}
        with self._database.transaction(_ROOM) as transaction:
            transaction.session.execute(update(QUARANTINE).where(QUARANTINE.c.id == item_id).values(values))

    def register(self, door: str, replay: Callable[[bytes], None]) -> None:
        """Says how content of a door goes in again; "event" serves every "event:<group>"."""
        self._replayers[door] = replay

    def replay(self, item_id: str) -> None:
        """Puts an item through its door again, and marks it when the door took it.

        The door's own error comes through (RefusedError when it refuses again) and the item stays.
        Raises KeyError for an unknown item, LookupError when this process does not know the door.
        """
        item = self.get(item_id)
        replay = self._replayers.get(item.door) or self._replayers.get(item.door.partition(":")[0])
        if replay is None:
            raise LookupError(f"nothing here replays what came through {item.door!r}: run the room that owns this door")
        replay(self._blobs.get(item.content))
        self.mark_replayed(item_id)


def _item(row: Row[Any]) -> QuarantineItem:
    return QuarantineItem(
        id=row.id,
        door=row.door,
        refusal=Refusal(
            reason=row.reason,
            message=row.message,
            missing=json.loads(row.missing_json),
            remedy=row.remedy,
            subject=row.subject,
        ),
        content=BlobRef(
            uri=row.content_uri,
            sha256=row.content_sha256,
            size_bytes=row.content_size,
            media_type=row.content_media_type,
        ),
        added_at=row.added_at,
        replayed_at=row.replayed_at,
        replays=row.replays,
    )


def _plain(door: str) -> str:
    return door.replace(":", "-")
