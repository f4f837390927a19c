"""Series from files for one run, and its result as files: NIfTI, JSON, and DICOM SEG and SR where the input was DICOM."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from osler.imaging.v1 import imaging_pb2
from pydicom.dataset import Dataset

from services.clinical import codes
from services.clinical.dicom.derived import tracking_uid
from services.clinical.dicom.series import inspect_series, load_series
from services.clinical.volume import ImageVolume
from services.imaging.findings import Interval, MeasuredRegion
from services.imaging.host.contract import Card, Kind, Map, Mask, Measurement, Result
from services.imaging.host.refusals import refused
from services.imaging.objects import make_objects
from services.platform.errors import RefusedError

_RAS_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_GZIP = b"\x1f\x8b"
_NIFTI = (".nii", ".nii.gz")
_PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
NOT_STATED = "the file states no modality: that the model fits this image is the caller's word"
NO_SPACING = "the file states no pixel spacing: sizes are in pixels, not mm"


@dataclass(frozen=True)
class Series:
    """One series read, or why it could not be. `datasets`: its DICOM instances, empty for other files."""

    name: str
    volume: ImageVolume | None
    datasets: tuple[Dataset, ...] = ()
    refusal: RefusedError | None = None
    cautions: tuple[str, ...] = ()


def read_path(path: Path) -> list[Series]:
    """Every series of a DICOM folder or file, or the one image of a NIfTI or picture file.

    Raises RefusedError `input.*` when nothing there is an image.
    """
    if path.is_file() and path.name.lower().endswith(_NIFTI):
        return [read_nifti(path)]
    if path.is_file() and path.suffix.lower() in _PICTURES:
        return [_picture(path)]
    if not path.exists():
        raise RefusedError(
            "input.absent", "the input path does not exist", remedy="Name a folder or file that is there."
        )
    found = read_datasets(_dicom(path))
    images = (
        [read_nifti(item) for item in sorted(path.iterdir()) if item.name.lower().endswith(_NIFTI)]
        if path.is_dir()
        else []
    )
    if not found and not images:
        raise RefusedError(
            "input.no_image",
            "nothing there is a DICOM instance, NIfTI or picture",
            remedy="Name a folder of one study.",
        )
    return [*found, *images]


def _dicom(path: Path) -> Iterator[Dataset]:
    import pydicom
    from pydicom.errors import InvalidDicomError

    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            try:
                yield pydicom.dcmread(file)
            except (InvalidDicomError, OSError):
                continue


def read_datasets(datasets: Iterator[Dataset] | Sequence[Dataset]) -> list[Series]:
    """Instances by series, each as a volume; series without pixels are left out."""
    groups: dict[str, list[Dataset]] = {}
    for dataset in datasets:
        if "PixelData" in dataset:
            groups.setdefault(str(dataset.get("SeriesInstanceUID", "")), []).append(dataset)
    found = []
    for uid, group in groups.items():
        try:
            found.append(Series(uid, load_series(group), tuple(group)))
        except RefusedError as error:
            found.append(Series(uid, None, tuple(group), error))
    return found


def read_nifti(path: Path) -> Series:
    """A NIfTI file. Raises RefusedError `input.unreadable` or `input.not_a_volume`."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _unreadable("NIfTI", error) from error
    return Series(path.name, nifti_volume(content, path.name), cautions=(NOT_STATED,))


def nifti_volume(content: bytes, name: str) -> ImageVolume:
    """The volume of a NIfTI file's bytes, compressed or not. Raises RefusedError as `read_nifti`."""
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    try:
        plain = gzip.decompress(content) if content[:2] == _GZIP else content
        image: Any = nibabel.Nifti1Image.from_bytes(plain)
        array = np.asarray(image.dataobj, dtype=np.float32)
    except (ImageFileError, HeaderDataError, WrapStructError, OSError, EOFError, ValueError, zlib.error) as error:
        raise _unreadable("NIfTI", error) from error
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 3:
        raise RefusedError(
            "input.not_a_volume",
            f"the NIfTI file holds {array.ndim} dimensions, not 3",
            remedy="Split it into volumes.",
        )
    return _volume(array.transpose(2, 1, 0), lps_of(image.affine), name)


def lps_of(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """RAS to LPS, which is also LPS to RAS."""
    return np.asarray(_RAS_LPS @ affine, dtype=np.float64)


def _picture(path: Path) -> Series:
    from skimage import io

    try:
        array = np.asarray(io.imread(path), dtype=np.float32)
    except (OSError, ValueError, SyntaxError) as error:
        raise _unreadable(path.suffix, error) from error
    if array.ndim == 3:
        if not (array[..., :3] == array[..., :1]).all():
            raise RefusedError("input.colour", "the picture is in colour", remedy="Send a grey-scale image.")
        array = array[..., 0]
    # y grows downwards in a picture, and posterior-wards in an axial one; without a header neither is known.
    return Series(path.name, _volume(array[None], np.eye(4), path.name), cautions=(NOT_STATED, NO_SPACING))


def _unreadable(kind: str, error: Exception) -> RefusedError:
    return RefusedError(
        "input.unreadable", f"the {kind} file cannot be read ({type(error).__name__})", remedy="Export it again."
    )


def _volume(array: NDArray[np.float32], affine_lps: NDArray[np.float64], name: str) -> ImageVolume:
    return ImageVolume(np.ascontiguousarray(array), affine_lps, "", name, "", "")


@dataclass(frozen=True)
class Written:
    """One run as it was written: the JSON document, and the files beside it."""

    document: dict[str, Any]
    files: tuple[Path, ...]


def write_result(card: Card, result: Result, series: Series, out: Path, made_at: datetime) -> Written:
    """Writes masks and maps as NIfTI, SEG and SR for a DICOM series, and result.json, into the folder `out`."""
    import nibabel

    out.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    named: dict[str, str] = {}
    images: list[tuple[str, Mask | Map]] = [("mask", item) for item in result.masks]
    for prefix, item in [*images, *(("map", item) for item in result.maps)]:
        path = out / f"{prefix}_{slug(item.name)}.nii.gz"
        kind = np.uint8 if isinstance(item, Mask) else np.float32
        affine = lps_of(item.affine_lps)
        nibabel.save(nibabel.Nifti1Image(item.array.astype(kind).transpose(2, 1, 0), affine), path)
        named[item.name] = path.name
        files.append(path)
    files += _write_dicom(card, result, series, out, made_at)
    document = describe(card, result, series, named)
    path = out / "result.json"
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return Written(document, (*files, path))


def slug(name: str) -> str:
    """A name for a file."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unnamed"


def _write_dicom(card: Card, result: Result, series: Series, out: Path, made_at: datetime) -> list[Path]:
    volume = series.volume
    if not series.datasets or volume is None:
        return []
    fits: Callable[[Mask], bool] = lambda mask: (  # noqa: E731
        mask.array.shape == volume.array.shape and np.allclose(mask.affine_lps, volume.affine_lps, atol=1e-3)
    )
    regions = [measured_region(card, result, mask) for mask in result.masks if mask.array.any() and fits(mask)]
    if not regions:
        return []
    stack, _ = inspect_series(series.datasets)
    paths = []
    for made in make_objects(stack.frames, volume, regions, 1, made_at):
        path = out / f"{made.modality}.dcm"
        path.write_bytes(made.content)
        paths.append(path)
    return paths


def measured_region(card: Card, result: Result, mask: Mask) -> MeasuredRegion:
    """A mask with its measurements, as the room's own objects have it."""
    concept = mask.concept or card.finding or codes.ORGAN
    method = f"{card.name}@{card.version}"
    return MeasuredRegion(
        mask=mask.array,
        kind=imaging_pb2.FINDING_KIND_ORGAN,
        finding_type=concept,
        tracking_id=mask.name,
        tracking_uid=tracking_uid(card.name, mask.name),
        values=tuple(item.value for item in result.measurements if item.region == mask.name),
        method=method,
        algorithm=(card.name, card.version),
        learned=card.kind is Kind.LEARNED,
        cautions=result.cautions,
        parameters=result.parameters,
        citations=card.citations,
    )


def describe(card: Card, result: Result, series: Series, files: Mapping[str, str]) -> dict[str, Any]:
    """The result as plain data, without patient data."""
    volume = series.volume
    return {
        "model": {
            "name": card.name,
            "version": card.version,
            "licence": card.licence,
            "weights_sha256": card.weights_sha256,
            "intended_use": card.intended_use,
            "limits": list(card.limits),
        },
        "input": {"series": series.name, "modality": volume.modality if volume else ""},
        "masks": [
            {
                "name": mask.name,
                "file": files.get(mask.name, ""),
                "code": _code(mask.concept),
                "voxels": int(mask.array.sum()),
            }
            for mask in result.masks
        ],
        "maps": [{"name": item.name, "file": files.get(item.name, ""), "unit": item.unit} for item in result.maps],
        "measurements": [_measurement(item) for item in result.measurements],
        "findings": [
            {
                "name": item.concept.display,
                "code": _code(item.concept),
                "probability": item.probability,
                "calibrated": item.calibrated,
                "note": item.not_estimated,
            }
            for item in result.findings
        ],
        "cautions": [*result.cautions, *series.cautions],
        "parameters": dict(result.parameters),
    }


def _measurement(item: Measurement) -> dict[str, Any]:
    value, uncertainty = item.value, item.value.uncertainty
    interval = uncertainty if isinstance(uncertainty, Interval) else None
    return {
        "region": item.region,
        "name": value.concept.display,
        "code": _code(value.concept),
        "value": value.value,
        "unit": value.unit,
        "interval": [interval.lower, interval.upper] if interval else None,
        "level": interval.level if interval else None,
        "uncertainty": "" if interval else str(uncertainty),
        "method": value.method,
    }


def _code(concept: codes.Concept | None) -> dict[str, str] | None:
    return {"system": concept.system, "code": concept.code} if concept else None


def fitting(card: Card, found: Sequence[Series]) -> list[Series]:
    """Series that a card with one role takes: of its modality, or of none stated.

    Raises RefusedError `model.no_fitting_series`.
    """
    wanted = card.roles[0].modalities
    chosen = [
        item
        for item in found
        if item.volume is None or not wanted or not item.volume.modality or item.volume.modality in wanted
    ]
    if not chosen:
        held = ", ".join(sorted({item.volume.modality for item in found if item.volume is not None}))
        raise refused(
            "no_fitting_series",
            f"{card.name} takes {' or '.join(wanted)}; the input holds {held}",
            "Choose another model.",
        )
    return chosen
