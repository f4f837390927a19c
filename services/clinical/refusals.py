"""Typed refusals: `RefusedError` inside the code, `osler.common.v1.Refusal` on the wire."""

from __future__ import annotations

import re
from collections.abc import Sequence

from osler.common.v1 import common_pb2

from services.platform.errors import RefusedError

_REASON = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)*")


def make_refusal(
    reason: str, message: str, *, missing: Sequence[str] = (), remedy: str = "", subject: str = ""
) -> common_pb2.Refusal:
    """A refusal message. `reason` is dotted lower snake case ("suv.missing_dose"); raises ValueError otherwise."""
    if not _REASON.fullmatch(reason):
        raise ValueError(f"refusal reason {reason!r} must be dotted lower snake case")
    if not message:
        raise ValueError(f"refusal {reason!r} needs a message that says what is wrong and where")
    return common_pb2.Refusal(reason=reason, message=message, missing=list(missing), remedy=remedy, subject=subject)


def to_refusal(error: RefusedError, *, subject: str = "") -> common_pb2.Refusal:
    """The wire form of an error. `subject` (a UID, digest or event id) fills in when the error names none."""
    return make_refusal(
        error.reason, error.message, missing=error.missing, remedy=error.remedy, subject=error.subject or subject
    )


def from_refusal(refusal: common_pb2.Refusal) -> RefusedError:
    """The error that a wire refusal stands for; `to_refusal(from_refusal(r)) == r`."""
    return RefusedError(
        refusal.reason,
        refusal.message,
        missing=tuple(refusal.missing),
        remedy=refusal.remedy,
        subject=refusal.subject,
    )
