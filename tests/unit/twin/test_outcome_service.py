"""`OutcomeService` over real gRPC: the answer of the library and of the command line; refusals with their reason."""

from __future__ import annotations

import json

import grpc
import numpy as np
import pytest
from osler.common.v1.common_pb2 import BlobRef
from osler.twin.v1 import outcomes_pb2 as pb
from osler.twin.v1 import outcomes_pb2_grpc
from osler.twin.v1.calculators_pb2 import GivenInput
from typer.testing import CliRunner

from services.cli import app
from services.platform import rpc
from services.platform.blobs import BlobStore
from services.platform.config import REPOSITORY, Settings
from services.platform.errors import RefusedError
from services.platform.security import Security
from services.twin import glioma_case, nifti, outcomes
from services.twin.nifti import Volume
from services.twin.survival import load, predict

MODELS = REPOSITORY / "models"
PBC = {"age_years": 55.0, "sex_male": 0.0, "bilirubin_mg_dl": 2.4}
PLAN = glioma_case.Plan(45, glioma_case.Fractions(10, 3.0, 0.0), 0.0, draws=4)


@pytest.fixture
def blobs(tmp_path):
    return BlobStore((tmp_path / "blobs").as_uri())


@pytest.fixture
async def service(tmp_path, blobs):
    settings = Settings.load(None, home=tmp_path)
    security = Security.from_settings(settings)
    door = outcomes.door(MODELS, blobs)
    server = await rpc.serve([door], settings=settings, security=security, address="127.0.0.1:0")
    async with rpc.channel(server.address, settings, lambda: security.issue("dr-a", ["clinician"])) as channel:
        yield outcomes_pb2_grpc.OutcomeServiceStub(channel)
    await server.stop(0)


@pytest.fixture(scope="module")
def maps():
    """A ball of white matter with a tumour now and sixty days ago, and its uptake, on voxels of 3 mm."""
    place = (np.indices((20, 20, 20)) - 10) * 3.0
    brain = np.sqrt((place**2).sum(axis=0))
    tumour = np.sqrt(((place - np.array([0, 0, -9.0])[:, None, None, None]) ** 2).sum(axis=0))
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    voxels = {
        "tissue": np.where(brain < 27, 3, 0).astype(np.int16),
        "now": np.select([tumour < 9, tumour < 15], [4, 2], 0).astype(np.int16),
        "before": np.select([tumour < 6.5, tumour < 12.5], [4, 2], 0).astype(np.int16),
        "suv": np.where(tumour < 9, 9.0 - 0.3 * tumour, 1.0).astype(np.float32),
    }
    return {name: Volume(values, affine) for name, values in voxels.items()}


@pytest.fixture
def stored(maps, blobs):
    return {name: blobs.put(nifti.write(one), nifti.MEDIA_TYPE, f"{name}.nii.gz") for name, one in maps.items()}


def command(*arguments):
    result = CliRunner().invoke(app, ["twin", *map(str, arguments), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def _inputs(values):
    return [GivenInput(name=name, value=value) for name, value in values.items()]


async def test_survival_is_one_answer_through_every_door(service):
    answer = await service.PredictOutcome(
        pb.PredictOutcomeRequest(model="pbc-transplant-free-survival", inputs=_inputs(PBC), horizons_days=[365, 1826])
    )
    library = predict(load(MODELS / "pbc-transplant-free-survival"), PBC, [365, 1826])
    asked = [part for name, value in PBC.items() for part in ("-i", f"{name}={value}")]
    told = command("outcome", "pbc-transplant-free-survival", *asked, "--horizon", 365, "--horizon", 1826)
    expected = [(risk.horizon_days, risk.value, risk.lower, risk.upper) for risk in library.risks]
    assert [(r["horizon_days"], r["value"], r["lower"], r["upper"]) for r in told["risks"]] == expected
    over_grpc = [(one.horizon_days, one.risk.value, one.risk.uncertainty.interval) for one in answer.risks]
    assert [(day, value, span.lower, span.upper) for day, value, span in over_grpc] == expected
    drivers = [(one.name, one.contribution, one.risk_if_typical) for one in library.drivers]
    assert [(one.input, one.contribution, one.risk_if_typical) for one in answer.drivers] == drivers
    assert list(answer.cautions) == told["cautions"] == list(library.cautions)
    assert answer.provenance.parameters["coefficients_sha256"]


async def test_metastasis_is_read_off_a_pet_by_reference(service, stored, maps, tmp_path):
    """A unit of 1/1000 mL for the volume, given beside the PET, stands before what the outline measures."""
    request = pb.PredictOutcomeRequest(model="sarcoma-lung-metastasis", pet=stored["suv"], outline=stored["now"])
    answer = await service.PredictOutcome(request)
    (risk,) = answer.risks
    for name in ("suv", "now"):
        (tmp_path / f"{name}.nii.gz").write_bytes(nifti.write(maps[name]))
    files = ["--pet", tmp_path / "suv.nii.gz", "--outline", tmp_path / "now.nii.gz"]
    (told,) = command("outcome", "sarcoma-lung-metastasis", *files)["risks"]
    assert not risk.HasField("horizon_days")
    assert risk.risk.value == told["value"]
    assert [one.sha256 for one in answer.provenance.inputs] == [stored["suv"].sha256, stored["now"].sha256]
    request.inputs.add(name="volume_ml", value=5e5, unit="uL")
    larger = {one.input: one.value for one in (await service.PredictOutcome(request)).drivers}
    assert larger.get("volume_ml", 500.0) == pytest.approx(500.0)


async def test_a_glioma_is_one_answer_through_every_door(service, blobs, stored, maps, tmp_path):
    request = pb.SimulateGliomaRequest(tissue=stored["tissue"], tumour=stored["now"], horizon_days=45, draws=4)
    request.earlier.add(days_before=60, tumour=stored["before"])
    request.radiotherapy.MergeFrom(pb.GliomaRadiotherapy(fractions=10, dose_per_fraction_gy=3))
    request.resection_day = 0
    answer = await service.SimulateGlioma(request, timeout=120)
    library = glioma_case.simulate(maps["tissue"], maps["now"], [glioma_case.earlier_visit(60, maps["before"])], PLAN)
    for name in ("tissue", "now", "before"):
        (tmp_path / f"{name}.nii.gz").write_bytes(nifti.write(maps[name]))
    given = ["--tissue", tmp_path / "tissue.nii.gz", "--tumour", tmp_path / "now.nii.gz"]
    given += ["--earlier", f"60={tmp_path / 'before.nii.gz'}", "--radiotherapy", "10x3@0", "--resect", 0]
    told = command("glioma", *given, "--horizon", 45, "--draws", 4)
    assert [course.name for course in answer.courses] == list(told["courses"]) == ["untreated", "planned"]
    for course in answer.courses:
        expected = [band["median_mm3"] for band in library.courses[course.name].bands("flair")]
        assert [point.median_mm3 for point in course.flair] == expected
        assert [point["median_mm3"] for point in told["courses"][course.name]["flair"]] == expected
        density = nifti.read(blobs.get(course.density))
        np.testing.assert_array_equal(density.voxels, library.courses[course.name].mean_density)
    rates = {rate.name: rate.median for rate in answer.rates}
    assert rates == {name: one["median"] for name, one in told["rates"].items()}
    assert answer.probability_smaller_if_treated == told["probability_smaller_if_treated"] == 1.0


async def test_the_models_are_listed_with_what_the_data_did_not_allow(service):
    found = {one.name: one for one in (await service.ListOutcomeModels(pb.ListOutcomeModelsRequest())).models}
    assert found["colorectal-progression"].status == "not shipped"
    assert not found["colorectal-progression"].inputs
    assert {one.name for one in found["sarcoma-lung-metastasis"].inputs} >= {"suv_max"}
    assert [one["name"] for one in command("outcome")] == list(found)


async def test_refusals_keep_their_reason(service, stored):
    elsewhere = BlobRef(uri="file:///etc/hostname", sha256="0" * 64)
    model = "pbc-transplant-free-survival"
    sarcoma = "sarcoma-lung-metastasis"
    short = pb.EarlierVisit(days_before=60, volumes=pb.OutlinedVolumes(t1gd_mm3=9e6))
    twice = [*_inputs(PBC), GivenInput(name="age_years", value=60)]
    grams = [*_inputs(PBC), GivenInput(name="albumin_g_dl", value=35)]
    bad = [
        ("PredictOutcome", pb.PredictOutcomeRequest(model="../models"), "survival.unknown_model"),
        ("PredictOutcome", pb.PredictOutcomeRequest(model="colorectal-survival-of"), "survival.unknown_model"),
        ("PredictOutcome", pb.PredictOutcomeRequest(model="colorectal-progression"), "survival.not_shipped"),
        ("PredictOutcome", pb.PredictOutcomeRequest(model=model), "survival.missing_input"),
        ("PredictOutcome", pb.PredictOutcomeRequest(model=model, inputs=twice), "survival.contradictory_input"),
        ("PredictOutcome", pb.PredictOutcomeRequest(model=model, inputs=grams), "survival.implausible_input"),
        ("PredictOutcome", pb.PredictOutcomeRequest(model=sarcoma, pet=stored["suv"]), "pet.no_outline"),
        (
            "PredictOutcome",
            pb.PredictOutcomeRequest(model=sarcoma, pet=elsewhere, outline=elsewhere),
            "blob.outside_store",
        ),
        (
            "SimulateGlioma",
            pb.SimulateGliomaRequest(tissue=stored["tissue"], tumour=stored["now"], earlier=[short]),
            "glioma.shrank",
        ),
    ]
    for call, request, reason in bad:
        with pytest.raises(grpc.RpcError) as error:
            await getattr(service, call)(request)
        assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION, reason
        assert rpc.details_of(error.value).reason == reason


async def test_a_deadline_stops_the_work_between_runs(service, stored):
    request = pb.SimulateGliomaRequest(tissue=stored["tissue"], tumour=stored["now"], horizon_days=1000, draws=200)
    request.earlier.add(days_before=60, tumour=stored["before"])
    with pytest.raises(grpc.RpcError) as error:
        await service.SimulateGlioma(request, timeout=0.5)
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize(
    "content", [b"", b"no image", b"\x1f\x8bnot gzip", nifti.write(Volume(np.zeros((3, 3, 3)), np.eye(4)))[:-40]]
)
def test_a_damaged_image_is_refused(content):
    with pytest.raises(RefusedError) as refusal:
        nifti.read(content)
    assert refusal.value.reason == "twin.unreadable_image"


def test_an_image_survives_the_way_out_and_back():
    affine = np.array([[-1.0, 0, 0, 90], [0, -1.0, 0, 120], [0, 0, 2.0, -70], [0, 0, 0, 1.0]])
    volume = Volume(np.arange(60, dtype=np.float32).reshape(3, 4, 5), affine)
    back = nifti.read(nifti.write(volume))
    np.testing.assert_array_equal(back.voxels, volume.voxels)
    np.testing.assert_allclose(back.affine, affine)
    assert back.spacing_mm == (2.0, 1.0, 1.0)
    assert nifti.write(volume) == nifti.write(volume)
