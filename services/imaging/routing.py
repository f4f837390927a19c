"""Routing: which analyses a series goes to, decided from DICOM attributes and geometry; rules in routing.yaml.

Descriptions are free text and are not trusted: they serve only to recognise a contrast that the sequence parameters
leave open.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydicom.dataset import Dataset

from services.clinical.dicom.series import inspect_series
from services.imaging.quality import VOLUME_MODALITIES, Quality, Verdict

PET = "pet-quantification"
HIPPOCAMPUS = "hippocampus-segmentation"
LESION_SIZE = "lesion-size"
_T1_WORDS = re.compile(r"(?<![A-Z0-9])(T1|MPRAGE|MP-RAGE|SPGR|BRAVO|TFE)", re.IGNORECASE)
_OTHER_WORDS = {
    "FLAIR": re.compile(r"FLAIR", re.IGNORECASE),
    "DWI": re.compile(r"(?<![A-Z])(DWI|ADC|DTI|TRACE)", re.IGNORECASE),
    "SWI": re.compile(r"(?<![A-Z])(SWI|SWAN)", re.IGNORECASE),
    "T2": re.compile(r"(?<![A-Z0-9])T2", re.IGNORECASE),
}


@dataclass(frozen=True)
class SeriesFacts:
    """What routing looks at. `extent_mm`: sorted field of view; `voxel_mm`: sorted voxel edges; empty without geometry."""

    modality: str
    units: str
    image_type: tuple[str, ...]
    contrast: str
    extent_mm: tuple[float, ...]
    voxel_mm: tuple[float, ...]
    has_regions: bool


@dataclass(frozen=True)
class Decision:
    """Analyses for one series, and why these, or why none."""

    series_instance_uid: str
    analyses: tuple[str, ...]
    reason: str


@cache
def rules() -> dict[str, Any]:
    """Contents of routing.yaml."""
    content: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("routing.yaml").read_text(encoding="utf-8"))
    return content


def facts_of(datasets: Sequence[Dataset], has_regions: bool = False) -> SeriesFacts:
    """Reads the facts from headers; pixel data are not decoded."""
    first = datasets[0]
    stack, _ = inspect_series(datasets)
    extent: tuple[float, ...] = ()
    voxel: tuple[float, ...] = ()
    if stack.affine_lps is not None:
        edges = np.linalg.norm(stack.affine_lps[:3, :3], axis=0)
        counts = (int(first.get("Columns", 0)), int(first.get("Rows", 0)), len(stack.frames))
        voxel = tuple(sorted(float(edge) for edge in edges))
        extent = tuple(sorted(float(edge * count) for edge, count in zip(edges, counts, strict=True)))
    return SeriesFacts(
        modality=str(first.get("Modality", "") or ""),
        units=str(first.get("Units", "") or "").upper(),
        image_type=tuple(str(part).upper() for part in first.get("ImageType") or ()),
        contrast=contrast_of(first),
        extent_mm=extent,
        voxel_mm=voxel,
        has_regions=has_regions,
    )


def contrast_of(dataset: Dataset) -> str:
    """MR contrast: "T1", "T2", "FLAIR", "DWI", "SWI", or "" where nothing tells.

    From sequence parameters where recorded (spin echo: TR < 1000 ms and TE < 30 ms is T1, TE >= 60 ms is T2, with an
    inversion time above 1500 ms FLAIR), else from protocol and series description.
    """
    echo, repetition, inversion = (
        _number(dataset.get(keyword)) for keyword in ("EchoTime", "RepetitionTime", "InversionTime")
    )
    if echo is not None and repetition is not None:
        if echo >= 60:
            return "FLAIR" if inversion is not None and inversion > 1500 else "T2"
        if echo < 30 and (repetition < 1000 or (inversion is not None and 200 < inversion < 1500)):
            return "T1"
    text = f"{dataset.get('ProtocolName', '')} {dataset.get('SeriesDescription', '')}"
    for name, pattern in _OTHER_WORDS.items():
        if pattern.search(text):
            return name
    return "T1" if _T1_WORDS.search(text) else ""


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def set_aside(modality: str, datasets: Sequence[Dataset] = ()) -> str:
    """Why a series is neither judged nor analysed; "" for an image volume. Decides from `modality` alone if it can."""
    if modality in rules()["not_volumes"]:
        return str(rules()["not_volumes"][modality])
    if modality not in VOLUME_MODALITIES:
        return str(rules()["fallback"])
    pictures = rules()["pictures"]
    if datasets and all(
        str(dataset.get("SOPClassUID", "")) in pictures["sop_classes"]
        or {str(part).upper() for part in dataset.get("ImageType") or ()} & set(pictures["image_types"])
        for dataset in datasets
    ):
        return str(pictures["reason"])
    return ""


def route(series_uid: str, facts: SeriesFacts, quality: Quality) -> Decision:
    """The decision for one image volume; a rejected one goes nowhere."""
    if quality.verdict is Verdict.REJECT:
        codes = ", ".join(issue.code for issue in quality.issues if issue.verdict is Verdict.REJECT)
        return Decision(series_uid, (), f"rejected by the quality gate: {codes}")
    for rule in rules()["rules"]:
        if all(_CONDITIONS[name](facts, wanted) for name, wanted in rule["when"].items()):
            return Decision(series_uid, tuple(rule["analyses"]), str(rule["reason"]))
    return Decision(series_uid, (), str(rules()["fallback"]))


def _among(value: str, wanted: Any) -> bool:
    return value in (wanted if isinstance(wanted, list) else [wanted])


def _within(values: tuple[float, ...], ranges: list[list[float]]) -> bool:
    return len(values) == len(ranges) and all(
        low <= value <= high for value, (low, high) in zip(values, ranges, strict=True)
    )


_CONDITIONS: Mapping[str, Callable[[SeriesFacts, Any], bool]] = {
    "modality": lambda facts, wanted: _among(facts.modality, wanted),
    "units": lambda facts, wanted: _among(facts.units, wanted),
    "extent_mm": lambda facts, wanted: _within(facts.extent_mm, wanted),
    "voxel_mm": lambda facts, wanted: bool(facts.voxel_mm) and all(wanted[0] <= v <= wanted[1] for v in facts.voxel_mm),
    "not_image_type": lambda facts, wanted: not set(facts.image_type) & set(wanted),
    "not_contrast": lambda facts, wanted: facts.contrast not in wanted,
    "has_regions": lambda facts, wanted: facts.has_regions is wanted,
}
