"""Volumes as DICOM series."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

CLASSES = {"CT": "1.2.840.10008.5.1.4.1.1.2", "MR": "1.2.840.10008.5.1.4.1.1.4", "PT": "1.2.840.10008.5.1.4.1.1.128"}


def slices(volume, series: str, study: str):
    """The volume as single-frame DICOM instances."""
    low = float(volume.array.min())
    scale = (float(volume.array.max()) - low) / 60000
    for k, plane in enumerate(volume.array):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID, dataset.SOPInstanceUID = CLASSES[volume.modality], f"{series}.{k + 1}"
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
        dataset.FrameOfReferenceUID, dataset.Modality = volume.frame_of_reference_uid, volume.modality
        dataset.PatientID = "synthetic"
        dataset.Rows, dataset.Columns = plane.shape
        dataset.PixelSpacing = [volume.affine_lps[1, 1], volume.affine_lps[0, 0]]
        dataset.SliceThickness = volume.affine_lps[2, 2]
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.ImagePositionPatient = [
            *volume.affine_lps[:2, 3],
            volume.affine_lps[2, 3] + k * volume.affine_lps[2, 2],
        ]
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
        dataset.RescaleSlope, dataset.RescaleIntercept = f"{scale:.10g}", f"{low:.10g}"
        dataset.PixelData = np.rint((plane - low) / scale).astype(np.uint16).tobytes()
        buffer = BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        yield dataset.SOPInstanceUID, CLASSES[volume.modality], buffer.getvalue()
