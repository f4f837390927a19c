"""The registration room: studies in, transforms with their quality out."""

from __future__ import annotations

import grpc.aio
from osler.registration.v1 import registration_pb2, registration_pb2_grpc

from services.platform.room import Room, RoomContext
from services.registration.compute import open_compute
from services.registration.registrar import ROOM
from services.registration.service import RegistrationService
from services.registration.worker import Registrar, handlers


def build(context: RoomContext) -> Room:
    """Wires handlers and servicer to the host's database, blobs and compute."""
    registrar = Registrar(context.database, context.blobs, open_compute(context.settings))
    servicer = RegistrationService(context.database, registrar)

    def add(server: grpc.aio.Server) -> None:
        registration_pb2_grpc.add_RegistrationServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]

    name = registration_pb2.DESCRIPTOR.services_by_name["RegistrationService"].full_name
    return Room(name=ROOM, handlers=handlers(registrar), grpc=[(name, add)])
