"""The audit trail: who did what to which resource, append-only, each row sealed to the one before.

Source: IHE Basic Audit Log Patterns (BALP) 1.1.3 and FHIR R4 AuditEvent for actions and outcomes. Rows hold keyed hashes
of identifiers, so the trail can answer "who saw this patient" without naming patients. The seal is an HMAC: whoever can
write to the database but lacks the key can neither change, remove nor insert a row unnoticed. Cutting off the newest rows
is noticed by comparing with a head noted elsewhere (`verify_chain(expected_head=...)`).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from google.protobuf.message import Message
from sqlalchemy import insert, select, text
from sqlalchemy.orm import Session

from services.platform import logs, telemetry
from services.platform.config import Settings
from services.platform.database import Database, lock_number
from services.platform.security import Principal
from services.platform.tables import AUDIT

# Create, Read, Update, Delete, Execute.
Action = Literal["C", "R", "U", "D", "E"]
# FHIR AuditEvent.outcome 0, 4 and 8.
Outcome = Literal["success", "denied", "error"]

ANONYMOUS = "anonymous"
GENESIS = "0" * 64
_BATCH = 1000
# A row and what its caller waits for.
_Waiting = tuple[dict[str, Any], "Future[None]"]
_DENIED = {"UNAUTHENTICATED", "PERMISSION_DENIED"}
_VERBS: Mapping[str, Action] = {
    "Get": "R",
    "List": "R",
    "Search": "R",
    "Find": "R",
    "Watch": "R",
    "Create": "C",
    "Add": "C",
    "Import": "C",
    "Store": "C",
    "Update": "U",
    "Delete": "D",
}


@dataclass(frozen=True)
class ChainCheck:
    """Result of checking the trail. `broken_at` is the id of the first row that does not hold; None when all hold."""

    rows: int
    head: str
    broken_at: int | None = None
    problem: str = ""

    @property
    def intact(self) -> bool:
        return not self.problem


class Audit:
    """Writes and checks the audit trail of one database. `key`: 32 bytes or more, the same for every process."""

    def __init__(self, database: Database, key: bytes) -> None:
        self._database = database
        self._seal_key = hmac.digest(key, b"osler audit seal", "sha256")
        self._id_key = hmac.digest(key, b"osler audit resource", "sha256")
        self._waiting: deque[_Waiting] = deque()
        self._committing = threading.Lock()

    @classmethod
    def from_settings(cls, database: Database, settings: Settings) -> Audit:
        """The trail keyed by the installation's identity key."""
        return cls(database, settings.identity_key())

    def record(
        self,
        principal: Principal | str | None,
        action: Action,
        resource_type: str,
        resource_id: str = "",
        outcome: Outcome = "success",
        detail: Mapping[str, str | int | bool] | None = None,
    ) -> None:
        """Appends one row. `resource_id` is stored as keyed hash; `detail` must hold no patient data and is redacted.

        Raises RetryableError when it cannot be written: the caller must then not go on.
        """
        subject = principal.subject if isinstance(principal, Principal) else principal or ANONYMOUS
        row: dict[str, Any] = {
            "at": datetime.now(UTC).replace(microsecond=0),
            "principal": subject[:255],
            "action": action,
            "resource_type": resource_type[:127],
            "resource_id_hash": self.hash_id(resource_id) if resource_id else "",
            "outcome": outcome,
            "trace_id": telemetry.trace_id(),
            "detail_json": json.dumps(logs.redact(dict(detail or {})), sort_keys=True, separators=(",", ":")),
        }
        waiting: _Waiting = (row, Future())
        self._waiting.append(waiting)
        # Who gets the lock commits for all that came meanwhile: a sync of the disk each would be the door's speed limit.
        with self._committing:
            if not waiting[1].done():
                self._commit_waiting()
        waiting[1].result()

    @property
    def waiting(self) -> int:
        """Rows that wait to be committed."""
        return len(self._waiting)

    def _commit_waiting(self) -> None:
        """Appends every waiting row in one transaction and tells their callers."""
        batch = [self._waiting.popleft() for _ in range(len(self._waiting))]
        try:
            with self._database.transaction("platform") as transaction:
                head = self._head(transaction.session)
                for row, _ in batch:
                    row["prev_hash"] = head
                    row["hash"] = head = self._seal(row)
                transaction.session.execute(insert(AUDIT), [row for row, _ in batch])
        except BaseException as error:
            for _, told in batch:
                told.set_exception(error)
        else:
            for _, told in batch:
                told.set_result(None)

    def hash_id(self, resource_id: str) -> str:
        """What the trail holds instead of an identifier; to look up rows about one resource."""
        return hmac.new(self._id_key, resource_id.encode(), "sha256").hexdigest()

    def rpc_hook(self, principal: Principal | None, method: str, request: Message | None, code: str) -> None:
        """For `rpc.serve(audit=...)`: one row for each call."""
        name = method.rpartition("/")[2]
        verb = next((verb for verb in _VERBS if name.startswith(verb)), "")
        outcome: Outcome = "success" if code == "OK" else "denied" if code in _DENIED else "error"
        detail = {"code": code} if code != "OK" else {}
        self.record(principal, _VERBS.get(verb, "E"), method.lstrip("/"), _resource_id(request), outcome, detail)

    def verify_chain(self, expected_head: str = "") -> ChainCheck:
        """Checks every seal and link. With `expected_head` (a head noted earlier) it must still be in the trail."""
        head, rows, seen = GENESIS, 0, not expected_head
        last_id = 0
        while True:
            with self._database.session() as session:
                query = select(AUDIT).where(AUDIT.c.id > last_id).order_by(AUDIT.c.id).limit(_BATCH)
                batch = [dict(row) for row in session.execute(query).mappings()]
            if not batch:
                break
            for row in batch:
                last_id = int(row["id"])
                if row["prev_hash"] != head:
                    return ChainCheck(rows, head, last_id, "a row before this one was removed, inserted or reordered")
                if not hmac.compare_digest(self._seal(row), row["hash"]):
                    return ChainCheck(rows, head, last_id, "this row was changed, or sealed with another key")
                head, rows = row["hash"], rows + 1
                seen = seen or head == expected_head
        problem = "" if seen else "the trail ends before the expected head: its newest rows were removed"
        return ChainCheck(rows, head, None, problem)

    def _head(self, session: Session) -> str:
        if not self._database.is_sqlite:
            # SQLite's write transactions are one at a time anyway.
            session.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": lock_number("audit")})
        return session.scalar(select(AUDIT.c.hash).order_by(AUDIT.c.id.desc()).limit(1)) or GENESIS

    def _seal(self, row: Mapping[str, Any]) -> str:
        fields = ("principal", "action", "resource_type", "resource_id_hash", "outcome", "trace_id", "detail_json")
        sealed = [row["prev_hash"], row["at"].astimezone(UTC).isoformat(), *(row[name] for name in fields)]
        text_ = json.dumps(sealed, ensure_ascii=False, separators=(",", ":"))
        return hmac.new(self._seal_key, text_.encode(), hashlib.sha256).hexdigest()


def _resource_id(request: Message | None) -> str:
    """The first filled text field of a request that names one thing (`..._key`, `..._uid`, `..._id`)."""
    if request is None:
        return ""
    for field, value in request.ListFields():
        if isinstance(value, str) and field.name.endswith(("_key", "_uid", "_id")):
            return value
    return ""
