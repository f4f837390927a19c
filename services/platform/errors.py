"""Errors that carry what a person needs: what is wrong, where, and what to do."""

from __future__ import annotations

from collections.abc import Sequence


class OslerError(Exception):
    """Base of Osler's own errors. Messages hold no patient data."""


class RefusedError(OslerError):
    """Input that must not be guessed around: quarantined, never retried as it is.

    `reason` is stable and machine-readable ("suv.missing_dose"); `missing` names what is absent.
    """

    def __init__(
        self, reason: str, message: str, *, missing: Sequence[str] = (), remedy: str = "", subject: str = ""
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.missing = tuple(missing)
        self.remedy = remedy
        self.subject = subject


class RetryableError(OslerError):
    """A passing fault (broker down, disk full, peer not ready): the same work may succeed later."""


class ConfigurationError(OslerError):
    """A setting is missing or wrong; the message names the key and what it should be."""
