"""Who may call the CDS Hooks door: tokens of registered clients, each once, and no reason told to those refused."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from joserfc.jwk import ECKey, OctKey

from services.alerts.room import build
from services.compose.rooms import lay_foundations, migrate_all
from services.platform.config import Settings
from services.platform.errors import ConfigurationError
from tests.unit.alerts.ehr import Ehr
from tests.unit.alerts.test_hooks import request

PATH = "/cds-services/osler-patient-view"


@pytest.fixture(scope="module")
def ehr() -> Iterator[Ehr]:
    running = Ehr()
    yield running
    running.close()


def door_for(home: Path, cds: dict[str, Any]) -> Iterator[TestClient]:
    found = lay_foundations(Settings.load(home=home, cds=cds))
    migrate_all(found.database, ["alerts"])
    app = build(found.context()).http
    assert app is not None
    with TestClient(app) as client:
        client.own = found.security.issue("dr-a", ["clinician"])
        yield client
    found.close()


@pytest.fixture(scope="module")
def door(ehr: Ehr, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    cds = {**ehr.settings(tenants=["north"]), "own_tokens": False}
    yield from door_for(tmp_path_factory.mktemp("door"), cds)


def call(door: TestClient, token: str, path: str = PATH) -> Any:
    return door.post(path, json=request(), headers={"authorization": f"Bearer {token}"})


def test_a_token_of_a_registered_client_comes_in_once(door: TestClient, ehr: Ehr) -> None:
    token = ehr.token(tenant="north")
    assert call(door, token).json() == {"cards": []}
    assert call(door, token).status_code == 401, "replayed"


def test_the_audience_may_be_one_of_several(door: TestClient, ehr: Ehr) -> None:
    both = ["https://other.example", "https://cds.example/cds-services/osler-patient-view"]
    assert call(door, ehr.token(tenant="north", aud=both)).status_code == 200


def tampered(ehr: Ehr) -> str:
    header, payload, signature = ehr.token(tenant="north").split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    changed = base64.urlsafe_b64encode(json.dumps({**claims, "jti": "another"}).encode()).rstrip(b"=").decode()
    return f"{header}.{changed}.{signature}"


def unsigned(ehr: Ehr) -> str:
    parts = [
        {"alg": "none", "typ": "JWT", "kid": "ehr-1"},
        {"iss": "https://ehr.example/", "jti": "a", "tenant": "north"},
    ]
    return ".".join(base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=").decode() for p in parts) + "."


def symmetric(ehr: Ehr) -> str:
    # The published key's text as an HMAC secret: the old confusion of algorithms.
    secret = OctKey.import_key(json.dumps(ehr.key.as_dict(private=False)).encode())
    return ehr.token(tenant="north", header={"alg": "HS256"}, key=secret)


REFUSED: dict[str, Callable[[Ehr], str]] = {
    "tampered": tampered,
    "unsigned (alg none)": unsigned,
    "symmetric algorithm": symmetric,
    "not a token": lambda _: "abc",
    "signed by another key": lambda e: e.token(tenant="north", key=ECKey.generate_key("P-384")),
    "unknown key id": lambda e: e.token(tenant="north", header={"kid": "ehr-9"}),
    "no key id": lambda e: e.token(tenant="north", header={"kid": ""}),
    "typ is not JWT": lambda e: e.token(tenant="north", header={"typ": "at+jwt"}),
    "keys from elsewhere (jku)": lambda e: e.token(tenant="north", header={"jku": "https://evil.example/jwks"}),
    "unknown issuer": lambda e: e.token(tenant="north", iss="https://evil.example/"),
    "no issuer": lambda e: e.token(tenant="north", iss=None),
    "audience of another service": lambda e: e.token("osler-order-sign", tenant="north"),
    "audience is only the base": lambda e: e.token(tenant="north", aud="https://cds.example/cds-services"),
    "no audience": lambda e: e.token(tenant="north", aud=None),
    "expired": lambda e: e.token(tenant="north", clock=lambda: time.time() - 400),
    "no expiry": lambda e: e.token(tenant="north", exp=None),
    "issued in the future": lambda e: e.token(tenant="north", iat=int(time.time()) + 120),
    "no time of issue": lambda e: e.token(tenant="north", iat=None),
    "lives for a day": lambda e: e.token(tenant="north", exp=int(time.time()) + 86_400),
    "no jti": lambda e: e.token(tenant="north", jti=None),
    "empty jti": lambda e: e.token(tenant="north", jti=""),
    "endless jti": lambda e: e.token(tenant="north", jti="x" * 600),
    "unknown tenant": lambda e: e.token(tenant="south"),
}


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED.keys())
def test_what_does_not_hold_is_401_and_no_reason_is_told(
    door: TestClient, ehr: Ehr, make: Callable[[Ehr], str]
) -> None:
    answer = call(door, make(ehr))
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert answer.json() == {"type": "about:blank", "title": "Unauthorized", "status": 401}


def test_no_token_and_an_own_token_are_refused_in_the_same_words(door: TestClient) -> None:
    bare = door.post(PATH, json=request())
    assert (bare.status_code, bare.json()) == (401, call(door, door.own).json())


def test_feedback_may_name_its_own_endpoint_or_the_service(door: TestClient, ehr: Ehr) -> None:
    item = {"card": "4e0a3a1e-3283-4575-ab82-028d55fe2719", "outcome": "overridden"}
    body = {"feedback": [{**item, "outcomeTimestamp": "2026-08-26T10:00:00Z"}]}
    for endpoint, expected in (("", 200), ("/feedback", 200), ("/other", 401)):
        token = ehr.token(f"osler-patient-view{endpoint}", tenant="north")
        answer = door.post(f"{PATH}/feedback", json=body, headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == expected


def test_a_client_whose_keys_cannot_be_had_waits_and_learns_nothing(ehr: Ehr, tmp_path: Path) -> None:
    cds = ehr.settings(jwks_url="http://127.0.0.1:9/jwks")
    for door in door_for(tmp_path, cds):
        answer = call(door, ehr.token())
        assert (answer.status_code, answer.json()["title"]) == (503, "Service Unavailable")
        assert "127.0.0.1" not in answer.text
        assert call(door, door.own).status_code == 200, "own tokens are let in where the settings say so"


def test_keys_over_plain_http_are_a_configuration_error(ehr: Ehr, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cds\.clients\.ward\.jwks_url"):
        next(door_for(tmp_path, ehr.settings(jwks_url="http://ehr.example/jwks")))
