"""What every SQLite file of Osler shares: durable settings for several processes, and its faults named plainly."""

from __future__ import annotations

import sqlite3
import time

BUSY_TIMEOUT_MS = 30_000
_PRAGMAS = (
    f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}",
    "PRAGMA journal_mode = WAL",
    # FULL: what was acknowledged survives a power cut, not only a killed process.
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
)
_PASSING_FAULTS = {
    "database is locked": "another process holds it for long: stop what is blocking it",
    "database table is locked": "another process holds it for long: stop what is blocking it",
    "database or disk is full": "free space on the disk that holds it",
    "disk i/o error": "check the disk that holds it",
    "unable to open database file": "check that its folder exists and is writable",
}


def prepare(connection: sqlite3.Connection) -> None:
    """Sets WAL, waiting for locks, durable commits and foreign keys."""
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        _execute_patiently(cursor, pragma)
    cursor.close()


def _execute_patiently(cursor: sqlite3.Cursor, statement: str) -> None:
    """The switch to WAL does not honour the busy timeout, so the wait is made here."""
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            cursor.execute(statement)
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def passing_fault(error: BaseException) -> str | None:
    """A sentence about a fault that may pass (locked, full, unreachable), or None for any other error."""
    text = str(error).lower()
    for fault, remedy in _PASSING_FAULTS.items():
        if fault in text:
            return f"{fault}; {remedy}"
    return None
