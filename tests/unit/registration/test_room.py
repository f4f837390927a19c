"""Studies arrive; every pair is registered once and announced, with its object in the blob store."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_series import slices
from osler.common.v1 import common_pb2
from osler.events.v1 import events_pb2
from osler.ingest.v1 import ingest_pb2
from osler.registration.v1 import registration_pb2
from phantoms import phantom

from services.clinical.dicom.reg import read_reg
from services.clinical.dicom.series import load_series
from services.platform.blobs import BlobStore
from services.platform.config import Settings
from services.platform.database import Database, migrate
from services.platform.errors import RefusedError
from services.platform.events import Event, pack, unpack
from services.platform.rpc import NotFoundError
from services.registration import store
from services.registration.compute import LocalCompute, open_compute
from services.registration.deform import SETTINGS
from services.registration.geometry import distances, inverse, rigid
from services.registration.products import read_deformable
from services.registration.service import RegistrationService
from services.registration.worker import ROOM, Registrar, handlers

TRUTH = rigid((2, -3, 4), (5, -3, 4), (0, 0, 0))
PROBE = np.array([[x, y, z] for x in (-50, 50) for y in (-35, 35) for z in (-50, 50)], dtype=float)


class World:
    """One room on its own database and blobs, and a log of what it announced."""

    def __init__(self, folder: Path) -> None:
        self.database = Database(f"sqlite:///{folder}/osler.db")
        for room in ("platform", ROOM):
            migrate(self.database, room)
        self.blobs = BlobStore((folder / "blobs").as_uri())
        self.registrar = Registrar(self.database, self.blobs, LocalCompute(1))
        self.handle = handlers(self.registrar)
        self.service = RegistrationService(self.database, self.registrar)
        self.announced: list[Event] = []

    def store_study(
        self, uid: str, volumes, day: int = 1, revision: int = 1, key: str = "p" * 64
    ) -> common_pb2.BlobRef:
        manifest = ingest_pb2.StudyManifest(study_instance_uid=uid, patient_key=key, revision=revision)
        manifest.study_time.FromDatetime(datetime(2024, 1, day, tzinfo=UTC))
        for series, volume in volumes.items():
            entry = manifest.series.add(
                series_instance_uid=series,
                modality=volume.modality,
                frame_of_reference_uid=volume.frame_of_reference_uid,
            )
            for sop, sop_class, content in slices(volume, series, uid):
                entry.instances.add(
                    sop_instance_uid=sop, sop_class_uid=sop_class, content=self.blobs.put(content, "application/dicom")
                )
        return self.blobs.put(manifest.SerializeToString(deterministic=True), "application/protobuf")

    def receive(self, uid: str, manifest: common_pb2.BlobRef, revision: int = 1, key: str = "p" * 64) -> int:
        """Handles one StudyReceived; how many events it announced."""
        message = events_pb2.StudyReceived(
            patient_key=key, study_instance_uid=uid, revision=revision, manifest=manifest
        )
        event = pack(message, source="ingest", key=key, id=f"{uid}-{revision}", time=datetime(2024, 1, 9, tzinfo=UTC))
        effect = self.handle["osler.study.received.v1"](event, message)
        count = len(self.announced)
        world = self

        class Recording:
            def __init__(self, tx) -> None:
                self.session, self._tx = tx.session, tx

            def emit(self, event: Event) -> None:
                world.announced.append(event)
                self._tx.emit(event)

        with self.database.transaction(ROOM) as tx:
            effect(Recording(tx))
        return len(self.announced) - count


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return World(tmp_path_factory.mktemp("registration"))


@pytest.fixture(scope="module")
def first_visit(world: World) -> common_pb2.BlobRef:
    uniform = phantom("PT", seed=4)
    volumes = {
        "1.2.10": phantom("CT"),
        "1.2.11": phantom("MR", to_body=inverse(TRUTH), seed=2),
        "1.2.12": type(uniform)(
            **{**vars(uniform), "array": np.full_like(uniform.array, 1.0) + np.eye(*uniform.array.shape[1:])}
        ),
    }
    return world.store_study("1.2.1", volumes)


@pytest.fixture(scope="module")
def announced(world: World, first_visit) -> list[registration_pb2.Registration]:
    assert world.receive("1.2.1", first_visit) == 2
    return [unpack(event).registration for event in world.announced[:2]]


def test_each_pair_is_announced_refused_ones_too(announced) -> None:
    pairs = {(r.pair.fixed.series_instance_uid, r.pair.moving.series_instance_uid): r for r in announced}
    good = pairs["1.2.10", "1.2.11"]
    assert good.quality.verdict == registration_pb2.VERDICT_GOOD, good.quality
    matrix = np.array(good.transform.matrix).reshape(4, 4)
    assert distances(matrix, TRUTH, PROBE).max() < 1.0
    assert good.transform.rotation_deg == pytest.approx(np.sqrt(2**2 + 3**2 + 4**2), abs=0.5)
    refused = pairs["1.2.10", "1.2.12"]
    assert refused.refusal.reason == "registration.uniform_image"
    assert not refused.HasField("transform")
    assert not refused.HasField("spatial_registration")


def test_provenance_names_inputs_by_digest_and_holds_every_figure(announced) -> None:
    good = next(r for r in announced if r.HasField("transform"))
    assert {ref.id for ref in good.provenance.inputs} == {"1.2.10", "1.2.11"}
    assert all(len(ref.sha256) == 64 for ref in good.provenance.inputs)
    assert {"slip_mm", "prominence", "seed"} <= set(good.provenance.parameters)


def test_the_object_in_the_store_says_the_same_as_the_event(world: World, announced) -> None:
    good = next(r for r in announced if r.HasField("transform"))
    made = good.spatial_registration
    reg = pydicom.dcmread(BytesIO(world.blobs.get(made.content)))
    assert (reg.SOPInstanceUID, reg.StudyInstanceUID) == (made.sop_instance_uid, "1.2.1")
    found = read_reg(reg, ["1.2.10.1"], ["1.2.11.1"])
    assert found == pytest.approx(np.array(good.transform.matrix).reshape(4, 4), abs=1e-6)


def test_the_same_study_again_announces_nothing(world: World, first_visit, announced) -> None:
    assert world.receive("1.2.1", first_visit) == 0
    assert world.receive("1.2.1", first_visit, revision=2) == 0


def test_an_older_revision_after_a_newer_one_changes_nothing(world: World, first_visit, announced) -> None:
    world.receive("1.2.1", first_visit, revision=3)
    assert world.receive("1.2.1", first_visit, revision=1) == 0
    with world.database.session() as session:
        assert store.studies(session, "p" * 64)["1.2.1"][0] == 3


def test_a_second_visit_is_laid_over_the_first(world: World, first_visit, announced) -> None:
    later = world.store_study(
        "1.2.2", {"1.2.20": phantom("CT", to_body=inverse(TRUTH), seed=7, frame="1.2.77")}, day=20
    )
    assert world.receive("1.2.2", later) == 1
    registration = unpack(world.announced[-1]).registration
    assert registration.pair.purpose == registration_pb2.PAIR_PURPOSE_FOLLOW_UP
    matrix = np.array(registration.transform.matrix).reshape(4, 4)
    assert distances(matrix, inverse(TRUTH), PROBE).max() < 0.6


def test_a_manifest_of_another_study_is_refused(world: World, first_visit) -> None:
    with pytest.raises(RefusedError) as refused:
        world.receive("9.9.9", first_visit)
    assert refused.value.reason == "manifest.wrong_study"


def test_points_map_from_fixed_to_moving(world: World, announced) -> None:
    good = next(r for r in announced if r.HasField("transform"))
    point = registration_pb2.Point(x_mm=-28, y_mm=10, z_mm=-22)
    request = registration_pb2.MapPointsRequest(registration_id=good.registration_id, points=[point])
    (mapped,) = world.service.MapPoints(request, None).points
    expected = TRUTH @ np.array([-28, 10, -22, 1])
    assert [mapped.x_mm, mapped.y_mm, mapped.z_mm] == pytest.approx(expected[:3], abs=1.0)
    refused = next(r for r in announced if r.HasField("refusal"))
    with pytest.raises(RefusedError):
        world.service.MapPoints(registration_pb2.MapPointsRequest(registration_id=refused.registration_id), None)
    with pytest.raises(NotFoundError):
        world.service.MapPoints(registration_pb2.MapPointsRequest(registration_id="unknown"), None)


def test_the_moving_series_is_written_on_the_fixed_grid(world: World, first_visit, announced) -> None:
    good = next(r for r in announced if r.HasField("transform"))
    request = registration_pb2.ResampleRequest(
        registration_id=good.registration_id, fixed_manifest=first_visit, moving_manifest=first_visit
    )
    made = world.service.Resample(request, None).instances
    loaded = load_series([pydicom.dcmread(BytesIO(world.blobs.get(item.content))) for item in made])
    fixed = phantom("CT")
    assert loaded.affine_lps == pytest.approx(fixed.affine_lps)
    assert loaded.modality == "MR"
    inside = np.abs(loaded.array - 380) < 60  # muscle in MR lies where muscle lies in CT
    assert (inside & (np.abs(fixed.array - 55) < 60)).sum() > 0.7 * (np.abs(fixed.array - 55) < 60).sum()
    assert world.service.Resample(request, None).instances == made


def test_a_link_adds_up_uncertainty_over_its_steps(world: World, first_visit, announced) -> None:
    good = next(r for r in announced if r.HasField("transform"))
    ends = {"fixed_series_instance_uid": "1.2.11", "moving_series_instance_uid": "1.2.10"}
    found = world.service.Link(registration_pb2.LinkRequest(patient_key="p" * 64, **ends), None)
    assert np.reshape(found.matrix, (4, 4)) == pytest.approx(inverse(np.reshape(good.transform.matrix, (4, 4))))
    assert found.predicted_tre_mm == pytest.approx(good.quality.predicted_tre_mm)
    ends["moving_series_instance_uid"] = "1.2.12"  # refused: leads nowhere
    with pytest.raises(NotFoundError):
        world.service.Link(registration_pb2.LinkRequest(patient_key="p" * 64, **ends), None)


def test_registrations_of_a_patient_are_listed_and_follow_a_merge(world: World, announced) -> None:
    ids = {registration.registration_id for registration in announced}
    listed = world.service.GetRegistrations(registration_pb2.GetRegistrationsRequest(patient_key="p" * 64), None)
    assert ids <= {registration.registration_id for registration in listed.registrations}
    with world.database.transaction(ROOM) as tx:
        store.merge(tx.session, "q" * 64, "p" * 64)
    moved = world.service.GetRegistrations(registration_pb2.GetRegistrationsRequest(patient_key="q" * 64), None)
    assert len(moved.registrations) == len(listed.registrations)
    assert {registration.patient_key for registration in moved.registrations} == {"q" * 64}
    with world.database.transaction(ROOM) as tx:
        store.merge(tx.session, "p" * 64, "q" * 64)


def request_for(manifest, fixed: str, moving: str) -> registration_pb2.RegisterRequest:
    pair = registration_pb2.Pair(
        fixed=registration_pb2.SeriesRef(study_instance_uid="1.2.3", series_instance_uid=fixed),
        moving=registration_pb2.SeriesRef(study_instance_uid="1.2.3", series_instance_uid=moving),
    )
    return registration_pb2.RegisterRequest(fixed_manifest=manifest, moving_manifest=manifest, pair=pair)


async def test_register_streams_progress_and_ends_with_the_result(world: World) -> None:
    volumes = {"1.2.30": phantom("CT", seed=5), "1.2.31": phantom("MR", to_body=inverse(TRUTH), seed=6)}
    manifest = world.store_study("1.2.3", volumes, key="r" * 64)
    answers = [answer async for answer in world.service.Register(request_for(manifest, "1.2.30", "1.2.31"), None)]
    fractions = [answer.progress.fraction for answer in answers[:-1]]
    assert len(fractions) >= 5
    assert fractions == sorted(fractions)
    assert answers[-1].result.quality.verdict == registration_pb2.VERDICT_GOOD
    plan = world.service.Plan(registration_pb2.PlanRequest(manifests=[manifest]), None)
    assert [pair.moving.series_instance_uid for pair in plan.pairs] == ["1.2.31"]


async def test_a_deformation_is_stored_and_maps_points(world: World) -> None:
    levels, SETTINGS["levels"] = SETTINGS["levels"], SETTINGS["levels"][:2]
    volumes = {"1.2.60": phantom("CT", seed=5), "1.2.61": phantom("CT", to_body=inverse(TRUTH), seed=6)}
    manifest = world.store_study("1.2.3", volumes, key="v" * 64)
    request = request_for(manifest, "1.2.60", "1.2.61")
    request.method = registration_pb2.METHOD_DIFFEO
    answers = [answer async for answer in world.service.Register(request, None)]
    SETTINGS["levels"] = levels
    result = answers[-1].result
    assert not result.HasField("refusal"), result.refusal
    assert result.method == registration_pb2.METHOD_DIFFEO
    assert result.quality.deformation.folding_fraction == 0
    assert result.deformable_registration.sop_class_uid == "1.2.840.10008.5.1.4.1.1.66.3"
    point = registration_pb2.Point(x_mm=-28, y_mm=10, z_mm=-22)
    request = registration_pb2.MapPointsRequest(registration_id=result.registration_id, points=[point])
    (mapped,) = world.service.MapPoints(request, None).points
    stored = read_deformable(pydicom.dcmread(BytesIO(world.blobs.get(result.deformable_registration.content))))
    expected = stored.apply(np.array([[-28.0, 10, -22]]))[0]
    assert [mapped.x_mm, mapped.y_mm, mapped.z_mm] == pytest.approx(expected.tolist())
    # Noise in flat tissue bends the map by a few millimetres (docs/registration.md).
    assert np.linalg.norm(expected - (TRUTH @ np.array([-28, 10, -22, 1]))[:3]) < 5


async def test_a_cancelled_register_stops_and_keeps_nothing(world: World) -> None:
    volumes = {"1.2.40": phantom("CT", seed=8), "1.2.41": phantom("MR", to_body=inverse(TRUTH), seed=9)}
    manifest = world.store_study("1.2.3", volumes, key="s" * 64)
    stream = world.service.Register(request_for(manifest, "1.2.40", "1.2.41"), None)
    await anext(stream)
    await stream.aclose()
    await asyncio.sleep(1.0)
    with world.database.session() as session:
        assert store.of_patient(session, "s" * 64) == []


def test_series_of_two_patients_are_never_paired(world: World, first_visit) -> None:
    other = world.store_study("1.2.5", {"1.2.50": phantom("CT", seed=5)}, key="t" * 64)
    with pytest.raises(RefusedError) as refused:
        world.service.Plan(registration_pb2.PlanRequest(manifests=[first_visit, other]), None)
    assert refused.value.reason == "registration.different_patients"


def test_local_compute_is_the_default(tmp_path: Path) -> None:
    assert isinstance(open_compute(Settings.load(home=tmp_path)), LocalCompute)
