"""gRPC between rooms: `serve` on one side, `channel` on the other, and errors that keep their details on the way.

A servicer method may be `async def` or, where it reads a database or computes, a plain `def`, which runs in a thread.
Either raises Osler's errors; the kit turns them into statuses:

| raised | status | details |
|---|---|---|
| a broken rule of the contract, `InvalidRequestError` | INVALID_ARGUMENT | BadRequest with each field |
| `RefusedError` | FAILED_PRECONDITION | ErrorInfo with reason, missing, remedy, subject |
| `NotFoundError` or another LookupError of its own | NOT_FOUND | ErrorInfo |
| `RetryableError` | UNAVAILABLE | RetryInfo |
| `AuthenticationError`, `PermissionDeniedError` | UNAUTHENTICATED, PERMISSION_DENIED | |
| anything else (KeyError, ValueError, ...) | INTERNAL | ErrorInfo with the trace id only |
"""

from services.platform.rpc_client import channel, sync_channel
from services.platform.rpc_errors import (
    ErrorDetails,
    InvalidRequestError,
    NotFoundError,
    abort_with,
    details_of,
    status_of,
)
from services.platform.rpc_server import Adder, AuditHook, Readiness, RunningServer, serve

__all__ = [
    "Adder",
    "AuditHook",
    "ErrorDetails",
    "InvalidRequestError",
    "NotFoundError",
    "Readiness",
    "RunningServer",
    "abort_with",
    "channel",
    "details_of",
    "serve",
    "status_of",
    "sync_channel",
]
