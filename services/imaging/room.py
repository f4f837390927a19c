"""The imaging room: studies in, findings and DICOM results out."""

from __future__ import annotations

from functools import partial

import grpc.aio
from osler.imaging.v1 import imaging_pb2, imaging_pb2_grpc

from services.imaging import second_look
from services.imaging.compute import open_compute
from services.imaging.host.registry import registry_of
from services.imaging.service import ImagingService
from services.imaging.worker import ROOM, Analyst, handlers
from services.platform.room import Room, RoomContext


def build(context: RoomContext) -> Room:
    """Wires handlers and servicer to the host's database, blobs and compute."""
    compute = open_compute(context.settings)
    analyst = Analyst(context.database, context.blobs, context.quarantine, compute)
    context.quarantine.register(second_look.DOOR, partial(second_look.again, context.database, analyst))
    servicer = ImagingService(context.database, analyst, compute, registry_of(context.settings), context.blobs)

    def add(server: grpc.aio.Server) -> None:
        imaging_pb2_grpc.add_ImagingServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]

    name = imaging_pb2.DESCRIPTOR.services_by_name["ImagingService"].full_name
    return Room(name=ROOM, handlers=handlers(analyst), grpc=[(name, add)])
