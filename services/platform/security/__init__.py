"""Who may come in: embedded issuer or OpenID provider, roles, tokens."""

from services.platform.security.principal import (
    ROLES,
    AuthenticationError,
    PermissionDeniedError,
    Principal,
    Role,
    acting_as,
    authorize,
    become,
    current_principal,
)
from services.platform.security.service import Security, TokenProvider

__all__ = [
    "ROLES",
    "AuthenticationError",
    "PermissionDeniedError",
    "Principal",
    "Role",
    "Security",
    "TokenProvider",
    "acting_as",
    "authorize",
    "become",
    "current_principal",
]
