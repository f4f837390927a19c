"""Known crops and strange ones for the hippocampus model.

Known: Medical Segmentation Decathlon, Task04. Strange: the same crops spoilt (contrast inverted, upside down, noise), and
crops of the same size from elsewhere: thigh CT and MR, other parts of the head, other contrasts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
from numpy.typing import NDArray

from services.clinical.dicom.series import load_series

Crop = tuple[NDArray[np.float32], NDArray[np.float64]]
LAYERS = ("input_block", "downsamples.0")
SPOILT = 60
ELSEWHERE = 40
SIZE_MM = (35, 50, 35)
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_SERIES = {
    "thigh CT": "sts-petctmr/dicom/STS_031/CT/image",
    "thigh MR": "sts-petctmr/dicom/STS_031/MR_T1/image",
    "T1 elsewhere in a head": "glioblastoma-mr/PGBM-003/11-T1post-18670",
}
_NIFTI = {
    "FLAIR elsewhere in a head": "open-ms/patient01/study1_FLAIR.nii.gz",
    "T1 elsewhere in another head": "open-ms/patient01/study2_T1W.nii.gz",
}
#: A crop around a hippocampus from another hospital, which should be familiar.
FOREIGN = "glioblastoma-mr/PGBM-003/11_HCropVolume"


def known(shared: Path) -> Iterator[Crop]:
    """The crops of the Decathlon, as (array (z, y, x), affine to LPS mm)."""
    for path in sorted((shared / "hippocampus" / "images").glob("*.nii.gz")):
        yield _nifti(path)


def foreign(shared: Path) -> Crop:
    """A true hippocampus crop of another origin."""
    return _series(shared / FOREIGN)


def strange(shared: Path) -> Iterator[tuple[str, Crop]]:
    """Kind and crop."""
    generator = np.random.default_rng(0)
    for number, (array, affine) in enumerate(known(shared)):
        if number >= SPOILT:
            break
        yield "contrast inverted", (array.max() - array, affine)
        turned = affine @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, len(array) - 1], [0, 0, 0, 1.0]])
        yield "upside down", (array, turned)
        grain = generator.normal(0, float(array.std()), array.shape).astype(np.float32)
        yield "as much noise as contrast", (array + grain, affine)
        yield "noise alone", (generator.normal(size=array.shape).astype(np.float32), affine)
    for kind, folder in _SERIES.items():
        for crop in _crops(_series(shared / folder), generator):
            yield kind, crop
    for kind, name in _NIFTI.items():
        for crop in _crops(_nifti(shared / name), generator):
            yield kind, crop


def _crops(volume: Crop, generator: np.random.Generator) -> Iterator[Crop]:
    """Random crops of the size of a hippocampus crop that are mostly tissue."""
    array, affine = volume
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    voxels = [max(4, round(size / edge)) for size, edge in zip(SIZE_MM, edges, strict=True)]
    tissue = float(np.median(array))
    for _ in range(ELSEWHERE):
        start = [int(generator.integers(0, max(1, n - v))) for n, v in zip(array.shape[::-1], voxels, strict=True)]
        (i, j, k), (x, y, z) = start, voxels
        part = array[k : k + z, j : j + y, i : i + x]
        if part.std() > 0 and (part > tissue).mean() >= 0.3:
            moved = affine.copy()
            moved[:3, 3] = affine[:3, :3] @ start + affine[:3, 3]
            yield part, moved


def _nifti(path: Path) -> Crop:
    image: Any = nibabel.load(path)
    return np.ascontiguousarray(image.get_fdata(dtype=np.float32).T), _RAS_TO_LPS @ image.affine


def _series(folder: Path) -> Crop:
    volume = load_series([pydicom.dcmread(path) for path in sorted(folder.glob("*.dcm"))])
    return volume.array, volume.affine_lps
