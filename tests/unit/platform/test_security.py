"""Who may come in: tokens, keys, passwords and an OpenID provider."""

from __future__ import annotations

import base64
import hmac
import json
import re
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey, RSAKey

from services.platform.config import Settings
from services.platform.errors import ConfigurationError, RetryableError
from services.platform.security import (
    AuthenticationError,
    PermissionDeniedError,
    Principal,
    Security,
    authorize,
)
from services.platform.security.credentials import FREE_FAILURES, Credentials, Throttle
from services.platform.security.tokens import roles_in
from tests.unit.platform.openid import Provider

CHEAP = {"n": 2**4, "r": 8, "p": 1}


class Clock:
    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def security(tmp_path: Path, clock: Clock) -> Security:
    return Security(Settings(home=tmp_path), clock=clock)


def forged(security: Security, *, key: Any = None, header: dict[str, Any] | None = None, **claims: Any) -> str:
    signing = key or security.keys.signing
    now = 1_800_000_000
    base = {"iss": "osler", "aud": "osler", "sub": "x", "iat": now, "nbf": now, "exp": now + 60, "roles": ["admin"]}
    head = {"alg": "ES256", "kid": str(security.keys.signing.kid)} | (header or {})
    body = {name: value for name, value in (base | claims).items() if value is not None}
    head = {name: value for name, value in head.items() if value is not None}
    return jwt.encode(head, body, signing, algorithms=["ES256", "HS256", "RS256"])


def test_a_token_says_who_and_what_may(security: Security) -> None:
    principal = security.verify(security.issue("dr-a", ["clinician", "board"]))
    assert (principal.subject, principal.roles) == ("dr-a", {"clinician", "board"})
    assert principal.has("board", "admin")
    assert not principal.has("admin")


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "another"},
        {"aud": "another"},
        {"aud": "osler/session"},
        {"iss": None},
        {"aud": None},
        {"sub": None},
        {"exp": None},
        {"iat": None},
        {"exp": 1_800_000_000 - 31},
        {"nbf": 1_800_000_000 + 31},
        {"iat": 1_800_000_000 + 31},
        {"exp": "never"},
    ],
)
def test_a_token_with_a_wrong_or_missing_claim_is_refused(security: Security, claims: dict[str, Any]) -> None:
    with pytest.raises(AuthenticationError):
        security.verify(forged(security, **claims))


def test_clocks_may_differ_by_the_leeway(security: Security) -> None:
    assert security.verify(forged(security, nbf=1_800_000_000 + 29, iat=1_800_000_000 + 29)).subject == "x"
    assert security.verify(forged(security, exp=1_800_000_000 - 29)).subject == "x"


def test_a_token_expires(security: Security, clock: Clock) -> None:
    token = security.issue("dr-a", ["clinician"], ttl_s=60)
    clock.now += 89
    security.verify(token)
    clock.now += 2
    with pytest.raises(AuthenticationError, match="expired"):
        security.verify(token)


def test_other_keys_and_algorithms_are_refused(security: Security) -> None:
    own = str(security.keys.signing.kid)
    stranger = ECKey.generate_key("P-256")
    rsa = RSAKey.generate_key(2048)
    for token in (
        forged(security, key=stranger),
        forged(security, key=stranger, header={"kid": "unknown"}),
        forged(security, key=OctKey.generate_key(256), header={"alg": "HS256", "kid": own}),
        forged(security, key=rsa, header={"alg": "RS256", "kid": own}),
        forged(security, header={"kid": None}),
    ):
        with pytest.raises(AuthenticationError):
            security.verify(token)


def test_the_public_key_is_no_shared_secret(security: Security) -> None:
    """The HS256/public key confusion of RFC 8725 section 2.1."""
    pem = security.keys.signing.as_bytes(private=False, encoding="PEM")
    head = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "kid": str(security.keys.signing.kid)}).encode())
    signed = head.rstrip(b"=") + b"." + security.issue("x", ["admin"]).split(".")[1].encode()
    seal = base64.urlsafe_b64encode(hmac.digest(pem, signed, "sha256")).rstrip(b"=")
    with pytest.raises(AuthenticationError):
        security.verify((signed + b"." + seal).decode())


def test_an_unsigned_token_is_refused(security: Security) -> None:
    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    token = security.issue("dr-a", ["clinician"])
    claims = token.split(".")[1]
    none = f"{part({'alg': 'none', 'kid': str(security.keys.signing.kid)})}.{claims}."
    for bad in (none, token[:-4] + "AAAA", token + "x", "", "a.b.c", "....", "ü", "x" * 20_000):
        with pytest.raises(AuthenticationError) as refusal:
            security.verify(bad)
        assert claims not in str(refusal.value)


def test_changed_claims_break_the_signature(security: Security) -> None:
    head, claims, signature = security.issue("dr-a", ["clinician"]).split(".")
    body = json.loads(base64.urlsafe_b64decode(claims + "=="))
    body["roles"] = ["admin"]
    changed = base64.urlsafe_b64encode(json.dumps(body).encode()).rstrip(b"=").decode()
    with pytest.raises(AuthenticationError, match="signature"):
        security.verify(f"{head}.{changed}.{signature}")


def test_an_unknown_role_is_not_issued_and_not_read(security: Security) -> None:
    with pytest.raises(ValueError, match="root"):
        security.issue("dr-a", ["root"])
    assert security.verify(forged(security, roles=["root", "board", 7])).roles == {"board"}


def test_the_key_file_is_private_and_the_key_set_public(security: Security, tmp_path: Path) -> None:
    file = tmp_path / "keys" / "issuer.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    (key,) = security.jwks()["keys"]
    assert "d" not in key
    assert (key["kty"], key["crv"], key["alg"], key["use"]) == ("EC", "P-256", "ES256", "sig")
    token = security.issue("dr-a", ["clinician"])
    assert jwt.decode(token, KeySet.import_key_set(security.jwks()), algorithms=["ES256"]).claims["sub"] == "dr-a"


def test_keys_rotate_without_restart(security: Security, tmp_path: Path, clock: Clock) -> None:
    other = Security(Settings(home=tmp_path), clock=clock)
    old = security.issue("dr-a", ["clinician"])
    security.keys.rotate()
    new = security.issue("dr-a", ["clinician"])
    assert other.verify(new).subject == other.verify(old).subject == "dr-a"
    for _ in range(3):
        security.keys.rotate()
    with pytest.raises(AuthenticationError, match="does not publish"):
        security.verify(old)


def test_a_damaged_key_file_is_named(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    Security(settings)
    (tmp_path / "keys" / "issuer.json").write_text("{}")
    with pytest.raises(ConfigurationError, match=r"issuer\.json is not a JWK set"):
        Security(settings)


def test_a_room_gets_a_service_token_and_a_new_one_in_time(security: Security, clock: Clock) -> None:
    first = security.service_token("fusion")
    assert security.verify(first) == Principal(
        "room:fusion", frozenset({"service"}), "osler", security.verify(first).token_id
    )
    assert security.service_token("fusion") == first
    assert security.service_token("twin") != first
    clock.now += 0.81 * 3600
    assert security.service_token("fusion") != first


def test_a_session_is_no_bearer_token_and_the_reverse(security: Security) -> None:
    principal = Principal("dr-a", frozenset({"board"}))
    session = security.session(principal, 60)
    assert security.verify_session(session).roles == {"board"}
    with pytest.raises(AuthenticationError):
        security.verify(session)
    with pytest.raises(AuthenticationError):
        security.verify_session(security.issue("dr-a", ["board"]))


def test_authorize_tells_unknown_from_not_allowed() -> None:
    with pytest.raises(AuthenticationError):
        authorize(None, "board")
    with pytest.raises(PermissionDeniedError, match="admin or board"):
        authorize(Principal("x", frozenset({"analyst"})), "board", "admin")


def test_first_run_makes_one_user_per_role_and_shows_passwords_once(tmp_path: Path) -> None:
    shown: list[str] = []
    credentials = Credentials(tmp_path, cost=CHEAP)
    assert credentials.ensure(shown.append)
    assert not credentials.ensure(shown.append)
    assert len(shown) == 1
    passwords = dict(re.findall(r"^(\w+) +(\S+)$", credentials.first_run_file.read_text(), re.M))
    assert set(passwords) == {"clinician", "board", "analyst", "admin"}
    for name, password in passwords.items():
        assert len(password) >= 16
        assert credentials.authenticate(name, password).roles == {name}
        assert password in shown[0]
        assert password not in (tmp_path / "users.json").read_text()
    for file in ("users.json", "first-run-credentials.txt"):
        assert stat.S_IMODE((tmp_path / file).stat().st_mode) == 0o600


def test_a_hash_is_salted_scrypt_at_the_recommended_cost(tmp_path: Path) -> None:
    credentials = Credentials(tmp_path)
    credentials.set_user("a", "correct horse", ["board"])
    credentials.set_user("b", "correct horse", ["board"])
    users = json.loads((tmp_path / "users.json").read_text())["users"]
    assert users["a"]["hash"] != users["b"]["hash"]
    assert (users["a"]["n"], users["a"]["r"], users["a"]["p"]) == (32768, 8, 3)
    assert credentials.authenticate("a", "correct horse").name == "a"


def test_a_wrong_name_and_a_wrong_password_look_the_same(tmp_path: Path) -> None:
    credentials = Credentials(tmp_path, cost=CHEAP)
    credentials.set_user("a", "correct horse", ["board"])
    said = set()
    for name, password in (("a", "wrong"), ("nobody", "wrong"), ("nobody", ""), ("a", "")):
        with pytest.raises(AuthenticationError) as refusal:
            credentials.authenticate(name, password)
        said.add(str(refusal.value))
    assert len(said) == 1


def test_failures_are_throttled_for_that_name_only(tmp_path: Path) -> None:
    clock = Clock(0.0)
    credentials = Credentials(tmp_path, throttle=Throttle(clock), cost=CHEAP)
    credentials.set_user("a", "correct horse", ["board"])
    credentials.set_user("b", "correct horse", ["board"])
    for _ in range(FREE_FAILURES):
        with pytest.raises(AuthenticationError, match="wrong"):
            credentials.authenticate("a", "wrong")
    with pytest.raises(AuthenticationError, match="wait") as refusal:
        credentials.authenticate("a", "correct horse")
    assert refusal.value.retry_after_s == pytest.approx(1.0)
    assert credentials.authenticate("b", "correct horse").name == "b"
    clock.now = 1.01
    with pytest.raises(AuthenticationError, match="wrong"):
        credentials.authenticate("a", "wrong")
    with pytest.raises(AuthenticationError, match="wait") as refusal:
        credentials.authenticate("a", "wrong")
    assert refusal.value.retry_after_s == pytest.approx(2.0)
    clock.now = 4.0
    assert credentials.authenticate("a", "correct horse").name == "a"


def test_the_throttle_forgets_the_oldest_names() -> None:
    throttle = Throttle(Clock(0.0), size=3)
    for _ in range(FREE_FAILURES):
        throttle.failed("first")
    for name in "abc":
        throttle.failed(name)
    throttle.check("first")


def test_users_are_added_replaced_and_removed(tmp_path: Path) -> None:
    credentials = Credentials(tmp_path, cost=CHEAP)
    credentials.set_user("a.b", "correct horse", ["board", "clinician"])
    assert [(user.name, user.roles) for user in credentials.users()] == [("a.b", {"board", "clinician"})]
    assert credentials.remove_user("a.b")
    assert not credentials.remove_user("a.b")
    for name, password, roles in (
        ("a", "short", ["board"]),
        ("a", "x" * 12, ["root"]),
        ("a", "x" * 12, []),
        ("a b", "x" * 12, ["board"]),
    ):
        with pytest.raises(ValueError, match=r".+"):
            credentials.set_user(name, password, roles)


def test_two_writers_lose_no_user(tmp_path: Path) -> None:
    stores = [Credentials(tmp_path, cost=CHEAP) for _ in range(4)]
    threads = [
        threading.Thread(target=store.set_user, args=(f"u{number}", "correct horse", ["board"]))
        for number, store in enumerate(stores)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stores[0].users()) == 4


@pytest.mark.parametrize(
    ("claims", "path", "roles"),
    [
        ({"roles": ["board"]}, "roles", {"board"}),
        ({"roles": "board admin other"}, "roles", {"board", "admin"}),
        ({"realm_access": {"roles": ["clinician"]}}, "realm_access.roles", {"clinician"}),
        ({"realm_access": 3}, "realm_access.roles", set()),
        ({}, "roles", set()),
        ({"roles": {"board": True}}, "roles", set()),
    ],
)
def test_roles_are_read_where_the_provider_puts_them(claims: dict[str, Any], path: str, roles: set[str]) -> None:
    assert roles_in(claims, path) == roles


@pytest.fixture
def provider(clock: Clock) -> Iterator[Provider]:
    running = Provider(clock)
    yield running
    running.close()


def oidc(provider: Provider, home: Path, clock: Clock, **auth: Any) -> Security:
    settings = Settings(home=home, auth={"mode": "oidc", "issuer": provider.issuer, **auth})
    return Security(settings, clock=clock)


def test_oidc_tokens_are_checked_with_the_published_key_fetched_once(
    provider: Provider, tmp_path: Path, clock: Clock
) -> None:
    security = oidc(provider, tmp_path, clock)
    for _ in range(3):
        assert security.verify(provider.token()).roles == {"board"}
    assert provider.fetches == ["/.well-known/openid-configuration", "/jwks"]


@pytest.mark.parametrize("claims", [{"iss": "http://elsewhere"}, {"aud": "other"}, {"exp": 1_700_000_000}])
def test_oidc_tokens_of_another_issuer_audience_or_time_are_refused(
    provider: Provider, tmp_path: Path, clock: Clock, claims: dict[str, Any]
) -> None:
    with pytest.raises(AuthenticationError):
        oidc(provider, tmp_path, clock).verify(provider.token(**claims))


def test_in_oidc_mode_the_embedded_key_vouches_for_nobody(provider: Provider, tmp_path: Path, clock: Clock) -> None:
    embedded = Security(Settings(home=tmp_path), clock=clock)
    security = oidc(provider, tmp_path, clock)
    with pytest.raises(AuthenticationError):
        security.verify(embedded.issue("x", ["admin"]))
    with pytest.raises(AuthenticationError):
        security.verify(security.session(Principal("x", frozenset({"admin"})), 60))
    with pytest.raises(ConfigurationError):
        security.issue("x", ["admin"])
    with pytest.raises(AuthenticationError):
        security.authenticate("admin", "anything")


def test_oidc_keys_rotate(provider: Provider, tmp_path: Path, clock: Clock) -> None:
    security = oidc(provider, tmp_path, clock)
    monotonic = Clock(0.0)
    security.provider._clock = monotonic
    security.verify(provider.token())
    provider.rotate()
    with pytest.raises(AuthenticationError):
        security.verify(provider.token())
    assert provider.fetches.count("/jwks") == 1, "an unknown key id may not make Osler hammer the provider"
    monotonic.now = 11.0
    assert security.verify(provider.token()).subject == "dr-b"


def test_a_provider_that_is_away(provider: Provider, tmp_path: Path, clock: Clock) -> None:
    security = oidc(provider, tmp_path, clock)
    monotonic = Clock(0.0)
    security.provider._clock = monotonic
    provider.up = False
    with pytest.raises(RetryableError, match="does not answer"):
        security.verify(provider.token())
    provider.up = True
    security.verify(provider.token())
    provider.up = False
    monotonic.now = 700.0
    assert security.verify(provider.token()).subject == "dr-b", "known keys stay good while it is away"


def test_a_provider_that_names_another_issuer_or_is_unsafe_is_refused(
    provider: Provider, tmp_path: Path, clock: Clock
) -> None:
    provider.claimed_issuer = "https://another.example"
    with pytest.raises(ConfigurationError, match="another issuer"):
        oidc(provider, tmp_path, clock).verify(provider.token())
    with pytest.raises(ConfigurationError, match="https"):
        Security(Settings(home=tmp_path, auth={"mode": "oidc", "issuer": "http://idp.example"}))


def test_rooms_get_their_tokens_from_the_provider(provider: Provider, tmp_path: Path, clock: Clock) -> None:
    security = oidc(provider, tmp_path, clock, client_id="osler-rooms", client_secret="hush")
    token = security.service_token("fusion")
    assert security.verify(token).roles == {"service"}
    assert security.service_token("fusion") == token
    assert [form["grant_type"] for form in provider.forms] == ["client_credentials"]
    with pytest.raises(ConfigurationError, match="client_id"):
        oidc(provider, tmp_path, clock).service_token("fusion")
    with pytest.raises(ConfigurationError, match="refused"):
        oidc(provider, tmp_path, clock, client_id="osler-rooms", client_secret="wrong").service_token("fusion")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(max_size=60), st.sampled_from(["replace", "insert", "cut"]), st.integers(0, 400))
def test_no_text_is_a_token_and_none_breaks_the_check(security: Security, text: str, how: str, place: int) -> None:
    token = security.issue("dr-a", ["clinician"])
    changed = {
        "replace": text,
        "insert": token[:place] + text + token[place:],
        "cut": token[: place % len(token)],
    }[how]
    if changed != token:
        with pytest.raises(AuthenticationError):
            security.verify(changed)
