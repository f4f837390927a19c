"""The images of the studies, and partners made from them by a known motion."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk  # noqa: N813 - its customary name
from numpy.typing import NDArray

from services.clinical.dicom.series import load_series
from services.clinical.volume import ImageVolume
from services.registration.geometry import Matrix, index_to_lps, inverse, rigid, to_affine, to_sitk

STS = ("STS_031", "STS_044")
#: Pairs of the sarcoma patients, fixed first.
STS_PAIRS = (("CT", "PET"), ("CT", "MR_T1"), ("MR_T1", "PET"))
_OUTSIDE = {"CT": -1000.0}


def mni() -> ImageVolume:
    """The MNI ICBM152 T1 brain that nilearn ships, (z, y, x) as stored, LPS mm."""
    import nilearn

    path = Path(nilearn.__file__).parent / "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
    return from_image(sitk.ReadImage(str(path), sitk.sitkFloat32), "MR", "mni")


def from_image(image: sitk.Image, modality: str, name: str) -> ImageVolume:
    """A SimpleITK image as a volume whose UIDs are the name."""
    array = np.asarray(sitk.GetArrayFromImage(image), dtype=np.float32)
    return ImageVolume(array, index_to_lps(image), modality, name, name, name)


def sarcoma(data: Path, patient: str, series: str) -> ImageVolume:
    """One series of `sts-petctmr`: CT, PET or MR_T1."""
    folder = data / "sts-petctmr" / "dicom" / patient / series / "image"
    return load_series([pydicom.dcmread(path) for path in sorted(folder.glob("*.dcm"))])


def sclerosis(data: Path, name: str) -> ImageVolume:
    """One series of `open-ms`, such as "study1_FLAIR"."""
    path = data / "open-ms" / "patient01" / f"{name}.nii.gz"
    return from_image(sitk.ReadImage(str(path), sitk.sitkFloat32), "MR", name)


def sources(data: Path) -> Iterator[tuple[str, Callable[[], ImageVolume]]]:
    """Name and loader of every image that the calibration uses."""
    yield "mni", mni
    for patient in STS:
        for series in ("CT", "PET", "MR_T1"):
            yield f"{patient}-{series}", lambda p=patient, s=series: sarcoma(data, p, s)  # type: ignore[misc]
    for name in ("study1_FLAIR", "study1_T1W", "study2_T2W"):
        yield f"ms-{name}", lambda n=name: sclerosis(data, n)  # type: ignore[misc]


def displacement(rng: np.random.Generator, degrees: float, millimetres: float, centre: NDArray[np.float64]) -> Matrix:
    """A rigid motion: turn and shift uniform up to the given sizes, in directions uniform on the sphere."""
    turn, shift = (_direction(rng) * rng.uniform(0, size) for size in (degrees, millimetres))
    return rigid(turn, shift, centre)


def push(rng: np.random.Generator, millimetres: float, centre: NDArray[np.float64]) -> Matrix:
    """A rigid motion of about this size: as many millimetres of shift, and a third as many degrees."""
    return rigid(_direction(rng) * millimetres / 3, _direction(rng) * millimetres, centre)


def moved(volume: ImageVolume, motion: Matrix, frame: str) -> ImageVolume:
    """The same voxels in another place: header geometry only, so that nothing is interpolated."""
    return dataclasses.replace(volume, affine_lps=motion @ volume.affine_lps, frame_of_reference_uid=frame)


def partner(volume: ImageVolume, motion: Matrix, rng: np.random.Generator, frame: str = "partner") -> ImageVolume:
    """Another scan of the same body after `motion` (fixed to moving, LPS mm): other contrast, grid, blur and noise.

    The contrast is a random smooth, not monotone map of the values, so only information can tell it; the grid is turned
    against the body, 1 to 1.6 times coarser, and loses up to 15 % at each end of the body's long axis.
    """
    image = to_sitk(volume)
    if rng.random() < 0.4:
        image = sitk.SmoothingRecursiveGaussian(image, float(rng.uniform(1.0, 2.5)))
    low, high = np.percentile(volume.array, [2, 99.5])
    outside = (_OUTSIDE.get(volume.modality, float(volume.array.min())) - low) / max(high - low, 1e-6)
    scaled = sitk.ShiftScale(image, -float(low), 1 / max(float(high - low), 1e-6))
    made = sitk.Resample(
        scaled, _grid(image, motion, rng), to_affine(inverse(motion)), sitk.sitkBSpline, float(np.clip(outside, 0, 1))
    )
    values = np.clip(sitk.GetArrayFromImage(made), 0.0, 1.0)
    seen = _contrast(values, rng)
    seen = seen + rng.normal(0, rng.uniform(0.01, 0.06), seen.shape)
    return ImageVolume(
        (seen * 1000).astype(np.float32), index_to_lps(made), "MR", f"{volume.series_instance_uid}-p", "p", frame
    )


def _contrast(values: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float64]:
    stops = np.linspace(0, 1, 6)
    levels = np.concatenate([[0.0], rng.permutation(np.linspace(0.25, 1.0, 5))])
    return np.interp(values, stops, levels)


def _grid(image: sitk.Image, motion: Matrix, rng: np.random.Generator) -> sitk.Image:
    """A grid over where the body went: coarser, cut at the ends, and only partly turned with the body."""
    spacing = np.asarray(image.GetSpacing()) * rng.uniform(1.0, 1.6)
    size = np.maximum(8, (np.asarray(image.GetSize()) * np.asarray(image.GetSpacing()) / spacing).astype(int))
    size[2] = max(8, int(size[2] * rng.uniform(0.7, 1.0)))
    centre = np.asarray(image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()]))
    place = motion[:3, :3] @ centre + motion[:3, 3]
    direction = np.asarray(image.GetDirection()).reshape(3, 3)
    grid = sitk.Image([int(n) for n in size], sitk.sitkFloat32)
    grid.SetSpacing(spacing.tolist())
    grid.SetDirection(image.GetDirection())
    grid.SetOrigin((place - direction @ ((size - 1) / 2 * spacing)).tolist())
    return grid


def _direction(rng: np.random.Generator) -> NDArray[np.float64]:
    direction = rng.normal(size=3)
    return np.asarray(direction / np.linalg.norm(direction))
