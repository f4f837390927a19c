"""What a registration leaves for others, as DICOM: the transform, the moving series on the fixed grid, regions carried over.

Source: DICOM PS3.3 A.39.1 and C.20.2 (Spatial Registration), A.39.2 and C.20.3 (Deformable Spatial Registration),
C.7.6.1 (derived images). Transforms map fixed to moving points, LPS mm.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from io import BytesIO

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, DeformableSpatialRegistrationStorage, ExplicitVRLittleEndian, RTStructureSetStorage
from pydicom.valuerep import DSfloat

from services.clinical.codes import Concept
from services.clinical.dicom.derived import (
    DEVICE_SERIAL,
    MANUFACTURER,
    ObjectIdentity,
    derived_uid,
    headers,
    pin,
    software,
)
from services.clinical.dicom.reg import build_reg
from services.clinical.dicom.rtstruct import Roi, StructureSet, fill_roi, read_rtstruct
from services.clinical.dicom.seg import Segment, build_segmentation, read_segmentation
from services.clinical.dicom.series import inspect_series
from services.clinical.volume import ImageVolume
from services.platform.errors import RefusedError
from services.registration.deformation import Deformation
from services.registration.geometry import IDENTITY, Matrix, apply, inverse, is_rigid
from services.registration.resample import resample

_MODEL = "Osler registration"
#: What belongs to one image of the source series, and not to its resampled copy.
_OF_ONE_IMAGE = (
    "SliceLocation", "ImageIndex", "DecayFactor", "WindowCenter", "WindowWidth", "WindowCenterWidthExplanation",
    "SmallestImagePixelValue", "LargestImagePixelValue", "PixelPaddingValue", "PixelPaddingRangeLimit", "GantryDetectorTilt",
    "LossyImageCompressionRatio", "LossyImageCompressionMethod", "TemporalPositionIndex", "SpacingBetweenSlices",
)  # fmt: skip
_TOP = 65535
#: What a carried region is called whatever its label says (DICOM PS3.16 CID 7150; transcribed from memory, verify).
_STRUCTURE = Concept("http://snomed.info/sct", "123037004", "Anatomical Structure")


def spatial_registration(
    fixed: Sequence[Dataset], moving: Sequence[Dataset], matrix: Matrix, identity: ObjectIdentity
) -> Dataset:
    """A Spatial Registration object; its matrix is of type RIGID, or AFFINE where it stretches or shears.

    Raises RefusedError `reg.missing_frame_of_reference`.
    """
    if is_rigid(matrix, 1e-5):
        return build_reg(fixed, moving, matrix, identity)
    made = build_reg(fixed, moving, IDENTITY, identity)
    _set_matrix(made.RegistrationSequence[1].MatrixRegistrationSequence[0].MatrixSequence[0], inverse(matrix))
    return made


def deformable_registration(
    fixed: Sequence[Dataset], moving: Sequence[Dataset], bent: Deformation, identity: ObjectIdentity
) -> Dataset:
    """A Deformable Spatial Registration object.

    C.20.3.1: a point of the registered (fixed) space plus the grid's vector there, then the post-deformation matrix, is the
    point of the source (moving) space: the order in which `Deformation` maps.
    """
    made = build_reg(fixed, moving, IDENTITY, identity)
    references = made.RegistrationSequence[1].ReferencedImageSequence
    del made.RegistrationSequence
    made.SOPClassUID = DeformableSpatialRegistrationStorage
    made.file_meta.MediaStorageSOPClassUID = DeformableSpatialRegistrationStorage
    item = Dataset()
    item.SourceFrameOfReferenceUID = str(moving[0].FrameOfReferenceUID)
    item.ReferencedImageSequence = references
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "125024", "DCM", "Image Content-based Alignment"
    item.RegistrationTypeCodeSequence = [code]
    item.DeformableRegistrationGridSequence = [_grid(bent)]
    post = Dataset()
    _set_matrix(post, bent.matrix)
    item.PostDeformationMatrixRegistrationSequence = [post]
    made.DeformableRegistrationSequence = [item]
    return made


def read_deformable(dataset: Dataset) -> Deformation:
    """The map of a Deformable Spatial Registration object's first item that holds a grid.

    Raises RefusedError `reg.no_grid`.
    """
    for item in dataset.get("DeformableRegistrationSequence", []):
        for grid in item.get("DeformableRegistrationGridSequence", []):
            size = [int(n) for n in grid.GridDimensions]
            vectors = np.frombuffer(grid.VectorGridData, dtype="<f4").reshape(*size[::-1], 3)
            if "PreDeformationMatrixRegistrationSequence" in item:
                raise RefusedError("reg.pre_deformation", "a matrix before the grid is not supported")
            steps = item.get("PostDeformationMatrixRegistrationSequence", [])
            matrix = _matrix(steps[0]) if steps else IDENTITY
            return Deformation(matrix, vectors.astype(np.float32), _grid_affine(grid))
    raise RefusedError("reg.no_grid", "the object holds no deformation grid", remedy="export the registration again")


def _grid(bent: Deformation) -> Dataset:
    spacing = np.linalg.norm(bent.affine_lps[:3, :3], axis=0)
    direction = bent.affine_lps[:3, :3] / spacing
    grid = Dataset()
    grid.ImagePositionPatient = _decimals(bent.affine_lps[:3, 3])
    grid.ImageOrientationPatient = _decimals(np.concatenate([direction[:, 0], direction[:, 1]]))
    grid.GridDimensions = [int(n) for n in bent.displacement.shape[2::-1]]
    grid.GridResolution = [float(s) for s in spacing]
    grid.VectorGridData = np.ascontiguousarray(bent.displacement, dtype="<f4").tobytes()
    return grid


def _grid_affine(grid: Dataset) -> Matrix:
    row, column = (np.asarray(grid.ImageOrientationPatient[k : k + 3], dtype=float) for k in (0, 3))
    affine = np.eye(4)
    affine[:3, :3] = np.stack([row, column, np.cross(row, column)], axis=1) @ np.diag(grid.GridResolution)
    affine[:3, 3] = [float(value) for value in grid.ImagePositionPatient]
    return affine


def _set_matrix(step: Dataset, matrix: Matrix) -> None:
    step.FrameOfReferenceTransformationMatrixType = "RIGID" if is_rigid(matrix, 1e-5) else "AFFINE"
    step.FrameOfReferenceTransformationMatrix = _decimals(matrix.ravel())


def _matrix(step: Dataset) -> Matrix:
    return np.reshape([float(value) for value in step.FrameOfReferenceTransformationMatrix], (4, 4))


def _decimals(values: NDArray[np.float64]) -> list[DSfloat]:
    return [DSfloat(float(value), auto_format=True) for value in values]


def derived_series(
    volume: ImageVolume, fixed: Sequence[Dataset], moving: Sequence[Dataset], identity: ObjectIdentity
) -> list[Dataset]:
    """The resampled moving series (`resample`) as single-frame instances in the study and frame of the fixed series.

    16-bit with one rescale for the series; quantised to a 65535th of its range. Slices as `volume` has them.
    """
    source, target = headers(moving[:1])[0], headers(fixed[:1])[0]
    low = float(volume.array.min())
    slope = float(f"{max(float(volume.array.max()) - low, 1e-6) / _TOP:.10g}")
    return [
        _slice(volume, k, source, target, (slope, float(f"{low:.10g}")), identity) for k in range(volume.array.shape[0])
    ]


def _slice(
    volume: ImageVolume,
    k: int,
    source: Dataset,
    target: Dataset,
    rescale: tuple[float, float],
    identity: ObjectIdentity,
) -> Dataset:
    made = Dataset()
    made.update({element.tag: copy.deepcopy(element) for element in source})
    for keyword in _OF_ONE_IMAGE:
        if keyword in made:
            delattr(made, keyword)
    for keyword in ("StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "StudyDescription"):
        if keyword in target:
            setattr(made, keyword, target[keyword].value)
    uid = derived_uid(identity.series_instance_uid, str(k + 1))
    made.file_meta = FileMetaDataset()
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = UID(uid)
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPInstanceUID, made.SeriesInstanceUID = uid, identity.series_instance_uid
    made.SeriesNumber, made.InstanceNumber = identity.series_number, k + 1
    made.ImageType = ["DERIVED", "SECONDARY", *list(source.get("ImageType", []))[2:]]
    made.DerivationDescription = "Resampled onto another series by registration"
    made.FrameOfReferenceUID = volume.frame_of_reference_uid
    made.Manufacturer, made.ManufacturerModelName = MANUFACTURER, _MODEL
    made.DeviceSerialNumber, made.SoftwareVersions = DEVICE_SERIAL, software()
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    made.SourceImageSequence = [reference]
    pin(made, identity)
    _place(made, volume, k)
    _pixels(made, volume.array[k], rescale)
    return made


def _place(made: Dataset, volume: ImageVolume, k: int) -> None:
    spacing = volume.spacing_mm
    direction = volume.affine_lps[:3, :3] / np.asarray(spacing)
    made.ImagePositionPatient = _decimals((volume.affine_lps @ [0, 0, k, 1])[:3])
    made.ImageOrientationPatient = _decimals(np.concatenate([direction[:, 0], direction[:, 1]]))
    made.PixelSpacing = _decimals(np.asarray([spacing[1], spacing[0]]))
    made.SliceThickness = DSfloat(spacing[2], auto_format=True)


def _pixels(made: Dataset, plane: NDArray[np.float32], rescale: tuple[float, float]) -> None:
    slope, intercept = rescale
    made.Rows, made.Columns = plane.shape
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 16, 15, 0
    made.RescaleSlope, made.RescaleIntercept = DSfloat(slope), DSfloat(intercept)
    made.PixelData = np.rint(np.clip((plane.astype(np.float64) - intercept) / slope, 0, _TOP)).astype("<u2").tobytes()


def carried_mask(
    mask: NDArray[np.bool_], moving: ImageVolume, fixed: ImageVolume, transform: Matrix | Deformation
) -> NDArray[np.bool_]:
    """A region of the moving grid (z, y, x) on the fixed grid: more than half of the voxel's neighbours are inside."""
    region = dataclasses.replace(moving, array=mask.astype(np.float32), modality="")
    return np.asarray(resample(region, fixed, transform).array > 0.5)


def carried_regions(
    content: bytes, moving: ImageVolume, fixed: ImageVolume, transform: Matrix | Deformation
) -> list[tuple[str, NDArray[np.bool_]]]:
    """Label and mask on the fixed grid of every region of an RT Structure Set or SEG drawn on the moving series.

    Raises RefusedError `rtstruct.*`, `seg.*`.
    """
    dataset = pydicom.dcmread(BytesIO(content))
    if str(dataset.get("SOPClassUID", "")) == RTStructureSetStorage:
        shape = (moving.array.shape[0], moving.array.shape[1], moving.array.shape[2])
        drawn = [
            (roi.name, fill_roi(roi, moving.affine_lps, shape, moving.frame_of_reference_uid).mask)
            for roi in read_rtstruct(dataset).rois
            if roi.contours
        ]
    else:
        drawn = [(region.label, region.mask) for region in read_segmentation(dataset, moving)]
    return [(label, carried_mask(mask, moving, fixed, transform)) for label, mask in drawn]


def segmentation(
    fixed: Sequence[Dataset], regions: Sequence[tuple[str, NDArray[np.bool_]]], identity: ObjectIdentity
) -> Dataset:
    """Carried regions as a SEG on the fixed series. Raises RefusedError `seg.empty` when none reaches it."""
    stack, _ = inspect_series(fixed)
    segments = [
        Segment(
            label=label,
            mask=mask,
            category=_STRUCTURE,
            kind=_STRUCTURE,
            tracking_id=label,
            tracking_uid=derived_uid("carried", identity.sop_instance_uid, label),
            algorithm=_MODEL,
            algorithm_version=software(),
        )
        for label, mask in regions
    ]
    return build_segmentation(stack.frames, segments, identity)


def carried_contours(structures: StructureSet, matrix: Matrix, frame_of_reference_uid: str) -> tuple[Roi, ...]:
    """The regions drawn on the moving series, in the fixed space: each contour point through the inverse of `matrix`.

    Contours stay plane and closed under a matrix; they need no longer be parallel to the fixed slices.
    """
    back = inverse(matrix)
    return tuple(
        dataclasses.replace(
            roi,
            frame_of_reference_uid=frame_of_reference_uid,
            contours=tuple(apply(back, contour) for contour in roi.contours),
        )
        for roi in structures.rois
    )
