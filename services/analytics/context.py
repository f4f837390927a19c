"""What the figures are grouped by: of a patient sex and year of birth, of a study its scanner and site. Never more."""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf.message import Message
from osler.common.v1 import common_pb2
from osler.events.v1 import events_pb2
from osler.ingest.v1 import ingest_pb2
from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from services.clinical.snapshots import read_snapshot
from services.platform.blobs import BlobStore
from services.platform.errors import RefusedError

Context = dict[str, str | int]

# Ages of 90 and more are one group (45 CFR 164.514(b)(2)(i)(C)).
OLDEST = 90
_TAGS = {
    "manufacturer": "Manufacturer",
    "scanner": "ManufacturerModelName",
    "site": "InstitutionName",
    "body_part": "BodyPartExamined",
}


def context_of(message: Message, blobs: BlobStore) -> Context:
    """The groups that an event belongs to; `unreadable` with the reason when what it refers to cannot be read.

    Raises RetryableError when the blob store is away.
    """
    try:
        if isinstance(message, events_pb2.PatientUpdated):
            return _of_patient(message.snapshot, blobs)
        if isinstance(message, events_pb2.StudyReceived):
            return _of_study(message.manifest, blobs)
    except RefusedError as error:
        return {"unreadable": error.reason}
    return {}


def _of_patient(reference: common_pb2.BlobRef, blobs: BlobStore) -> Context:
    known = read_snapshot(blobs, reference).demographics
    context: Context = {"sex": known.sex or "unknown"}
    if known.birth_date[:4].isdigit():
        context["birth_year"] = max(int(known.birth_date[:4]), datetime.now(UTC).year - OLDEST)
    return context


def _of_study(reference: common_pb2.BlobRef, blobs: BlobStore) -> Context:
    manifest = ingest_pb2.StudyManifest.FromString(blobs.get(reference))
    acquired = [instance for series in manifest.series if not series.derived for instance in series.instances]
    if not acquired:
        return {}
    with blobs.local_path(acquired[0].content) as path:
        try:
            header = dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS.values()))
        except InvalidDicomError:
            return {"unreadable": "dicom.not_part_10"}
    return {name: str(header.get(keyword, "")).strip()[:64] or "unknown" for name, keyword in _TAGS.items()}
