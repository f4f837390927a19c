"""STOW-RS: instances in over HTTP, below /dicom-web.

Source: DICOM PS3.18 10.5 (Store Transaction), annex I.2 (response, failure reasons).
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool

from services.clinical.refusals import to_refusal
from services.ingest.dicom_file import MEDIA_TYPE, InstanceHeader, JsonDataset, tag_of
from services.ingest.dicomweb import PREFIX, base_url, json_response
from services.ingest.multipart import RelatedReader, content_type
from services.ingest.receive import Outcome, Receiver
from services.platform.errors import RefusedError, RetryableError
from services.platform.http import require

ROLES = ("clinician", "admin", "service")
DOOR = "dicomweb"
LARGEST_PART = 2 << 30
# Failure reasons of table I.2-2; others are "cannot understand".
_CANNOT_UNDERSTAND = 0xC000
_FAILURES = {
    "dicom.unknown_sop_class": 0x0122,
    "dicom.conflicting_instance": 0x0110,
    "dicom.unknown_transfer_syntax": 0xC122,
    "dicom.other_study": 0xA900,
}


def router(receiver: Receiver) -> APIRouter:
    """The routes of STOW-RS."""
    routes = APIRouter(prefix=PREFIX, dependencies=[Depends(require(*ROLES))])

    @routes.post("/studies")
    @routes.post("/studies/{study}")
    async def store_instances(request: Request, study: str = "") -> Response:
        outcomes: list[Outcome] = []
        try:
            async for content in _contents(request):
                outcomes.append(await run_in_threadpool(_receive, receiver, content, study))
        except RefusedError as error:
            # What came before the fault is stored; sending all again changes nothing.
            raise HTTPException(400, str(error)) from error
        except RetryableError as error:
            raise HTTPException(503, str(error), headers={"retry-after": "30"}) from error
        if not outcomes:
            raise HTTPException(400, "the request holds no instance")
        failed = sum(outcome.status == "quarantined" for outcome in outcomes)
        status = 200 if not failed else 409 if failed == len(outcomes) else 202
        return json_response(_answer(outcomes, base_url(request)), status)

    return routes


def _receive(receiver: Receiver, content: bytes, study: str) -> Outcome:
    if study:
        try:
            header = receiver.header(content)
        except RefusedError:
            return receiver.receive(content, DOOR)
        if header.study_instance_uid != study:
            error = RefusedError(
                "dicom.other_study",
                "the instance belongs to another study than the URL",
                subject=header.sop_instance_uid,
            )
            receiver.quarantine.add(DOOR, content, to_refusal(error))
            return Outcome("quarantined", header, to_refusal(error))
    return receiver.receive(content, DOOR)


async def _contents(request: Request) -> AsyncIterator[bytes]:
    kind, parameters = content_type(request.headers.get("content-type", ""))
    if kind == MEDIA_TYPE:
        yield await request.body()
        return
    if kind != "multipart/related" or parameters.get("type", MEDIA_TYPE).lower() != MEDIA_TYPE:
        raise HTTPException(415, f'send multipart/related; type="{MEDIA_TYPE}"')
    reader = RelatedReader(parameters.get("boundary", ""), LARGEST_PART)
    async for chunk in request.stream():
        for content in reader.feed(chunk):
            yield content
    reader.close()


def _answer(outcomes: list[Outcome], base: str) -> JsonDataset:
    stored = [outcome.header for outcome in outcomes if outcome.status != "quarantined" and outcome.header is not None]
    failed = [outcome for outcome in outcomes if outcome.status == "quarantined"]
    answer: JsonDataset = {}
    studies = {header.study_instance_uid for header in stored}
    if len(studies) == 1:
        answer[tag_of("RetrieveURL")] = {"vr": "UR", "Value": [f"{base}/studies/{studies.pop()}"]}
    if failed:
        answer[tag_of("FailedSOPSequence")] = {"vr": "SQ", "Value": [_failure(outcome) for outcome in failed]}
    if stored:
        answer[tag_of("ReferencedSOPSequence")] = {"vr": "SQ", "Value": [_success(header, base) for header in stored]}
    return answer


def _success(header: InstanceHeader, base: str) -> JsonDataset:
    place = f"studies/{header.study_instance_uid}/series/{header.series_instance_uid}"
    return {
        tag_of("ReferencedSOPClassUID"): {"vr": "UI", "Value": [header.sop_class_uid]},
        tag_of("ReferencedSOPInstanceUID"): {"vr": "UI", "Value": [header.sop_instance_uid]},
        tag_of("RetrieveURL"): {"vr": "UR", "Value": [f"{base}/{place}/instances/{header.sop_instance_uid}"]},
    }


def _failure(outcome: Outcome) -> JsonDataset:
    header, refusal = outcome.header, outcome.refusal
    reason = _FAILURES.get(refusal.reason if refusal else "", _CANNOT_UNDERSTAND)
    item: JsonDataset = {tag_of("FailureReason"): {"vr": "US", "Value": [reason]}}
    if header is not None:
        item[tag_of("ReferencedSOPClassUID")] = {"vr": "UI", "Value": [header.sop_class_uid]}
        item[tag_of("ReferencedSOPInstanceUID")] = {"vr": "UI", "Value": [header.sop_instance_uid]}
    return item
