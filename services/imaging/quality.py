"""The quality gate: whether a series can be measured, and what to do when it cannot.

Rules and sources: quality.yaml; geometry: services/clinical/dicom/geometry.yaml.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from services.clinical.dicom.geometry import Stack
from services.clinical.dicom.series import acquired_at, inspect_series

#: Modalities that are volumes of measurements; others are not judged by volume rules.
VOLUME_MODALITIES = frozenset({"CT", "MR", "PT"})


class Verdict(IntEnum):
    """As osler.imaging.v1.QualityVerdict; a worse verdict is a larger number."""

    ACCEPT = 1
    WARN = 2
    REJECT = 3


@dataclass(frozen=True)
class Issue:
    """What is wrong, and what a technologist can do about it."""

    code: str
    message: str
    remedy: str
    verdict: Verdict


@dataclass(frozen=True)
class Quality:
    """The gate's answer for one series."""

    series_instance_uid: str
    verdict: Verdict
    issues: tuple[Issue, ...]


@cache
def rules() -> dict[str, Any]:
    """Contents of quality.yaml."""
    content: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("quality.yaml").read_text(encoding="utf-8"))
    return content


def assess(datasets: Sequence[Dataset], array: NDArray[np.float32] | None = None) -> Quality:
    """Judges one series from its headers, and from its values where `array` (z, y, x) is given."""
    stack, geometry = inspect_series(datasets)
    uid = str(datasets[0].get("SeriesInstanceUID", "")) if datasets else ""
    issues = [Issue(i.code, i.message, i.remedy, Verdict.REJECT) for i in geometry]
    if datasets and str(datasets[0].get("Modality", "")) in VOLUME_MODALITIES:
        issues += _header_issues(datasets, stack)
    if array is not None and float(np.ptp(array)) == 0:
        issues.append(_issue("constant_image", "every pixel has the same value"))
    return Quality(uid, max((issue.verdict for issue in issues), default=Verdict.ACCEPT), tuple(issues))


def _issue(code: str, message: str) -> Issue:
    rule = rules()["issues"][code]
    return Issue(code, message, rule["remedy"], Verdict[rule["verdict"].upper()])


def _header_issues(datasets: Sequence[Dataset], stack: Stack) -> list[Issue]:
    first, thresholds = datasets[0], rules()["thresholds"]
    modality = str(first.get("Modality", ""))
    issues = []
    if modality == "PT":
        issues += _pet_issues(first)
    expected = _expected_count(first)
    if expected is not None and len(stack.frames) < expected:
        issues.append(_issue("incomplete_series", f"{len(stack.frames)} of {expected} images are here"))
    if len(stack.frames) < thresholds["fewest_slices"]:
        issues.append(_issue("few_slices", f"the series has {len(stack.frames)} slice(s)"))
    if stack.affine_lps is not None:
        spacing = float(np.linalg.norm(stack.affine_lps[:3, 2]))
        limit = thresholds["thickest_slice_mm"][modality]
        if spacing > limit:
            issues.append(_issue("thick_slices", f"slices lie {spacing:.1f} mm apart (more than {limit:g} mm)"))
    if not first.get("FrameOfReferenceUID"):
        issues.append(_issue("no_frame_of_reference", "(0020,0052) FrameOfReferenceUID is absent"))
    if str(first.get("LossyImageCompression", "")) == "01":
        issues.append(_issue("lossy_compression", "the images were compressed with loss"))
    if acquired_at(datasets) is None:
        issues.append(_issue("no_acquisition_time", "the images do not say when they were acquired"))
    return issues


def _pet_issues(dataset: Dataset) -> list[Issue]:
    issues = []
    units = str(dataset.get("Units", "") or "")
    allowed = rules()["thresholds"]["pet_units"]
    if units not in allowed:
        issues.append(
            _issue("wrong_units", f"(0054,1001) Units is {units or 'absent'}; uptake needs {', '.join(allowed)}")
        )
    corrected = {str(item) for item in dataset.get("CorrectedImage") or []}
    if corrected and not {"ATTN", "DECY"} <= corrected:
        issues.append(_issue("not_corrected", "(0028,0051) CorrectedImage lacks ATTN or DECY"))
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
