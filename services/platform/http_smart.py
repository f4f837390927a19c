"""Launch from an EHR: SMART on FHIR, EHR launch and standalone launch, with PKCE.

Source: HL7 SMART App Launch 2.2 (hl7.org/fhir/smart-app-launch): "App Launch", "Scopes and Launch Context", "Conformance";
OpenID Connect Core 1.0 section 3.1.3.7 for the ID token. Osler keeps no access token: it is used once, while signing in.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx
from fastapi import FastAPI, Request, Response

from services.platform.config import SmartServer
from services.platform.errors import ConfigurationError, RetryableError
from services.platform.http_login import begin_code_flow, end_code_flow, start_session
from services.platform.security import AuthenticationError, PermissionDeniedError, Principal
from services.platform.security.jwks import PublishedKeys, fetch_json, new_client, require_safe_url
from services.platform.security.scopes import allows
from services.platform.security.tokens import Verifier
from services.platform.security.urls import same_base

_ALGORITHMS = ("RS256", "ES256", "RS384", "ES384", "PS256", "PS384", "EdDSA")
_FRESH_S = 600.0
_FHIR_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")


@dataclass(frozen=True)
class Launch:
    """A finished launch. `patient_id`: FHIR id of the patient in context; `scope`: what was granted."""

    fhir_url: str
    patient_id: str
    scope: str
    access_token: str = field(repr=False)


# Finds the patient of a launch: the patient key that Osler knows, and the page to show.
Resolve = Callable[[Launch], Awaitable[tuple[str, str]]]


class Server:
    """One registered EHR. Keeps what it published for ten minutes. Thread-safe enough: the last fetch counts."""

    def __init__(self, name: str, settings: SmartServer, leeway_s: int, http: httpx.Client | None = None) -> None:
        self.name, self.settings = name, settings
        self._leeway_s = leeway_s
        self._http = http or new_client()
        self._document: dict[str, Any] = {}
        self._fetched = float("-inf")
        self._whose = f"the SMART server {name}"
        self._keys = PublishedKeys(
            lambda: self.endpoint("jwks_uri"), client=self._http, name="jwks_uri", whose=self._whose
        )
        require_safe_url(settings.fhir_url, f"smart.servers.{name}.fhir_url")

    def document(self) -> dict[str, Any]:
        """`.well-known/smart-configuration`. Raises ConfigurationError when it offers no PKCE with S256."""
        if time.monotonic() - self._fetched > _FRESH_S:
            url = self.settings.fhir_url.rstrip("/") + "/.well-known/smart-configuration"
            document = fetch_json(self._http, url, self._whose)
            if "S256" not in document.get("code_challenge_methods_supported", []):
                raise ConfigurationError(f"smart.servers.{self.name}: the server does not offer PKCE with S256")
            self._document, self._fetched = document, time.monotonic()
        return self._document

    def endpoint(self, name: str) -> str:
        """An endpoint of the document. Raises ConfigurationError where it is missing or not https."""
        url = self.document().get(name)
        if not isinstance(url, str):
            raise ConfigurationError(f"smart.servers.{self.name}: the server publishes no {name}")
        require_safe_url(url, f"smart.servers.{self.name} {name}")
        return url

    def redeem(self, code: str, redirect_uri: str, flow: Mapping[str, Any]) -> tuple[Launch, Principal]:
        """The launch and who made it, for the code that came back. Raises AuthenticationError, PermissionDeniedError."""
        answer = self._token(
            {
                "grant_type": "authorization_code",
                "code": code,
                "redirect_uri": redirect_uri,
                "code_verifier": str(flow["verifier"]),
            }
        )
        principal = self._who(str(answer.get("id_token", "")), str(flow["nonce"]))
        patient, scope = str(answer.get("patient", "")), str(answer.get("scope", ""))
        if not _FHIR_ID.fullmatch(patient):
            raise PermissionDeniedError("the launch came without a patient: open a patient in the EHR first")
        if not allows(scope, "Patient", "read", ("patient", "user")):
            raise PermissionDeniedError("the launch was not granted patient/Patient.r: ask for it at the EHR")
        return Launch(self.settings.fhir_url, patient, scope, str(answer.get("access_token", ""))), principal

    def _token(self, form: dict[str, str]) -> dict[str, Any]:
        secret = self.settings.client_secret.get_secret_value()
        auth = httpx.BasicAuth(self.settings.client_id, secret) if secret else httpx.USE_CLIENT_DEFAULT
        form = form if secret else {**form, "client_id": self.settings.client_id}
        try:
            response = self._http.post(
                self.endpoint("token_endpoint"), data=form, auth=auth, headers={"accept": "application/json"}
            )
            document = response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise RetryableError(f"{self._whose} does not answer at its token endpoint") from error
        if response.status_code != httpx.codes.OK or not isinstance(document, dict):
            raise AuthenticationError("the EHR did not accept the launch: start it again there")
        return document

    def _who(self, token: str, nonce: str) -> Principal:
        issuer = self.document().get("issuer")
        if not isinstance(issuer, str) or not issuer:
            raise ConfigurationError(f"smart.servers.{self.name}: the server publishes no issuer of ID tokens")
        verifier = Verifier(self._keys, issuer, _ALGORITHMS, leeway_s=self._leeway_s)
        claims = verifier.claims(token, self.settings.client_id)
        if not hmac.compare_digest(str(claims.get("nonce", "")).encode(), nonce.encode()):
            raise AuthenticationError("the EHR answered another launch: start it again there")
        return Principal(f"smart:{self.name}:{claims['sub']}", frozenset(self.settings.roles), issuer)


def add_smart(app: FastAPI, resolve: Resolve) -> None:
    """Adds `/smart/launch` and `/smart/callback` to an application of `http.create_app`, when a server is registered.

    Who comes in by scopes of `patient/` sees that patient only; `user/Patient.r` opens what the roles open.
    """
    settings = app.state.settings
    servers = [Server(name, row, settings.auth.leeway_s) for name, row in settings.smart.servers.items()]
    if not servers:
        return

    @app.get("/smart/launch", include_in_schema=False)
    async def smart_launch(request: Request) -> Response:
        server = _named(servers, request.query_params.get("iss", ""))
        launch = request.query_params.get("launch", "")
        context = {"launch": launch} if launch else {}
        query = {
            "client_id": server.settings.client_id,
            "redirect_uri": str(request.url_for("smart_callback")),
            "scope": f"{'launch' if launch else 'launch/patient'} {server.settings.scope}",
            "aud": server.settings.fhir_url,
            **context,
        }
        endpoint = await asyncio.to_thread(server.endpoint, "authorization_endpoint")
        return begin_code_flow(request, endpoint, query, {"server": server.name}, _folder(request))

    @app.get("/smart/callback", include_in_schema=False)
    async def smart_callback(request: Request) -> Response:
        flow, code = end_code_flow(request)
        server = next((server for server in servers if server.name == flow.get("server")), None)
        if server is None:
            raise PermissionDeniedError("this answer belongs to no launch: start it again in the EHR")
        redirect = str(request.url_for("smart_callback"))
        launch, who = await asyncio.to_thread(server.redeem, code, redirect, flow)
        key, page = await resolve(launch)
        everything = allows(launch.scope, "Patient", "read", ("user",))
        principal = Principal(who.subject, who.roles, who.issuer, limited_to="" if everything else key)
        return start_session(request, principal, page)


def _named(servers: list[Server], issuer: str) -> Server:
    """The registered server of a launch; without `iss` the only one."""
    if not issuer and len(servers) == 1:
        return servers[0]
    found = next((server for server in servers if same_base(issuer, server.settings.fhir_url)), None)
    if found is None:
        raise PermissionDeniedError("this FHIR server is not registered here (smart.servers): the launch goes nowhere")
    return found


def _folder(request: Request) -> str:
    return urlsplit(str(request.url_for("smart_launch"))).path.rpartition("/")[0]
