"""An OpenID Connect provider: discovery, key set with rotation, tokens for rooms.

Source: OpenID Connect Discovery 1.0 sections 3 and 4; RFC 7517; RFC 6749 section 4.4.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry, Key

from services.platform.config import Auth
from services.platform.errors import ConfigurationError, RetryableError

ALGORITHMS = ("ES256", "ES384", "RS256", "PS256", "EdDSA")
KEYS_FRESH_S = 600.0
LEAST_BETWEEN_FETCHES_S = 10.0
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


class Provider:
    """Talks to the provider named in the settings. Thread-safe; keeps what it fetched."""

    def __init__(
        self, auth: Auth, *, client: httpx.Client | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._auth = auth
        self._client = client or httpx.Client(timeout=5.0, follow_redirects=False)
        self._clock = clock
        self._lock = threading.Lock()
        self._metadata: dict[str, Any] | None = None
        self._keys: dict[str, Key] = {}
        self._fetched = float("-inf")
        _require_safe(auth.issuer, "auth.issuer")

    def metadata(self) -> dict[str, Any]:
        """The discovery document. Raises ConfigurationError when it names another issuer, RetryableError without."""
        if self._metadata is None:
            url = self._auth.issuer.rstrip("/") + "/.well-known/openid-configuration"
            document = self._get(url)
            if document.get("issuer") != self._auth.issuer:
                raise ConfigurationError(
                    f"auth.issuer: {url} names another issuer; copy the `issuer` of that document letter by letter"
                )
            self._metadata = document
        return self._metadata

    def endpoint(self, name: str) -> str:
        """One of the provider's endpoints, for example `token_endpoint`."""
        url = self.metadata().get(name)
        if not isinstance(url, str):
            raise ConfigurationError(f"auth.issuer: the provider publishes no {name}")
        _require_safe(url, name)
        return url

    def find(self, key_id: str) -> Key | None:
        """The key with this id. An unknown id makes it fetch again, at most every 10 s: that is how keys rotate."""
        with self._lock:
            age = self._clock() - self._fetched
            if age > KEYS_FRESH_S or (key_id not in self._keys and age > LEAST_BETWEEN_FETCHES_S):
                self._fetch_keys()
            return self._keys.get(key_id)

    def cached(self, key_id: str) -> bool:
        return key_id in self._keys and self._clock() - self._fetched <= KEYS_FRESH_S

    def _fetch_keys(self) -> None:
        url = self._auth.jwks_url or self.endpoint("jwks_uri")
        _require_safe(url, "auth.jwks_url")
        try:
            document = self._get(url)
        except RetryableError:
            # Known keys stay good while the provider is away.
            if not self._keys:
                raise
            return
        keys: dict[str, Key] = {}
        for raw in document.get("keys", []):
            if not isinstance(raw, dict) or raw.get("kty") == "oct" or raw.get("use", "sig") != "sig":
                continue
            try:
                keys[str(raw["kid"])] = JWKRegistry.import_key(raw)
            except (JoseError, KeyError, ValueError):
                continue
        self._keys = keys
        self._fetched = self._clock()

    def _get(self, url: str) -> dict[str, Any]:
        try:
            response = self._client.get(url)
            response.raise_for_status()
            document = response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise RetryableError(f"the identity provider does not answer at {urlsplit(url).netloc}") from error
        if not isinstance(document, dict):
            raise RetryableError(f"the identity provider at {urlsplit(url).netloc} sent no JSON object")
        return document

    def client_token(self) -> tuple[str, float]:
        """An access token for Osler's own rooms (client credentials) and its life in seconds."""
        answer = self.token({"grant_type": "client_credentials"})
        return str(answer["access_token"]), float(answer.get("expires_in", 60))

    def token(self, form: dict[str, str]) -> dict[str, Any]:
        """Calls the token endpoint as Osler's client. Raises ConfigurationError when the client is not accepted."""
        secret = self._auth.client_secret.get_secret_value()
        if not self._auth.client_id or not secret:
            raise ConfigurationError("auth.client_id and auth.client_secret: needed to get tokens from the provider")
        try:
            response = self._client.post(
                self.endpoint("token_endpoint"), data=form, auth=(self._auth.client_id, secret)
            )
        except httpx.HTTPError as error:
            raise RetryableError("the identity provider does not answer at its token endpoint") from error
        if response.status_code >= 500:
            raise RetryableError(f"the identity provider's token endpoint answered {response.status_code}")
        if response.status_code != 200:
            raise ConfigurationError(f"the identity provider refused Osler's client ({response.status_code})")
        return dict(response.json())


def _require_safe(url: str, key: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise ConfigurationError(f"{key}: must be an https URL (http only on this machine)")
