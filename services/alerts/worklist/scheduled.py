"""Imaging orders as scheduled procedure steps: what the chart and the order messages ask for.

Sources: FHIR R4 ServiceRequest; HL7 v2.5.1 chapter 4 OMI^O23 (ORC, TQ1, OBR, IPC) and ORM^O01, by their field numbers; IHE
Radiology Technical Framework, scheduled workflow; attributes as in DICOM PS3.4 table CC.2.5-3 and K.6-1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from osler.events.v1 import events_pb2
from osler.ingest.v1 import ingest_pb2
from pydicom.dataset import Dataset

from services.alerts import orders, worklist_store
from services.alerts.worklist import priority
from services.alerts.worklist.priority import Reason
from services.alerts.worklist_store import Workitem
from services.clinical import fhir
from services.clinical.dicom.derived import derived_uid
from services.clinical.timestamps import parse_fhir, parse_hl7
from services.platform.blobs import BlobStore
from services.platform.errors import RefusedError
from services.platform.events import Event
from services.platform.room import Effect, Handler, Transaction

_ORDER_MESSAGES = ("OMI", "ORM")
_FHIR_STATE = {"active": "SCHEDULED", "on-hold": "SCHEDULED", "completed": "COMPLETED", "revoked": "CANCELED"}
_FHIR_STATE |= {"entered-in-error": "CANCELED"}
_FHIR_PRIORITY = {"stat": "STAT", "asap": "HIGH", "urgent": "HIGH"}
# HL7 v2 tables 0119 (order control) and 0485 (priority).
_HL7_STATE = {"NW": "SCHEDULED", "SN": "SCHEDULED", "XO": "SCHEDULED", "SC": "SCHEDULED", "RP": "SCHEDULED"}
_HL7_STATE |= {"CA": "CANCELED", "OC": "CANCELED", "DC": "CANCELED", "CM": "COMPLETED"}
_HL7_PRIORITY = {"S": "STAT", "A": "HIGH", "P": "HIGH", "C": "HIGH", "T": "HIGH"}
_SCHEME = {"http://loinc.org": "LN", "http://snomed.info/sct": "SCT", "http://www.ama-assn.org/go/cpt": "C4"}


@dataclass(frozen=True)
class Order:
    """One imaging order. `order_id`: the placer's; `state`: as in (0074,1000); `priority`: STAT, HIGH or ""."""

    order_id: str
    state: str
    modality: str
    description: str
    code: tuple[str, str, str] = ("", "", "")
    accession: str = ""
    study_uid: str = ""
    station_ae: str = ""
    station_name: str = ""
    priority: str = ""
    reason: str = ""
    scheduled_at: datetime | None = None


def record_received(blobs: BlobStore) -> Handler:
    """Follows the orders in what arrives; whatever is no order costs a look at its bytes."""

    def handler(event: Event, message: events_pb2.RecordReceived) -> Effect:
        found = _orders(blobs, message)

        def effect(tx: Transaction) -> None:
            for order in found:
                _save(tx, order, message.patient_key, event.known_time)

        return effect

    return handler


def _orders(blobs: BlobStore, message: events_pb2.RecordReceived) -> list[Order]:
    if message.format == ingest_pb2.RECORD_FORMAT_HL7V2:
        is_order = message.record_type.startswith(_ORDER_MESSAGES)
        return from_hl7(blobs.get(message.content).decode("utf-8", "replace")) if is_order else []
    content = blobs.get(message.content)
    if b'"ServiceRequest"' not in content:
        return []
    try:
        entries = fhir.read(content).entries
    except RefusedError:
        return []
    found = [from_fhir(entry.resource) for entry in entries if entry.type == "ServiceRequest"]
    return [order for order in found if order is not None]


def _save(tx: Transaction, order: Order, patient_key: str, known_at: datetime) -> None:
    uid = derived_uid("order", patient_key, order.order_id)
    known = worklist_store.find_workitem(tx.session, uid)
    if known is not None and known.state != "SCHEDULED":
        return
    arrived = known.arrived_at if known else known_at
    judged = priority.judge(reasons_of(order.priority))
    item = Workitem(
        uid,
        "acquisition",
        order.study_uid or derived_uid("ordered-study", patient_key, order.order_id),
        patient_key,
        order.state,
        arrived,
        order.scheduled_at or judged.due(arrived),
        judged.urgency,
        judged.reasons,
        dataset=dataset_of(order).to_json_dict(),
    )
    worklist_store.save_workitem(tx.session, replace(item, ended_at=None if item.open else known_at))


def reasons_of(order_priority: str) -> list[Reason]:
    """What the orderer's (0040,1003) or (0074,1200) says; nothing for ROUTINE, MEDIUM, LOW or none."""
    row = priority.table()["ordered"].get(order_priority.upper())
    return [Reason(row["text"], row["weight"])] if row else []


def priority_of(dataset: Mapping[str, Any]) -> str:
    """The orderer's priority in DICOM JSON: (0040,1003), else (0074,1200)."""
    for tag in ("00401003", "00741200"):
        values = dataset.get(tag, {}).get("Value") or [""]
        if values[0]:
            return str(values[0])
    return ""


def from_fhir(resource: Mapping[str, Any]) -> Order | None:
    """An imaging ServiceRequest; None for other services, proposals and drafts."""
    state = _FHIR_STATE.get(str(resource.get("status", "")))
    if state is None or resource.get("intent") not in ("order", "original-order", "filler-order", "instance-order"):
        return None
    draft = orders.parse(resource)
    identity = str(resource.get("id") or "")
    numbers = {
        (fhir.codings(row.get("type")) or (fhir.Coding("", ""),))[0].code: str(row.get("value") or "")
        for row in map(fhir.as_dict, fhir.as_list(resource.get("identifier")))
    }
    order_id = numbers.get("PLAC") or identity
    if not draft.modality or not order_id:
        return None
    when = resource.get("occurrenceDateTime") or fhir.as_dict(resource.get("occurrencePeriod")).get("start")
    code = draft.codes[0] if draft.codes else None
    return Order(
        order_id,
        state,
        draft.modality,
        draft.text,
        (code.code, _SCHEME.get(code.system, "99EHR"), code.display or draft.text) if code else ("", "", ""),
        accession=numbers.get("ACSN", ""),
        priority=_FHIR_PRIORITY.get(str(resource.get("priority", "")), ""),
        reason=next((fhir.text_of(row) for row in fhir.as_list(resource.get("reasonCode"))), ""),
        scheduled_at=_fhir_time(str(when)) if when else None,
    )


def _fhir_time(text: str) -> datetime | None:
    """A time that cannot be read leaves the order without one; the order itself stands."""
    try:
        return parse_fhir(text).at.astimezone(UTC)
    except RefusedError:
        return None


def from_hl7(message: str) -> list[Order]:
    """The imaging orders of an OMI^O23 or ORM^O01 message: one for each OBR with a modality."""
    found: list[Order] = []
    common: dict[str, list[str]] = {}
    for line in message.replace("\r\n", "\r").replace("\n", "\r").split("\r"):
        fields = line.split("|")
        if fields[0] == "ORC":
            common = {}
        common[fields[0]] = fields
        if fields[0] == "OBR" and (order := _of_obr(common)) is not None:
            found.append(order)
        elif fields[0] == "IPC" and "OBR" in common and (order := _of_obr(common)) is not None:
            found = [one for one in found if one.order_id != order.order_id] + [order]
    return found


def _of_obr(segments: Mapping[str, list[str]]) -> Order | None:
    orc, obr, tq1, ipc = (segments.get(name, []) for name in ("ORC", "OBR", "TQ1", "IPC"))
    code, name, scheme = (_component(_field(obr, 4), n) for n in range(3))
    words = {"text": name, "coding": [{"code": code, "system": scheme, "display": name}] if code else []}
    modality = _component(_field(ipc, 5), 0) or _field(obr, 24).strip() or orders.parse({"code": words}).modality
    order_id = _component(_field(orc, 2) or _field(obr, 2), 0)
    state = _HL7_STATE.get(_field(orc, 1))
    if not modality or not order_id or state is None:
        return None
    return Order(
        order_id,
        state,
        modality,
        name,
        (code, {"LN": "LN", "SCT": "SCT", "C4": "C4"}.get(scheme, "99EHR"), name) if code else ("", "", ""),
        accession=_component(_field(ipc, 1), 0) or _field(obr, 18),
        study_uid=_component(_field(ipc, 3), 0),
        station_name=_component(_field(ipc, 7), 0),
        station_ae=_field(ipc, 9),
        priority=_HL7_PRIORITY.get(_component(_field(tq1, 9), 0) or _component(_field(obr, 27), 5)[:1], ""),
        reason=_component(_field(obr, 31), 1),
        scheduled_at=_hl7_time(_field(tq1, 7) or _component(_field(obr, 27), 3) or _field(obr, 36)),
    )


def _field(segment: list[str], number: int) -> str:
    return segment[number] if len(segment) > number else ""


def _component(field: str, number: int) -> str:
    parts = field.split("~")[0].split("^")
    return parts[number].strip() if len(parts) > number else ""


def _hl7_time(text: str) -> datetime | None:
    try:
        return parse_hl7(text).at.astimezone(UTC) if text else None
    except RefusedError:
        return None


def dataset_of(order: Order) -> Dataset:
    """The order in attributes of a UPS and of a worklist entry; no patient among them."""
    request = Dataset()
    request.AccessionNumber = order.accession
    request.StudyInstanceUID = order.study_uid
    request.RequestedProcedureID = order.order_id[:16]
    request.PlacerOrderNumberImagingServiceRequest = order.order_id
    request.RequestedProcedureDescription = order.description[:64]
    request.ReasonForTheRequestedProcedure = order.reason[:64]
    request.RequestedProcedurePriority = order.priority or "ROUTINE"
    found = Dataset()
    found.Modality = order.modality
    found.ProcedureStepLabel = order.description[:64]
    found.ScheduledProcedureStepPriority = "HIGH" if order.priority else "MEDIUM"
    found.RequestedProcedurePriority = order.priority or "ROUTINE"
    found.ScheduledStationAETitle = order.station_ae
    found.ScheduledStationName = order.station_name
    if order.scheduled_at:
        found.ScheduledProcedureStepStartDateTime = f"{order.scheduled_at:%Y%m%d%H%M%S}+0000"
    if order.code[0]:
        request.RequestedProcedureCodeSequence = [coded(*order.code)]
        found.ScheduledWorkitemCodeSequence = [coded(*order.code)]
    found.ReferencedRequestSequence = [request]
    return found


def coded(code: str, scheme: str, meaning: str) -> Dataset:
    """One item of a code sequence (PS3.3 table 8.8-1)."""
    item = Dataset()
    setattr(item, "CodeValue" if len(code) <= 16 else "LongCodeValue", code)
    item.CodingSchemeDesignator = scheme
    item.CodeMeaning = (meaning or code)[:64]
    return item
