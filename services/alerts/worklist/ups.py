"""Workitems as Unified Procedure Steps, and their states.

Source: DICOM PS3.4 CC.1.1 (states, table CC.1.1-2), CC.2.5 (attributes, table CC.2.5-3); PS3.16 CID 9231 (workitem codes).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from threading import Lock
from typing import Any

from osler.fusion.v1 import fusion_pb2
from pydicom.dataset import Dataset

from services.alerts import worklist_store
from services.alerts.worklist import priority, scheduled
from services.alerts.worklist_store import Study, Workitem
from services.clinical.snapshots import read_snapshot
from services.platform.blobs import BlobStore
from services.platform.database import Database
from services.platform.errors import RefusedError

SOP_CLASS = "1.2.840.10008.5.1.4.34.6.1"
_REMEMBERED = 4096
_SEX = {"female": "F", "male": "M", "other": "O"}
# Attributes that the manager alone sets.
_OURS = ("SOPClassUID", "SOPInstanceUID", "ProcedureStepState", "TransactionUID", "PatientName", "PatientID")


@dataclass(frozen=True)
class Moved:
    """A workitem after a change of state. `warning`: PS3.4 status of a change that was made before, else 0."""

    item: Workitem
    warning: int = 0


# (state, wanted state) -> status where nothing may change: C300 no longer updated, C302 in progress, C310 not yet.
_REFUSED = {
    ("SCHEDULED", "COMPLETED"): 0xC310,
    ("SCHEDULED", "CANCELED"): 0xC310,
    ("IN PROGRESS", "IN PROGRESS"): 0xC302,
    ("COMPLETED", "IN PROGRESS"): 0xC300,
    ("COMPLETED", "CANCELED"): 0xC300,
    ("CANCELED", "IN PROGRESS"): 0xC300,
    ("CANCELED", "COMPLETED"): 0xC300,
}
_REPEATED = {("COMPLETED", "COMPLETED"): 0xB306, ("CANCELED", "CANCELED"): 0xB304}
_WORDS = {
    0xC300: "the workitem can no longer be changed: it is completed or canceled",
    0xC301: "the transaction UID is not the one that holds this workitem",
    0xC302: "the workitem is in progress already: somebody else has it",
    0xC303: "only a SCHEDULED workitem can be created",
    0xC304: "the workitem lacks what its final state requires",
    0xC310: "the workitem is not in progress yet",
    0xC311: "the workitem is completed",
}


def refusal(status: int, uid: str) -> RefusedError:
    """The refusal of a status of PS3.4 table CC.2.1-2."""
    return RefusedError("ups.conflict", f"{_WORDS[status]} ({status:04X})", missing=[f"{status:04X}"], subject=uid)


def change_state(item: Workitem, wanted: str, transaction_uid: str, by: str, now: datetime) -> Moved:
    """Claims, completes or cancels. Raises RefusedError `ups.conflict`, or `ups.bad_request` for a state or lock missing."""
    if wanted not in ("IN PROGRESS", "COMPLETED", "CANCELED") or not transaction_uid:
        raise RefusedError(
            "ups.bad_request",
            "a change of state needs (0074,1000) and (0008,1195)",
            missing=["(0074,1000) ProcedureStepState", "(0008,1195) TransactionUID"],
            subject=item.workitem_uid,
        )
    if status := _REFUSED.get((item.state, wanted)):
        raise refusal(status, item.workitem_uid)
    if warning := _REPEATED.get((item.state, wanted)):
        return Moved(item, warning)
    if wanted == "IN PROGRESS":
        claimed = replace(item, state=wanted, transaction_uid=transaction_uid, performer=by, started_at=now)
        return Moved(claimed)
    _check_lock(item, transaction_uid)
    if wanted == "COMPLETED" and not _is_complete(item.dataset):
        raise refusal(0xC304, item.workitem_uid)
    return Moved(replace(item, state=wanted, transaction_uid="", ended_at=now))


def _check_lock(item: Workitem, transaction_uid: str) -> None:
    if item.transaction_uid != transaction_uid:
        raise refusal(0xC301, item.workitem_uid)


def _is_complete(dataset: Mapping[str, Any]) -> bool:
    """Start and end of what was performed (PS3.4 table CC.2.5-3, final state codes of (0074,1216))."""
    performed = dataset.get("00741216", {}).get("Value") or [{}]
    return all(performed[0].get(tag, {}).get("Value") for tag in ("00404050", "00404051"))


def update(item: Workitem, changes: Dataset, transaction_uid: str) -> Workitem:
    """New values of attributes. Raises RefusedError `ups.conflict` or `ups.bad_request`."""
    if not item.open:
        raise refusal(0xC300, item.workitem_uid)
    if item.state == "IN PROGRESS":
        _check_lock(item, transaction_uid)
    forbidden = [keyword for keyword in _OURS if keyword in changes]
    if forbidden:
        raise RefusedError(
            "ups.bad_request",
            f"{', '.join(forbidden)} cannot be updated",
            remedy="change the state with PUT .../state",
            subject=item.workitem_uid,
        )
    return replace(item, dataset={**item.dataset, **changes.to_json_dict()})


def created(uid: str, given: Dataset, patient_key: str, now: datetime) -> Workitem:
    """A workitem that a client asks for. Raises RefusedError `ups.conflict` when it is not SCHEDULED."""
    if str(given.get("ProcedureStepState", "")) != "SCHEDULED" or given.get("TransactionUID"):
        raise refusal(0xC303, uid)
    kept = Dataset()
    kept.update({element.tag: element for element in given if element.keyword not in _OURS})
    codes = [item.get("CodeValue", "") for item in given.get("ScheduledWorkitemCodeSequence") or []]
    kind = "reading" if "110005" in codes else "acquisition" if given.get("Modality") else "other"
    dataset = kept.to_json_dict()
    judged = priority.judge(scheduled.reasons_of(scheduled.priority_of(dataset)))
    study = str(given.get("StudyInstanceUID", ""))
    return Workitem(
        uid,
        kind,
        study,
        patient_key,
        "SCHEDULED",
        now,
        judged.due(now),
        judged.urgency,
        judged.reasons,
        dataset=dataset,
    )


class Identities:
    """Who patients are, for answers to authorised callers; remembers the latest few thousand by snapshot."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self._database, self._blobs = database, blobs
        self._known: OrderedDict[str, fusion_pb2.PatientSnapshot] = OrderedDict()
        self._lock = Lock()

    def snapshot(self, patient_key: str) -> fusion_pb2.PatientSnapshot:
        """Demographics, allergies and the like; empty for a patient that fusion has not put together yet."""
        with self._database.session() as session:
            patient = worklist_store.find_patient(session, patient_key) if patient_key else None
        if patient is None:
            return fusion_pb2.PatientSnapshot(patient_key=patient_key)
        digest = patient.snapshot.sha256
        with self._lock:
            if digest in self._known:
                self._known.move_to_end(digest)
                return self._known[digest]
        slim = _slim(read_snapshot(self._blobs, patient.snapshot))
        with self._lock:
            self._known[digest] = slim
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return slim


def _slim(snapshot: fusion_pb2.PatientSnapshot) -> fusion_pb2.PatientSnapshot:
    """Only what a worklist tells."""
    kept = fusion_pb2.PatientSnapshot(patient_key=snapshot.patient_key, demographics=snapshot.demographics)
    kept.entries.extend(
        entry
        for entry in snapshot.entries
        if entry.kind == fusion_pb2.ENTRY_KIND_ALLERGY and entry.status != fusion_pb2.ENTRY_STATUS_RETRACTED
    )
    return kept


def add_patient(dataset: Dataset, who: fusion_pb2.Demographics) -> None:
    """Patient attributes; empty where not known (type 2)."""
    dataset.PatientName = f"{who.family_name}^{who.given_name}".strip("^")
    dataset.PatientID = who.record_number
    dataset.PatientBirthDate = who.birth_date.replace("-", "") if len(who.birth_date) == 10 else ""
    dataset.PatientSex = _SEX.get(who.sex, "")


def dataset_of(item: Workitem, study: Study | None, who: fusion_pb2.Demographics) -> Dataset:
    """The workitem as a UPS. The transaction UID is never shown (PS3.4 CC.2.7)."""
    found = Dataset.from_json(item.dataset) if item.dataset else Dataset()
    found.SpecificCharacterSet = "ISO_IR 192"
    found.SOPClassUID, found.SOPInstanceUID = SOP_CLASS, item.workitem_uid
    found.ProcedureStepState = item.state
    found.StudyInstanceUID = item.study_instance_uid
    found.ScheduledProcedureStepPriority = priority.band(item.urgency)
    found.WorklistLabel = found.get("WorklistLabel") or f"Osler {item.kind}"
    found.ProcedureStepLabel = found.get("ProcedureStepLabel") or _label(item, study)
    found.CommentsOnTheScheduledProcedureStep = "; ".join(reason.text for reason in item.reasons)[:1024]
    found.ScheduledProcedureStepStartDateTime = found.get("ScheduledProcedureStepStartDateTime") or _dt(item.arrived_at)
    found.ExpectedCompletionDateTime = _dt(item.due_at)
    found.InputReadinessState = "READY"
    if item.kind == "reading" and not found.get("ScheduledWorkitemCodeSequence"):
        found.ScheduledWorkitemCodeSequence = [scheduled.coded("110005", "DCM", "Interpretation")]
    add_patient(found, who)
    if study is not None:
        source = Dataset()
        source.StudyInstanceUID = study.study_instance_uid
        source.TypeOfInstances = "DICOM"
        found.InputInformationSequence = [source]
    return found


def _label(item: Workitem, study: Study | None) -> str:
    modalities = "/".join(m for m in study.modalities if m not in ("RTSTRUCT", "SEG", "SR", "REG")) if study else ""
    return f"{'Read' if item.kind == 'reading' else 'Perform'} {modalities}".strip()[:64]


def _dt(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y%m%d%H%M%S}+0000"
