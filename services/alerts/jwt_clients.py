"""Who calls: an EHR by a token that it signed itself, each used once; or, where the settings say so, Osler's own tokens.

Source: CDS Hooks 2.0, "Trusting CDS Clients" (header alg, kid, typ, jku; claims iss, aud, exp, iat, jti, tenant); RFC 8725.
A refusal is logged by its kind and told to nobody.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
from sqlalchemy.exc import IntegrityError

from services.alerts import store
from services.platform import logs
from services.platform.config import Cds, CdsClient
from services.platform.database import Database
from services.platform.security import AuthenticationError, Principal, Security, authorize
from services.platform.security.jwks import PublishedKeys, require_safe_url
from services.platform.security.tokens import Verifier, unverified_issuer

# Asymmetric only. ES384 and RS384 are the specification's recommendation.
ALGORITHMS = ("ES384", "RS384", "ES256", "RS256", "PS256", "PS384", "ES512", "RS512", "PS512", "EdDSA")
_OWN_ROLES = ("clinician", "service", "admin")
_LONGEST_JTI = 512

log = logs.get("cds_clients")


@dataclass(frozen=True)
class Caller:
    """Who called. `client`: short name in the settings, "" for Osler's own tokens. `fhir_servers`: whom it may have us ask."""

    principal: Principal
    client: str = ""
    fhir_servers: tuple[str, ...] = ()


class Clients:
    """Checks tokens of registered clients. Raises ConfigurationError at once for a URL that is not https."""

    def __init__(
        self,
        settings: Cds,
        database: Database,
        security: Security,
        *,
        leeway_s: int = 30,
        http: httpx.Client | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._database = database
        self._security = security
        self._leeway_s = leeway_s
        self._clock = clock
        self._by_issuer: dict[str, tuple[str, CdsClient, Verifier]] = {}
        for name, client in settings.clients.items():
            require_safe_url(client.jwks_url, f"cds.clients.{name}.jwks_url")
            for url in client.fhir_servers:
                require_safe_url(url, f"cds.clients.{name}.fhir_servers")
            keys = PublishedKeys(
                _constant(client.jwks_url), client=http, name=f"cds.clients.{name}.jwks_url", whose=f"the client {name}"
            )
            verifier = Verifier(
                keys, client.issuer, ALGORITHMS, leeway_s=leeway_s, clock=clock, essential=("exp", "iat", "jti")
            )
            self._by_issuer[client.issuer] = (name, client, verifier)

    async def verify(self, token: str, *endpoints: str) -> Caller:
        """Who calls, for a token meant for one of `endpoints` (URLs). A client's token counts as used from here on.

        Raises AuthenticationError, with a reason that is for the log only; PermissionDeniedError for an own token without
        a role; RetryableError when keys or the database are out of reach.
        """
        known = self._by_issuer.get(unverified_issuer(token))
        if known is None:
            if not self._settings.own_tokens:
                raise AuthenticationError("the issuer is not on the list of clients")
            return Caller(authorize(await self._security.verify_async(token), *_OWN_ROLES))
        name, client, verifier = known
        header = verifier.header(token)
        _check_header(header, client)
        if verifier.keys.cached(str(header["kid"])):
            claims = verifier.claims(token, *endpoints)
        else:
            claims = await asyncio.to_thread(verifier.claims, token, *endpoints)
        self._check_claims(claims, client)
        await asyncio.to_thread(self._use, name, claims)
        subject = f"cds:{name}"
        return Caller(Principal(subject, frozenset({"service"}), client.issuer), name, client.fhir_servers)

    def _check_claims(self, claims: Mapping[str, Any], client: CdsClient) -> None:
        if claims["exp"] - claims["iat"] > self._settings.longest_token_s:
            raise AuthenticationError("the token lives longer than cds.longest_token_s")
        if not 0 < len(claims["jti"]) <= _LONGEST_JTI:
            raise AuthenticationError("the jti is empty or too long")
        if client.tenants and claims.get("tenant") not in client.tenants:
            raise AuthenticationError("the tenant is not on the list")

    def _use(self, name: str, claims: Mapping[str, Any]) -> None:
        """Notes the token as used until it would no longer be accepted anyway."""
        digest = hashlib.sha256(f"{name}\x1f{claims['jti']}".encode()).hexdigest()
        ends = datetime.fromtimestamp(float(claims["exp"]) + self._leeway_s + 1, UTC)
        try:
            # Not durable: what a power cut forgets is minutes old, and the token ends by itself.
            with self._database.transaction("alerts", durable=False) as tx:
                store.use_token(tx.session, digest, ends)
        except IntegrityError:
            raise AuthenticationError("the token was used before (jti)") from None


def _check_header(header: Mapping[str, Any], client: CdsClient) -> None:
    if str(header.get("typ", "")).upper() != "JWT":
        raise AuthenticationError("the header's typ is not JWT")
    if header.get("jku", client.jwks_url) != client.jwks_url:
        raise AuthenticationError("the header names another key set (jku) than the settings")


def _constant(url: str) -> Callable[[], str]:
    return lambda: url
