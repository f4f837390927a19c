"""Sign-in of browsers: a password form with the embedded issuer, the authorization code flow with an OpenID provider.

Source: OpenID Connect Core 1.0 section 3.1, PKCE (RFC 7636), OWASP cross-site request forgery prevention.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import html
import secrets
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from services.platform import logs
from services.platform.http import SESSION_COOKIE, principal_of
from services.platform.security import AuthenticationError, PermissionDeniedError, Principal, Security

LOGIN_COOKIE = "osler_login"
_LOGIN_LIFE_S = 600
_FORM_LIFE_S = 3600

log = logs.get("login")
# (request, error text or "", hidden fields as HTML, path of the form) -> page
Page = Callable[[Request, str, str, str], str]


def add_login(app: FastAPI, *, after: str = "/", page: Page | None = None) -> None:
    """Adds `/login`, `/logout` and, with an OpenID provider, `/login/callback` to an application of `http.create_app`.

    `after` is where a browser goes when it asked for no page; `page` renders the form (default: a plain page).
    """
    app.state.login_path = "/login"
    security: Security = app.state.security
    if security.embedded:
        _add_password_login(app, security, after, page or plain_page)
    else:
        _add_oidc_login(app, security, after)

    @app.post("/logout", include_in_schema=False)
    async def logout(request: Request) -> Response:
        await principal_of(request)
        response = RedirectResponse(request.url_for("login_page").path, HTTPStatus.SEE_OTHER)
        response.delete_cookie(SESSION_COOKIE, path="/")
        return response


def _add_password_login(app: FastAPI, security: Security, after: str, page: Page) -> None:
    @app.get("/login", include_in_schema=False)
    async def login_page(request: Request) -> Response:
        return _form(request, page, request.query_params.get("next", after), "")

    @app.post("/login", include_in_schema=False)
    async def login(request: Request) -> Response:
        form = await request.form()
        wanted = str(form.get("next", after))
        sent, kept = str(form.get("token", "")), request.cookies.get(LOGIN_COOKIE, "")
        if not kept or not secrets.compare_digest(sent.encode(), kept.encode()):
            return _form(request, page, wanted, "The form was out of date. Try again.", HTTPStatus.FORBIDDEN)
        try:
            user, password = str(form.get("user", "")), str(form.get("password", ""))
            principal = await asyncio.to_thread(security.authenticate, user, password)
        except AuthenticationError as error:
            log.warning("login_failed", throttled=error.retry_after_s > 0)
            status = HTTPStatus.TOO_MANY_REQUESTS if error.retry_after_s else HTTPStatus.UNAUTHORIZED
            return _form(request, page, wanted, f"{str(error).capitalize()}.", status)
        return start_session(request, principal, local_path(wanted, after))


def _form(request: Request, page: Page, wanted: str, error: str, status: int = HTTPStatus.OK) -> Response:
    token = secrets.token_urlsafe(24)
    hidden = "".join(
        f'<input type="hidden" name="{name}" value="{html.escape(value)}">'
        for name, value in (("token", token), ("next", wanted))
    )
    response = HTMLResponse(page(request, error, hidden, request.url_for("login").path), status)
    _set_cookie(request, response, LOGIN_COOKIE, token, _FORM_LIFE_S, path=request.url_for("login").path, lax=False)
    return response


def plain_page(request: Request, error: str, hidden: str, action: str) -> str:
    """A sign-in form without scripts or styles."""
    alert = f'<p role="alert">{html.escape(error)}</p>' if error else ""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Sign in to Osler</title></head>
<body><main><h1>Sign in</h1>{alert}
<form method="post" action="{html.escape(action)}">{hidden}
<p><label>User <input name="user" autocomplete="username" required autofocus></label></p>
<p><label>Password <input name="password" type="password" autocomplete="current-password" required></label></p>
<p><button>Sign in</button></p></form></main></body></html>
"""


def start_session(request: Request, principal: Principal, target: str) -> Response:
    """Answers with a session cookie and a redirect to `target`."""
    life = request.app.state.settings.http.session_ttl_s
    response = RedirectResponse(target, HTTPStatus.SEE_OTHER)
    _set_cookie(request, response, SESSION_COOKIE, request.app.state.security.session(principal, life), life)
    response.delete_cookie(LOGIN_COOKIE, path=request.url_for("login_page").path)
    return response


def local_path(wanted: str, otherwise: str) -> str:
    """`wanted` when it is a path on this site, else `otherwise`: no redirect leads elsewhere."""
    plain = wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and wanted.isprintable()
    return wanted if plain and "\\" not in wanted else otherwise


def _set_cookie(
    request: Request, response: Response, name: str, value: str, life_s: int, *, path: str = "/", lax: bool = True
) -> None:
    secure = request.app.state.settings.http.secure_cookies or request.url.scheme == "https"
    response.set_cookie(
        name, value, max_age=life_s, path=path, httponly=True, secure=secure, samesite="lax" if lax else "strict"
    )


def _add_oidc_login(app: FastAPI, security: Security, after: str) -> None:
    auth = app.state.settings.auth

    @app.get("/login", include_in_schema=False)
    async def login_page(request: Request) -> Response:
        wanted = local_path(request.query_params.get("next", after), after)
        endpoint = await asyncio.to_thread(_provider(security).endpoint, "authorization_endpoint")
        query = {
            "client_id": auth.client_id,
            "redirect_uri": str(request.url_for("login_callback")),
            "scope": "openid",
        }
        return begin_code_flow(request, endpoint, query, {"next": wanted}, request.url_for("login_page").path)

    @app.get("/login/callback", include_in_schema=False)
    async def login_callback(request: Request) -> Response:
        flow, code = end_code_flow(request)
        principal = await asyncio.to_thread(_redeem, security, code, str(request.url_for("login_callback")), flow)
        return start_session(request, principal, local_path(str(flow["next"]), after))


def begin_code_flow(
    request: Request, endpoint: str, query: Mapping[str, str], remember: Mapping[str, str], path: str
) -> Response:
    """Sends a browser to an authorization endpoint with state, nonce and PKCE (S256).

    `query`: client, redirect URI, scope and the like. What the way back needs stays in a sealed cookie under `path`, with
    `remember`.
    """
    flow = {
        **remember,
        "state": secrets.token_urlsafe(24),
        "nonce": secrets.token_urlsafe(24),
        "verifier": secrets.token_urlsafe(48),
    }
    challenge = base64.urlsafe_b64encode(hashlib.sha256(flow["verifier"].encode()).digest()).rstrip(b"=")
    asked = {
        "response_type": "code",
        **query,
        "state": flow["state"],
        "nonce": flow["nonce"],
        "code_challenge": challenge.decode(),
        "code_challenge_method": "S256",
    }
    joint = "&" if "?" in endpoint else "?"
    response = RedirectResponse(f"{endpoint}{joint}{urlencode(asked)}", HTTPStatus.SEE_OTHER)
    sealed = request.app.state.security.seal(flow, _LOGIN_LIFE_S)
    _set_cookie(request, response, LOGIN_COOKIE, sealed, _LOGIN_LIFE_S, path=path)
    return response


def end_code_flow(request: Request) -> tuple[dict[str, Any], str]:
    """What `begin_code_flow` remembered (with nonce and verifier), and the code that came back.

    Raises PermissionDeniedError for the answer to another sign-in, AuthenticationError when nobody was signed in.
    """
    flow = request.app.state.security.unseal(request.cookies.get(LOGIN_COOKIE, ""))
    state = request.query_params.get("state", "")
    if not secrets.compare_digest(state.encode(), str(flow["state"]).encode()):
        raise PermissionDeniedError("the answer of the identity provider belongs to another sign-in: start again")
    code = request.query_params.get("code", "")
    if not code:
        raise AuthenticationError("the identity provider signed nobody in")
    return flow, code


def _redeem(security: Security, code: str, redirect_uri: str, flow: dict[str, Any]) -> Principal:
    answer = _provider(security).token(
        {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": str(flow["verifier"]),
        }
    )
    return security.verify_id_token(str(answer.get("id_token", "")), str(flow["nonce"]))


def _provider(security: Security) -> Any:
    return security.provider
