"""Signing and checking of JSON Web Tokens (RFC 7519, with the checks of RFC 8725)."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from joserfc import jwt
from joserfc.errors import ExpiredTokenError, JoseError
from joserfc.jws import extract_compact

from services.platform.security.keys import ALGORITHM, EmbeddedKeys, KeySource
from services.platform.security.principal import ROLES, AuthenticationError, Principal

MAX_TOKEN_LENGTH = 16_384


@dataclass(frozen=True)
class Issuer:
    """Signs tokens with the embedded key."""

    keys: EmbeddedKeys
    name: str
    clock: Callable[[], float] = time.time

    def issue(
        self,
        subject: str,
        roles: Iterable[str],
        *,
        ttl_s: float,
        audience: str,
        more: Mapping[str, Any] | None = None,
    ) -> str:
        """A signed token with `more` claims. Raises ValueError for an unknown role."""
        granted = sorted(set(roles))
        if unknown := set(granted) - ROLES:
            raise ValueError(f"unknown roles {sorted(unknown)}; known: {sorted(ROLES)}")
        now = int(self.clock())
        claims: dict[str, Any] = {
            **(more or {}),
            "iss": self.name,
            "sub": subject,
            "aud": audience,
            "iat": now,
            "nbf": now,
            "exp": now + int(ttl_s),
            "jti": secrets.token_urlsafe(12),
            "roles": granted,
        }
        key = self.keys.signing
        return jwt.encode({"alg": ALGORITHM, "kid": str(key.kid)}, claims, key, algorithms=[ALGORITHM])


@dataclass(frozen=True)
class Verifier:
    """Checks tokens: algorithm from a list, key by id, issuer, audience, times."""

    keys: KeySource
    issuer: str
    algorithms: Sequence[str] = (ALGORITHM,)
    roles_claim: str = "roles"
    leeway_s: int = 30
    clock: Callable[[], float] = time.time
    # Claims that a token must carry beside issuer and audience.
    essential: Sequence[str] = ("sub", "exp", "iat")

    def header(self, token: str) -> dict[str, Any]:
        """The token's header: an accepted algorithm and a key id, nothing else checked. Raises AuthenticationError."""
        if len(token) > MAX_TOKEN_LENGTH:
            raise AuthenticationError("token is too long")
        try:
            header = extract_compact(token.encode("ascii")).headers()
        except (JoseError, ValueError):
            raise AuthenticationError("token is not a signed JWT") from None
        if header.get("alg") not in self.algorithms:
            raise AuthenticationError("token is signed with an algorithm that is not accepted")
        key_id = header.get("kid")
        if not isinstance(key_id, str) or not key_id:
            raise AuthenticationError("token names no key (kid)")
        return dict(header)

    def key_id(self, token: str) -> str:
        """The id of the key that the token names. Raises AuthenticationError."""
        return str(self.header(token)["kid"])

    def verify(self, token: str, audience: str) -> Principal:
        """The principal that the token speaks for. Raises AuthenticationError, which never repeats the token."""
        claims = self.claims(token, audience)
        return Principal(
            subject=str(claims["sub"]),
            roles=roles_in(claims, self.roles_claim),
            issuer=str(claims["iss"]),
            token_id=str(claims.get("jti", "")),
            limited_to=str(claims.get("limited_to", "")),
        )

    def claims(self, token: str, *audiences: str) -> dict[str, Any]:
        """All claims of a token that holds and is meant for one of `audiences`. Raises AuthenticationError."""
        key = self.keys.find(self.key_id(token))
        if key is None:
            raise AuthenticationError("token is signed with a key that the issuer does not publish")
        registry = self._registry(audiences)
        try:
            claims = jwt.decode(token, key, algorithms=list(self.algorithms)).claims
            registry.validate(claims)
        except ExpiredTokenError:
            raise AuthenticationError("token has expired; sign in again") from None
        except (JoseError, ValueError) as error:
            claim = getattr(error, "claim", "")
            detail = f"claim {claim} is wrong or missing" if claim else "signature does not hold"
            raise AuthenticationError(f"token is not accepted: {detail}") from None
        return claims

    def _registry(self, audiences: Sequence[str]) -> jwt.JWTClaimsRegistry:
        if not audiences:
            raise ValueError("a token must be checked for an audience")
        essential: dict[str, Any] = {name: {"essential": True} for name in self.essential}
        return jwt.JWTClaimsRegistry(
            now=lambda: int(self.clock()),
            leeway=self.leeway_s,
            iss={"essential": True, "value": self.issuer},
            aud={"essential": True, "values": list(audiences)},
            **essential,
        )


def unverified_issuer(token: str) -> str:
    """The issuer that a token claims, only to choose who checks it; "" when it cannot be read."""
    if len(token) > MAX_TOKEN_LENGTH:
        return ""
    try:
        claims = json.loads(extract_compact(token.encode("ascii")).payload)
    except (JoseError, ValueError):
        return ""
    issuer = claims.get("iss") if isinstance(claims, dict) else None
    return issuer if isinstance(issuer, str) else ""


def roles_in(claims: dict[str, Any], path: str) -> frozenset[str]:
    """Osler's roles in a claim (dots go deeper); names that Osler does not know are left out."""
    value: Any = claims
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    names = value.split() if isinstance(value, str) else value if isinstance(value, list) else []
    return frozenset(name for name in names if isinstance(name, str) and name in ROLES)
