"""Modality Worklist: what a scanner asks before it images, with what Osler knows that makes the examination safer.

Source: DICOM PS3.4 annex K (Modality Worklist SOP class, table K.6-1); PS3.3 C.3.4 (allergies, medical alerts).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from osler.advisor.v1 import advisor_pb2
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pynetdicom import AE, _config, evt

from services.alerts import store, worklist_store
from services.alerts.worklist import ups
from services.alerts.worklist.matching import matches
from services.alerts.worklist_store import Workitem
from services.platform.errors import ConfigurationError, OslerError, RefusedError
from services.platform.room import RoomContext

# Identifiers hold names.
_config.LOG_REQUEST_IDENTIFIERS = False
_config.LOG_RESPONSE_IDENTIFIERS = False

MODALITY_WORKLIST_FIND = "1.2.840.10008.5.1.4.31"
VERIFICATION = "1.2.840.10008.1.1"
SUCCESS, PENDING, CANCEL = 0x0000, 0xFF00, 0xFE00
OUT_OF_RESOURCES, CANNOT_UNDERSTAND = 0xA700, 0xC000
_SAFETY = ("contrast-safety", "mr-safety", "pregnancy")
_LONGEST_LO = 64
_log = logging.getLogger(__name__)


class WorklistListener:
    """`services.platform.room.Background` around a pynetdicom server. `port` 0 picks a free one, then is the real one."""

    def __init__(self, context: RoomContext) -> None:
        settings = context.settings.dicom
        self._context = context
        self._identities = ups.Identities(context.database, context.blobs)
        self.port = settings.worklist_port or 0
        self._host = settings.host
        self._ae = AE(settings.ae_title)
        self._ae.require_calling_aet = list(settings.allowed_calling_aes)
        self._ae.require_called_aet = bool(settings.allowed_calling_aes)
        self._ae.add_supported_context(VERIFICATION)
        self._ae.add_supported_context(MODALITY_WORKLIST_FIND)
        self._server: Any = None

    def start(self) -> None:
        """Listens. Raises ConfigurationError when the port is taken."""
        handlers: list[Any] = [(evt.EVT_C_ECHO, lambda _event: SUCCESS), (evt.EVT_C_FIND, self._find)]
        try:
            self._server = self._ae.start_server((self._host, self.port), block=False, evt_handlers=handlers)
        except OSError as error:
            raise ConfigurationError(f"dicom.worklist_port: cannot listen on {self._host}:{self.port}") from error
        self.port = self._server.server_address[1]

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._ae.shutdown()
            self._server = None

    def _find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        try:
            query = event.identifier
            for entry in self.entries():
                if event.is_cancelled:
                    yield CANCEL, None
                    return
                if matches(entry, query):
                    yield PENDING, answer(entry, query)
        except OslerError as error:
            _log.warning("worklist query not answered: %s", type(error).__name__)
            yield CANNOT_UNDERSTAND if isinstance(error, RefusedError) else OUT_OF_RESOURCES, None

    def entries(self) -> Iterator[Dataset]:
        """Everything scheduled, in the order of its time."""
        with self._context.database.session() as session:
            items = worklist_store.workitems(session, kinds=["acquisition"], states=["SCHEDULED"])
            advice = {item.patient_key: store.load_advice(session, item.patient_key) for item in items}
        for item in items:
            yield entry_of(item, self._identities.snapshot(item.patient_key), advice[item.patient_key])


def entry_of(item: Workitem, who: Any, advice: advisor_pb2.PatientAdvice | None) -> Dataset:
    """One scheduled procedure step. `who`: snapshot with demographics and allergies.

    Allergies and safety advice stand in (0010,2110) and (0010,2000), cut to what an LO holds.
    """
    given = Dataset.from_json(item.dataset)
    request = (given.get("ReferencedRequestSequence") or [Dataset()])[0]
    entry = Dataset()
    entry.SpecificCharacterSet = "ISO_IR 192"
    ups.add_patient(entry, who.demographics)
    entry.Allergies = list(dict.fromkeys(e.title[:_LONGEST_LO] for e in who.entries if e.title))
    entry.MedicalAlerts = [
        r.summary[:_LONGEST_LO]
        for r in (advice.recommendations if advice else ())
        if r.category in _SAFETY and r.urgency >= advisor_pb2.URGENCY_WARNING
    ]
    for keyword in (
        "AccessionNumber", "RequestedProcedureID", "RequestedProcedureDescription", "ReasonForTheRequestedProcedure",
        "PlacerOrderNumberImagingServiceRequest",
    ):  # fmt: skip
        setattr(entry, keyword, request.get(keyword) or "")
    entry.RequestedProcedureCodeSequence = request.get("RequestedProcedureCodeSequence") or DicomSequence()
    entry.RequestedProcedurePriority = given.get("RequestedProcedurePriority") or "ROUTINE"
    entry.StudyInstanceUID = item.study_instance_uid
    entry.ReferringPhysicianName = ""
    entry.ScheduledProcedureStepSequence = [_step(item, given)]
    return entry


def _step(item: Workitem, given: Dataset) -> Dataset:
    start = str(given.get("ScheduledProcedureStepStartDateTime") or "") or f"{item.due_at:%Y%m%d%H%M%S}"
    step = Dataset()
    step.Modality = given.get("Modality") or ""
    step.ScheduledStationAETitle = given.get("ScheduledStationAETitle") or ""
    step.ScheduledStationName = given.get("ScheduledStationName") or ""
    step.ScheduledProcedureStepStartDate, step.ScheduledProcedureStepStartTime = start[:8], start[8:14]
    step.ScheduledProcedureStepDescription = given.get("ProcedureStepLabel") or ""
    step.ScheduledProcedureStepID = item.workitem_uid[-16:]
    step.ScheduledPerformingPhysicianName = ""
    step.ScheduledProtocolCodeSequence = given.get("ScheduledWorkitemCodeSequence") or DicomSequence()
    return step


def answer(entry: Dataset, query: Dataset) -> Dataset:
    """The attributes that were asked for; unknown ones are empty. An empty sequence asks for all of its items."""
    found = Dataset()
    for wanted in query:
        have = entry.get(wanted.tag)
        if wanted.VR != "SQ":
            found.add_new(wanted.tag, wanted.VR, have.value if have is not None else None)
            continue
        items = list(have.value) if have is not None else []
        asked = wanted.value[0] if wanted.value and len(wanted.value[0]) else None
        found.add_new(wanted.tag, "SQ", [answer(item, asked) if asked is not None else item for item in items])
    if "SpecificCharacterSet" in entry:
        found.SpecificCharacterSet = entry.SpecificCharacterSet
    return found
