"""`osler models` and `osler infer` on the command line, and the same over gRPC on a real server."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
import time
import zipfile

import grpc
import nibabel
import numpy as np
import pydicom
import pytest
from osler.imaging.v1 import imaging_pb2, imaging_pb2_grpc
from typer.testing import CliRunner

from services.cli import app
from services.clinical import codes
from services.clinical.dicom.seg import read_segmentation
from services.clinical.dicom.series import load_series
from services.imaging.compute import LocalCompute
from services.imaging.host.files import lps_of
from services.imaging.host.registry import registry_of
from services.imaging.service import ImagingService
from services.platform import rpc
from services.platform.blobs import BlobStore
from services.platform.config import Models, Settings
from services.platform.errors import OslerError, RefusedError
from services.platform.security import Security
from tests.unit.imaging.bundle_samples import AFFINE, BOX_MM3, BOX_VOXELS, INFERENCE, bright_box, write_bundle
from tests.unit.imaging.dicom_samples import STUDY_UID, make_series, manifest_of

RUN = CliRunner()
IMAGING = imaging_pb2.DESCRIPTOR.services_by_name["ImagingService"].full_name


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """An installation to which the test package was added from a zip."""
    root = tmp_path_factory.mktemp("installation")
    folder = write_bundle(root / "made" / "bright", sealed=False)
    archive = root / "bright.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        for file in folder.rglob("*"):
            zipped.write(file, file.relative_to(folder.parent))
    result = RUN.invoke(app, ["--home", str(root / "home"), "models", "add", str(archive)])
    assert result.exit_code == 0, result.output
    assert "Apache-2.0" in result.output
    return root / "home"


def run_json(home, *arguments):
    result = RUN.invoke(app, ["--home", str(home), *arguments, "--json"])
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.stdout)


def nifti(path, values=None):
    array = bright_box().array if values is None else values
    nibabel.save(nibabel.Nifti1Image(array.transpose(2, 1, 0), lps_of(AFFINE)), path)
    return path


def dicom(folder, modality="CT"):
    """The bright box, 1000 units bright, on an axial grid of 1 x 1 x 2 mm."""
    folder.mkdir(parents=True)
    values = np.zeros((20, 24, 28))
    values[3:9, 5:16, 10:23] = 1
    datasets = make_series(values * 1000, modality=modality, name=f"box {modality}")
    for number, dataset in enumerate(datasets):
        dataset.save_as(folder / f"{number:03d}.dcm", enforce_file_format=True)
    return datasets


class TestModels:
    def test_list_and_show(self, home):
        rows = {row["name"]: row for row in run_json(home, "models", "list")}
        assert rows["bright"]["state"] == "sealed"
        assert {"hippocampus", "sarcoma-lung-metastasis"} <= set(rows)
        card = run_json(home, "models", "show", "bright")
        assert (card["task"], card["licence"]) == ("What is brighter than one half", "Apache-2.0")
        assert "A test package" in RUN.invoke(app, ["--home", str(home), "models", "show", "bright"]).output

    def test_verify(self, home):
        assert all(row["passed"] for row in run_json(home, "models", "verify", "bright"))

    def test_the_catalogue(self, home):
        assert "spleen_ct_segmentation" in {row["name"] for row in run_json(home, "models", "list", "--catalog")}

    def test_a_tampered_model_fails_the_command(self, home, tmp_path):
        folder = write_bundle(tmp_path / "home" / "models" / "tampered")
        with (folder / "models" / "model.pt").open("ab") as file:
            file.write(b"more")
        result = RUN.invoke(app, ["--home", str(tmp_path / "home"), "models", "verify", "tampered"])
        assert result.exit_code == 1
        assert isinstance(result.exception, OslerError)

    def test_seal_and_remove(self, tmp_path):
        folder = write_bundle(tmp_path / "made" / "mine", sealed=False)
        sealed = run_json(tmp_path / "home", "models", "seal", str(folder), "--origin", "a test")
        assert sealed["source"] == "a test"
        assert sealed["warm_up"]["shape"] == [1, 1, 16, 16, 16]
        run_json(tmp_path / "home", "models", "add", str(folder))
        assert RUN.invoke(app, ["--home", str(tmp_path / "home"), "models", "remove", "mine"]).exit_code == 0
        assert "mine" not in {row["name"] for row in run_json(tmp_path / "home", "models", "list")}


class TestCommand:
    def test_a_nifti_file(self, home, tmp_path):
        (run,) = run_json(home, "infer", "bright", str(nifti(tmp_path / "in.nii.gz")), "--out", str(tmp_path / "out"))[
            "runs"
        ]
        assert run["measurements"][0]["value"] == pytest.approx(BOX_MM3, rel=1e-4)
        image = nibabel.load(tmp_path / "out" / "01" / "mask_bright.nii.gz")
        np.testing.assert_allclose(image.affine, lps_of(AFFINE), atol=1e-4)
        assert image.get_fdata().sum() == BOX_VOXELS
        assert any("no modality" in caution for caution in run["cautions"])

    def test_a_dicom_folder_gives_dicom(self, home, tmp_path):
        datasets = dicom(tmp_path / "study" / "ct")
        dicom(tmp_path / "study" / "mr", "MR")
        answer = run_json(home, "infer", "bright", str(tmp_path / "study"), "--out", str(tmp_path / "out"))
        (run,) = answer["runs"]  # the MR series does not fit and is left out
        assert run["measurements"][0]["value"] == pytest.approx(BOX_VOXELS * 2.0)
        volume = load_series(datasets)
        (region,) = read_segmentation(pydicom.dcmread(tmp_path / "out" / "01" / "SEG.dcm"), volume)
        assert region.mask.sum() == BOX_VOXELS
        report = pydicom.dcmread(tmp_path / "out" / "01" / "SR.dcm")
        assert str(report.SOPClassUID).startswith("1.2.840.10008.5.1.4.1.1.88")
        assert report.StudyInstanceUID == STUDY_UID

    def test_a_study_of_the_archive_by_its_uid(self, home, tmp_path):
        dicom(tmp_path / "study")
        stored = RUN.invoke(app, ["--home", str(home), "import", str(tmp_path / "study")])
        assert stored.exit_code == 0, stored.output
        (run,) = run_json(home, "infer", "bright", STUDY_UID, "--out", str(tmp_path / "out"))["runs"]
        assert run["measurements"][0]["value"] == pytest.approx(BOX_VOXELS * 2.0)

    @pytest.mark.parametrize(
        ("content", "words"),
        [(b"nothing", "NIfTI"), (gzip.compress(b"x" * 400, mtime=0), "NIfTI")],
    )
    def test_a_broken_file_is_refused(self, home, tmp_path, content, words):
        (tmp_path / "in.nii.gz").write_bytes(content)
        arguments = ["infer", "bright", str(tmp_path / "in.nii.gz"), "--out", str(tmp_path / "out")]
        result = RUN.invoke(app, ["--home", str(home), *arguments])
        assert result.exit_code == 1
        assert isinstance(result.exception, RefusedError)
        assert words in str(result.exception)

    def test_a_series_with_a_value_that_is_none(self, home, tmp_path):
        values = bright_box().array.copy()
        values[0, 0, 0] = np.nan
        arguments = ["infer", "bright", str(nifti(tmp_path / "in.nii.gz", values)), "--out", str(tmp_path / "out")]
        result = RUN.invoke(app, ["--home", str(home), *arguments])
        assert result.exit_code == 1
        assert "model.input_not_finite" in result.output
        assert not (tmp_path / "out" / "01").exists()

    def test_an_unknown_model_and_an_unknown_study(self, home, tmp_path):
        for arguments in (["nothing", str(tmp_path)], ["bright", "1.2.3.4"]):
            result = RUN.invoke(app, ["--home", str(home), "infer", *arguments, "--out", str(tmp_path / "out")])
            assert isinstance(result.exception, OslerError)


class Server:
    """The room's servicer behind a real gRPC server."""

    def __init__(self, home, **models):
        slow = {
            **INFERENCE,
            "inferer": {**INFERENCE["inferer"], "roi_size": [8, 8, 8], "overlap": 0.9, "sw_batch_size": 1},
        }
        write_bundle(home / "models" / "bright")
        write_bundle(home / "models" / "slow", inference=slow)
        self.settings = Settings(home=home, models=Models(path=home / "none", **models))
        self.blobs = BlobStore(f"file://{home}/blobs")
        self.compute = LocalCompute(self.settings)
        registry = registry_of(self.settings)
        self.servicer = ImagingService(None, None, self.compute, registry, self.blobs)
        self.security = Security(self.settings)

    async def start(self):
        def add(server):
            imaging_pb2_grpc.add_ImagingServiceServicer_to_server(self.servicer, server)

        self.server = await rpc.serve(
            [(IMAGING, add)], settings=self.settings, security=self.security, address="127.0.0.1:0"
        )
        token = self.security.issue("dr-a", ["clinician"])
        self.channel = rpc.channel(self.server.address, self.settings, lambda: token)
        self.stub = imaging_pb2_grpc.ImagingServiceStub(self.channel)
        return self

    def request(self, model="bright"):
        datasets = make_series((bright_box().array > 0.5) * 1000.0, name="box")
        manifest = manifest_of(datasets, self.blobs)
        blob = self.blobs.put(manifest.SerializeToString(deterministic=True), "application/protobuf", "manifest")
        series = imaging_pb2.StoredSeries(manifest=blob, series_instance_uid=str(datasets[0].SeriesInstanceUID))
        return imaging_pb2.InferRequest(model=model, inputs=[imaging_pb2.ModelInput(series=series)])


@pytest.fixture
async def server(tmp_path):
    made = await Server(tmp_path).start()
    yield made
    await made.channel.close()
    await made.server.stop(0)


async def failure(call):
    with pytest.raises(grpc.RpcError) as error:
        await call
    return rpc.details_of(error.value)


class TestGrpc:
    async def test_infer(self, server):
        answer = await server.stub.Infer(server.request())
        (item,) = answer.measurements
        assert (item.region, item.measurement.value.value) == ("bright", pytest.approx(BOX_VOXELS * 2.0))
        assert codes.VOLUME.matches(item.measurement.concept)
        image = nibabel.Nifti1Image.from_bytes(gzip.decompress(server.blobs.get(answer.masks[0].content)))
        assert np.asarray(image.dataobj).sum() == BOX_VOXELS
        assert answer.provenance.method == "bright@1.2.0"
        assert len(answer.provenance.parameters["weights_sha256"]) == 64

    async def test_a_nifti_blob(self, server, tmp_path):
        path = nifti(tmp_path / "in.nii.gz")
        blob = server.blobs.put(path.read_bytes(), "application/gzip", "in.nii.gz")
        request = imaging_pb2.InferRequest(model="bright", inputs=[imaging_pb2.ModelInput(nifti=blob)])
        answer = await server.stub.Infer(request)
        assert answer.measurements[0].measurement.value.value == pytest.approx(BOX_MM3, rel=1e-4)

    async def test_the_stream_tells_its_progress(self, server):
        request = imaging_pb2.InferStreamRequest(infer=server.request("slow"))
        seen = [message async for message in server.stub.InferStream(request)]
        steps = [(message.progress.done, message.progress.total) for message in seen[:-1]]
        assert steps == sorted(steps, key=lambda step: step[0])
        assert steps[-1][1] > 100
        assert seen[-1].result.measurements[0].measurement.value.value == pytest.approx(BOX_VOXELS * 2.0)

    async def test_what_is_asked_wrongly(self, server):
        unknown = server.request("nothing")
        assert (await failure(server.stub.Infer(unknown))).code is grpc.StatusCode.NOT_FOUND
        role = server.request()
        role.inputs[0].role = "t2"
        assert (await failure(server.stub.Infer(role))).code is grpc.StatusCode.INVALID_ARGUMENT
        parameter = server.request()
        parameter.parameters["threshold"] = "3"
        assert (await failure(server.stub.Infer(parameter))).code is grpc.StatusCode.INVALID_ARGUMENT

    async def test_a_refusal_keeps_its_reason(self, server):
        datasets = make_series(np.ones((4, 8, 8)), modality="MR", name="mr")
        manifest = manifest_of(datasets, server.blobs)
        blob = server.blobs.put(manifest.SerializeToString(deterministic=True), "application/protobuf", "mr")
        series = imaging_pb2.StoredSeries(manifest=blob, series_instance_uid=str(datasets[0].SeriesInstanceUID))
        request = imaging_pb2.InferRequest(model="bright", inputs=[imaging_pb2.ModelInput(series=series)])
        told = await failure(server.stub.Infer(request))
        assert (told.code, told.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "model.wrong_modality")

    async def test_the_deadline_reaches_the_model(self, server):
        await server.stub.Infer(server.request("slow"))
        began = time.perf_counter()
        told = await failure(server.stub.Infer(server.request("slow"), timeout=0.1))
        assert told.code is grpc.StatusCode.DEADLINE_EXCEEDED
        # The model has stopped, or it would hold the lock for the whole run.
        assert (await server.stub.Infer(server.request("bright"))).masks
        assert time.perf_counter() - began < 5

    async def test_a_cancelled_call_stops_the_model(self, server):
        stopped, run = threading.Event(), server.compute.run

        def watched(name, inputs, call):
            try:
                return run(name, inputs, call)
            except BaseException:
                stopped.set()
                raise

        server.compute.run = watched
        stream = server.stub.InferStream(imaging_pb2.InferStreamRequest(infer=server.request("slow")))
        await stream.read()
        stream.cancel()
        assert await _wait(stopped)

    async def test_explain(self, server):
        asked = server.request()
        request = imaging_pb2.ExplainFindingRequest(model="bright", inputs=asked.inputs, target=1)
        answer = await server.stub.ExplainFinding(request)
        image = nibabel.Nifti1Image.from_bytes(gzip.decompress(server.blobs.get(answer.saliency.content)))
        # The map lies on the preprocessed grid, whose axes run to Right, Anterior, Superior.
        found = np.asarray(image.dataobj).transpose(2, 1, 0)[:, ::-1, ::-1]
        truth = bright_box().array > 0.5
        # The score is linear in the image: all of it rests on the bright voxels.
        assert found[truth].min() == pytest.approx(1, rel=1e-4)
        assert found[~truth].max() < 1e-4
        assert "integrated gradients" in answer.method

    async def test_list_models(self, server):
        write_bundle(server.settings.home / "models" / "broken", metadata={"version": ""})
        models = {model.name: model for model in (await server.stub.ListModels(imaging_pb2.ListModelsRequest())).models}
        assert models["bright"].kind == imaging_pb2.MODEL_KIND_LEARNED
        assert (models["bright"].state, list(models["bright"].modalities)) == ("ready", ["CT"])
        assert models["broken"].state.startswith("broken: ")


async def _wait(event, seconds=5.0):
    return await asyncio.to_thread(event.wait, seconds)


async def test_overload_says_when_to_try_again(tmp_path):
    """One call runs, one may wait, the third is told."""
    server = await Server(tmp_path, max_queued=1).start()
    try:
        running = server.stub.InferStream(imaging_pb2.InferStreamRequest(infer=server.request("slow")))
        await running.read()
        waiting = server.stub.InferStream(imaging_pb2.InferStreamRequest(infer=server.request("slow")))
        called = asyncio.ensure_future(waiting.read())
        await asyncio.sleep(0.2)
        told = await failure(server.stub.Infer(server.request(), timeout=1))
        running.cancel()
        # The one that waited gets its turn.
        assert (await called).progress.total
        waiting.cancel()
    finally:
        await server.channel.close()
        await server.server.stop(0)
    assert (told.code, told.retry_after_s) == (grpc.StatusCode.RESOURCE_EXHAUSTED, 2.0)
