"""The Spatial Registration object: what the standard asks, in the standard's direction."""

from __future__ import annotations

from datetime import UTC, datetime
from io import BytesIO

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from services.clinical.dicom.derived import ObjectIdentity, to_bytes
from services.clinical.dicom.reg import build_reg, read_reg
from services.platform.errors import RefusedError
from services.registration.geometry import apply, rigid

FIXED_TO_MOVING = rigid((5, -7, 20), (12.5, -40.25, 300.125), (10, 20, -800))
IDENTITY_OF_OBJECT = ObjectIdentity(
    "2.25.1", "2.25.2", 9800, 1, "MR to CT, rigid", datetime(2024, 3, 1, 12, tzinfo=UTC)
)


def instances(series: str, modality: str, *, study: str = "1.2.1", frame: str = "1.2.9") -> list[Dataset]:
    made = []
    for k in range(3):
        dataset = Dataset()
        dataset.SOPClassUID = {"CT": "1.2.840.10008.5.1.4.1.1.2", "MR": "1.2.840.10008.5.1.4.1.1.4"}[modality]
        dataset.SOPInstanceUID = f"{series}.{k + 1}"
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
        dataset.FrameOfReferenceUID, dataset.Modality = frame, modality
        dataset.PatientName, dataset.PatientID = "Doe^Jane", "42"
        made.append(dataset)
    return made


def uids(datasets) -> list[str]:
    return [dataset.SOPInstanceUID for dataset in datasets]


FIXED, MOVING = instances("1.2.10", "CT"), instances("1.2.11", "MR", frame="1.2.8")


def written(fixed=FIXED, moving=MOVING, matrix=FIXED_TO_MOVING) -> Dataset:
    return pydicom.dcmread(BytesIO(to_bytes(build_reg(fixed, moving, matrix, IDENTITY_OF_OBJECT))))


def test_the_stored_matrix_maps_moving_points_into_the_fixed_frame() -> None:
    # PS3.3 C.20.2.1.1: from the source frame (the item's) into the registered frame (the object's).
    reg = written()
    assert reg.FrameOfReferenceUID == "1.2.9"
    fixed_item, moving_item = reg.RegistrationSequence
    assert (fixed_item.FrameOfReferenceUID, moving_item.FrameOfReferenceUID) == ("1.2.9", "1.2.8")
    stored = moving_item.MatrixRegistrationSequence[0].MatrixSequence[0].FrameOfReferenceTransformationMatrix
    point = np.array([[33.0, -20.0, -750.0]])
    back = apply(np.array([float(v) for v in stored]).reshape(4, 4), apply(FIXED_TO_MOVING, point))
    assert back == pytest.approx(point, abs=1e-6)
    own = fixed_item.MatrixRegistrationSequence[0].MatrixSequence[0].FrameOfReferenceTransformationMatrix
    assert np.array_equal(np.array([float(v) for v in own]).reshape(4, 4), np.eye(4))


angles = st.tuples(*[st.floats(-179, 179, allow_subnormal=False)] * 3)
shifts = st.tuples(*[st.floats(-2000, 2000, allow_subnormal=False)] * 3)


@settings(max_examples=40, deadline=None)
@given(angles, shifts)
def test_round_trip_keeps_a_micrometre(turn, shift) -> None:
    matrix = rigid(turn, shift, (100, -50, 900))
    found = read_reg(written(matrix=matrix), uids(FIXED), uids(MOVING))
    probe = np.array([[x, y, z] for x in (-300, 300) for y in (-300, 300) for z in (-1000, 1000)], dtype=float)
    assert apply(found, probe) == pytest.approx(apply(matrix, probe), abs=1e-3)
    assert read_reg(written(matrix=matrix), uids(MOVING), uids(FIXED)) @ found == pytest.approx(np.eye(4), abs=1e-6)


def test_two_series_of_one_frame_of_reference_are_told_apart() -> None:
    same = instances("1.2.11", "MR")
    assert read_reg(written(moving=same), uids(FIXED), uids(same)) == pytest.approx(FIXED_TO_MOVING, abs=1e-6)


REQUIRED = {
    "PatientName": 2, "PatientID": 2, "PatientBirthDate": 2, "PatientSex": 2, "StudyInstanceUID": 1, "StudyDate": 2,
    "StudyTime": 2, "ReferringPhysicianName": 2, "StudyID": 2, "AccessionNumber": 2, "Modality": 1,
    "SeriesInstanceUID": 1, "SeriesNumber": 2, "FrameOfReferenceUID": 1, "PositionReferenceIndicator": 2,
    "Manufacturer": 2, "ContentDate": 1, "ContentTime": 1, "InstanceNumber": 1, "ContentLabel": 1,
    "ContentDescription": 2, "ContentCreatorName": 2, "RegistrationSequence": 1, "ReferencedSeriesSequence": 1,
    "SOPClassUID": 1, "SOPInstanceUID": 1,
}  # fmt: skip


@pytest.mark.parametrize(("keyword", "type_"), REQUIRED.items())
def test_every_type_1_and_2_attribute_is_there(keyword: str, type_: int) -> None:
    reg = written()
    assert keyword in reg
    if type_ == 1:
        assert reg[keyword].value not in ("", None)


def test_values_fit_their_representation() -> None:
    reg = written()
    assert reg.file_meta.MediaStorageSOPClassUID == reg.SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.1"
    assert reg.Modality == "REG"
    for item in reg.RegistrationSequence:
        registration = item.MatrixRegistrationSequence[0]
        code = registration.RegistrationTypeCodeSequence[0]
        assert (code.CodeValue, code.CodingSchemeDesignator) == ("125024", "DCM")
        step = registration.MatrixSequence[0]
        assert step.FrameOfReferenceTransformationMatrixType == "RIGID"
        assert len(step.FrameOfReferenceTransformationMatrix) == 16
        assert all(len(str(value)) <= 16 for value in step.FrameOfReferenceTransformationMatrix)
    assert uids_in(reg.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == uids(FIXED)


def uids_in(sequence) -> list[str]:
    return [item.ReferencedSOPInstanceUID for item in sequence]


def test_a_series_of_another_study_is_referred_to_there() -> None:
    earlier = instances("1.2.12", "CT", study="1.2.2", frame="1.2.7")
    reg = written(moving=earlier)
    assert [series.SeriesInstanceUID for series in reg.ReferencedSeriesSequence] == ["1.2.10"]
    (other,) = reg.StudiesContainingOtherReferencedInstancesSequence
    assert other.StudyInstanceUID == "1.2.2"
    assert uids_in(other.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == uids(earlier)


def test_same_input_same_bytes() -> None:
    first, second = (to_bytes(build_reg(FIXED, MOVING, FIXED_TO_MOVING, IDENTITY_OF_OBJECT)) for _ in range(2))
    assert first == second


def test_what_cannot_be_said_is_refused() -> None:
    with pytest.raises(RefusedError, match="rotation") as refused:
        written(matrix=np.diag([-1.0, 1, 1, 1]))
    assert refused.value.reason == "reg.not_rigid"
    with pytest.raises(RefusedError) as refused:
        written(moving=instances("1.2.13", "MR", frame=""))
    assert refused.value.reason == "reg.missing_frame_of_reference"
    with pytest.raises(RefusedError) as refused:
        read_reg(written(), uids(FIXED), ["1.2.99"])
    assert refused.value.reason == "reg.not_registered"
