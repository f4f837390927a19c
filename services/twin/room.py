"""The twin's room: snapshots in, predictions out."""

from __future__ import annotations

import grpc.aio
from osler.twin.v1 import twin_pb2, twin_pb2_grpc

from services.platform.room import Room, RoomContext
from services.twin import calculators, outcomes
from services.twin.service import TwinService
from services.twin.worker import ROOM, patient_updated


def build(context: RoomContext) -> Room:
    """Wires the handler and the servicer to the host's database and blobs."""
    servicer = TwinService(context.database)

    def add(server: grpc.aio.Server) -> None:
        twin_pb2_grpc.add_TwinServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]

    name = twin_pb2.DESCRIPTOR.services_by_name["TwinService"].full_name
    return Room(
        name=ROOM,
        handlers={"osler.patient.updated.v1": patient_updated(context.blobs)},
        grpc=[(name, add), calculators.door(), outcomes.door(context.settings.models.path, context.blobs)],
    )
