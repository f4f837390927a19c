"""Synthetic DICOM series with known geometry and values, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    generate_uid,
)

SOP_CLASSES = {"CT": CTImageStorage, "MR": MRImageStorage, "PT": PositronEmissionTomographyImageStorage}
STUDY_UID = generate_uid(entropy_srcs=["study"])
FRAME_UID = generate_uid(entropy_srcs=["frame of reference"])


def make_series(
    values: np.ndarray,
    *,
    modality: str = "CT",
    spacing: tuple[float, float, float] = (1.0, 1.0, 2.0),
    origin: Sequence[float] = (-10.0, -20.0, 30.0),
    orientation: Sequence[float] = (1, 0, 0, 0, 1, 0),
    slopes: Sequence[float] | float = 1.0,
    intercept: float = 0.0,
    name: str = "series",
    **attributes: Any,
) -> list[Dataset]:
    """Single-frame instances of `values` (z, y, x), stored so that slope * stored + intercept gives them back."""
    row, column = np.array(orientation[:3], float), np.array(orientation[3:], float)
    normal = np.cross(row, column)
    series_uid = generate_uid(entropy_srcs=[name])
    slices = []
    for k, plane in enumerate(values):
        slope = float(slopes if np.isscalar(slopes) else slopes[k])
        stored = np.rint((plane - intercept) / slope).astype(np.int16)
        dataset = Dataset()
        dataset.SOPClassUID = SOP_CLASSES[modality]
        dataset.SOPInstanceUID = generate_uid(entropy_srcs=[name, str(k)])
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY_UID, series_uid
        dataset.FrameOfReferenceUID = FRAME_UID
        dataset.Modality, dataset.InstanceNumber = modality, k + 1
        dataset.PatientID, dataset.PatientName = "TEST-1", "Test^Synthetic"
        dataset.PatientBirthDate, dataset.PatientSex = "", "M"
        dataset.StudyID, dataset.AccessionNumber, dataset.ReferringPhysicianName = "1", "", ""
        dataset.SeriesNumber, dataset.Manufacturer = 1, "Synthetic"
        dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = "20240301"
        dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = "101500"
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.ImagePositionPatient = [float(v) for v in np.array(origin) + normal * spacing[2] * k]
        dataset.ImageOrientationPatient = [float(v) for v in orientation]
        dataset.PixelSpacing = [spacing[1], spacing[0]]
        dataset.SliceThickness = spacing[2]
        dataset.Rows, dataset.Columns = plane.shape
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit, dataset.PixelRepresentation = 15, 1
        dataset.RescaleSlope, dataset.RescaleIntercept = f"{slope:.10g}", f"{intercept:.10g}"
        dataset.PixelData = stored.tobytes()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)
        slices.append(dataset)
    return slices


def read_folder(folder: Any) -> list[Dataset]:
    """Every instance of a folder of DICOM files."""
    return [pydicom.dcmread(path) for path in sorted(folder.glob("*.dcm"))]
