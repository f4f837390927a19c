"""All checks, in the order in which a technologist would make them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import pixel_array

from services.clinical.dicom.pixels import read_frames
from services.clinical.dicom.series import inspect_series
from services.imaging.quality import header, identity, image, pet, protocol
from services.imaging.quality.verdict import Evidence, Issue, Quality, Verdict, issue, rules
from services.platform.errors import RefusedError

#: Modalities that are volumes of measurements; others are not judged by volume rules.
VOLUME_MODALITIES = frozenset({"CT", "MR", "PT"})

Check = Callable[[Evidence], list[Issue]]

#: Checks of headers: for volumes, and for everything.
VOLUME_HEADER_CHECKS: tuple[Check, ...] = (
    header.slice_count,
    header.slice_thickness,
    header.frame_of_reference,
    header.acquisition_time,
    pet.units,
    pet.corrections,
    pet.uptake_time,
    protocol.contrast_phase,
    protocol.mr_weighting,
)
HEADER_CHECKS: tuple[Check, ...] = (
    header.lossy_compression,
    protocol.projection,
    identity.laterality_tags,
    identity.laterality_text,
    identity.laterality_position,
    identity.burned_in_tag,
)
#: Checks of pixels, on a volume; and on pictures.
VOLUME_PIXEL_CHECKS: tuple[Check, ...] = (
    image.blank_slices,
    image.ct_noise,
    image.mr_noise,
    image.ghosting,
    image.slice_jump,
    image.field_of_view,
    image.vertex,
    image.chest_without_lung,
    identity.burned_in_stack,
    pet.plausible_uptake,
)
PICTURE_PIXEL_CHECKS: tuple[Check, ...] = (identity.burned_in_picture,)


def assess(datasets: Sequence[Dataset], array: NDArray[np.float32] | None = None) -> Quality:
    """Judges one series from its headers, and from its values where `array` is given.

    `array`: (z, y, x) in physical units as `load_series` gives it; for pictures without a place in space (X-ray,
    ultrasound) (n, rows, columns) as stored.
    """
    stack, geometry = inspect_series(datasets)
    uid = str(datasets[0].get("SeriesInstanceUID", "")) if datasets else ""
    pictures = bool(datasets) and _are_pictures(datasets)
    placeless = set(rules()["geometry"]["not_for_pictures"]) if pictures else set()
    issues = [Issue(i.code, i.message, i.remedy, Verdict.REJECT) for i in geometry if i.code not in placeless]
    if datasets:
        evidence = Evidence(datasets, stack, array)
        for check in _checks(evidence, pictures):
            issues += check(evidence)
    return Quality(uid, max((found.verdict for found in issues), default=Verdict.ACCEPT), tuple(issues))


def assess_series(datasets: Sequence[Dataset]) -> Quality:
    """Judges one series from its headers, and from its pixels where these can be decoded."""
    judged = assess(datasets)
    if not datasets or any(found.code in ("no_pixel_data", "colour") for found in judged.issues):
        return judged
    try:
        return assess(datasets, _decoded(datasets))
    except RefusedError as error:
        code = error.reason.rpartition(".")[2]
        found = (*judged.issues, Issue(code, error.message, error.remedy, Verdict.REJECT))
        return Quality(judged.series_instance_uid, Verdict.REJECT, found)


def _decoded(datasets: Sequence[Dataset]) -> NDArray[np.float32] | None:
    if not _are_pictures(datasets):
        stack, _ = inspect_series(datasets)
        return read_frames(stack.frames) if stack.affine_lps is not None else None
    planes = [_first_frame(dataset) for dataset in datasets]
    return np.stack(planes) if len({plane.shape for plane in planes}) == 1 else planes[0][None]


def _first_frame(dataset: Dataset) -> NDArray[np.float32]:
    try:
        several = int(dataset.get("NumberOfFrames") or 1) > 1
        return np.asarray(pixel_array(dataset, index=0 if several else None), dtype=np.float32)
    except (AttributeError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        raise RefusedError(
            "series.undecodable_pixel_data",
            f"an instance's pixel data cannot be decoded ({type(error).__name__})",
            remedy="Send the image again, uncompressed or in JPEG, JPEG-LS, JPEG 2000 or RLE transfer syntax.",
        ) from error


def _are_pictures(datasets: Sequence[Dataset]) -> bool:
    return str(datasets[0].get("Modality", "") or "") in rules()["geometry"]["pictures"]


def _checks(evidence: Evidence, pictures: bool) -> tuple[Check, ...]:
    volume = evidence.modality in VOLUME_MODALITIES
    checks = (*(VOLUME_HEADER_CHECKS if volume else ()), *HEADER_CHECKS)
    if evidence.array is None:
        return checks
    if float(np.ptp(evidence.array)) == 0:
        return (*checks, _constant)
    if pictures:
        return (*checks, *PICTURE_PIXEL_CHECKS)
    return (*checks, *(VOLUME_PIXEL_CHECKS if volume and evidence.spacing_mm is not None else ()))


def _constant(_: Evidence) -> list[Issue]:
    return [issue("constant_image", "every pixel has the same value")]
