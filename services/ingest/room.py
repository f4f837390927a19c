"""Ingest's room: the doors for DICOM, HL7 v2 and FHIR around one archive and one record of the chart."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import grpc.aio
from fastapi import FastAPI
from osler.ingest.v1 import ingest_pb2, ingest_pb2_grpc

from services.ingest import dicomweb, dicomweb_store, fhir_door, worker
from services.ingest.archive import ROOM, Archive, EmbeddedKeeper, Keeper
from services.ingest.commitment import Peer
from services.ingest.dicom_pressure import Backlog
from services.ingest.folder import Importer
from services.ingest.mllp import MllpListener
from services.ingest.quiet_clock import QuietClock
from services.ingest.receive import DOOR, Receiver
from services.ingest.records import FHIR_DOOR, HL7_DOOR, Records
from services.ingest.scp import DicomListener
from services.ingest.service import IngestService
from services.ingest.upstream import UpstreamKeeper
from services.platform.http import create_app
from services.platform.room import Background, Room, RoomContext

# STOW-RS sends whole studies in one body.
_LARGEST_BODY_MB = 16 * 1024


@dataclass(frozen=True)
class _Doors:
    archive: Archive
    receiver: Receiver
    records: Records


def build(context: RoomContext) -> Room:
    """Wires the doors, the handlers and the servicer to the host."""
    doors = _open(context)
    servicer = IngestService(doors.archive, doors.records, context.quarantine)

    def add(server: grpc.aio.Server) -> None:
        ingest_pb2_grpc.add_IngestServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]

    return Room(
        name=ROOM,
        handlers={
            "osler.findings.ready.v1": worker.findings_ready(doors.receiver),
            "osler.registration.ready.v1": worker.registration_ready(doors.receiver),
        },
        grpc=[(ingest_pb2.DESCRIPTOR.services_by_name["IngestService"].full_name, add)],
        http=build_app(context, doors.receiver, doors.records),
        background=_listeners(context, doors),
        idle=lambda force: doors.archive.complete_due(force=force),
    )


def build_importer(context: RoomContext) -> Importer:
    """The doors for files and folders."""
    doors = _open(context)
    return Importer(doors.receiver, doors.records)


def build_app(context: RoomContext, receiver: Receiver, records: Records) -> FastAPI:
    """The HTTP door: DICOMweb below /dicom-web, FHIR documents at /fhir."""
    app = create_app("osler ingest", settings=context.settings, security=context.security, max_body_mb=_LARGEST_BODY_MB)
    app.include_router(dicomweb.router(receiver.archive))
    app.include_router(dicomweb_store.router(receiver))
    app.include_router(fhir_door.router(records, context.settings.http.max_body_mb * 1024 * 1024))
    return app


def _open(context: RoomContext) -> _Doors:
    settings, key = context.settings, context.settings.identity_key()
    identity = settings.identity
    quiet = timedelta(seconds=settings.dicom.quiet_period_s)
    archive = Archive(context.database, context.blobs, _keeper(context), key, quiet)
    receiver = Receiver(archive, context.quarantine, identity.issuers, identity.default_issuer)
    records = Records(
        context.database, context.blobs, context.quarantine, key, identity.issuers, identity.default_issuer
    )
    for door in (DOOR, dicomweb_store.DOOR):
        context.quarantine.register(door, receiver.replay)
    context.quarantine.register(HL7_DOOR, records.replay_message)
    context.quarantine.register(FHIR_DOOR, records.replay_fhir)
    return _Doors(archive, receiver, records)


def _keeper(context: RoomContext) -> Keeper:
    group = context.settings.archive
    if group.mode == "embedded":
        return EmbeddedKeeper(context.blobs)
    return UpstreamKeeper(group.url, {name: value.get_secret_value() for name, value in group.headers.items()})


def _listeners(context: RoomContext, doors: _Doors) -> list[Background]:
    dicom, hl7 = context.settings.dicom, context.settings.hl7
    peers = {title: Peer(peer.host, peer.port) for title, peer in dicom.storage_commitment_peers.items()}
    listener = DicomListener(
        doors.receiver,
        ae_title=dicom.ae_title,
        host=dicom.host,
        port=dicom.port,
        peers=peers,
        allowed_calling_aes=dicom.allowed_calling_aes,
        max_pdu_bytes=dicom.max_pdu_bytes,
        admit=Backlog(context.database, ROOM, dicom.max_waiting_events).check,
        share_port=dicom.share_port,
    )
    return [
        listener,
        MllpListener(doors.records, hl7.host, hl7.port, hl7.max_message_kb * 1024),
        QuietClock(doors.archive.complete_due, min(1.0, max(dicom.quiet_period_s / 4, 0.1))),
    ]
