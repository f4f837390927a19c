"""Sign-in at a real Keycloak: OpenID Connect with PKCE, and SMART on FHIR launches of the board."""

from __future__ import annotations

import html
import json
import re
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet
from osler.fusion.v1 import fusion_pb2

from services.board import store
from services.board.room import build
from services.clinical.identity import patient_key
from services.compose.rooms import Foundations, lay_foundations, migrate_all
from services.platform.config import Settings
from tests.fixtures.keycloak.server import Keycloak

SYSTEM, BASE = "urn:ward", "http://osler.test"
PATIENT = {"resourceType": "Patient", "id": "p42", "identifier": [{"system": SYSTEM, "value": "42"}]}


@pytest.fixture(scope="module")
def keycloak(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keycloak]:
    server = Keycloak(tmp_path_factory.mktemp("keycloak"))
    server.start()
    yield server
    server.stop()


class FhirServer:
    """Protects Patient/p42 by Keycloak's tokens: signature, scope, and the patient of the launch."""

    def __init__(self, keycloak: Keycloak) -> None:
        configuration = httpx.get(f"{keycloak.issuer}/.well-known/openid-configuration").json()
        keys = KeySet.import_key_set(httpx.get(configuration["jwks_uri"]).json())
        names = ("issuer", "authorization_endpoint", "token_endpoint", "jwks_uri", "code_challenge_methods_supported")
        smart = {name: configuration[name] for name in names}
        smart["capabilities"] = ["launch-ehr", "launch-standalone", "client-public", "sso-openid-connect"]
        self.served: list[str] = []
        fhir = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None: ...

            def do_GET(self) -> None:
                if self.path == "/fhir/.well-known/smart-configuration":
                    fhir.send(self, 200, smart)
                    return
                token = (self.headers["authorization"] or "").removeprefix("Bearer ")
                claims = jwt.decode(token, keys, algorithms=["RS256"]).claims
                good = "Patient.rs" in claims["scope"] and self.path == f"/fhir/Patient/{claims['patient']}"
                fhir.served.append(self.path)
                fhir.send(self, 200 if good else 403, PATIENT if good else {})

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.base = f"http://127.0.0.1:{self._http.server_port}/fhir"
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    @staticmethod
    def send(request: BaseHTTPRequestHandler, status: int, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        request.send_response(status)
        request.send_header("content-length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture(scope="module")
def fhir(keycloak: Keycloak) -> Iterator[FhirServer]:
    server = FhirServer(keycloak)
    yield server
    server.close()


def sign_in(address: str) -> str:
    """What a person does in a browser at Keycloak's page; where Keycloak sends the browser then."""
    page = httpx.get(address)
    assert page.status_code == 200, f"{page.status_code} {page.headers.get('location', '')}"
    (action,) = re.findall(r'<form[^>]*action="([^"]+)"', page.text)
    # Keycloak marks its cookies Secure, which a browser still sends to loopback.
    cookies = "; ".join(value.split(";")[0] for value in page.headers.get_list("set-cookie"))
    form = {"username": "dr-a", "password": "correct horse battery"}
    answer = httpx.post(html.unescape(action), data=form, headers={"cookie": cookies})
    assert answer.status_code == 302, answer.text[:500]
    return answer.headers["location"]


def add_case(found: Foundations, value: str) -> str:
    key = patient_key(found.settings.identity_key(), SYSTEM, value)
    snapshot = fusion_pb2.PatientSnapshot(patient_key=key, revision=1)
    reference = found.blobs.put(snapshot.SerializeToString(), "application/protobuf", f"snapshot-{value}")
    with found.database.transaction("board") as tx:
        store.save_snapshot(tx.session, key, 1, reference)
    return key


class Place:
    """The board of one installation, and a browser."""

    def __init__(self, found: Foundations, browser: httpx.AsyncClient) -> None:
        self.found, self.browser = found, browser
        self.mine, self.other = add_case(found, "42"), add_case(found, "43")

    async def launch(self, **query: str) -> httpx.Response:
        away = await self.browser.get("/smart/launch", params=query)
        assert away.status_code == 303, away.text
        self.asked = {name: values[0] for name, values in parse_qs(urlsplit(away.headers["location"]).query).items()}
        back = urlsplit(sign_in(away.headers["location"]))
        return await self.browser.get(f"{back.path}?{back.query}")


async def board(home: Path, **settings: Any) -> AsyncIterator[Place]:
    found = lay_foundations(Settings.load(home=home, **settings))
    migrate_all(found.database, ["board"])
    app = build(found.context()).http
    assert app is not None
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE) as browser:
        yield Place(found, browser)
    found.close()


def smart(fhir: FhirServer, **more: Any) -> dict[str, Any]:
    return {"servers": {"ward": {"fhir_url": fhir.base, "client_id": "osler-smart", **more}}}


@pytest.mark.parametrize("launch", ["xyz123", ""], ids=["EHR launch", "standalone launch"])
async def test_a_launch_opens_the_case_of_its_patient_and_no_other(
    fhir: FhirServer, tmp_path: Path, launch: str
) -> None:
    async for place in board(tmp_path, smart=smart(fhir)):
        query = {"iss": fhir.base, **({"launch": launch} if launch else {})}
        back = await place.launch(**query)
        assert (back.status_code, back.headers["location"]) == (303, f"/case/{place.mine}")
        assert place.asked["code_challenge_method"] == "S256"
        assert place.asked["aud"] == fhir.base
        assert place.asked["scope"].split()[0] == ("launch" if launch else "launch/patient")
        assert place.asked.get("launch", "") == launch
        assert (await place.browser.get(f"/case/{place.mine}")).status_code == 200
        for closed in (f"/case/{place.other}", "/", "/dicom-web/studies"):
            assert (await place.browser.get(closed)).status_code == 403, closed


async def test_a_scope_for_the_user_opens_what_the_role_opens(fhir: FhirServer, tmp_path: Path) -> None:
    settings = smart(fhir, scope="openid fhirUser user/Patient.rs")
    async for place in board(tmp_path, smart=settings):
        assert (await place.launch(iss=fhir.base)).status_code == 303
        assert (await place.browser.get(f"/case/{place.other}")).status_code == 200


async def test_a_launch_without_the_scope_to_read_the_patient_is_refused(fhir: FhirServer, tmp_path: Path) -> None:
    served = len(fhir.served)
    async for place in board(tmp_path, smart=smart(fhir, scope="openid fhirUser")):
        back = await place.launch(iss=fhir.base)
        assert back.status_code == 403
        assert "set-cookie" not in back.headers or "osler_session" not in back.headers["set-cookie"]
        assert len(fhir.served) == served


async def test_a_code_works_once_and_only_for_the_browser_that_began(fhir: FhirServer, tmp_path: Path) -> None:
    async for place in board(tmp_path, smart=smart(fhir)):
        away = await place.browser.get("/smart/launch", params={"iss": fhir.base})
        back = urlsplit(sign_in(away.headers["location"]))
        kept = dict(place.browser.cookies)
        place.browser.cookies.clear()
        assert (await place.browser.get(f"{back.path}?{back.query}")).status_code == 401
        place.browser.cookies.update(kept)
        assert (await place.browser.get(f"{back.path}?{back.query}")).status_code == 303
        assert (await place.browser.get(f"{back.path}?{back.query}")).status_code == 401


async def test_an_unregistered_server_launches_nothing(fhir: FhirServer, tmp_path: Path) -> None:
    async for place in board(tmp_path, smart=smart(fhir)):
        answer = await place.browser.get("/smart/launch", params={"iss": "https://evil.example/fhir", "launch": "x"})
        assert answer.status_code == 403


async def test_the_board_signs_in_at_keycloak_by_code_and_pkce(keycloak: Keycloak, tmp_path: Path) -> None:
    auth = {
        "mode": "oidc", "issuer": keycloak.issuer, "client_id": "osler-rooms", "client_secret": "hush",
        "roles_claim": "realm_access.roles",
    }  # fmt: skip
    async for place in board(tmp_path, auth=auth):
        away = await place.browser.get("/login", params={"next": f"/case/{place.other}"})
        back = urlsplit(sign_in(away.headers["location"]))
        landed = await place.browser.get(f"{back.path}?{back.query}")
        assert (landed.status_code, landed.headers["location"]) == (303, f"/case/{place.other}")
        assert (await place.browser.get(f"/case/{place.other}")).status_code == 200
        assert place.found.security.verify(place.found.security.service_token("board")).issuer == keycloak.issuer
