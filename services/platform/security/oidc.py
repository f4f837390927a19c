"""An OpenID Connect provider: discovery, key set with rotation, tokens for rooms.

Source: OpenID Connect Discovery 1.0 sections 3 and 4; RFC 7517; RFC 6749 section 4.4.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx
from joserfc.jwk import Key

from services.platform.config import Auth
from services.platform.errors import ConfigurationError, RetryableError
from services.platform.security.jwks import PublishedKeys, fetch_json, new_client, require_safe_url

ALGORITHMS = ("ES256", "ES384", "RS256", "PS256", "EdDSA")


class Provider:
    """Talks to the provider named in the settings. Thread-safe; keeps what it fetched."""

    def __init__(
        self, auth: Auth, *, client: httpx.Client | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._auth = auth
        self._client = client or new_client()
        self._clock = clock
        self._metadata: dict[str, Any] | None = None
        self._keys = PublishedKeys(
            self._keys_url,
            client=self._client,
            clock=lambda: self._clock(),
            name="auth.jwks_url",
            whose="the identity provider",
        )
        require_safe_url(auth.issuer, "auth.issuer")

    def metadata(self) -> dict[str, Any]:
        """The discovery document. Raises ConfigurationError when it names another issuer, RetryableError without."""
        if self._metadata is None:
            url = self._auth.issuer.rstrip("/") + "/.well-known/openid-configuration"
            document = fetch_json(self._client, url, "the identity provider")
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
        require_safe_url(url, name)
        return url

    def find(self, key_id: str) -> Key | None:
        """The key with this id; see `PublishedKeys.find`."""
        return self._keys.find(key_id)

    def cached(self, key_id: str) -> bool:
        return self._keys.cached(key_id)

    def _keys_url(self) -> str:
        return self._auth.jwks_url or self.endpoint("jwks_uri")

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
