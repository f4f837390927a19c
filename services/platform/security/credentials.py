"""Users of the embedded issuer: `<home>/users.json` with scrypt hashes (RFC 7914), made on first run."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import hmac
import json
import os
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.platform.config import create_once
from services.platform.errors import ConfigurationError
from services.platform.security.principal import ROLES, AuthenticationError, Role

# OWASP Password Storage Cheat Sheet (2024): scrypt N=2^15, r=8, p=3.
COST = {"n": 2**15, "r": 8, "p": 3}
FREE_FAILURES = 5
LONGEST_WAIT_S = 300.0
_WRONG = "user name or password is wrong"


@dataclass(frozen=True)
class User:
    name: str
    roles: frozenset[str]


def hash_password(password: str, cost: dict[str, int] | None = None) -> dict[str, Any]:
    """Salt, cost and scrypt hash of a password, ready for JSON."""
    salt = secrets.token_bytes(16)
    chosen = cost or COST
    return {"salt": base64.b64encode(salt).decode(), **chosen, "hash": _scrypt(password, salt, chosen).hex()}


def _scrypt(password: str, salt: bytes, cost: dict[str, int]) -> bytes:
    n, r, p = cost["n"], cost["r"], cost["p"]
    return hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=256 * n * r, dklen=32)


class Throttle:
    """After a few failures of one user name each further one doubles the wait, up to five minutes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, size: int = 10_000) -> None:
        self._clock = clock
        self._size = size
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._lock = threading.Lock()

    def check(self, name: str) -> None:
        """Raises AuthenticationError with `retry_after_s` while the name has to wait."""
        with self._lock:
            _, until = self._failures.get(name, (0, 0.0))
        wait = until - self._clock()
        if wait > 0:
            raise AuthenticationError("too many failed attempts; wait and try again", retry_after_s=wait)

    def failed(self, name: str) -> None:
        with self._lock:
            count = self._failures.pop(name, (0, 0.0))[0] + 1
            wait = min(LONGEST_WAIT_S, 2.0 ** min(count - FREE_FAILURES, 16)) if count >= FREE_FAILURES else 0.0
            self._failures[name] = (count, self._clock() + wait)
            while len(self._failures) > self._size:
                self._failures.popitem(last=False)

    def succeeded(self, name: str) -> None:
        with self._lock:
            self._failures.pop(name, None)


class Credentials:
    """Names, roles and password hashes on this machine."""

    def __init__(self, home: Path, *, throttle: Throttle | None = None, cost: dict[str, int] | None = None) -> None:
        self._home = home
        self._path = home / "users.json"
        self._throttle = throttle or Throttle()
        self._cost = cost or COST
        # Checked when the name is unknown, so that the answer takes as long.
        self._decoy: dict[str, Any] = {"salt": "", **self._cost, "hash": ""}

    @property
    def first_run_file(self) -> Path:
        return self._home / "first-run-credentials.txt"

    def ensure(self, announce: Callable[[str], None] | None = None) -> bool:
        """On first run makes one user for each role of people, saves their passwords in `first_run_file` (mode 600) and
        announces them once. Returns True when it did; later runs and other processes change nothing.
        """
        with self._locked():
            if self._path.exists():
                return False
            passwords = {role.value: secrets.token_urlsafe(12) for role in Role if role is not Role.SERVICE}
            users = {name: self._entry(password, [name]) for name, password in passwords.items()}
            lines = ["Osler first-run credentials. Keep them somewhere safe and delete this file.", ""]
            lines += [f"{name:<10} {password}" for name, password in passwords.items()]
            text = "\n".join(lines) + "\n"
            self.first_run_file.unlink(missing_ok=True)
            create_once(self.first_run_file, text.encode)
            self._write(users)
        if announce:
            announce(f"{text}\nSaved in {self.first_run_file}")
        return True

    def authenticate(self, name: str, password: str) -> User:
        """The user, when the password is right. Raises AuthenticationError, the same for a wrong name and password."""
        self._throttle.check(name)
        entry = self._read().get(name)
        stored = entry or self._decoy
        found = _scrypt(password, base64.b64decode(stored["salt"]), stored)
        if not hmac.compare_digest(found.hex(), stored["hash"]) or entry is None:
            self._throttle.failed(name)
            raise AuthenticationError(_WRONG)
        self._throttle.succeeded(name)
        return User(name, frozenset(entry["roles"]) & ROLES)

    def set_user(self, name: str, password: str, roles: Iterable[str]) -> None:
        """Adds or replaces a user. Raises ValueError for a short password, an odd name or an unknown role."""
        granted = sorted(set(roles))
        if not granted or not set(granted) <= ROLES:
            raise ValueError(f"roles must be some of {sorted(ROLES)}")
        if len(password) < 12:
            raise ValueError("a password needs 12 characters or more")
        if not name.isascii() or not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
            raise ValueError("a user name holds letters, digits, '.', '-' and '_'")
        entry = self._entry(password, granted)
        with self._locked():
            self._write({**self._read(), name: entry})

    def remove_user(self, name: str) -> bool:
        """Removes a user; False when there was none."""
        with self._locked():
            users = self._read()
            if users.pop(name, None) is None:
                return False
            self._write(users)
            return True

    def users(self) -> list[User]:
        """Everybody who may sign in."""
        return [User(name, frozenset(entry["roles"])) for name, entry in sorted(self._read().items())]

    def _entry(self, password: str, roles: list[str]) -> dict[str, Any]:
        return {"roles": roles, **hash_password(password, self._cost)}

    def _read(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self._path.read_text())["users"])
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(
                f"{self._path} is damaged; restore it, or move it away to make new users"
            ) from error

    def _write(self, users: dict[str, Any]) -> None:
        draft = self._path.with_suffix(".new")
        draft.unlink(missing_ok=True)
        create_once(draft, lambda: json.dumps({"users": users}, indent=2).encode())
        draft.replace(self._path)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._home / ".users.lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
