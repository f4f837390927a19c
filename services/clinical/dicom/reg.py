"""DICOM Spatial Registration: a rigid transform between two series as an object of the archive.

Source: DICOM PS3.3 A.39.1 (Spatial Registration IOD), C.20.2 (Spatial Registration Module), C.12.2 (Common Instance
Reference), PS3.16 CID 7100.

The matrix of the object maps its source, the moving series, INTO the registered frame of reference, that of the fixed series
(C.20.2.1.1). Osler's transforms map fixed points to moving points, so what is stored is their inverse.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, SpatialRegistrationStorage
from pydicom.valuerep import DSfloat

from services.clinical.dicom.derived import DEVICE_SERIAL, MANUFACTURER, ObjectIdentity, headers, pin, software
from services.platform.errors import RefusedError

Matrix = NDArray[np.float64]

_PATIENT_AND_STUDY = (
    "SpecificCharacterSet", "PatientName", "PatientID", "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence",
    "PatientBirthDate", "PatientSex",
    "StudyInstanceUID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID",
    "StudyDescription",
)  # fmt: skip
_RIGID_TOLERANCE = 1e-5


def build_reg(
    fixed: Sequence[Dataset], moving: Sequence[Dataset], fixed_to_moving: Matrix, identity: ObjectIdentity
) -> Dataset:
    """A Spatial Registration object in the study of the fixed series.

    `fixed`, `moving`: every instance of the two series (pixel data are not read). `fixed_to_moving`: 4x4, LPS mm.
    Raises RefusedError `reg.not_rigid`, `reg.missing_frame_of_reference`.
    """
    _check(fixed, moving, fixed_to_moving)
    target = headers(fixed[:1])[0]
    reg = Dataset()
    reg.file_meta = _file_meta(identity)
    for keyword in _PATIENT_AND_STUDY:
        if keyword in target:
            reg[keyword] = target[keyword]
    reg.SOPClassUID = SpatialRegistrationStorage
    reg.SOPInstanceUID = identity.sop_instance_uid
    reg.Modality = "REG"
    reg.SeriesInstanceUID = identity.series_instance_uid
    reg.SeriesNumber = identity.series_number
    reg.InstanceNumber = identity.instance_number
    reg.FrameOfReferenceUID = str(target.FrameOfReferenceUID)
    reg.PositionReferenceIndicator = str(target.get("PositionReferenceIndicator") or "")
    reg.Manufacturer = MANUFACTURER
    reg.ManufacturerModelName = "Osler registration"
    reg.DeviceSerialNumber = DEVICE_SERIAL
    reg.SoftwareVersions = software()
    reg.ContentLabel = "REGISTRATION"
    reg.ContentDescription = identity.series_description
    reg.ContentCreatorName = MANUFACTURER
    pin(reg, identity)
    reg.RegistrationSequence = [
        _item(fixed, np.eye(4)),
        _item(moving, np.asarray(np.linalg.inv(fixed_to_moving))),
    ]
    _refer(reg, fixed, moving)
    return reg


def read_reg(reg: Dataset, fixed_series: Sequence[str], moving_series: Sequence[str]) -> Matrix:
    """The transform (4x4, fixed to moving, LPS mm) between two of the object's registered items.

    `fixed_series`, `moving_series`: SOP instance UIDs of each series. Raises RefusedError `reg.not_registered` when the object
    does not register both.
    """
    to_registered = [_to_registered(reg, frozenset(instances)) for instances in (fixed_series, moving_series)]
    return np.asarray(np.linalg.inv(to_registered[1]) @ to_registered[0])


def _to_registered(reg: Dataset, instances: frozenset[str]) -> Matrix:
    for item in reg.RegistrationSequence:
        referred = {str(image.ReferencedSOPInstanceUID) for image in item.get("ReferencedImageSequence", [])}
        if referred & instances:
            matrix = np.eye(4)
            # C.20.2.1.1: the matrices of a sequence apply one after the other, the first item first.
            for step in item.MatrixRegistrationSequence[0].MatrixSequence:
                values = [float(value) for value in step.FrameOfReferenceTransformationMatrix]
                matrix = np.reshape(values, (4, 4)) @ matrix
            return matrix
    raise RefusedError(
        "reg.not_registered",
        "the registration object does not refer to the series",
        remedy="ask for a series that it registers",
    )


def _check(fixed: Sequence[Dataset], moving: Sequence[Dataset], matrix: Matrix) -> None:
    rotation = matrix[:3, :3]
    orthonormal = np.abs(rotation @ rotation.T - np.eye(3)).max() <= _RIGID_TOLERANCE
    if not (np.isfinite(matrix).all() and orthonormal and np.linalg.det(rotation) > 0):
        raise RefusedError("reg.not_rigid", "the transform is no rotation with a translation", remedy="register again")
    for side in (fixed, moving):
        if not side or not side[0].get("FrameOfReferenceUID"):
            raise RefusedError(
                "reg.missing_frame_of_reference",
                "a series has no frame of reference, so an object cannot say what it registers",
                missing=("(0020,0052) FrameOfReferenceUID",),
                remedy="send the series with its frame of reference",
                subject=str(side[0].get("SeriesInstanceUID", "")) if side else "",
            )


def _item(series: Sequence[Dataset], to_registered: Matrix) -> Dataset:
    """One registered series. Both carry image references: two series of one frame of reference could not be told apart."""
    item = Dataset()
    item.FrameOfReferenceUID = str(series[0].FrameOfReferenceUID)
    item.ReferencedImageSequence = [_instance(dataset) for dataset in series]
    step = Dataset()
    step.FrameOfReferenceTransformationMatrixType = "RIGID"
    step.FrameOfReferenceTransformationMatrix = [
        DSfloat(float(value), auto_format=True) for value in to_registered.ravel()
    ]
    registration = Dataset()
    registration.RegistrationTypeCodeSequence = [_code("125024", "DCM", "Image Content-based Alignment")]
    registration.MatrixSequence = [step]
    item.MatrixRegistrationSequence = [registration]
    return item


def _refer(reg: Dataset, fixed: Sequence[Dataset], moving: Sequence[Dataset]) -> None:
    """Common Instance Reference: series of this study, and those of other studies."""
    here = str(fixed[0].StudyInstanceUID)
    reg.ReferencedSeriesSequence = [_series(fixed)]
    if str(moving[0].StudyInstanceUID) == here:
        reg.ReferencedSeriesSequence.append(_series(moving))
        return
    other = Dataset()
    other.StudyInstanceUID = str(moving[0].StudyInstanceUID)
    other.ReferencedSeriesSequence = [_series(moving)]
    reg.StudiesContainingOtherReferencedInstancesSequence = [other]


def _series(datasets: Sequence[Dataset]) -> Dataset:
    series = Dataset()
    series.SeriesInstanceUID = str(datasets[0].SeriesInstanceUID)
    series.ReferencedInstanceSequence = [_instance(dataset) for dataset in datasets]
    return series


def _instance(dataset: Dataset) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = str(dataset.SOPClassUID)
    reference.ReferencedSOPInstanceUID = str(dataset.SOPInstanceUID)
    return reference


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code


def _file_meta(identity: ObjectIdentity) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SpatialRegistrationStorage
    meta.MediaStorageSOPInstanceUID = UID(identity.sop_instance_uid)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return meta
