"""FHIR over HTTP: documents posted to /fhir, and everything about a patient pulled from a FHIR server.

Source: HL7 FHIR R4 (4.0.1) http.html (transaction, search paging), patient-operation-everything.html.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import httpx
from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool

from services.ingest.fhir_import import MEDIA_TYPE
from services.ingest.fhir_parse import encode
from services.ingest.records import Records, Taken
from services.platform.errors import RefusedError, RetryableError
from services.platform.http import require

ROLES = ("clinician", "admin", "service")
_TIMEOUT = httpx.Timeout(60.0, connect=10.0)
_MOST_PAGES = 1000


def router(records: Records, limit: int) -> APIRouter:
    """POST and PUT /fhir: a Bundle, a resource or NDJSON of at most `limit` bytes; answered with an OperationOutcome.

    200 when all was taken in or came before, 207 when part was refused, 422 when nothing was taken in.
    """
    routes = APIRouter(dependencies=[Depends(require(*ROLES))])

    @routes.api_route("/fhir", methods=["POST", "PUT"])
    async def take(request: Request) -> Response:
        content = bytearray()
        async for chunk in request.stream():
            content += chunk
            if len(content) > limit:
                raise HTTPException(413, f"documents end at {limit} bytes here; import larger ones as a file")
        try:
            taken = await run_in_threadpool(records.receive_fhir, bytes(content))
        except RetryableError as error:
            raise HTTPException(503, str(error), headers={"retry-after": "30"}) from error
        status = 200 if not taken.refusals else 207 if taken.event_ids else 422
        return Response(encode(outcome(taken)), status, media_type=MEDIA_TYPE)

    return routes


def outcome(taken: Taken) -> dict[str, Any]:
    """An OperationOutcome: one issue for each refusal, else one that says how much was new."""
    issues = [
        {"severity": "error", "code": "invalid", "details": {"text": refusal.reason}, "diagnostics": refusal.message}
        for refusal in taken.refusals
    ]
    issues.append({"severity": "information", "code": "informational", "diagnostics": f"{len(taken.event_ids)} new"})
    return {"resourceType": "OperationOutcome", "issue": issues}


def pull_everything(base_url: str, patient_id: str, token: str = "", client: httpx.Client | None = None) -> bytes:
    """Patient/$everything of a FHIR R4 server, all pages, as one Bundle for `Records.take_fhir`.

    Pages are followed on the same server only. Raises RefusedError (`fhir.server_refused`, `fhir.bad_page`) or
    RetryableError when the server cannot be reached now.
    """
    base = base_url.rstrip("/") + "/"
    url = urljoin(base, f"Patient/{quote(patient_id, safe='')}/$everything")
    headers = {"accept": MEDIA_TYPE} | ({"authorization": f"Bearer {token}"} if token else {})
    entries: list[Any] = []
    with client or httpx.Client(timeout=_TIMEOUT) as session:
        for _ in range(_MOST_PAGES):
            page = _page(session, url, headers)
            entries += page.get("entry") or []
            links = {link.get("relation"): link.get("url") for link in page.get("link") or []}
            if not links.get("next"):
                return encode({"resourceType": "Bundle", "type": "collection", "entry": entries})
            url = urljoin(url, links["next"])
            if urlsplit(url)[:2] != urlsplit(base)[:2]:
                raise RefusedError("fhir.bad_page", "the FHIR server sends on to another server for the next page")
    raise RefusedError("fhir.bad_page", f"the FHIR server gives more than {_MOST_PAGES} pages")


def _page(session: httpx.Client, url: str, headers: dict[str, str]) -> dict[str, Any]:
    try:
        response = session.get(url, headers=headers)
    except httpx.TransportError as error:
        raise RetryableError(f"the FHIR server cannot be reached: {type(error).__name__}") from error
    if response.status_code == 429 or response.status_code >= 500:
        raise RetryableError(f"the FHIR server answered {response.status_code}")
    if response.status_code != 200:
        raise RefusedError(
            "fhir.server_refused",
            f"the FHIR server answered {response.status_code} to Patient/$everything",
            remedy="check the base URL, the patient id and the token",
        )
    try:
        page = response.json()
    except ValueError:
        page = None
    if not isinstance(page, dict) or page.get("resourceType") != "Bundle":
        raise RefusedError("fhir.bad_page", "the FHIR server did not answer with a Bundle")
    return page
