"""Time curves of dynamic CT: enhancement over baseline on an even time grid, arterial and venous curves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from services.imaging.analysers.cards import card
from services.imaging.analysers.contract import BoolArray, Image, refuse, require_unit

NAME = "ct_perfusion"
Curves = NDArray[np.float64]
_VESSEL_VOXELS = 5
#: Later by this much, or wider by this much, weighs as much as no height at all when an artery is looked for.
_LATE_S, _WIDE_S = 6.0, 10.0
_FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))


@dataclass(frozen=True)
class Enhancement:
    """HU over baseline: `curves` (voxel, t) of the voxels of `mask`, every `step_s` seconds; `raw`: not smoothed."""

    curves: Curves
    raw: Curves
    mask: BoolArray
    baseline_hu: NDArray[np.float64]
    step_s: float
    first_s: float
    cautions: tuple[str, ...]


def check_frames(image: Image) -> None:
    """Raises RefusedError `ct_perfusion.wrong_unit|not_dynamic|too_few_frames|bad_times|too_short|irregular_sampling`."""
    limits = card(NAME).constants
    require_unit(NAME, "ct", image, "[hnsf'U]")
    if image.array.ndim != 4:
        raise refuse(NAME, "not_dynamic", "the CT has no time dimension", "a dynamic series (t, z, y, x)")
    frames, times = len(image.array), np.asarray(image.times_s, float)
    if frames < limits["fewest_frames"]:
        least = limits["fewest_frames"]
        raise refuse(NAME, "too_few_frames", f"{frames} frames; deconvolution needs at least {least}")
    if times.size != frames or not np.all(np.diff(times) > 0):
        raise refuse(NAME, "bad_times", f"{times.size} times for {frames} frames, or not rising", "time of each frame")
    if np.ptp(times) < limits["shortest_s"]:
        raise refuse(
            NAME, "too_short", f"{np.ptp(times):.0f} s of data; the bolus needs at least {limits['shortest_s']} s"
        )
    if np.diff(times).max() > limits["widest_gap_s"]:
        raise refuse(
            NAME,
            "irregular_sampling",
            f"a gap of {np.diff(times).max():.1f} s between frames; at most {limits['widest_gap_s']} s can be bridged",
            "the frames in the gap",
        )


def brain_mask(baseline_hu: NDArray[np.float64]) -> BoolArray:
    """Largest connected piece within the attenuation of brain, cleaned by one voxel in plane, holes filled."""
    low, high = card(NAME).constants["brain_hu"]
    plane = ndimage.generate_binary_structure(3, 1)
    plane[[0, 2]] = False
    rough = ndimage.binary_opening((baseline_hu > low) & (baseline_hu < high), plane, iterations=2)
    pieces, count = ndimage.label(rough)
    if not count:
        raise refuse(NAME, "no_brain", "no tissue with the attenuation of brain", remedy="Give a brain mask.")
    largest = pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()
    return np.stack([ndimage.binary_fill_holes(one) for one in largest])


def enhancement(image: Image, mask: BoolArray | None, smoothing_mm: float) -> Enhancement:
    """Curves over baseline. Raises RefusedError as `check_frames`, `ct_perfusion.no_baseline|no_contrast|no_brain`."""
    check_frames(image)
    times, cautions = np.asarray(image.times_s, float), []
    frames = np.asarray(image.array, dtype=np.float64)
    mask = brain_mask(frames[: card(NAME).constants["fewest_baseline_frames"]].mean(axis=0)) if mask is None else mask
    smooth = _smoothed(frames, mask, image, smoothing_mm)
    count = baseline_frames(smooth[:, mask].T)
    step = float(np.median(np.diff(times)))
    if np.ptp(np.diff(times)) > 0.02 * step:
        cautions.append(f"frames are not evenly spaced: interpolated to one every {step:.2f} s")
    return Enhancement(
        curves=_even(smooth[:, mask].T, times, count, step),
        raw=_even(frames[:, mask].T, times, count, step),
        mask=mask,
        baseline_hu=smooth[:count].mean(axis=0),
        step_s=step,
        first_s=float(times[0]),
        cautions=tuple(cautions),
    )


def _even(curves: Curves, times: Curves, baseline_count: int, step_s: float) -> Curves:
    """Over baseline, at even times, linearly interpolated."""
    over = curves - curves[:, :baseline_count].mean(axis=1, keepdims=True)
    even = np.arange(times[0], times[-1] + 1e-6, step_s)
    before = np.clip(np.searchsorted(times, even, side="right") - 1, 0, times.size - 2)
    share = (even - times[before]) / (times[before + 1] - times[before])
    result: Curves = over[:, before] * (1 - share) + over[:, before + 1] * share
    return result


def _smoothed(frames: Curves, mask: BoolArray, image: Image, width_mm: float) -> Curves:
    """In-plane Gaussian within the mask only, so that air and bone do not leak in."""
    if width_mm <= 0:
        return frames
    x, y, _ = image.spacing_mm
    sigma = (0.0, width_mm / _FWHM / y, width_mm / _FWHM / x)
    weight = ndimage.gaussian_filter(mask.astype(np.float64), sigma)
    inside = np.maximum(weight, 1e-6)
    return np.stack([ndimage.gaussian_filter(np.where(mask, one, 0.0), sigma) / inside for one in frames])


def baseline_frames(curves: Curves) -> int:
    """Frames before contrast arrives in the earliest of the strongest curves, one frame kept clear of it."""
    limits = card(NAME).constants
    rise = curves.max(axis=1) - curves[:, 0]
    strongest = curves[np.argsort(rise)[-4 * _VESSEL_VOXELS :]].mean(axis=0)
    start = np.median(strongest[:2])
    if strongest.max() - start < limits["least_enhancement_hu"]:
        raise refuse(
            NAME,
            "no_contrast",
            f"the strongest curves rise by {strongest.max() - start:.0f} HU only",
            "an injected contrast bolus within the acquisition",
        )
    tall = curves[rise >= 0.4 * rise.max()] - start
    arrivals = np.argmax(tall > 0.2 * tall.max(axis=1, keepdims=True), axis=1)
    count = int(np.quantile(arrivals, 0.05)) - 1
    if count < limits["fewest_baseline_frames"]:
        raise refuse(
            NAME,
            "no_baseline",
            "contrast is there from the first frames on",
            f"at least {limits['fewest_baseline_frames']} frames before the bolus",
            remedy="Start the acquisition earlier after the injection.",
        )
    return count


@dataclass(frozen=True)
class Vessels:
    """Arterial input (scaled to the venous area for partial volume) and venous outflow, HU; voxels as (k, j, i)."""

    aif: Curves
    vof: Curves
    scale: float
    aif_voxels: NDArray[np.intp]
    vof_voxels: NDArray[np.intp]
    how: str


def vessels(found: Enhancement, aif: BoolArray | None, vof: BoolArray | None) -> Vessels:
    """Arterial and venous curves: from given voxels, else from those that look most like an artery or a vein.

    An artery peaks early, high and narrow; the vein has the largest area and peaks later. Partial volume lowers the
    arterial curve, so it is scaled until its area equals the vein's, never down. Voxels are chosen on the smoothed
    curves and read from the frames as they are, since smoothing lowers small vessels.
    """
    artery = _given(found, aif, "aif") if aif is not None else _artery(found)
    vein = _given(found, vof, "vof") if vof is not None else _vein(found, artery)
    input_curve, outflow = found.raw[artery].mean(axis=0), found.raw[vein].mean(axis=0)
    least = card(NAME).constants["least_enhancement_hu"]
    if input_curve.max() < least:
        raise refuse(NAME, "no_contrast", f"the arterial curve rises by {input_curve.max():.0f} HU only", "an artery")
    scale = max(1.0, float(outflow.sum() / input_curve.sum()))
    places = np.argwhere(found.mask)
    how = ", ".join(f"{n} {'given' if m is not None else 'found'}" for n, m in (("aif", aif), ("vof", vof)))
    return Vessels(input_curve * scale, outflow, scale, places[artery], places[vein], how)


def _given(found: Enhancement, chosen: BoolArray, role: str) -> NDArray[np.intp]:
    inside = np.flatnonzero(chosen[found.mask])
    if not inside.size:
        raise refuse(NAME, "empty_mask", f"{role} holds no voxel within the brain mask", role)
    return inside


def _artery(found: Enhancement) -> NDArray[np.intp]:
    """Tall curves that peak early, are narrow and smooth, and have a large area as they are."""
    peak = found.curves.max(axis=1)
    candidates = np.flatnonzero(peak >= 0.4 * peak.max())
    some = found.curves[candidates]
    height, when = some.max(axis=1), some.argmax(axis=1) * found.step_s
    width = (some > height[:, None] / 2).sum(axis=1) * found.step_s
    rough = np.abs(np.diff(some, 2, axis=1)).sum(axis=1) / height
    early, narrow = (when - when.min()) / _LATE_S, (width - width.min()) / _WIDE_S
    area = found.raw[candidates].sum(axis=1)
    score = np.where(rough <= np.quantile(rough, 0.75), area / area.max() - early - narrow, -np.inf)
    return candidates[np.argsort(score)[::-1][:_VESSEL_VOXELS]]


def _vein(found: Enhancement, artery: NDArray[np.intp]) -> NDArray[np.intp]:
    arrives = found.raw[artery].mean(axis=0).argmax()
    late = np.flatnonzero(found.curves.argmax(axis=1) > arrives)
    if not late.size:
        raise refuse(NAME, "no_vein", "nothing peaks after the arterial input", "a vein", remedy="Give a vof mask.")
    return late[np.argsort(found.raw[late].sum(axis=1))[::-1][:_VESSEL_VOXELS]]
