"""Synthetic DICOM series with known geometry and values, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
from osler.ingest.v1 import ingest_pb2
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    RTStructureSetStorage,
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


def circle(radius: float, centre: Sequence[float], z: float, points: int = 90) -> list[float]:
    """Contour data of a circle in an axial plane."""
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    outline = [centre[0] + radius * np.cos(angle), centre[1] + radius * np.sin(angle), np.full(points, z)]
    return [float(v) for v in np.stack(outline, axis=1).ravel()]


def make_structure_set(
    image: Sequence[Dataset], spheres: Sequence[tuple[str, str, Sequence[float], float]], name: str = "structures"
) -> Dataset:
    """RTSTRUCT with spheres (name, interpreted type, centre, radius in mm) drawn on the slices of `image`."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = RTStructureSetStorage, generate_uid(entropy_srcs=[name])
    dataset.StudyInstanceUID = STUDY_UID
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[name, "series"])
    dataset.Modality, dataset.FrameOfReferenceUID = "RTSTRUCT", FRAME_UID
    dataset.PatientID = "TEST-1"
    series, study, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID, study.RTReferencedSeriesSequence = image[0].SeriesInstanceUID, [series]
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = FRAME_UID, [study]
    dataset.ReferencedFrameOfReferenceSequence = [frame]
    dataset.StructureSetROISequence, dataset.ROIContourSequence, dataset.RTROIObservationsSequence = [], [], []
    for number, (label, kind, centre, radius) in enumerate(spheres, start=1):
        roi, outline, observation = Dataset(), Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = number, label, FRAME_UID
        outline.ReferencedROINumber, outline.ContourSequence = number, []
        for plane in image:
            away = float(plane.ImagePositionPatient[2]) - centre[2]
            if abs(away) < radius:
                contour = Dataset()
                contour.ContourGeometricType = "CLOSED_PLANAR"
                contour.ContourData = circle(np.sqrt(radius**2 - away**2), centre, centre[2] + away)
                outline.ContourSequence.append(contour)
        observation.ReferencedROINumber, observation.RTROIInterpretedType = number, kind
        dataset.StructureSetROISequence.append(roi)
        dataset.ROIContourSequence.append(outline)
        dataset.RTROIObservationsSequence.append(observation)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def manifest_of(
    datasets: Sequence[Dataset], blobs: Any, patient_key: str = "key-1", revision: int = 1
) -> ingest_pb2.StudyManifest:
    """Stores instances and lists them, as ingest does."""
    manifest = ingest_pb2.StudyManifest(
        study_instance_uid=str(datasets[0].StudyInstanceUID), patient_key=patient_key, revision=revision
    )
    entries: dict[str, Any] = {}
    for dataset in datasets:
        uid = str(dataset.SeriesInstanceUID)
        if uid not in entries:
            entries[uid] = manifest.series.add(
                series_instance_uid=uid,
                modality=str(dataset.get("Modality", "")),
                frame_of_reference_uid=str(dataset.get("FrameOfReferenceUID", "")),
                series_description=str(dataset.get("SeriesDescription", "")),
            )
        buffer = BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        content = blobs.put(buffer.getvalue(), "application/dicom", f"instances/{dataset.SOPInstanceUID}.dcm")
        entries[uid].instances.add(
            sop_instance_uid=str(dataset.SOPInstanceUID), sop_class_uid=str(dataset.SOPClassUID), content=content
        )
    return manifest
