"""`Security`: one object that doors ask who a caller is and that rooms ask for their own tokens."""

from __future__ import annotations

import asyncio
import hmac
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from services.platform.config import Settings
from services.platform.errors import ConfigurationError
from services.platform.security.credentials import Credentials
from services.platform.security.keys import EmbeddedKeys
from services.platform.security.oidc import ALGORITHMS, Provider
from services.platform.security.principal import AuthenticationError, Principal, Role
from services.platform.security.tokens import Issuer, Verifier, roles_in

TokenProvider = Callable[[], str]


class Security:
    """Authentication with the embedded issuer, or with an OpenID provider."""

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._auth = settings.auth
        self._clock = clock
        self._lock = threading.Lock()
        self._service_tokens: dict[str, tuple[str, float]] = {}
        keys = EmbeddedKeys(settings.ensure_home())
        # Sessions of browsers are signed here in both modes; in oidc mode these keys vouch for no bearer token.
        self._issuer = Issuer(keys, "osler" if self._auth.mode == "oidc" else self._auth.issuer, clock)
        self._local = Verifier(keys, self._issuer.name, leeway_s=self._auth.leeway_s, clock=clock)
        self.keys = keys
        self.credentials = Credentials(settings.home)
        self.provider: Provider | None = None
        self._bearer = self._local
        if self._auth.mode == "oidc":
            self.provider = Provider(self._auth)
            self._bearer = Verifier(
                self.provider, self._auth.issuer, ALGORITHMS, self._auth.roles_claim, self._auth.leeway_s, clock
            )

    @classmethod
    def from_settings(cls, settings: Settings) -> Security:
        """Security as configured; makes keys in home on first use."""
        return cls(settings)

    @property
    def embedded(self) -> bool:
        return self.provider is None

    def ensure_credentials(self, announce: Callable[[str], None] | None = None) -> bool:
        """Embedded issuer: makes the first users once and announces their passwords. True when it did."""
        return self.embedded and self.credentials.ensure(announce)

    def jwks(self) -> dict[str, Any]:
        """Public keys of the embedded issuer, for others that check its tokens."""
        return self.keys.public()

    def issue(self, subject: str, roles: Iterable[str], ttl_s: float | None = None, audience: str | None = None) -> str:
        """A token of the embedded issuer. Raises ConfigurationError in oidc mode, where the provider issues tokens."""
        if not self.embedded:
            raise ConfigurationError("auth.mode is oidc: tokens come from the provider, not from Osler")
        return self._issue(subject, roles, ttl_s or self._auth.token_ttl_s, audience or self._auth.audience)

    def _issue(self, subject: str, roles: Iterable[str], ttl_s: float, audience: str) -> str:
        return self._issuer.issue(subject, roles, ttl_s=ttl_s, audience=audience)

    def verify(self, token: str, audience: str | None = None) -> Principal:
        """Who a bearer token speaks for. Raises AuthenticationError; RetryableError when the provider is away."""
        return self._bearer.verify(token, audience or self._auth.audience)

    async def verify_async(self, token: str) -> Principal:
        """`verify` that leaves the event loop free while it fetches keys."""
        if self._bearer.keys.cached(self._bearer.key_id(token)):
            return self.verify(token)
        return await asyncio.to_thread(self.verify, token)

    def authenticate(self, user: str, password: str) -> Principal:
        """Checks a password with the embedded issuer. Raises AuthenticationError."""
        if not self.embedded:
            raise AuthenticationError("passwords are checked by the identity provider; sign in there")
        found = self.credentials.authenticate(user, password)
        return Principal(found.name, found.roles, self._issuer.name)

    def session(self, principal: Principal, ttl_s: float) -> str:
        """A token for a browser's cookie. It is no bearer token: its audience differs."""
        more = {"limited_to": principal.limited_to} if principal.limited_to else {}
        subject, roles = principal.subject, principal.roles
        return self._issuer.issue(subject, roles, ttl_s=ttl_s, audience=self._session_audience, more=more)

    def verify_session(self, token: str) -> Principal:
        """Who a browser's session belongs to. Raises AuthenticationError."""
        return self._local.verify(token, self._session_audience)

    def csrf_token(self, principal: Principal) -> str:
        """The token that a changing request of this browser session must bring."""
        key = hmac.digest(self._settings.identity_key(), b"osler csrf", "sha256")
        return hmac.new(key, principal.token_id.encode(), "sha256").hexdigest()

    def seal(self, values: Mapping[str, str], ttl_s: float) -> str:
        """Values that a browser keeps for us for a while and cannot change."""
        audience = f"{self._auth.audience}/sealed"
        return self._issuer.issue("browser", [], ttl_s=ttl_s, audience=audience, more={"values": dict(values)})

    def unseal(self, sealed: str) -> dict[str, Any]:
        """The values of `seal`. Raises AuthenticationError when they were changed or are too old."""
        return dict(self._local.claims(sealed, f"{self._auth.audience}/sealed")["values"])

    def verify_id_token(self, token: str, nonce: str) -> Principal:
        """Whom the provider signed in (OpenID Connect Core 1.0 section 3.1.3.7). Raises AuthenticationError."""
        claims = self._bearer.claims(token, self._auth.client_id)
        if not hmac.compare_digest(str(claims.get("nonce", "")).encode(), nonce.encode()):
            raise AuthenticationError("the identity provider answered another sign-in: start again")
        roles = roles_in(claims, self._auth.roles_claim)
        return Principal(str(claims["sub"]), roles, self._auth.issuer)

    @property
    def _session_audience(self) -> str:
        return f"{self._auth.audience}/session"

    def service_token(self, room: str) -> str:
        """A token with the role `service` for one room, made again when four fifths of its life are over."""
        with self._lock:
            token, renew_at = self._service_tokens.get(room, ("", 0.0))
            now = self._clock()
            if now >= renew_at:
                if self.provider is None:
                    life = float(self._auth.token_ttl_s)
                    token = self.issue(f"room:{room}", [Role.SERVICE], life)
                else:
                    token, life = self.provider.client_token()
                self._service_tokens[room] = (token, now + 0.8 * life)
            return token

    def token_provider(self, room: str) -> TokenProvider:
        """What `rpc.channel` asks for a token before each call."""
        return lambda: self.service_token(room)
