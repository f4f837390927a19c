"""Series as NIfTI for the viewer, all of one patient in one space.

A rigid registration changes only where a volume lies, not its voxels: the moving series keeps its pixels and gets the
fixed series' coordinates through its affine. NIfTI is RAS, Osler is LPS: x and y change sign.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Sequence
from dataclasses import dataclass

import nibabel
import numpy as np
from numpy.typing import NDArray
from osler.ingest.v1 import ingest_pb2
from osler.registration.v1 import registration_pb2

from services.clinical.volume import ImageVolume

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_MIN_SLICES = 5
_SHOWN = ("CT", "MR", "PT")


@dataclass(frozen=True)
class ViewerSeries:
    """One series that the viewer can show."""

    study_instance_uid: str
    series_instance_uid: str
    modality: str
    label: str
    frame_of_reference_uid: str


def shown_series(manifest: ingest_pb2.StudyManifest) -> list[ViewerSeries]:
    """Volumes of a study, CT before MR before PET; no localisers, no derived objects."""
    found = [
        ViewerSeries(
            manifest.study_instance_uid,
            s.series_instance_uid,
            s.modality,
            s.series_description or s.modality,
            s.frame_of_reference_uid,
        )
        for s in manifest.series
        if s.modality in _SHOWN and not s.derived and (len(s.instances) >= _MIN_SLICES)
    ]
    return sorted(found, key=lambda s: (_SHOWN.index(s.modality), s.label))


def moving_to_fixed(
    fixed: str, moving: str, registrations: Sequence[registration_pb2.Registration]
) -> NDArray[np.float64] | None:
    """4x4 LPS that brings points of series `moving` into the space of series `fixed`; None when no good transform links them.

    Follows one registration in either direction, or two through a common series.
    """
    edges: dict[str, dict[str, NDArray[np.float64]]] = {}
    for r in registrations:
        if not r.HasField("transform"):
            continue
        matrix = np.asarray(r.transform.matrix).reshape(4, 4)
        one, other = r.pair.fixed.series_instance_uid, r.pair.moving.series_instance_uid
        edges.setdefault(one, {})[other] = matrix
        edges.setdefault(other, {})[one] = np.linalg.inv(matrix)
    if fixed == moving:
        return np.eye(4)
    direct = edges.get(moving, {}).get(fixed)
    if direct is not None:
        return direct
    for middle, first in edges.get(moving, {}).items():
        second = edges.get(middle, {}).get(fixed)
        if second is not None:
            return np.asarray(second @ first)
    return None


def to_nifti(volume: ImageVolume, placement: NDArray[np.float64], scale: float = 1.0) -> bytes:
    """Gzipped NIfTI-1, 16-bit with slope. `placement`: 4x4 LPS applied to the volume's own place; `scale` multiplies values."""
    affine = LPS_TO_RAS @ placement @ volume.affine_lps
    data = np.transpose(volume.array, (2, 1, 0)) * scale
    low, high = float(data.min()), float(data.max())
    slope = (high - low) / 65000 or 1.0
    image = nibabel.Nifti1Image(np.rint((data - low) / slope - 32500).astype(np.int16), affine)
    image.header.set_slope_inter(slope, low + 32500 * slope)
    image.header.set_xyzt_units("mm")
    buffer = io.BytesIO()
    image.to_file_map({"header": nibabel.FileHolder(fileobj=buffer), "image": nibabel.FileHolder(fileobj=buffer)})
    return gzip.compress(buffer.getvalue(), compresslevel=1)
