"""The reasons for which a package or a run of it is refused, all named `model.*`."""

from __future__ import annotations

from services.platform.errors import OslerError, RefusedError

FETCH_AGAIN = "Fetch the package again from its source, or ask its makers."


class UnknownModelError(OslerError, LookupError):
    """No installed package or analyser has that name."""


def refused(reason: str, message: str, remedy: str = FETCH_AGAIN, subject: str = "") -> RefusedError:
    """A refusal with the reason `model.<reason>`."""
    return RefusedError(f"model.{reason}", message, remedy=remedy, subject=subject)
