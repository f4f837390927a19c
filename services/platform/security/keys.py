"""Signing keys of the embedded issuer: ES256 (RFC 7518 section 3.4), kept in home, open to its owner only."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any, Protocol

from joserfc.jwk import ECKey, Key, KeySet

from services.platform.config import create_once
from services.platform.errors import ConfigurationError

ALGORITHM = "ES256"


class KeySource(Protocol):
    """Where a verifier finds public keys."""

    def find(self, key_id: str) -> Key | None:
        """The key with this id; None when there is none."""

    def cached(self, key_id: str) -> bool:
        """True when `find` answers without waiting for a network."""


class EmbeddedKeys:
    """The key file `<home>/keys/issuer.json`, a JWK set (RFC 7517). The first key signs, all verify."""

    def __init__(self, home: Path) -> None:
        self._path = home / "keys" / "issuer.json"
        self._lock = threading.Lock()
        self._keys: dict[str, ECKey] = {}
        self._stamp = (-1, -1)
        self._load()

    def _load(self) -> None:
        raw = create_once(self._path, lambda: json.dumps({"keys": [_new_key()]}).encode())
        state = self._path.stat()
        try:
            keys = [ECKey.import_key(key) for key in json.loads(raw)["keys"]]
            self._keys = {str(key.kid): key for key in keys}
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(
                f"{self._path} is not a JWK set; move it away to make new keys (everybody signs in again)"
            ) from error
        self._stamp = (state.st_mtime_ns, state.st_ino)

    @property
    def signing(self) -> ECKey:
        return next(iter(self._keys.values()))

    def find(self, key_id: str) -> Key | None:
        """The key with this id; reads the file again when it changed, so that rotation needs no restart."""
        with self._lock:
            if key_id not in self._keys:
                state = self._path.stat()
                if (state.st_mtime_ns, state.st_ino) != self._stamp:
                    self._load()
            return self._keys.get(key_id)

    def cached(self, key_id: str) -> bool:
        return True

    def public(self) -> dict[str, Any]:
        """The JWKS document (RFC 7517 section 5): public parts only."""
        return dict(KeySet(list(self._keys.values())).as_dict(private=False))

    def rotate(self, keep: int = 2) -> str:
        """Puts a new signing key in front and keeps `keep` old ones for verification; returns the new key id."""
        with self._lock:
            new = _new_key()
            old = [key.as_dict(private=True) for key in self._keys.values()][:keep]
            draft = self._path.with_suffix(".new")
            draft.unlink(missing_ok=True)
            create_once(draft, lambda: json.dumps({"keys": [new, *old]}).encode())
            draft.replace(self._path)
            self._load()
            return str(new["kid"])


def _new_key() -> dict[str, Any]:
    key = ECKey.generate_key("P-256", parameters={"use": "sig", "alg": ALGORITHM})
    key.ensure_kid()
    return dict(key.as_dict(private=True))
