"""Key sets that others publish (RFC 7517 section 5): fetched when needed, kept, and fetched again when keys rotate."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry, Key

from services.platform.errors import ConfigurationError, RetryableError

KEYS_FRESH_S = 600.0
LEAST_BETWEEN_FETCHES_S = 10.0
_LONGEST_DOCUMENT = 1024 * 1024
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


class PublishedKeys:
    """Public keys at a URL, which `url` gives when they are fetched first. Thread-safe.

    Symmetric keys and keys for encryption in the set are left out.
    """

    def __init__(
        self,
        url: Callable[[], str],
        *,
        client: httpx.Client | None = None,
        clock: Callable[[], float] = time.monotonic,
        name: str = "jwks_url",
        whose: str = "the token issuer",
    ) -> None:
        self._url = url
        self._client = client or new_client()
        self._clock = clock
        self._name = name
        self._whose = whose
        self._lock = threading.Lock()
        self._keys: dict[str, Key] = {}
        self._fetched = float("-inf")
        self._tried = float("-inf")

    def find(self, key_id: str) -> Key | None:
        """The key with this id. An unknown id makes it fetch again, at most every 10 s: that is how keys rotate.

        Raises RetryableError when no keys are known yet and the publisher is away.
        """
        with self._lock:
            now = self._clock()
            stale = now - self._fetched > KEYS_FRESH_S or key_id not in self._keys
            # While the publisher is away, known keys stay good and callers do not wait for it each time.
            if stale and (not self._keys or now - self._tried > LEAST_BETWEEN_FETCHES_S):
                self._fetch()
            return self._keys.get(key_id)

    def cached(self, key_id: str) -> bool:
        """True when `find` answers without waiting for a network."""
        return key_id in self._keys and self._clock() - self._fetched <= KEYS_FRESH_S

    def _fetch(self) -> None:
        url = self._url()
        require_safe_url(url, self._name)
        self._tried = self._clock()
        try:
            document = fetch_json(self._client, url, self._whose)
        except RetryableError:
            if not self._keys:
                raise
            return
        keys: dict[str, Key] = {}
        listed = document.get("keys", [])
        for raw in listed if isinstance(listed, list) else []:
            if not isinstance(raw, dict) or raw.get("kty") == "oct" or raw.get("use", "sig") != "sig":
                continue
            try:
                keys[str(raw["kid"])] = JWKRegistry.import_key(raw)
            except (JoseError, KeyError, ValueError):
                continue
        self._keys = keys
        self._fetched = self._clock()


def new_client(timeout_s: float = 5.0) -> httpx.Client:
    """A client for talking to identity providers: short patience, no redirects."""
    return httpx.Client(timeout=timeout_s, follow_redirects=False)


def fetch_json(client: httpx.Client, url: str, whose: str) -> dict[str, Any]:
    """A JSON object at a URL. Raises RetryableError naming `whose` it was and the host."""
    host = urlsplit(url).netloc
    try:
        response = client.get(url, headers={"accept": "application/json"})
        response.raise_for_status()
        document = response.json() if len(response.content) <= _LONGEST_DOCUMENT else None
    except (httpx.HTTPError, ValueError) as error:
        raise RetryableError(f"{whose} does not answer at {host}") from error
    if not isinstance(document, dict):
        raise RetryableError(f"{whose} at {host} sent no JSON object")
    return document


def require_safe_url(url: str, key: str) -> None:
    """Raises ConfigurationError, naming `key`, for a URL that is neither https nor on this machine."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise ConfigurationError(f"{key}: must be an https URL (http only on this machine)")
