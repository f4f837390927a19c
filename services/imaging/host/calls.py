"""What surrounds one run: its deadline, whether anybody still waits, and where progress goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from services.imaging.host.contract import ignore_progress
from services.platform.errors import OslerError, RetryableError

T = TypeVar("T")


class DeadlinePassedError(OslerError):
    """The caller's deadline passed before the result was there."""


class CallCancelledError(OslerError):
    """The caller went away."""


class OverloadedError(RetryableError):
    """Too many requests wait already; the same one may succeed after `retry_after_s`."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


def never() -> bool:
    """Nobody cancels."""
    return False


@dataclass(frozen=True)
class Call:
    """`deadline`: seconds since the epoch, None for none. `report` gets (done, total) in steps of the analysis' own."""

    deadline: float | None = None
    cancelled: Callable[[], bool] = never
    report: Callable[[int, int], None] = ignore_progress

    def checkpoint(self, done: int, total: int) -> None:
        """Reports; raises DeadlinePassedError or CallCancelledError."""
        if self.cancelled():
            raise CallCancelledError("the caller went away")
        if self.remaining_s() <= 0:
            raise DeadlinePassedError("not done within the caller's deadline; set a longer one")
        self.report(done, total)

    def remaining_s(self) -> float:
        """Seconds left; infinite without a deadline."""
        return float("inf") if self.deadline is None else self.deadline - time.time()


def caught(work: Callable[..., T], *args: Any) -> T | Exception:
    """What the work gave, or the exception that it raised."""
    try:
        return work(*args)
    except Exception as error:  # handed to the caller, whatever it is
        return error
