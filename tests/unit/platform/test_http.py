"""Doors that speak HTTP, called through their whole stack."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from fastapi import Depends, FastAPI, Form, Request
from prometheus_client import REGISTRY
from pydantic import BaseModel
from sqlalchemy import select

from services.platform import http, http_login, telemetry
from services.platform.audit import Audit
from services.platform.config import Settings
from services.platform.database import migrate, open_database
from services.platform.errors import RefusedError, RetryableError
from services.platform.rpc_errors import InvalidRequestError, NotFoundError
from services.platform.security import Principal, Security, current_principal
from services.platform.tables import AUDIT
from tests.unit.platform.openid import Provider

PASSWORD = "correct horse battery"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, http={"max_body_mb": 1})


@pytest.fixture
def security(settings: Settings) -> Security:
    made = Security(settings)
    made.credentials._cost = {"n": 16, "r": 8, "p": 1}
    made.credentials.set_user("dr-b", PASSWORD, ["board"])
    return made


class Order(BaseModel):
    count: int


def routes(app: FastAPI) -> None:
    @app.get("/case/{key}")
    def case(key: str, caller: Annotated[Principal, Depends(http.require("board"))]) -> dict[str, Any]:
        current = current_principal()
        return {"who": caller.subject, "current": current.subject if current else None}

    @app.get("/page")
    async def page(request: Request, caller: Annotated[Principal, Depends(http.require("board"))]) -> dict[str, str]:
        return {"csrf": http.csrf_token(request)}

    @app.post("/note")
    async def note(text: Annotated[str, Form()], caller: Annotated[Principal, Depends(http.require("board"))]) -> str:
        return text

    @app.post("/order")
    def order(wanted: Order) -> int:
        return wanted.count

    @app.post("/raw")
    async def raw(request: Request) -> int:
        return len(await request.body())

    errors = {
        "refused": RefusedError("suv.missing_dose", "no dose", missing=["dose"], remedy="resend"),
        "retry": RetryableError("database is locked"),
        "absent": NotFoundError("no such case"),
        "invalid": InvalidRequestError("count", "is odd"),
        "bug": ValueError("Doe^Jane"),
        "key": KeyError("Doe^Jane"),
    }

    @app.get("/error/{kind}")
    def error(kind: str) -> None:
        raise errors[kind]


@pytest.fixture
async def client(settings: Settings, security: Security) -> AsyncIterator[httpx.AsyncClient]:
    app = http.create_app("board", settings=settings, security=security)
    routes(app)
    http_login.add_login(app)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://osler.test") as made:
        yield made


def bearer(security: Security, *roles: str) -> dict[str, str]:
    return {"authorization": f"Bearer {security.issue('dr-a', roles)}"}


async def sign_in(
    client: httpx.AsyncClient, user: str = "dr-b", password: str = PASSWORD, next: str = "/"
) -> httpx.Response:
    page = await client.get("/login", params={"next": next})
    token = re.search(r'name="token" value="([^"]+)"', page.text)[1]
    hidden = re.search(r'name="next" value="([^"]*)"', page.text)[1]
    return await client.post("/login", data={"user": user, "password": password, "token": token, "next": hidden})


async def test_a_bearer_token_opens_what_its_role_may(client: httpx.AsyncClient, security: Security) -> None:
    answer = await client.get("/case/1", headers=bearer(security, "board"))
    assert answer.json() == {"who": "dr-a", "current": "dr-a"}
    assert (await client.get("/case/1", headers=bearer(security, "analyst"))).status_code == 403
    nobody = await client.get("/case/1")
    assert nobody.status_code == 401
    assert nobody.headers["www-authenticate"].startswith("Bearer")
    for bad in ("Bearer x.y.z", "Bearer ", "Basic eDp5", "Bearer"):
        assert (await client.get("/case/1", headers={"authorization": bad})).status_code == 401


@pytest.mark.parametrize(
    ("kind", "status", "member"),
    [
        ("refused", 422, {"reason": "suv.missing_dose", "missing": ["dose"], "remedy": "resend", "detail": "no dose"}),
        ("retry", 503, {"detail": "database is locked"}),
        ("absent", 404, {"detail": "no such case"}),
        ("invalid", 422, {"fields": [{"field": "count", "problem": "is odd"}]}),
        ("bug", 500, {"title": "Unexpected error"}),
        ("key", 500, {"title": "Unexpected error"}),
    ],
)
async def test_errors_are_problem_documents(
    client: httpx.AsyncClient, kind: str, status: int, member: dict[str, Any]
) -> None:
    answer = await client.get(f"/error/{kind}")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert {name: body[name] for name in member} == member
    assert body["status"] == status
    assert "Doe" not in answer.text
    if status == 503:
        assert int(answer.headers["retry-after"]) > 0


async def test_a_bug_names_its_trace(client: httpx.AsyncClient) -> None:
    with telemetry.recorded_spans() as recorded:
        answer = await client.get("/error/bug")
    (span,) = recorded.get_finished_spans()
    assert answer.json()["trace_id"] == f"{span.context.trace_id:032x}"


async def test_a_wrong_request_is_named_by_field_without_its_value(client: httpx.AsyncClient) -> None:
    answer = await client.post("/order", json={"count": "Doe^Jane"})
    assert answer.status_code == 422
    assert answer.json()["fields"][0]["field"] == "body.count"
    assert "Doe" not in answer.text
    assert (await client.get("/nowhere")).json() == {"type": "about:blank", "title": "Not Found", "status": 404}


async def test_every_answer_carries_the_security_headers(client: httpx.AsyncClient) -> None:
    for path in ("/healthz", "/nowhere", "/error/bug", "/case/1"):
        headers = (await client.get(path)).headers
        policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == "'self'"
        assert policy["frame-ancestors"] == "'none'"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"


async def test_a_door_may_loosen_one_directive(settings: Settings, security: Security) -> None:
    app = http.create_app("viewer", settings=settings, security=security, csp={"frame-ancestors": "'self'"})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://osler.test") as client:
        headers = (await client.get("/healthz")).headers
    assert "frame-ancestors 'self'" in headers["content-security-policy"]
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "x-frame-options" not in headers


async def test_request_ids_are_kept_when_plain_and_made_otherwise(client: httpx.AsyncClient) -> None:
    kept = await client.get("/healthz", headers={"x-request-id": "abc-1"})
    assert kept.headers["x-request-id"] == "abc-1"
    made = await client.get("/healthz", headers={"x-request-id": "a b\x7f<script>"})
    assert re.fullmatch(r"[0-9a-f]{16}", made.headers["x-request-id"])


async def test_spans_and_counters_name_the_route_not_the_path(client: httpx.AsyncClient, security: Security) -> None:
    def count() -> float:
        labels = {"door": "http board", "method": "GET /case/{key}", "code": "200"}
        return REGISTRY.get_sample_value("osler_requests_total", labels) or 0.0

    before = count()
    with telemetry.recorded_spans() as recorded, telemetry.span("caller"):
        sent = telemetry.traceparent()
        await client.get("/case/secret-key", headers=bearer(security, "board") | {"traceparent": sent})
    (served,) = [span for span in recorded.get_finished_spans() if span.name != "caller"]
    assert served.name == "GET /case/{key}"
    assert f"{served.context.trace_id:032x}" in sent
    assert "secret-key" not in served.to_json()
    assert count() == before + 1


async def test_bodies_end_at_the_limit(client: httpx.AsyncClient) -> None:
    async def parts(number: int) -> AsyncIterator[bytes]:
        for _ in range(number):
            yield b"x" * 500_000

    assert (await client.post("/raw", content=b"x" * 1_000_000)).json() == 1_000_000
    assert (await client.post("/raw", content=b"x" * 1_100_000)).status_code == 413
    assert (await client.post("/raw", content=parts(2))).json() == 1_000_000
    assert (await client.post("/raw", content=parts(3))).status_code == 413


async def test_health_and_readiness_and_metrics(settings: Settings, security: Security) -> None:
    able = [True]

    def check() -> bool:
        if not able:
            raise RuntimeError
        return able[0]

    app = http.create_app("operations", settings=settings, security=security, readiness=[check], metrics=True)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://osler.test") as client:
        assert (await client.get("/readyz")).status_code == 200
        able[0] = False
        assert (await client.get("/readyz")).status_code == 503
        able.clear()
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/healthz")).text == "ok\n"
        assert "osler_requests_total" in (await client.get("/metrics")).text


async def test_metrics_are_for_operators_only(client: httpx.AsyncClient) -> None:
    assert (await client.get("/metrics")).status_code == 404


async def test_a_browser_is_sent_to_sign_in_and_back(client: httpx.AsyncClient) -> None:
    away = await client.get("/case/7", headers={"accept": "text/html"})
    assert (away.status_code, away.headers["location"]) == (303, "/login?next=%2Fcase%2F7")
    back = await sign_in(client, next="/case/7")
    assert (back.status_code, back.headers["location"]) == (303, "/case/7")
    (cookie,) = [value for value in back.headers.get_list("set-cookie") if value.startswith("osler_session=")]
    assert "HttpOnly" in cookie
    assert "samesite=lax" in cookie.lower()
    assert "Secure" not in cookie
    assert (await client.get("/case/7")).json()["who"] == "dr-b"


async def test_cookies_are_secure_behind_tls(security: Security, settings: Settings) -> None:
    behind = settings.model_copy(update={"http": settings.http.model_copy(update={"secure_cookies": True})})
    app = http.create_app("board", settings=behind, security=security)
    http_login.add_login(app)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://osler.test") as client:
        answer = await sign_in(client)
    assert all("Secure" in cookie for cookie in answer.headers.get_list("set-cookie") if '=""' not in cookie)


@pytest.mark.parametrize("target", ["//evil.example", "https://evil.example", "/\\evil.example", "evil", "/a\r\nb: c"])
async def test_sign_in_leads_nowhere_else(client: httpx.AsyncClient, target: str) -> None:
    assert http_login.local_path(target, "/") == "/"
    answer = await sign_in(client, next=target)
    assert answer.headers["location"] == "/"


async def test_a_wrong_password_is_told_and_throttled(client: httpx.AsyncClient) -> None:
    for _ in range(5):
        answer = await sign_in(client, password="wrong")
        assert answer.status_code == 401
        assert "User name or password is wrong." in answer.text
    assert (await sign_in(client)).status_code == 429
    assert "osler_session" not in client.cookies


async def test_the_form_of_another_browser_is_refused(client: httpx.AsyncClient) -> None:
    page = await client.get("/login")
    token = re.search(r'name="token" value="([^"]+)"', page.text)[1]
    client.cookies.clear()
    answer = await client.post("/login", data={"user": "dr-b", "password": PASSWORD, "token": token})
    assert answer.status_code == 403
    assert "osler_session" not in client.cookies


async def test_names_in_the_form_are_escaped(client: httpx.AsyncClient) -> None:
    page = await client.get("/login", params={"next": '/"><script>alert(1)</script>'})
    assert "<script>" not in page.text


async def test_a_session_changes_things_only_with_its_csrf_token(client: httpx.AsyncClient, security: Security) -> None:
    await sign_in(client)
    token = (await client.get("/page")).json()["csrf"]
    assert (await client.post("/note", data={"text": "a"})).status_code == 403
    assert (await client.post("/note", data={"text": "a", "csrf_token": "0" * 64})).status_code == 403
    assert (await client.post("/note", data={"text": "a", "csrf_token": token})).json() == "a"
    assert (await client.post("/note", data={"text": "a"}, headers={"x-csrf-token": token})).json() == "a"
    other = security.csrf_token(Principal("dr-b", frozenset({"board"}), token_id="another session"))
    assert (await client.post("/note", data={"text": "a", "csrf_token": other})).status_code == 403
    client.cookies.clear()
    by_token = await client.post("/note", data={"text": "a"}, headers=bearer(security, "board"))
    assert by_token.json() == "a", "a bearer token is not sent by browsers on their own and needs no CSRF token"


async def test_signing_out_ends_the_session_in_the_browser(client: httpx.AsyncClient) -> None:
    await sign_in(client)
    token = (await client.get("/page")).json()["csrf"]
    assert (await client.post("/logout")).status_code == 403
    assert (await client.post("/logout", headers={"x-csrf-token": token})).headers["location"] == "/login"
    assert (await client.get("/case/1")).status_code == 401


async def test_a_forged_or_expired_session_is_nobody(client: httpx.AsyncClient, security: Security) -> None:
    client.cookies.set("osler_session", security.issue("dr-a", ["board"]))
    assert (await client.get("/case/1")).status_code == 401
    client.cookies.set("osler_session", security.session(Principal("dr-a", frozenset({"board"})), -60))
    assert (await client.get("/case/1")).status_code == 401


@pytest.fixture
def provider() -> Iterator[Provider]:
    running = Provider()
    yield running
    running.close()


async def test_the_authorization_code_flow(tmp_path: Path, provider: Provider) -> None:
    auth = {"mode": "oidc", "issuer": provider.issuer, "client_id": "osler-rooms", "client_secret": "hush"}
    settings = Settings(home=tmp_path, auth=auth)
    app = http.create_app("board", settings=settings, security=Security(settings))
    routes(app)
    http_login.add_login(app)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://osler.test") as client:
        away = await client.get("/login", params={"next": "/case/7"})
        sent = {name: values[0] for name, values in parse_qs(urlsplit(away.headers["location"]).query).items()}
        assert away.headers["location"].startswith(f"{provider.issuer}/authorize?")
        assert (sent["code_challenge_method"], sent["redirect_uri"]) == ("S256", "http://osler.test/login/callback")
        wrong = await client.get("/login/callback", params={"code": "c", "state": "another"})
        assert wrong.status_code == 403
        provider.nonce, provider.challenge = "replayed", sent["code_challenge"]
        replayed = await client.get("/login/callback", params={"code": "c", "state": sent["state"]})
        assert replayed.status_code == 401
        provider.nonce = sent["nonce"]
        back = await client.get("/login/callback", params={"code": "c", "state": sent["state"]})
        assert (back.status_code, back.headers["location"]) == (303, "/case/7")
        assert (await client.get("/case/7")).json()["who"] == "dr-b"


class Trail(Audit):
    """The real trail, which also remembers that it is to fail."""

    full = False

    def record(self, *row: Any, **named: Any) -> None:
        if self.full:
            raise RetryableError("disk full")
        super().record(*row, **named)


@pytest.fixture
def trail(settings: Settings) -> Iterator[Trail]:
    database = open_database(settings)
    migrate(database, "platform")
    yield Trail(database, b"k" * 32)
    database.close()


def audited(trail: Trail) -> list[tuple[str, ...]]:
    with trail._database.session() as session:
        rows = session.execute(select(AUDIT).order_by(AUDIT.c.id)).mappings()
        return [(row["principal"], row["action"], row["resource_type"], row["outcome"]) for row in rows]


async def test_requests_of_known_callers_and_those_turned_away_are_audited(
    client: httpx.AsyncClient, security: Security, trail: Trail
) -> None:
    client._transport.app.state.audit = trail
    mine = bearer(security, "board")
    for _ in range(3):
        await client.get("/case/one", headers=mine)
    await client.get("/case/two", headers=mine)
    await client.get("/case/one")
    await client.get("/case/one", headers=bearer(security, "analyst"))
    await client.get("/healthz")
    await client.post("/note", data={"text": "a"}, headers=mine)
    await client.post("/note", data={"text": "a"}, headers=mine)
    case, note = "board GET /case/{key}", "board POST /note"
    assert audited(trail) == [
        ("dr-a", "R", case, "success"),
        ("dr-a", "R", case, "success"),
        ("anonymous", "R", case, "denied"),
        ("dr-a", "R", case, "denied"),
        ("dr-a", "E", note, "success"),
        ("dr-a", "E", note, "success"),
    ]
    assert trail.verify_chain().intact


async def test_what_cannot_be_audited_is_not_answered(
    client: httpx.AsyncClient, security: Security, trail: Trail
) -> None:
    client._transport.app.state.audit = trail
    trail.full = True
    answer = await client.get("/case/one", headers=bearer(security, "board"))
    assert answer.status_code == 503
    assert "dr-a" not in answer.text
    assert (await client.get("/healthz")).status_code == 200
    trail.full = False
    assert (await client.get("/case/one", headers=bearer(security, "board"))).status_code == 200
    assert len(audited(trail)) == 1
