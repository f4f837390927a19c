"""Event handlers: objects that other rooms made (SEG, SR, REG) go into the archive, without a new announcement."""

from __future__ import annotations

from collections.abc import Sequence

from osler.common.v1 import common_pb2
from osler.events.v1 import events_pb2
from osler.imaging.v1 import imaging_pb2

from services.ingest.archive import EmbeddedKeeper
from services.ingest.dicom_file import InstanceHeader
from services.ingest.receive import Receiver
from services.platform.errors import RefusedError
from services.platform.events import Event
from services.platform.room import Effect, Handler, Transaction


def findings_ready(receiver: Receiver) -> Handler:
    """Handles `osler.findings.ready.v1`: files SEG and SR."""

    def handle(_event: Event, message: events_pb2.FindingsReady) -> Effect:
        return _filing(receiver, message.findings.derived_objects, message.findings.patient_key)

    return handle


def registration_ready(receiver: Receiver) -> Handler:
    """Handles `osler.registration.ready.v1`: files the REG object of a registration that was not refused."""

    def handle(_event: Event, message: events_pb2.RegistrationReady) -> Effect:
        registration = message.registration
        made = [registration.spatial_registration] if registration.HasField("spatial_registration") else []
        return _filing(receiver, made, registration.patient_key)

    return handle


def _filing(receiver: Receiver, made: Sequence[imaging_pb2.DerivedObject], patient_key: str) -> Effect:
    read = [_read(receiver, one, patient_key) for one in made]

    def effect(tx: Transaction) -> None:
        for header, ref in read:
            receiver.archive.index(tx.session, header, ref, derived=True)

    return effect


def _read(
    receiver: Receiver, made: imaging_pb2.DerivedObject, patient_key: str
) -> tuple[InstanceHeader, common_pb2.BlobRef]:
    archive = receiver.archive
    content = archive.blobs.get(made.content)
    header = receiver.header(content)
    named = (made.sop_instance_uid, made.series_instance_uid, made.study_instance_uid)
    found = (header.sop_instance_uid, header.series_instance_uid, header.study_instance_uid)
    if named != found or archive.patient_key(header) != patient_key:
        raise RefusedError(
            "dicom.derived_mismatch",
            "the object is not the one that its event names, or is another patient's",
            remedy="mend the room that made it and replay its event",
            subject=made.sop_instance_uid,
        )
    archive.check_same(header, content)
    # Already in blob storage by the hand of the room that made it; only a foreign archive still needs it.
    ref = made.content if isinstance(archive.keeper, EmbeddedKeeper) else archive.keeper.keep(header, content)
    return header, ref
