"""Loading one DICOM image series as a volume.

Source: DICOM PS3.3 C.7.6.2 (Image Plane), C.11.1 (Modality LUT), C.8.9.1 (PET Series), C.7.6.16 (multi-frame).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Protocol

import pydicom
from osler.common.v1 import common_pb2
from osler.ingest.v1 import ingest_pb2
from pydicom.dataset import Dataset

from services.clinical.dicom.geometry import GeometryIssue, Stack, frames_of, stack_frames
from services.clinical.dicom.pixels import PIXEL_KEYWORDS, open_instance, read_frames
from services.clinical.volume import ImageVolume
from services.platform.errors import RefusedError

#: Issues that leave a usable, if uneven, stack.
UNEVEN = frozenset({"missing_slices", "inconsistent_spacing"})
#: (0054,1001) Units to UCUM, DICOM PS3.3 C.8.9.1.1.3.
PET_UNITS = {"BQML": "Bq/mL", "GML": "g/mL", "CNTS": "{counts}", "CPS": "{counts}/s", "PROPCNTS": "{propcounts}"}


class BlobReader(Protocol):
    """What this module needs of `services.platform.blobs.BlobStore`."""

    def get(self, ref: common_pb2.BlobRef) -> bytes: ...

    def local_path(self, ref: common_pb2.BlobRef) -> AbstractContextManager[Path]: ...


def load_series(datasets: Sequence[Dataset], *, require_uniform: bool = True) -> ImageVolume:
    """Stacks the frames of one series, sorted along the slice normal, in physical units.

    Rescale slope and intercept are applied for each slice (they differ between slices in PET). With
    `require_uniform=False` a stack with holes or uneven gaps is loaded too, with the mean step as its spacing.

    Raises:
        RefusedError: `series.<code>`, codes as in geometry.yaml: the instances do not make one even grey-scale volume.
    """
    stack, issues = inspect_series(datasets)
    blocking = [issue for issue in issues if require_uniform or issue.code not in UNEVEN]
    if blocking:
        raise _refusal(blocking[0], datasets)
    if stack.affine_lps is None:
        raise _refusal(GeometryIssue("missing_geometry", "the series has no frame with a place in space"), datasets)
    first = stack.frames[0].dataset
    return ImageVolume(
        array=read_frames(stack.frames),
        affine_lps=stack.affine_lps,
        modality=str(first.get("Modality", "")),
        series_instance_uid=str(first.get("SeriesInstanceUID", "")),
        study_instance_uid=str(first.get("StudyInstanceUID", "")),
        frame_of_reference_uid=str(first.get("FrameOfReferenceUID", "")),
        sop_instance_uids=tuple(str(frame.dataset.SOPInstanceUID) for frame in stack.frames),
        acquired_at=acquired_at([frame.dataset for frame in stack.frames]),
        unit=unit_of(first),
    )


def inspect_series(datasets: Sequence[Dataset]) -> tuple[Stack, tuple[GeometryIssue, ...]]:
    """The stack that `load_series` would load, and everything that is wrong with it; pixel data are not decoded."""
    issues: list[GeometryIssue] = []
    if not datasets:
        return Stack((), None, ()), (GeometryIssue("no_instances", "the series has no instances"),)
    if len({str(dataset.get("SeriesInstanceUID", "")) for dataset in datasets}) > 1:
        issues.append(GeometryIssue("mixed_series", "the instances belong to different series"))
    empty = sum(not any(keyword in dataset for keyword in PIXEL_KEYWORDS) for dataset in datasets)
    if empty:
        issues.append(
            GeometryIssue(
                "no_pixel_data", f"{empty} of {len(datasets)} instances hold no pixel data", ("(7FE0,0010) PixelData",)
            )
        )
    colour = sum(is_colour(dataset) for dataset in datasets)
    if colour:
        issues.append(GeometryIssue("colour", f"{colour} of {len(datasets)} instances are colour images"))
    frames, absent = frames_of(datasets)
    stack = stack_frames(frames)
    return stack, (*issues, *absent, *stack.issues)


def is_colour(dataset: Dataset) -> bool:
    """Whether pixel values are colours, so that they measure nothing."""
    samples = dataset.get("SamplesPerPixel") or 1
    return int(samples) > 1 or str(dataset.get("PhotometricInterpretation", "")).startswith("PALETTE")


def _refusal(issue: GeometryIssue, datasets: Sequence[Dataset]) -> RefusedError:
    subject = str(datasets[0].get("SeriesInstanceUID", "")) if datasets else ""
    return RefusedError(
        f"series.{issue.code}", issue.message, missing=issue.missing, remedy=issue.remedy, subject=subject
    )


def unit_of(dataset: Dataset) -> str:
    """UCUM unit of the rescaled values; "1" where they have none."""
    modality = str(dataset.get("Modality", ""))
    if modality == "PT":
        return PET_UNITS.get(str(dataset.get("Units", "") or ""), "1")
    return "[hnsf'U]" if modality == "CT" else "1"


def acquired_at(datasets: Sequence[Dataset]) -> datetime | None:
    """When the earliest slice was acquired, aware UTC.

    Acquisition time where recorded, else series, content or study time. DICOM times without
    (0008,0201) TimezoneOffsetFromUTC are taken as UTC.
    """
    for keywords in (("AcquisitionDateTime",), ("AcquisitionDate", "AcquisitionTime"), ("SeriesDate", "SeriesTime"),
                     ("ContentDate", "ContentTime"), ("StudyDate", "StudyTime")):  # fmt: skip
        times = [time for dataset in datasets if (time := dicom_datetime(dataset, *keywords)) is not None]
        if times:
            return min(times)
    return None


def dicom_datetime(dataset: Dataset, *keywords: str) -> datetime | None:
    """A DT element, or a DA and a TM element together, as aware UTC; None where either is absent or malformed.

    Source: DICOM PS3.5 6.2 (DA, TM, DT), PS3.3 C.12.1.1.8 (TimezoneOffsetFromUTC).
    """
    values = [str(dataset.get(keyword, "") or "").strip() for keyword in keywords]
    if not all(values):
        return None
    text = "".join(value.replace(":", "") if position else value for position, value in enumerate(values))
    zone = ""
    for sign in ("+", "-"):
        if sign in text[8:]:
            text, _, digits = text.partition(sign)
            zone = sign + digits
    zone = zone or str(dataset.get("TimezoneOffsetFromUTC", "") or "")
    whole, _, fraction = text.partition(".")
    try:
        naive = datetime.strptime(whole.ljust(14, "0"), "%Y%m%d%H%M%S")  # noqa: DTZ007 - the zone is set below
        naive = naive.replace(microsecond=int(fraction[:6].ljust(6, "0")) if fraction else 0)
        offset = datetime.strptime(zone, "%z").tzinfo if zone else UTC
    except ValueError:
        return None
    return naive.replace(tzinfo=offset).astimezone(UTC)


def find_series(manifest: ingest_pb2.StudyManifest, series_uid: str) -> ingest_pb2.SeriesEntry:
    """The manifest's entry of one series. Raises RefusedError `series.not_in_study`."""
    for series in manifest.series:
        if series.series_instance_uid == series_uid:
            return series
    raise RefusedError(
        "series.not_in_study",
        "the study manifest does not list the series",
        remedy="Ask for a series that the manifest lists, or send the series again.",
        subject=series_uid,
    )


def read_manifest_series(manifest: ingest_pb2.StudyManifest, series_uid: str, blobs: BlobReader) -> tuple[Dataset, ...]:
    """Every stored instance of a series. Raises RefusedError `series.not_in_study`, `series.unreadable_instance`.

    Pixel data of instances that lie in files stay there until they are decoded.
    """
    datasets = []
    for instance in find_series(manifest, series_uid).instances:
        try:
            datasets.append(_read_instance(instance.content, blobs))
        except pydicom.errors.InvalidDicomError as error:
            raise RefusedError(
                "series.unreadable_instance",
                "a stored instance is not a DICOM file",
                remedy="Send the instance again.",
                subject=instance.sop_instance_uid,
            ) from error
    return tuple(datasets)


def _read_instance(content: common_pb2.BlobRef, blobs: BlobReader) -> Dataset:
    if not content.uri.startswith("file://"):
        return pydicom.dcmread(BytesIO(blobs.get(content)), force=False)
    with blobs.local_path(content) as path:
        return open_instance(path)


def open_manifest_series(
    manifest: ingest_pb2.StudyManifest, series_uid: str, blobs: BlobReader, *, require_uniform: bool = True
) -> ImageVolume:
    """Reads one stored series through its blob references and loads it; refusals as in `load_series`."""
    return load_series(read_manifest_series(manifest, series_uid, blobs), require_uniform=require_uniform)
