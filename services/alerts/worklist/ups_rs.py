"""UPS-RS: workitems over HTTP, below /dicom-web.

Source: DICOM PS3.18 chapter 11: Create (11.4), Retrieve (11.5), Update (11.6), Change State (11.7), Request Cancellation
(11.8), Search (11.9). Event channels and subscriptions are not offered: a client asks again.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, HTTPException, Query, Request, Response
from pydicom.dataset import Dataset
from pydicom.uid import UID, generate_uid

from services.alerts import worklist_store
from services.alerts.worklist import handlers, ups
from services.alerts.worklist.matching import matches, query_dataset
from services.alerts.worklist_store import Workitem
from services.clinical.identity import issuer_from_dicom, patient_key
from services.platform.errors import RefusedError
from services.platform.http import require
from services.platform.room import RoomContext
from services.platform.security import Principal

PREFIX = "/dicom-web"
JSON_TYPE = "application/dicom+json"
_LARGEST_PAGE = 1000
# Query parameters that are no matching keys (PS3.18 8.3.4).
_CONTROL = ("limit", "offset", "fuzzymatching", "includefield")
Worker = Annotated[Principal, Depends(require("clinician", "service", "admin"))]
Changer = Annotated[Principal, Depends(require("clinician", "service"))]
_Body = Annotated[Any, Body()]


class _Workitems:
    """Workitems as datasets, over the room's tables."""

    def __init__(self, context: RoomContext) -> None:
        self._context = context
        self._identities = ups.Identities(context.database, context.blobs)

    def find(self, uid: str) -> Workitem:
        with self._context.database.session() as session:
            item = worklist_store.find_workitem(session, uid)
        if item is None:
            raise HTTPException(HTTPStatus.NOT_FOUND, "there is no such workitem")
        return item

    def dataset(self, item: Workitem) -> Dataset:
        with self._context.database.session() as session:
            study = worklist_store.find_study(session, item.study_instance_uid) if item.study_instance_uid else None
        return ups.dataset_of(item, study, self._identities.snapshot(item.patient_key).demographics)

    def search(self, query: Dataset, limit: int, offset: int) -> list[Dataset]:
        """Soonest due first. The state narrows the rows before datasets are made."""
        state = str(query.get("ProcedureStepState", ""))
        with self._context.database.session() as session:
            items = worklist_store.workitems(session, states=[state] if state else ())
        found: list[Dataset] = []
        for item in items:
            dataset = self.dataset(item)
            if matches(dataset, query):
                found.append(dataset)
            if len(found) >= offset + limit:
                break
        return found[offset:]

    def create(self, uid: str, given: Dataset) -> Workitem:
        item = ups.created(uid, given, self._key(given), datetime.now(UTC))
        with self._context.database.transaction("alerts") as tx:
            if worklist_store.find_workitem(tx.session, uid) is not None:
                raise RefusedError("ups.conflict", "a workitem with this UID is there (0111)", subject=uid)
            worklist_store.save_workitem(tx.session, item)
            if item.kind == "reading" and item.study_instance_uid:
                handlers.reprioritise(tx.session, item.study_instance_uid)
        return item

    def _key(self, given: Dataset) -> str:
        """The key of the patient that a new workitem names; "" for none."""
        number = str(given.get("PatientID", "")).strip()
        if not number:
            return ""
        settings = self._context.settings
        qualifiers = given.get("IssuerOfPatientIDQualifiersSequence") or [Dataset()]
        issuer = issuer_from_dicom(
            str(given.get("IssuerOfPatientID", "")),
            str(qualifiers[0].get("UniversalEntityID", "")),
            settings.identity.issuers,
            settings.identity.default_issuer,
        )
        return patient_key(settings.identity_key(), issuer, number)

    def change(self, uid: str, make: Any) -> Any:
        """Reads, changes and writes one workitem in one transaction; `make` gives (item, answer)."""
        with self._context.database.transaction("alerts") as tx:
            item = worklist_store.find_workitem(tx.session, uid)
            if item is None:
                raise HTTPException(HTTPStatus.NOT_FOUND, "there is no such workitem")
            changed, answer = make(item)
            if changed != item:
                worklist_store.save_workitem(tx.session, changed)
            return answer


def router(context: RoomContext) -> APIRouter:
    """The routes under /dicom-web/workitems."""
    routes = APIRouter(prefix=PREFIX)
    items = _Workitems(context)
    _add_reading(routes, items)
    _add_changing(routes, items)
    return routes


def _add_reading(routes: APIRouter, items: _Workitems) -> None:
    @routes.get("/workitems")
    def search(
        _caller: Worker,
        request: Request,
        limit: Annotated[int, Query(ge=1, le=_LARGEST_PAGE)] = 200,
        offset: Annotated[int, Query(ge=0)] = 0,
    ) -> Response:
        keys = [(name, value) for name, value in request.query_params.multi_items() if name not in _CONTROL]
        found = _answered(lambda: items.search(query_dataset(keys), limit, offset))
        return _json([dataset.to_json_dict() for dataset in found]) if found else Response(status_code=204)

    @routes.get("/workitems/{workitem_uid}")
    def retrieve(_caller: Worker, workitem_uid: str) -> Response:
        return _json([items.dataset(items.find(workitem_uid)).to_json_dict()])


def _add_changing(routes: APIRouter, items: _Workitems) -> None:
    @routes.post("/workitems")
    def create(_caller: Changer, request: Request, body: _Body) -> Response:
        # The UID is the bare query string: POST /workitems?1.2.3 (PS3.18 11.4.1).
        uid = request.url.query.split("&")[0].removesuffix("=") or str(generate_uid(prefix=None))
        if not UID(uid).is_valid:
            raise HTTPException(HTTPStatus.BAD_REQUEST, "the UID of the workitem is not valid")
        item = _answered(lambda: items.create(uid, _dataset(body)))
        return Response(status_code=201, headers={"location": f"{PREFIX}/workitems/{item.workitem_uid}"})

    @routes.post("/workitems/{workitem_uid}")
    def update(_caller: Changer, request: Request, workitem_uid: str, body: _Body) -> Response:
        transaction = request.query_params.get("transaction-uid", "") or request.url.query.removesuffix("=")
        changes = _dataset(body)
        _answered(lambda: items.change(workitem_uid, lambda item: (ups.update(item, changes, transaction), None)))
        return Response(status_code=200)

    @routes.put("/workitems/{workitem_uid}/state")
    def state(caller: Changer, workitem_uid: str, body: _Body) -> Response:
        given = _dataset(body)
        wanted, transaction = str(given.get("ProcedureStepState", "")), str(given.get("TransactionUID", ""))

        def make(item: Workitem) -> tuple[Workitem, int]:
            moved = ups.change_state(item, wanted, transaction, caller.subject, datetime.now(UTC))
            return moved.item, moved.warning

        warning = _answered(lambda: items.change(workitem_uid, make))
        return Response(status_code=200, headers=_warning(warning))

    @routes.post("/workitems/{workitem_uid}/cancelrequest")
    def cancel(caller: Changer, workitem_uid: str, body: Annotated[Any, Body()] = None) -> Response:
        reason = str(_dataset(body).get("ReasonForCancellation", "")) if body else ""
        told = _answered(lambda: items.change(workitem_uid, lambda item: _canceled(item, reason, caller.subject)))
        return Response(status_code=202, headers=_warning(told))


def _canceled(item: Workitem, reason: str, by: str) -> tuple[Workitem, int]:
    """What is still SCHEDULED is canceled; whoever has it in progress finds the request on the workitem (PS3.4 CC.2.2)."""
    if item.state == "COMPLETED":
        raise ups.refusal(0xC311, item.workitem_uid)
    if item.state == "CANCELED":
        return item, 0xB304
    asked = Dataset()
    asked.ReasonForCancellation = (reason or "cancellation requested")[:1024]
    dataset = {**item.dataset, **asked.to_json_dict()}
    if item.state == "SCHEDULED":
        return replace(item, state="CANCELED", performer=by, ended_at=datetime.now(UTC), dataset=dataset), 0
    return replace(item, dataset=dataset), 0


def _answered(work: Any) -> Any:
    try:
        return work()
    except RefusedError as error:
        status = HTTPStatus.CONFLICT if error.reason == "ups.conflict" else HTTPStatus.BAD_REQUEST
        headers = {"warning": f'299 osler "{error.message}"'}
        raise HTTPException(status, error.message, headers=headers) from error


def _warning(status: int) -> dict[str, str]:
    return {"warning": f'299 osler "{status:04X}: the workitem was in this state before"'} if status else {}


def _dataset(body: Any) -> Dataset:
    """The one dataset of a DICOM JSON body. Raises HTTPException 400."""
    given = body[0] if isinstance(body, list) and len(body) == 1 else body
    try:
        if not isinstance(given, dict):
            raise TypeError
        return Dataset.from_json(given)
    except Exception as error:  # pydicom raises whatever a malformed value led to
        raise HTTPException(HTTPStatus.BAD_REQUEST, "the body is not one dataset in DICOM JSON (PS3.18 F)") from error


def _json(content: Any) -> Response:
    return Response(json.dumps(content), media_type=JSON_TYPE)
