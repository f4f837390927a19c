"""Enhanced images as DICOM: a derived series beside the original.

Source: DICOM PS3.3 C.7.6.1.1.2 (Image Type: DERIVED, SECONDARY), C.12.4 (Derivation Description and Code, Source Image
Sequence), C.7.6.2 (Image Plane), C.11.1 (Modality LUT); PS3.16 CID 7203 (Image Derivation).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from services.clinical.dicom import derived
from services.clinical.dicom.series import inspect_series
from services.imaging.analysers.contract import Matrix, refuse

SERIES_NUMBER = 9003
#: DICOM PS3.16 CID 7203.
DERIVATION = {"denoise": ("113087", "Smoothing"), "super_resolution": ("113085", "Spatial resampling")}
_MARKED = "Osler enhancement (derived, not for measurement)"


def derived_series(
    sources: Sequence[Dataset], array: NDArray[Any], affine_lps: Matrix, mode: str, how: str, made_at: datetime
) -> list[Dataset]:
    """One single-frame instance for each slice of `array` (z, y, x); `sources` stay as they are.

    `how`: what was done, for a reader. Raises RefusedError `enhancement.not_single_frame`, `series.*`.
    """
    stack, _ = inspect_series(sources)
    frames = [frame.dataset for frame in stack.frames]
    if not frames or len({id(frame) for frame in frames}) != len(frames):
        raise refuse("enhancement", "not_single_frame", "the series is not one instance for each slice")
    low, span = float(array.min()), float(np.ptp(array)) or 1.0
    slope = span / 65535.0
    stored = np.rint((array - low) / slope).astype(np.uint16)
    series = derived.derived_uid("enhancement", str(frames[0].SeriesInstanceUID), mode, how)
    made = []
    for k, plane in enumerate(stored):
        nearest = frames[min(len(frames) - 1, k * len(frames) // len(stored))]
        one = _header(nearest)
        one.SeriesInstanceUID, one.SOPInstanceUID = series, derived.derived_uid(series, str(k))
        one.SeriesNumber, one.InstanceNumber = SERIES_NUMBER, k + 1
        _describe(one, frames, mode, how)
        _place(one, affine_lps, k)
        _pixels(one, plane, slope, low)
        derived.pin(one, derived.ObjectIdentity(series, one.SOPInstanceUID, SERIES_NUMBER, k + 1, _MARKED, made_at))
        made.append(_as_file(one))
    return made


def _header(source: Dataset) -> Dataset:
    """A copy of the source's attributes without pixels and without what is true of the original only."""
    copied: Dataset = copy.deepcopy(derived.headers([source])[0])
    for keyword in (
        "SmallestImagePixelValue", "LargestImagePixelValue", "PixelPaddingValue", "PixelPaddingRangeLimit",
        "WindowCenter", "WindowWidth", "WindowCenterWidthExplanation", "VOILUTSequence", "IconImageSequence",
        "DigitalSignaturesSequence", "OriginalAttributesSequence",
    ):  # fmt: skip
        if keyword in copied:
            delattr(copied, keyword)
    return copied


def _describe(one: Dataset, frames: Sequence[Dataset], mode: str, how: str) -> None:
    kind = [str(part) for part in one.get("ImageType") or ()]
    one.ImageType = ["DERIVED", "SECONDARY", *kind[2:]]
    one.DerivationDescription = how[:1024]
    code = Dataset()
    code.CodeValue, code.CodeMeaning = DERIVATION[mode]
    code.CodingSchemeDesignator = "DCM"
    one.DerivationCodeSequence = [code]
    references = []
    for frame in frames:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = frame.SOPClassUID, frame.SOPInstanceUID
        references.append(item)
    one.SourceImageSequence = references
    equipment = Dataset()
    equipment.Manufacturer, equipment.ManufacturerModelName = derived.MANUFACTURER, derived.MODEL
    equipment.SoftwareVersions = derived.software()
    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = "109102", "DCM", "Processing Equipment"
    equipment.PurposeOfReferenceCodeSequence = [purpose]
    one.ContributingEquipmentSequence = [*one.get("ContributingEquipmentSequence", []), equipment]


def _place(one: Dataset, affine_lps: Matrix, k: int) -> None:
    columns = np.linalg.norm(affine_lps[:3, :3], axis=0)
    row, column = affine_lps[:3, 0] / columns[0], affine_lps[:3, 1] / columns[1]
    one.ImageOrientationPatient = [round(float(v), 8) for v in (*row, *column)]
    position = affine_lps[:3, 3] + k * affine_lps[:3, 2]
    one.ImagePositionPatient = [round(float(v), 6) for v in position]
    one.PixelSpacing = [float(columns[1]), float(columns[0])]
    one.SliceThickness = float(columns[2])
    one.SpacingBetweenSlices = float(columns[2])
    if "SliceLocation" in one:
        one.SliceLocation = float(position @ np.cross(row, column))


def _pixels(one: Dataset, plane: NDArray[np.uint16], slope: float, intercept: float) -> None:
    one.Rows, one.Columns = plane.shape
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 0
    one.RescaleSlope, one.RescaleIntercept = f"{slope:.10g}"[:16], f"{intercept:.10g}"[:16]
    one.PixelData = plane.tobytes()


def _as_file(one: Dataset) -> Dataset:
    one.file_meta = FileMetaDataset()
    one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID
    one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return one
