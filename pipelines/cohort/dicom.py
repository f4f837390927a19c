"""Writes simulated acquisitions as DICOM CT, PT and MR image series and RT structure sets.

UIDs are derived from names (2.25.<UUIDv5>, PS3.5 B.2), so the same cohort is the same bytes each time.
Every object is marked as synthetic in Patient Comments and Image Comments.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import UID, ExplicitVRLittleEndian

from pipelines.cohort.anatomy import Grid, Lesion, Pose

MARK = "SYNTHETIC DATA - NOT A REAL PATIENT"
SOP_CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "RTSTRUCT": "1.2.840.10008.5.1.4.1.1.481.3",
}
F18_HALF_LIFE_S = 6586.2
_NAMESPACE = uuid.UUID("2d2f7a1e-53f2-4d52-8d2a-1f54fe6d5b21")


def uid(*parts: str) -> UID:
    """A stable UID for a name."""
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, '/'.join(parts)).int}")


@dataclass(frozen=True)
class Person:
    """Who the images are of. `issuer` is the OID of the authority that gave out the record number. Weight in kg, height in m."""

    name: str
    record_number: str
    issuer: str
    birth_date: str
    sex: str
    weight_kg: float
    height_m: float


@dataclass(frozen=True)
class Visit:
    """One imaging session; `start` is local scanner time in UTC."""

    name: str
    start: datetime
    lesions: tuple[Lesion, ...]
    pose: Pose
    mr_pose: Pose


def _header(person: Person, visit: Visit, modality: str, series: str, when: datetime) -> FileDataset:
    dataset = FileDataset("", {}, file_meta=FileMetaDataset(), preamble=b"\0" * 128)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = UID(SOP_CLASSES[modality])
    dataset.file_meta.ImplementationClassUID = uid("osler", "cohort")
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.TimezoneOffsetFromUTC = "+0000"
    dataset.PatientName, dataset.PatientID = person.name, person.record_number
    issuer = Dataset()
    issuer.UniversalEntityID, issuer.UniversalEntityIDType = person.issuer, "ISO"
    dataset.IssuerOfPatientIDQualifiersSequence = DicomSequence([issuer])
    dataset.PatientBirthDate, dataset.PatientSex = person.birth_date, person.sex
    dataset.PatientWeight, dataset.PatientSize = person.weight_kg, person.height_m
    dataset.PatientComments = MARK
    dataset.StudyInstanceUID = uid(person.record_number, visit.name)
    dataset.StudyDate, dataset.StudyTime = f"{visit.start:%Y%m%d}", f"{visit.start:%H%M%S}"
    dataset.StudyID, dataset.AccessionNumber = visit.name, ""
    dataset.StudyDescription = f"PET/CT and MR, {visit.name}"
    dataset.ReferringPhysicianName = ""
    dataset.SeriesInstanceUID = uid(person.record_number, visit.name, series)
    dataset.SeriesDate, dataset.SeriesTime = f"{when:%Y%m%d}", f"{when:%H%M%S}"
    dataset.ContentDate, dataset.ContentTime = dataset.SeriesDate, dataset.SeriesTime
    dataset.Modality, dataset.SeriesDescription = modality, series
    dataset.SeriesNumber = {"CT": 2, "PT": 3, "MR": 4, "RTSTRUCT": 5}[modality]
    dataset.Manufacturer, dataset.ManufacturerModelName = "Osler", "Cohort simulator"
    dataset.SoftwareVersions = "1"
    return dataset


def _finish(dataset: FileDataset, name: str) -> FileDataset:
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid(dataset.SeriesInstanceUID, name)
    return dataset


def frame_of_reference(person: Person, visit: Visit, modality: str) -> str:
    """PET and CT share the gantry; MR has its own frame."""
    return uid(person.record_number, visit.name, "frame", "MR" if modality == "MR" else "PETCT")


def image_series(
    person: Person,
    visit: Visit,
    modality: str,
    description: str,
    volume: NDArray[np.float64],
    grid: Grid,
    when: datetime,
) -> list[FileDataset]:
    """One DICOM instance for each axial slice. `volume` (z, y, x) in HU, Bq/mL (PT) or arbitrary units (MR)."""
    signed = modality == "CT"
    slope = float(volume.max()) / 32000 if modality == "PT" else 1.0
    intercept = -1024.0 if modality == "CT" else 0.0
    stored = np.rint((volume - intercept) / slope).clip(0, 32767).astype(np.int16 if signed else np.uint16)
    origin = grid.origin_mm()
    instances = []
    for k, plane in enumerate(stored):
        dataset = _header(person, visit, modality, description, when)
        dataset.AcquisitionDate, dataset.AcquisitionTime = f"{when:%Y%m%d}", f"{when:%H%M%S}"
        dataset.AcquisitionNumber, dataset.InstanceNumber = 1, k + 1
        dataset.FrameOfReferenceUID = frame_of_reference(person, visit, modality)
        dataset.PositionReferenceIndicator = ""
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"] if modality != "MR" else ["ORIGINAL", "PRIMARY", "M", "SE"]
        dataset.PatientPosition, dataset.BodyPartExamined = "HFS", "CHESTABDOMEN"
        dataset.ImageComments = MARK
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.ImagePositionPatient = [float(origin[0]), float(origin[1]), float(origin[2] + k * grid.spacing_mm[2])]
        dataset.SliceLocation = dataset.ImagePositionPatient[2]
        dataset.PixelSpacing = [grid.spacing_mm[1], grid.spacing_mm[0]]
        dataset.SliceThickness = grid.spacing_mm[2]
        dataset.Rows, dataset.Columns = plane.shape
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
        dataset.PixelRepresentation = int(signed)
        dataset.RescaleIntercept, dataset.RescaleSlope = f"{intercept:g}", f"{slope:.10g}"
        _modality_module(dataset, modality, when, len(stored), k)
        dataset.PixelData = plane.tobytes()
        instances.append(_finish(dataset, str(k)))
    return instances


def _modality_module(dataset: FileDataset, modality: str, when: datetime, slices: int, index: int) -> None:
    if modality == "CT":
        dataset.RescaleType, dataset.KVP = "HU", 120
        dataset.WindowCenter, dataset.WindowWidth = 40, 400
    elif modality == "MR":
        dataset.ScanningSequence, dataset.SequenceVariant, dataset.ScanOptions = "SE", "NONE", ""
        dataset.MRAcquisitionType, dataset.MagneticFieldStrength = "2D", 1.5
        dataset.EchoTime, dataset.RepetitionTime, dataset.EchoTrainLength = 10, 550, 1
    else:
        _pet_module(dataset, when, slices, index)


def _pet_module(dataset: FileDataset, when: datetime, slices: int, index: int) -> None:
    """PET Series, Isotope and Image modules (PS3.3 C.8.9): Bq/mL, decay corrected to the start of the scan."""
    dataset.Units, dataset.DecayCorrection = "BQML", "START"
    dataset.CorrectedImage = ["NORM", "DTIM", "ATTN", "SCAT", "DECY", "RAN"]
    dataset.SeriesType = ["WHOLE BODY", "IMAGE"]
    dataset.CountsSource, dataset.NumberOfSlices, dataset.ImageIndex = "EMISSION", slices, index + 1
    dataset.RescaleType = "BQML"
    dataset.ActualFrameDuration, dataset.FrameReferenceTime, dataset.DecayFactor = 180000, 0, 1
    injection = when - timedelta(hours=1)
    isotope = Dataset()
    isotope.Radiopharmaceutical = "Fluorodeoxyglucose F^18^"
    isotope.RadiopharmaceuticalStartTime = f"{injection:%H%M%S}"
    isotope.RadiopharmaceuticalStartDateTime = f"{injection:%Y%m%d%H%M%S}"
    isotope.RadionuclideTotalDose, isotope.RadionuclideHalfLife = INJECTED_BQ, F18_HALF_LIFE_S
    isotope.RadionuclidePositronFraction = 0.97
    isotope.RadionuclideCodeSequence = DicomSequence([_code("77004003", "SCT", "^18^Fluorine")])
    isotope.RadiopharmaceuticalCodeSequence = DicomSequence([_code("35321007", "SCT", "Fluorodeoxyglucose F^18^")])
    dataset.RadiopharmaceuticalInformationSequence = DicomSequence([isotope])


INJECTED_BQ = 300.0e6


def suv_to_bqml(suv: NDArray[np.float64], weight_kg: float) -> NDArray[np.float64]:
    """Activity concentration at scan start, one hour after injection of `INJECTED_BQ`."""
    return suv * INJECTED_BQ * 2 ** (-3600 / F18_HALF_LIFE_S) / (weight_kg * 1000)


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code


def structure_set(
    person: Person,
    visit: Visit,
    referenced: Sequence[FileDataset],
    grid: Grid,
    regions: Sequence[Lesion],
    when: datetime,
) -> FileDataset:
    """RTSTRUCT with one ROI for each spherical region, contoured on the slices of `referenced`."""
    dataset = _header(person, visit, "RTSTRUCT", "Lesion contours", when)
    dataset.StructureSetLabel, dataset.StructureSetName = "LESIONS", f"Lesions {visit.name}"
    dataset.StructureSetDate, dataset.StructureSetTime = dataset.SeriesDate, dataset.SeriesTime
    frame = referenced[0].FrameOfReferenceUID
    dataset.ReferencedFrameOfReferenceSequence = DicomSequence([_referenced_frame(frame, referenced)])
    to_scanner = np.linalg.inv(visit.pose.to_body)
    rois, contours, observations = [], [], []
    for number, region in enumerate(regions, start=1):
        roi = Dataset()
        roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = number, region.name, frame
        roi.ROIGenerationAlgorithm = "MANUAL"
        rois.append(roi)
        centre = to_scanner[:3, :3] @ np.asarray(region.centre_mm) + to_scanner[:3, 3]
        item = Dataset()
        item.ReferencedROINumber, item.ROIDisplayColor = number, [255, 80, 60]
        item.ContourSequence = DicomSequence(_circles(centre, region.diameter_mm / 2, referenced))
        contours.append(item)
        observation = Dataset()
        observation.ObservationNumber, observation.ReferencedROINumber = number, number
        is_organ = region.site == "reference"
        observation.RTROIInterpretedType, observation.ROIInterpreter = ("ORGAN" if is_organ else "GTV"), ""
        observations.append(observation)
    dataset.StructureSetROISequence = DicomSequence(rois)
    dataset.ROIContourSequence = DicomSequence(contours)
    dataset.RTROIObservationsSequence = DicomSequence(observations)
    dataset.ApprovalStatus = "UNAPPROVED"
    return _finish(dataset, "structures")


def _referenced_frame(frame: str, referenced: Sequence[FileDataset]) -> Dataset:
    series = Dataset()
    series.SeriesInstanceUID = referenced[0].SeriesInstanceUID
    series.ContourImageSequence = DicomSequence([_reference(d) for d in referenced])
    study = Dataset()
    study.ReferencedSOPClassUID = "1.2.840.10008.3.1.2.3.1"
    study.ReferencedSOPInstanceUID = referenced[0].StudyInstanceUID
    study.RTReferencedSeriesSequence = DicomSequence([series])
    item = Dataset()
    item.FrameOfReferenceUID = frame
    item.RTReferencedStudySequence = DicomSequence([study])
    return item


def _reference(dataset: FileDataset) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    return reference


def _circles(centre: NDArray[np.float64], radius_mm: float, slices: Iterable[FileDataset]) -> list[Dataset]:
    """The sphere's outline on each slice that cuts it (or passes within half a millimetre)."""
    angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    contours = []
    for image in slices:
        z = float(image.ImagePositionPatient[2])
        height = radius_mm**2 - (z - centre[2]) ** 2
        if height <= 0.25:
            continue
        ring = np.sqrt(height)
        points = np.stack([centre[0] + ring * np.cos(angles), centre[1] + ring * np.sin(angles), np.full(72, z)], 1)
        contour = Dataset()
        contour.ContourImageSequence = DicomSequence([_reference(image)])
        contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", 72
        contour.ContourData = [f"{v:.3f}" for v in points.ravel()]
        contours.append(contour)
    return contours


def save(datasets: Iterable[FileDataset], folder: Path) -> list[Path]:
    """Writes each instance as `<n>.dcm` and returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for n, dataset in enumerate(datasets):
        paths.append(folder / f"{n:04d}.dcm")
        dataset.save_as(paths[-1], enforce_file_format=True)
    return paths
