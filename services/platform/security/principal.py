"""Who is calling, and what that lets them do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum

from services.platform.errors import OslerError


class Role(StrEnum):
    """The roles that doors ask for."""

    CLINICIAN = "clinician"
    BOARD = "board"
    ANALYST = "analyst"
    ADMIN = "admin"
    SERVICE = "service"


ROLES = frozenset(role.value for role in Role)


class AuthenticationError(OslerError):
    """Nobody proved who they are: no token, or one that does not hold. `retry_after_s` is set when throttled."""

    def __init__(self, message: str, *, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class PermissionDeniedError(OslerError):
    """The caller is known and lacks the role."""


@dataclass(frozen=True)
class Principal:
    """An authenticated caller. `subject` is a pseudonymous user id or `room:<name>`.

    `limited_to`: the one patient key that this caller may see ("" for no such limit); routes about anything else are closed.
    """

    subject: str
    roles: frozenset[str]
    issuer: str = ""
    token_id: str = ""
    limited_to: str = ""

    def has(self, *roles: str) -> bool:
        """True when the principal holds one of the roles."""
        return not self.roles.isdisjoint(roles)


_current: ContextVar[Principal | None] = ContextVar("osler_principal", default=None)


def current_principal() -> Principal | None:
    """The caller of the request being served; None outside one."""
    return _current.get()


@contextmanager
def acting_as(principal: Principal | None) -> Iterator[None]:
    """Makes `principal` the current one inside the block."""
    token = _current.set(principal)
    try:
        yield
    finally:
        _current.reset(token)


def become(principal: Principal | None) -> None:
    """Makes `principal` the current one until the surrounding `acting_as` ends."""
    _current.set(principal)


def authorize(principal: Principal | None, *roles: str) -> Principal:
    """Returns the principal when it holds one of `roles`. Raises AuthenticationError or PermissionDeniedError."""
    if principal is None:
        raise AuthenticationError("sign in first: the request carries no valid token")
    if not principal.has(*roles):
        raise PermissionDeniedError(f"needs the role {' or '.join(sorted(roles))}")
    return principal
