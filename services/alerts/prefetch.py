"""What a service asked for and the call did not bring: fetched with the call's own token, in the time there is.

Source: CDS Hooks 2.0, "Providing FHIR Resources to a CDS Service" and "FHIR Resource Access"; scopes as in SMART App Launch
2.2, "Scopes and Launch Context". A key whose value is null was looked for and found empty by the EHR, and is not missing.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from services.alerts import hooks
from services.platform.security.scopes import Action, allows
from services.platform.security.urls import same_base

_TOKEN = re.compile(r"\{\{context\.([A-Za-z]+)\}\}")
_LONGEST_ANSWER = 4 * 1024 * 1024
_ACCEPT = "application/fhir+json"


@dataclass(frozen=True)
class Gap:
    """One prefetch key that could not be had. `tried`: the EHR's server was asked, or should have been."""

    key: str
    reason: str
    tried: bool

    def words(self) -> str:
        """For a card: "allergies (the EHR's FHIR server did not answer in time)"."""
        return f"{hooks.title_of(self.key)} ({self.reason})"


@dataclass(frozen=True)
class Brought:
    """Resources by prefetch key, and what is missing."""

    resources: Mapping[str, Any]
    gaps: tuple[Gap, ...] = field(default=())


def missing(request: hooks.HookRequest, templates: Mapping[str, str]) -> list[str]:
    """Keys of the templates that the call did not bring."""
    return [key for key in templates if key not in request.prefetch]


def fill(template: str, context: hooks.HookContext) -> str:
    """A relative FHIR request: `{{context.patientId}}` replaced by what the context holds."""
    return _TOKEN.sub(lambda found: str(context.value(found.group(1)) or ""), template)


async def complete(
    request: hooks.HookRequest,
    templates: Mapping[str, str],
    *,
    allowed: tuple[str, ...],
    http: httpx.AsyncClient,
    timeout_s: float,
) -> Brought:
    """The call's prefetch and what was fetched beside it, all keys at once, within `timeout_s`.

    `allowed`: FHIR base URLs that this caller's tokens may be sent to. Raises nothing: what cannot be had is a gap.
    """
    wanted = missing(request, templates)
    brought = {key: value for key, value in request.prefetch.items() if key in templates}
    if not wanted:
        return Brought(brought)
    refusal, tried = _cannot_ask(request, allowed)
    if refusal:
        return Brought(brought, tuple(Gap(key, refusal, tried) for key in wanted))
    answers = await asyncio.gather(*(_fetch(request, key, templates[key], http, timeout_s) for key in wanted))
    for key, answer in zip(wanted, answers, strict=True):
        if not isinstance(answer, Gap):
            brought[key] = answer
    return Brought(brought, tuple(answer for answer in answers if isinstance(answer, Gap)))


def _cannot_ask(request: hooks.HookRequest, allowed: tuple[str, ...]) -> tuple[str, bool]:
    if request.fhir_server is None or request.fhir_authorization is None:
        return "not sent by the EHR", False
    if not any(same_base(request.fhir_server, base) for base in allowed):
        return "the EHR's FHIR server is not on the list of servers that Osler may ask", True
    return "", False


async def _fetch(
    request: hooks.HookRequest, key: str, template: str, http: httpx.AsyncClient, timeout_s: float
) -> dict[str, Any] | Gap:
    authorization = request.fhir_authorization
    if authorization is None or request.fhir_server is None:
        return Gap(key, "not sent by the EHR", False)
    address = fill(template, request.context)
    kind = re.split(r"[/?]", address)[0]
    action: Action = "search" if "?" in address else "read"
    if not allows(authorization.scope, kind, action):
        return Gap(key, f"the token's scopes do not allow to {action} {kind}", True)
    headers = {"accept": _ACCEPT, "authorization": f"Bearer {authorization.access_token}"}
    try:
        async with asyncio.timeout(timeout_s):
            answer = await http.get(f"{request.fhir_server.rstrip('/')}/{address}", headers=headers)
    except (TimeoutError, httpx.TimeoutException):
        return Gap(key, f"the EHR's FHIR server did not answer within {timeout_s:g} s", True)
    except (httpx.HTTPError, httpx.InvalidURL):
        return Gap(key, "the EHR's FHIR server cannot be reached", True)
    return _resource(key, kind, action, answer)


def _resource(key: str, kind: str, action: Action, answer: httpx.Response) -> dict[str, Any] | Gap:
    if answer.status_code != httpx.codes.OK:
        return Gap(key, f"the EHR's FHIR server answered {answer.status_code}", True)
    try:
        document = answer.json() if len(answer.content) <= _LONGEST_ANSWER else None
    except ValueError:
        document = None
    if not isinstance(document, dict) or document.get("resourceType") != ("Bundle" if action == "search" else kind):
        return Gap(key, "the EHR's FHIR server sent something else", True)
    return document
