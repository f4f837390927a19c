"""gRPC: plan pairs, register one with progress, read registrations, map points."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
from osler.ingest.v1 import ingest_pb2
from osler.registration.v1 import registration_pb2, registration_pb2_grpc

from services.platform.database import Database
from services.platform.rpc import InvalidRequestError, NotFoundError
from services.registration import store
from services.registration.align import Method
from services.registration.chains import link
from services.registration.deformation import Deformation
from services.registration.geometry import apply
from services.registration.plan import Pair, Purpose, Series, plan
from services.registration.registrar import BY_NUMBER, ROOM, one_patient, to_proto
from services.registration.worker import Registrar, announce

_PURPOSES = {
    registration_pb2.PAIR_PURPOSE_UNSPECIFIED: Purpose.HYBRID,
    registration_pb2.PAIR_PURPOSE_HYBRID: Purpose.HYBRID,
    registration_pb2.PAIR_PURPOSE_FOLLOW_UP: Purpose.FOLLOW_UP,
}


class _CancelledError(Exception):
    """The caller went away."""


class RegistrationService(registration_pb2_grpc.RegistrationServiceServicer):
    """`osler.registration.v1.RegistrationService`."""

    def __init__(self, database: Database, registrar: Registrar) -> None:
        self._database = database
        self._registrar = registrar

    def Plan(  # noqa: N802 - named by the contract
        self, request: registration_pb2.PlanRequest, context: Any
    ) -> registration_pb2.PlanResponse:
        """The pairs worth registering. Raises RefusedError for manifests of different patients."""
        manifests = [self._registrar.manifest(reference) for reference in request.manifests]
        one_patient(manifests)
        return registration_pb2.PlanResponse(pairs=[to_proto(pair) for pair in plan(manifests)])

    async def Register(  # noqa: N802 - named by the contract
        self, request: registration_pb2.RegisterRequest, context: Any
    ) -> AsyncIterator[registration_pb2.RegisterResponse]:
        """Registers in a thread, sending its progress; when the call is cancelled, the work ends at its next step."""
        updates: asyncio.Queue[registration_pb2.Progress] = asyncio.Queue()
        loop, cancelled = asyncio.get_running_loop(), threading.Event()

        def progress(stage: str, fraction: float) -> None:
            if cancelled.is_set():
                raise _CancelledError
            update = registration_pb2.Progress(stage=stage, fraction=min(1.0, max(0.0, fraction)))
            loop.call_soon_threadsafe(updates.put_nowait, update)

        work = asyncio.ensure_future(asyncio.to_thread(self._register, request, progress))
        try:
            while not (work.done() and updates.empty()):
                waiting = asyncio.ensure_future(updates.get())
                await asyncio.wait({work, waiting}, return_when=asyncio.FIRST_COMPLETED)
                if waiting.done():
                    yield registration_pb2.RegisterResponse(progress=waiting.result())
                else:
                    waiting.cancel()
            yield registration_pb2.RegisterResponse(result=await work)
        finally:
            cancelled.set()

    def _register(self, request: registration_pb2.RegisterRequest, progress: Any) -> registration_pb2.Registration:
        manifests = [self._registrar.manifest(ref) for ref in (request.fixed_manifest, request.moving_manifest)]
        one_patient(manifests)
        sides = zip((request.pair.fixed, request.pair.moving), manifests, ("fixed", "moving"), strict=True)
        fixed, moving = (_series(reference, manifest, side) for reference, manifest, side in sides)
        pair = Pair(fixed, moving, _PURPOSES[request.pair.purpose], request.pair.reason or "asked for by a caller")
        by_study = {manifest.study_instance_uid: manifest for manifest in manifests}
        made_at = datetime.now(UTC).replace(microsecond=0)
        result = self._registrar.register(
            pair, by_study, made_at, progress, BY_NUMBER.get(request.method, Method.RIGID)
        )
        with self._database.transaction(ROOM) as tx:
            announce(tx, result)
        return result

    def GetRegistrations(  # noqa: N802 - named by the contract
        self, request: registration_pb2.GetRegistrationsRequest, context: Any
    ) -> registration_pb2.GetRegistrationsResponse:
        """Every registration of a patient, refused ones too; empty for a patient without any."""
        with self._database.session() as session:
            found = store.of_patient(session, request.patient_key)
        return registration_pb2.GetRegistrationsResponse(registrations=found)

    def MapPoints(  # noqa: N802 - named by the contract
        self, request: registration_pb2.MapPointsRequest, context: Any
    ) -> registration_pb2.MapPointsResponse:
        """Fixed points to moving points, LPS mm. Raises NotFoundError, or RefusedError where there is no transform."""
        mapped = self._registrar.mapping(self._held(request.registration_id))
        points = np.array([[point.x_mm, point.y_mm, point.z_mm] for point in request.points])
        moved = mapped.apply(points) if isinstance(mapped, Deformation) else apply(mapped, points)
        answer = [registration_pb2.Point(x_mm=x, y_mm=y, z_mm=z) for x, y, z in moved.tolist()]
        return registration_pb2.MapPointsResponse(points=answer)

    def Resample(  # noqa: N802 - named by the contract
        self, request: registration_pb2.ResampleRequest, context: Any
    ) -> registration_pb2.ResampleResponse:
        """The moving series on the fixed grid. Raises NotFoundError, or RefusedError where there is no transform."""
        registration = self._held(request.registration_id)
        manifests = [self._registrar.manifest(ref) for ref in (request.fixed_manifest, request.moving_manifest)]
        one_patient(manifests)
        by_study = {manifest.study_instance_uid: manifest for manifest in manifests}
        for side in ("fixed", "moving"):
            if getattr(registration.pair, side).study_instance_uid not in by_study:
                raise InvalidRequestError(f"{side}_manifest", "the registration is of another study")
        return registration_pb2.ResampleResponse(instances=self._registrar.resample(registration, by_study))

    def Link(  # noqa: N802 - named by the contract
        self, request: registration_pb2.LinkRequest, context: Any
    ) -> registration_pb2.LinkResponse:
        """The least uncertain way between two series. Raises NotFoundError where none leads there."""
        with self._database.session() as session:
            known = store.of_patient(session, request.patient_key)
        found = link(known, request.fixed_series_instance_uid, request.moving_series_instance_uid)
        if found is None:
            raise NotFoundError("no registrations lead from one series to the other")
        return registration_pb2.LinkResponse(
            matrix=found.matrix.ravel().tolist(),
            registration_ids=found.steps,
            predicted_tre_mm=found.predicted_tre_mm,
            verdict=found.verdict,
        )

    def _held(self, identifier: str) -> registration_pb2.Registration:
        with self._database.session() as session:
            found = store.get(session, identifier)
        if found is None:
            raise NotFoundError("no registration has this id")
        return found


def _series(reference: registration_pb2.SeriesRef, manifest: ingest_pb2.StudyManifest, side: str) -> Series:
    """The series that a request names, as its manifest describes it. Raises InvalidRequestError."""
    for entry in manifest.series:
        if entry.series_instance_uid == reference.series_instance_uid:
            return Series(
                study_instance_uid=manifest.study_instance_uid,
                series_instance_uid=entry.series_instance_uid,
                modality=entry.modality,
                frame_of_reference_uid=entry.frame_of_reference_uid,
                body_part=entry.body_part_examined.strip().upper(),
                description=entry.series_description,
                slices=len(entry.instances),
                study_time=manifest.study_time.ToDatetime(UTC),
            )
    raise InvalidRequestError(f"pair.{side}.series_instance_uid", "the manifest does not list this series")
