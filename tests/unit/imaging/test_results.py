"""What imaging hands on, read back by other people's tools: dcmqi, dcmtk, SimpleITK, fhir.resources, dicom-validator."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from fhir.resources.R4B.bundle import Bundle
from osler.events.v1 import events_pb2
from osler.imaging.v1 import imaging_pb2
from osler.ingest.v1 import ingest_pb2

from services.clinical import codes
from services.clinical.dicom.derived import tracking_uid
from services.clinical.dicom.series import inspect_series, load_series
from services.compose import fhir_export
from services.compose.case import PatientCase
from services.imaging.findings import Interval, MeasuredRegion, Value, to_finding
from services.imaging.objects import make_key_images, make_map, make_objects
from services.imaging.results.key_images import key_slices
from services.imaging.results.parametric_map import PADDING, ValueMap
from services.ingest.dicom_file import read_header
from services.platform.blobs import open_blobs
from services.platform.config import Settings
from services.platform.errors import RefusedError
from tests.peers import require_or_skip
from tests.unit.imaging.dicom_samples import make_series

MADE = datetime(2024, 3, 1, 12, tzinfo=UTC)
TURNED = (0.96, 0.28, 0, -0.28, 0.96, 0)


def tool(name, how):
    """A command line tool beside this interpreter or on the path."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    return found or require_or_skip(f"no {name}: {how}")


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-1500:]
    return done


@pytest.fixture(scope="module")
def series():
    values = np.random.default_rng(0).integers(0, 900, (8, 20, 24)).astype(float)
    return make_series(values, orientation=TURNED, spacing=(0.8, 0.7, 2.5), Manufacturer="Synthetic")


@pytest.fixture(scope="module")
def volume(series):
    return load_series(series)


@pytest.fixture(scope="module")
def frames(series):
    return inspect_series(series)[0].frames


def region(name, mask, *values):
    return MeasuredRegion(
        mask=mask,
        kind=imaging_pb2.FINDING_KIND_LESION,
        finding_type=codes.NEOPLASM,
        tracking_id=name,
        tracking_uid=tracking_uid("key", name),
        values=values,
        method="lesion-size@1",
        site=codes.LIVER,
        algorithm=("threshold", "1"),
    )


@pytest.fixture(scope="module")
def regions():
    first, second = np.zeros((2, 8, 20, 24), bool)
    first[2:5, 4:9, 6:12] = True
    first[3, 3:10, 6:12] = True
    second[4:7, 8:12, 10:15] = True
    size = Value(codes.LONG_AXIS, 31.25, codes.UNIT_MM, "contour", Interval(29, 33, 0.95))
    volume_ = Value(codes.VOLUME, 1250.0, codes.UNIT_MM3, "contour", "not estimated")
    return region("Lesion 1", first, size, volume_), region("Lesion 2", second, volume_)


def stored(made, folder, name):
    path = folder / name
    path.write_bytes(made.content)
    return path


def test_dcmqi_reads_the_segmentation_as_it_was_made(frames, volume, regions, tmp_path):
    """dcmqi writes each segment as an image: same voxels, same place."""
    segmentation, _ = make_objects(frames, volume, regions, 1, MADE)
    path = stored(segmentation, tmp_path, "seg.dcm")
    command = tool("segimage2itkimage", "pip install dcmqi")
    run(command, "--inputDICOM", path, "--outputDirectory", tmp_path, "-t", "nrrd", "-p", "out")
    for number, made in enumerate(regions, start=1):
        image = sitk.ReadImage(str(tmp_path / f"out-{number}.nrrd"))
        for index in np.argwhere(sitk.GetArrayFromImage(image)):
            point = image.TransformIndexToPhysicalPoint([int(v) for v in index[::-1]])
            place = np.linalg.inv(volume.affine_lps) @ [*point, 1]
            k = np.rint(place[:3]).astype(int)
            assert np.abs(place[:3] - k).max() < 1e-3
            assert made.mask[k[2], k[1], k[0]]
        assert int((sitk.GetArrayFromImage(image) > 0).sum()) == int(made.mask.sum())
    described = json.loads((tmp_path / "out-meta.json").read_text())
    assert [s[0]["TrackingIdentifier"] for s in described["segmentAttributes"]] == ["Lesion 1", "Lesion 2"]


def test_dcmqi_reads_the_measurements(frames, volume, regions, tmp_path):
    _, report = make_objects(frames, volume, regions, 1, MADE)
    path = stored(report, tmp_path, "sr.dcm")
    out = tmp_path / "sr.json"
    run(tool("tid1500reader", "pip install dcmqi"), "--inputDICOM", path, "--outputMetadata", out)
    groups = json.loads(out.read_text())["Measurements"]
    assert [group["TrackingIdentifier"] for group in groups] == ["Lesion 1", "Lesion 2"]
    assert groups[0]["TrackingUniqueIdentifier"] == tracking_uid("key", "Lesion 1")
    assert groups[0]["Finding"]["CodeValue"] == "108369006"
    items = {item["quantity"]["CodeValue"]: item for item in groups[0]["measurementItems"]}
    assert float(items["103339001"]["value"]) == 31.25
    assert items["118565006"]["units"]["CodeValue"] == "mm3"


def heat(volume):
    k, j, i = np.indices(volume.array.shape)
    values = (100 * k + 10 * j + i / 7).astype(np.float32)
    values[:, 0, :] = np.nan
    quantity = codes.Concept(codes.OSLER_MEASUREMENT, "saliency", "Saliency")
    return ValueMap(values, quantity, "1", "saliency", "Attribution of the model's answer to each voxel")


def test_dcmqi_reads_the_parametric_map(frames, volume, tmp_path):
    made = heat(volume)
    path = stored(make_map(frames, volume, made, 1, MADE), tmp_path, "map.dcm")
    run(
        tool("paramap2itkimage", "pip install dcmqi"),
        *("--inputDICOM", path, "--outputDirectory", tmp_path, "-t", "nrrd"),
    )
    image = sitk.ReadImage(str(next(tmp_path.glob("*.nrrd"))))
    array = sitk.GetArrayFromImage(image)
    assert array.shape == made.values.shape
    for index in ((0, 0, 3, 0), (7, 19, 23, 5)):
        k, j, i = index[0], index[1], index[2]
        point = (volume.affine_lps @ [i, j, k, 1])[:3]
        there = image.TransformPhysicalPointToIndex([float(v) for v in point])
        expected = made.values[k, j, i]
        assert array[there[2], there[1], there[0]] == pytest.approx(PADDING if np.isnan(expected) else expected)


def test_parametric_map_keeps_values_units_and_what_is_not_known(frames, volume):
    made = heat(volume)
    first, again = (make_map(frames[::1], volume, made, 1, MADE) for _ in range(2))
    assert first.content == again.content
    dataset = pydicom.dcmread(BytesIO(first.content))
    values = load_series([dataset]).array
    known = np.isfinite(made.values)
    np.testing.assert_array_equal(values[known], made.values[known])
    assert set(np.unique(values[~known])) == {np.float32(dataset.FloatPixelPaddingValue)}
    mapping = dataset.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "1"
    assert mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0].CodeMeaning == "Saliency"
    assert dataset.FrameOfReferenceUID == volume.frame_of_reference_uid


def test_maps_that_fit_nothing_are_refused(frames, volume):
    made = heat(volume)
    for values, reason in ((made.values[:3], "map.wrong_grid"), (made.values * np.nan, "map.no_values")):
        wrong = ValueMap(values, made.quantity, made.unit, made.label, made.explanation)
        with pytest.raises(RefusedError) as caught:
            make_map(frames, volume, wrong, 1, MADE)
        assert caught.value.reason == reason


def test_key_slices_are_those_that_show_most(regions):
    assert key_slices([made.mask for made in regions]) == (3, 5)
    assert key_slices([np.zeros((2, 3, 3), bool)]) == ()
    assert key_slices([regions[1].mask, regions[1].mask]) == (5,)


def test_key_images_name_the_slices(frames, volume, regions):
    made = make_key_images(frames, volume, regions, 1, MADE)
    dataset = pydicom.dcmread(BytesIO(made.content))
    assert (dataset.Modality, dataset.ConceptNameCodeSequence[0].CodeValue) == ("KO", "113000")
    named = {
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in dataset.ContentSequence
        if item.ValueType == "IMAGE"
    }
    assert named == {volume.sop_instance_uids[3], volume.sop_instance_uids[5]}
    with pytest.raises(RefusedError, match="no slice"):
        make_key_images(frames, volume, [], 1, MADE)


@pytest.mark.dcmtk
def test_dcmtk_reads_reports_and_key_images(frames, volume, regions, tmp_path):
    command = tool("dsrdump", "apt-get install dcmtk")
    _, report = make_objects(frames, volume, regions, 1, MADE)
    for made, title in (
        (report, "Comprehensive 3D SR Document"),
        (make_key_images(frames, volume, regions, 1, MADE), "Key Object Selection Document"),
    ):
        done = run(command, stored(made, tmp_path, "document.dcm"))
        assert title in done.stdout
        # dcmtk does not know the template of key object selections, and says so.
        assert done.stderr.replace("W: Check for template constraints not yet supported\n", "") == ""


def objects_of(frames, volume, regions):
    return [
        *make_objects(frames, volume, regions, 1, MADE),
        make_map(frames, volume, heat(volume), 1, MADE),
        make_key_images(frames, volume, regions, 1, MADE),
    ]


def test_objects_stay_with_the_patient_of_their_images(series, regions):
    """The archive files an object under the record number and whose number that is."""
    issued = copy.deepcopy(series)
    for dataset in issued:
        dataset.IssuerOfPatientID = "CLINIC"
    for made in objects_of(inspect_series(issued)[0].frames, load_series(issued), regions):
        header = read_header(made.content, {}, "elsewhere")
        assert (header.patient.issuer, header.patient.value) == ("clinic", "TEST-1"), made.modality


def test_objects_conform_to_their_iods(frames, volume, regions, tmp_path):
    """dicom-validator checks against the text of the standard, which it fetches once and keeps under its home."""
    editions = Path.home() / "dicom-validator"
    if not any(editions.glob("*/docbook")):
        pytest.skip(
            "dicom-validator has no edition of the DICOM standard: run validate_iods once where there is internet"
        )
    paths = [stored(made, tmp_path, f"{made.modality}.dcm") for made in objects_of(frames, volume, regions)]
    done = run(tool("validate_iods", "pip install dicom-validator"), "--edition", "local", *paths)
    assert "Tag" not in done.stdout, done.stdout


def test_objects_hold_every_attribute_that_their_iod_requires(frames, volume, regions):
    """Types 1 and 2 of the mandatory modules, from the tables of PS3.3 that highdicom carries.

    What a report's content items need depends on their kind; dcmtk reads those.
    """
    from highdicom import _standard_utils as standard

    modules_of, attributes_of = standard.get_iod_module_map(), standard.get_module_attribute_map()
    for made in objects_of(frames, volume, regions):
        dataset = pydicom.dcmread(BytesIO(made.content))
        modules = modules_of[standard.get_sop_class_iod_map()[made.sop_class_uid]]
        required = [
            attribute
            for module in modules
            if module["usage"] == "M" and module["key"] != "sr-document-content"
            for attribute in attributes_of[module["key"]]
            if not attribute["path"] and attribute["type"] in ("1", "2")
        ]
        assert len(required) > 20
        for attribute in required:
            keyword = attribute["keyword"]
            assert keyword in dataset, f"{made.modality} lacks {keyword}"
            assert attribute["type"] == "2" or dataset[keyword].value not in (None, ""), f"{made.modality}: {keyword}"


def findings_of(volume, regions, frames):
    made = objects_of(frames, volume, regions)
    found = imaging_pb2.StudyFindings(study_instance_uid=volume.study_instance_uid, patient_key="key", study_revision=1)
    found.study_time.FromDatetime(MADE)
    found.findings.extend(to_finding(one, volume, "0" * 64, MADE) for one in regions)
    found.refusals.add(reason="suv.missing_weight", message="the patient's weight is absent or zero")
    for one in made:
        found.derived_objects.add(
            sop_instance_uid=one.sop_instance_uid, sop_class_uid=one.sop_class_uid, study_instance_uid=one.study_instance_uid,
            series_instance_uid=one.series_instance_uid, modality=one.modality,
        )  # fmt: skip
    return found


def test_fhir_bundle_is_valid_and_holds_together(frames, volume, regions, series, tmp_path):
    manifest = ingest_pb2.StudyManifest(study_instance_uid=volume.study_instance_uid, patient_key="key", revision=1)
    entry = manifest.series.add(series_instance_uid=volume.series_instance_uid, modality="CT")
    for dataset in series:
        entry.instances.add(sop_instance_uid=dataset.SOPInstanceUID, sop_class_uid=dataset.SOPClassUID)
    findings = findings_of(volume, regions, frames)
    blobs = open_blobs(Settings(home=tmp_path))
    kept = blobs.put(manifest.SerializeToString(), media_type="application/x-protobuf")
    case = PatientCase("key", {volume.study_instance_uid: events_pb2.StudyReceived(manifest=kept)})
    case.findings[volume.study_instance_uid] = findings
    bundle = fhir_export.bundle([case], blobs)
    Bundle.model_validate(bundle)
    by_url = {row["fullUrl"]: row["resource"] for row in bundle["entry"]}
    by_type = {}
    for resource in by_url.values():
        by_type.setdefault(resource["resourceType"], []).append(resource)
    (study,), (report,), (patient,) = by_type["ImagingStudy"], by_type["DiagnosticReport"], by_type["Patient"]
    assert report["status"] == "preliminary"
    assert [by_url[row["reference"]] for row in report["result"]] == by_type["Observation"]
    assert by_url[report["imagingStudy"][0]["reference"]] == study
    assert by_url[report["subject"]["reference"]] == by_url[study["subject"]["reference"]] == patient
    assert "2 findings" in report["conclusion"]
    assert "suv.missing_weight" in report["conclusion"]
    assert (study["numberOfSeries"], study["numberOfInstances"]) == (5, len(series) + 4)
    assert {row["code"] for row in study["modality"]} == {"CT", "SEG", "SR", "KO", findings.derived_objects[2].modality}
    assert "TEST-1" not in json.dumps(bundle)
