"""Errors across gRPC: Osler's errors as `google.rpc.Status` with details, and back into words.

Source: google/rpc/error_details.proto; AIP-193 for ErrorInfo.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from services.platform.errors import ConfigurationError, OslerError, RefusedError, RetryableError
from services.platform.security import AuthenticationError, PermissionDeniedError

DOMAIN = "osler"
DETAILS_KEY = "grpc-status-details-bin"
RETRY_AFTER_S = 1.0
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class NotFoundError(OslerError, LookupError):
    """Nothing has the id that was asked for."""


class InvalidRequestError(OslerError):
    """A request that the contract's own rules let through and the servicer does not. Names the field."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.violations: tuple[tuple[str, str], ...] = ((field, message),)


class _ViolationsError(InvalidRequestError):
    def __init__(self, violations: tuple[tuple[str, str], ...]) -> None:
        super().__init__(*violations[0])
        self.violations = violations


def invalid(violations: tuple[tuple[str, str], ...]) -> InvalidRequestError:
    """One error for several (field, message) pairs; there must be at least one."""
    return _ViolationsError(violations)


class AbortedCallError(Exception):
    """A servicer ended its call with a status of its own choice."""

    def __init__(self, status: status_pb2.Status) -> None:
        super().__init__(_CODES[status.code].name)
        self.status = status


def status_of(error: BaseException, trace_id: str = "") -> status_pb2.Status:
    """The status that a caller sees. What Osler did not foresee becomes INTERNAL with the trace id and nothing else."""
    if isinstance(error, AbortedCallError):
        return error.status
    if isinstance(error, RefusedError):
        return _refused(error)
    if isinstance(error, InvalidRequestError):
        pairs = [
            error_details_pb2.BadRequest.FieldViolation(field=name, description=text) for name, text in error.violations
        ]
        return _status(code_pb2.INVALID_ARGUMENT, str(error), error_details_pb2.BadRequest(field_violations=pairs))
    if isinstance(error, AuthenticationError):
        return _status(code_pb2.UNAUTHENTICATED, str(error), *_retry(error.retry_after_s))
    if isinstance(error, PermissionDeniedError):
        return _status(code_pb2.PERMISSION_DENIED, str(error), _info("PERMISSION_DENIED"))
    if isinstance(error, LookupError) and type(error) not in (KeyError, IndexError):
        return _status(code_pb2.NOT_FOUND, _words(error), _info("NOT_FOUND"))
    if isinstance(error, RetryableError):
        return _status(code_pb2.UNAVAILABLE, str(error), *_retry(RETRY_AFTER_S))
    if isinstance(error, ConfigurationError):
        return _status(code_pb2.FAILED_PRECONDITION, str(error), _info("CONFIGURATION"))
    if isinstance(error, grpc.RpcError) and _passing(error):
        return _status(code_pb2.UNAVAILABLE, "a service that this call needs is away", *_retry(RETRY_AFTER_S))
    if isinstance(error, NotImplementedError):
        return _status(code_pb2.UNIMPLEMENTED, "this method is not offered here")
    return _status(
        code_pb2.INTERNAL,
        f"unexpected error; the service's log has it under trace {trace_id or 'unknown'}",
        _info("INTERNAL", trace_id=trace_id),
    )


def deadline_status(seconds: float) -> status_pb2.Status:
    """The status of a call that took longer than the server's own deadline."""
    return _status(code_pb2.DEADLINE_EXCEEDED, f"not done within {seconds:g} s; set a longer deadline")


def _refused(error: RefusedError) -> status_pb2.Status:
    about = {
        "reason": error.reason,
        "missing": "\n".join(error.missing),
        "remedy": error.remedy,
        "subject": error.subject,
    }
    code = error.reason.upper().replace(".", "_").replace("-", "_")[:63]
    return _status(code_pb2.FAILED_PRECONDITION, error.message, _info(code, **about))


def _words(error: BaseException) -> str:
    return str(error.args[0]) if error.args else "not found"


def _passing(error: grpc.RpcError) -> bool:
    code = getattr(error, "code", None)
    return callable(code) and code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def _info(code: str, /, **about: str) -> error_details_pb2.ErrorInfo:
    return error_details_pb2.ErrorInfo(
        reason=code, domain=DOMAIN, metadata={name: text for name, text in about.items() if text}
    )


def _retry(seconds: float) -> list[Message]:
    if seconds <= 0:
        return []
    delay = duration_pb2.Duration()
    delay.FromMilliseconds(int(seconds * 1000))
    return [error_details_pb2.RetryInfo(retry_delay=delay)]


def _status(code: int, message: str, *details: Message) -> status_pb2.Status:
    packed = []
    for detail in details:
        wrapped = any_pb2.Any()
        wrapped.Pack(detail)
        packed.append(wrapped)
    return status_pb2.Status(code=code, message=message, details=packed)


class AbortableContext(Protocol):
    """The part of a servicer's context that aborts."""

    def abort(self, code: grpc.StatusCode, details: str = ..., trailing_metadata: Any = ...) -> Any: ...


async def abort_with_status(context: AbortableContext, status: status_pb2.Status) -> NoReturn:
    """Ends an asyncio call with a status and its details."""
    await context.abort(_CODES[status.code], status.message, ((DETAILS_KEY, status.SerializeToString()),))
    raise AssertionError("abort returns never")


async def abort_with(context: AbortableContext, error: OslerError) -> NoReturn:
    """Ends an asyncio call with the status of one of Osler's errors. Raising the error does the same."""
    await abort_with_status(context, status_of(error))


@dataclass(frozen=True)
class ErrorDetails:
    """What a failed call says, in parts; `str()` gives it in words."""

    code: grpc.StatusCode
    message: str
    reason: str = ""
    missing: tuple[str, ...] = ()
    remedy: str = ""
    subject: str = ""
    violations: tuple[tuple[str, str], ...] = ()
    retry_after_s: float = 0.0
    trace_id: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{self.code.name}: {self.message}"]
        if self.reason and self.metadata.get("reason"):
            lines.append(f"  reason: {self.reason}")
        lines += [f"  missing: {name}" for name in self.missing]
        lines += [f"  {name}: {text}" for name, text in self.violations]
        if self.remedy:
            lines.append(f"  what to do: {self.remedy}")
        if self.retry_after_s:
            lines.append(f"  try again in {self.retry_after_s:g} s")
        return "\n".join(lines)


def details_of(error: grpc.RpcError) -> ErrorDetails:
    """The parts of a failed call, for a client to print or to act on."""
    call: Any = error
    status = status_pb2.Status()
    for key, value in call.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            status.ParseFromString(value)
    found: dict[str, Any] = {}
    for detail in status.details:
        found |= _read_detail(detail)
    return ErrorDetails(code=call.code(), message=call.details() or "", **found)


def _read_detail(detail: any_pb2.Any) -> dict[str, Any]:
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    if detail.Unpack(info):
        about = dict(info.metadata)
        missing = about.get("missing", "")
        return {
            "reason": about.get("reason", info.reason),
            "missing": tuple(missing.split("\n")) if missing else (),
            "remedy": about.get("remedy", ""),
            "subject": about.get("subject", ""),
            "trace_id": about.get("trace_id", ""),
            "metadata": about,
        }
    if detail.Unpack(bad):
        return {"violations": tuple((item.field, item.description) for item in bad.field_violations)}
    if detail.Unpack(retry):
        return {"retry_after_s": retry.retry_delay.ToMilliseconds() / 1000}
    return {}


__all__ = [
    "AbortedCallError",
    "ErrorDetails",
    "InvalidRequestError",
    "NotFoundError",
    "abort_with",
    "abort_with_status",
    "deadline_status",
    "details_of",
    "invalid",
    "status_of",
]
