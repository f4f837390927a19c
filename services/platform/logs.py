"""Structured logs without patient data: JSON or text, one line for each event, with the trace id.

Log with `logs.get("room").info("study_stored", instances=12)`: a fixed event name and named values. Keys that name
demographics are dropped, and text that looks like a record number, a DICOM person name or a date of birth is masked.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import traceback
from collections.abc import MutableMapping
from types import TracebackType
from typing import Any, TextIO

import structlog
from opentelemetry import trace

from services.platform.config import Settings

MASK = "[redacted]"
# Names are compared without case and punctuation.
_DEMOGRAPHICS = """
    patientname patientid patientbirthdate patientaddress patientsex birthdate birthname dateofbirth dob mrn
    medicalrecordnumber name givenname familyname firstname lastname surname fullname address street postalcode zip phone
    telecom telephone email ssn socialsecuritynumber nationalid identifier identifiers accession accessionnumber
    demographics
"""
_CONTENT = "payload body message content hl7 fhir dataset exceptionmessage"
_SECRETS = "authorization cookie token password secret apikey"
_FORBIDDEN = frozenset(f"{_DEMOGRAPHICS} {_CONTENT} {_SECRETS}".split())
# What libraries put in a record and what our own code may name.
_ALWAYS = frozenset({"event", "level", "timestamp", "logger", "trace_id", "span_id", "room"})
# Six digits or more in a row: record numbers, dates of birth, telephone numbers. UIDs and hashes are longer words.
_DIGITS = re.compile(r"(?<![\w.\-])\d{6,}(?![\w.\-])")
# DICOM PN and HL7 XPN: DOE^JANE, Doe^Jane^^^
_PERSON = re.compile(r"[^\W\d_][\w'’\- ]*\^[\w'’\-^ .=]*")
_DATE = re.compile(r"\b(19|20)\d{2}[-/](0[1-9]|1[0-2])[-/](0[1-9]|[12]\d|3[01])\b(?!T)")
_DEPTH = 6


def mask(text: str) -> str:
    """Text with what looks like person names, long numbers and plain dates masked."""
    return _DATE.sub(MASK, _DIGITS.sub(MASK, _PERSON.sub(MASK, text)))


def redact(value: Any, depth: int = 0) -> Any:
    """A value that may be logged: forbidden keys dropped, suspicious text masked, deep or odd things named by type."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return mask(value)
    if depth >= _DEPTH:
        return f"<{type(value).__name__}>"
    if isinstance(value, dict):
        return {str(key): redact(item, depth + 1) for key, item in value.items() if not forbidden(str(key))}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [redact(item, depth + 1) for item in value]
    if isinstance(value, BaseException):
        return type(value).__name__
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    return (
        mask(str(value)) if type(value).__module__ in ("pathlib", "datetime", "uuid") else f"<{type(value).__name__}>"
    )


def forbidden(key: str) -> bool:
    """True for a key that names demographics, content or secrets."""
    return re.sub(r"[^a-z0-9]", "", key.lower()) in _FORBIDDEN


def redaction(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """structlog processor: the last one before rendering."""
    for key in list(event):
        if key in _ALWAYS:
            event[key] = mask(event[key]) if key == "event" and isinstance(event[key], str) else event[key]
        elif forbidden(key):
            del event[key]
        else:
            event[key] = redact(event[key])
    return event


def correlation(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """structlog processor: adds the ids of the current trace and span."""
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event.setdefault("trace_id", f"{context.trace_id:032x}")
        event.setdefault("span_id", f"{context.span_id:016x}")
    return event


def _exception_place(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """structlog processor: an exception becomes its type and places in the code; its message may hold patient data."""
    info = event.pop("exc_info", None)
    error = sys.exc_info()[1] if info is True else info[1] if isinstance(info, tuple) else info
    if isinstance(error, BaseException):
        event["error"] = type(error).__name__
        event["where"] = where(error)
    return event


def where(error: BaseException, frames: int = 5) -> list[str]:
    """The innermost places of an exception as `file:line function`."""
    found = traceback.extract_tb(error.__traceback__)[-frames:]
    return [f"{'/'.join(frame.filename.split('/')[-3:])}:{frame.lineno} {frame.name}" for frame in found]


_CHATTY = (
    "alembic", "grpc", "highdicom", "httpcore", "httpx", "kafka", "pydicom", "pynetdicom", "ray", "sqlalchemy.engine", "uvicorn",
)  # fmt: skip


def configure(settings: Settings, *, stream: TextIO | None = None, room: str = "") -> None:
    """Sends structlog and the standard library's logging, redacted, to `stream` (default stderr) as configured."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        correlation,
        _exception_place,
        redaction,
    ]
    text = settings.log.format == "text"
    renderer: Any = structlog.dev.ConsoleRenderer(colors=False) if text else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log.level.upper())
    for noisy in _CHATTY:
        logging.getLogger(noisy).setLevel(logging.WARNING)
    sys.excepthook = _uncaught
    threading.excepthook = lambda caught: _uncaught(caught.exc_type, caught.exc_value, caught.exc_traceback)
    structlog.contextvars.clear_contextvars()
    if room:
        structlog.contextvars.bind_contextvars(room=room)


def _uncaught(kind: type[BaseException], error: BaseException | None, _: TracebackType | None) -> None:
    """What nobody caught is logged like the rest: its message may hold patient data."""
    if not issubclass(kind, (KeyboardInterrupt, SystemExit)):
        get("uncaught").critical("uncaught", exc_info=error or kind())


def get(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of one part, for example `get("ingest.dicom")`."""
    return structlog.stdlib.get_logger(f"osler.{name}")
