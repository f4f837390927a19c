"""Checks that need only the attributes of a series: how much of it is here, how finely, how it came."""

from __future__ import annotations

from pydicom.dataset import Dataset

from services.clinical.dicom.series import acquired_at
from services.imaging.quality.verdict import Evidence, Issue, issue, rules


def slice_count(evidence: Evidence) -> list[Issue]:
    """Fewer slices than the sender counted, or than make a volume."""
    here, expected = len(evidence.stack.frames), _expected_count(evidence.first)
    issues = []
    if expected is not None and here < expected:
        issues.append(issue("incomplete_series", f"{here} of {expected} images are here"))
    if here < rules()["thresholds"]["fewest_slices"]:
        issues.append(issue("few_slices", f"the series has {here} slice(s)"))
    return issues


def _expected_count(dataset: Dataset) -> int | None:
    """Images that the sender counted in the series, where it said so and the count can be told apart from phases."""
    for keyword in ("NumberOfSlices", "ImagesInAcquisition"):
        try:
            count = int(dataset.get(keyword))
        except (TypeError, ValueError):
            continue
        if count > 0:
            return count
    return None


def slice_thickness(evidence: Evidence) -> list[Issue]:
    """Slices further apart than small structures can be measured on."""
    spacing = evidence.spacing_mm
    limit = rules()["thresholds"]["thickest_slice_mm"].get(evidence.modality)
    if spacing is None or limit is None or spacing[2] <= limit:
        return []
    return [issue("thick_slices", f"slices lie {spacing[2]:.1f} mm apart (more than {limit:g} mm)")]


def frame_of_reference(evidence: Evidence) -> list[Issue]:
    """No frame of reference: nothing else can be laid over the images."""
    if evidence.first.get("FrameOfReferenceUID"):
        return []
    return [issue("no_frame_of_reference", "(0020,0052) FrameOfReferenceUID is absent")]


def acquisition_time(evidence: Evidence) -> list[Issue]:
    """Nothing says when the images were acquired."""
    if acquired_at(evidence.datasets) is not None:
        return []
    return [issue("no_acquisition_time", "the images do not say when they were acquired")]


def lossy_compression(evidence: Evidence) -> list[Issue]:
    """Compressed with loss (PS3.3 C.7.6.1.1.5)."""
    if not any(str(dataset.get("LossyImageCompression", "")) == "01" for dataset in evidence.datasets):
        return []
    return [issue("lossy_compression", "the images were compressed with loss")]
