"""Image enhancement with well-kept libraries: noise reduction (scikit-image) and a finer grid (SimpleITK)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its customary name
from numpy.typing import NDArray
from skimage import restoration

from services.imaging.analysers.cards import card
from services.imaging.analysers.contract import Image, Matrix, Result, ScalarMap, refuse

NAME = "enhancement"
Floats = NDArray[np.float32]
Denoiser = Callable[..., Any]


def noise_sigma(array: NDArray[Any]) -> float:
    """Standard deviation of noise from the finest wavelet band (Donoho), mean over the slices."""
    varied = [plane for plane in array if np.ptp(plane) > 0]
    if not varied:
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        each = [float(restoration.estimate_sigma(plane)) for plane in varied]
    return float(np.nanmedian(each))


def _nl_means(image: NDArray[Any], strength: float, sigma: float) -> Any:
    return restoration.denoise_nl_means(
        image, h=strength * sigma, sigma=sigma, patch_size=3, patch_distance=3, fast_mode=True
    )


def _wavelet(image: NDArray[Any], strength: float, sigma: float) -> Any:
    return restoration.denoise_wavelet(image, sigma=strength * sigma, method="BayesShrink", rescale_sigma=False)


def _tv(image: NDArray[Any], strength: float, sigma: float) -> Any:
    return restoration.denoise_tv_chambolle(image, weight=strength * sigma, max_num_iter=100)


_METHODS: dict[str, Denoiser] = {"nl_means": _nl_means, "wavelet": _wavelet, "tv": _tv}


def denoise(array: NDArray[Any], method: str, strength: float = 0.0) -> tuple[Floats, float]:
    """The volume (z, y, x) with less noise, and the strength used (times the noise's standard deviation).

    `strength` 0: of the card's strengths, the one with the least self-supervised loss on the middle of the volume.
    """
    low, span = float(array.min()), float(np.ptp(array)) or 1.0
    scaled = ((array - low) / span).astype(np.float64)
    sigma = noise_sigma(scaled)
    if sigma == 0:
        return np.asarray(array, np.float32), 0.0
    if strength <= 0:
        choices = card(NAME).constants["strengths"][method]
        middle = _middle(scaled, card(NAME).constants["tuning_edge"])
        # Masked pixels are filled from their neighbours, so the loss cannot be won by keeping the noise.
        _, (tried, losses) = restoration.calibrate_denoiser(
            middle,
            _METHODS[method],
            denoise_parameters={"strength": choices, "sigma": [sigma]},
            stride=3,
            approximate_loss=True,
            extra_output=True,
        )
        strength = float(tried[int(np.argmin(losses))]["strength"])
    cleaned = _METHODS[method](scaled, strength=strength, sigma=sigma)
    return np.asarray(cleaned * span + low, np.float32), strength


def _middle(array: NDArray[Any], edge: int) -> NDArray[Any]:
    """A plane through the middle, at most `edge` voxels wide around the place with most signal variance."""
    plane = array[len(array) // 2]
    rows, columns = (min(edge, size) for size in plane.shape)
    top, left = (plane.shape[0] - rows) // 2, (plane.shape[1] - columns) // 2
    return plane[top : top + rows, left : left + columns]


def coarse(array: NDArray[Any], factors_zyx: tuple[int, int, int]) -> Floats:
    """Means over blocks of voxels: what a scanner with the coarser grid would have measured."""
    fz, fy, fx = factors_zyx
    z, y, x = (size // factor for size, factor in zip(array.shape, factors_zyx, strict=True))
    blocks = array[: z * fz, : y * fy, : x * fx].reshape(z, fz, y, fy, x, fx)
    return np.asarray(blocks.mean(axis=(1, 3, 5)), np.float32)


def super_resolve(array: NDArray[Any], factors_zyx: tuple[int, int, int], rounds: int) -> Floats:
    """The volume on a grid finer by whole factors, whose block means agree with the measured voxels.

    Cubic B-spline, then back-projection: what the means still lack is interpolated and added (Irani and Peleg 1991).
    """
    measured = np.asarray(array, np.float32)
    fine = _interpolated(measured, factors_zyx)
    for _ in range(rounds):
        fine += _interpolated(measured - coarse(fine, factors_zyx), factors_zyx)
    return fine


def _interpolated(array: Floats, factors_zyx: tuple[int, int, int]) -> Floats:
    """Cubic B-spline at the centres of the finer voxels; nearest beyond the outermost centres."""
    pad = [(2, 2)] * 3
    padded = np.pad(array, pad, mode="edge")
    image = sitk.GetImageFromArray(padded)
    factors = factors_zyx[::-1]
    size = [int(n * f) for n, f in zip(array.shape[::-1], factors, strict=True)]
    origin = [2 + (1 / f - 1) / 2 for f in factors]
    finer = sitk.Resample(
        image,
        size,
        sitk.Transform(),
        sitk.sitkBSpline,
        origin,
        [1 / f for f in factors],
        [1, 0, 0, 0, 1, 0, 0, 0, 1],
    )
    return np.asarray(sitk.GetArrayFromImage(finer), np.float32)


def finer_affine(affine_lps: Matrix, factors_zyx: tuple[int, int, int]) -> Matrix:
    """The affine of the finer grid: voxels divided, the outer faces stay."""
    result = affine_lps.copy()
    factors = np.array(factors_zyx[::-1], float)
    result[:3, :3] = affine_lps[:3, :3] / factors
    result[:3, 3] = affine_lps[:3, 3] + affine_lps[:3, :3] @ ((1 / factors - 1) / 2)
    return result


def check(image: Image, settings: Mapping[str, Any]) -> tuple[int, int, int]:
    """Factors (z, y, x). Raises RefusedError `enhancement.not_a_volume|too_small|bad_option|too_large`."""
    limits = card(NAME).constants
    if image.array.ndim != 3:
        raise refuse(NAME, "not_a_volume", "the image is no single volume", "one volume (z, y, x)")
    if min(image.array.shape[1:]) < limits["smallest_edge"] or image.array.shape[0] < 2:
        raise refuse(NAME, "too_small", f"{image.array.shape} voxels leave nothing to compare neighbours in")
    if settings["mode"] not in ("denoise", "super_resolution") or settings["method"] not in _METHODS:
        raise refuse(
            NAME,
            "bad_option",
            "unknown mode or method",
            remedy="mode: denoise, super_resolution; method: nl_means, wavelet, tv.",
        )
    factors = (settings["factor_z"], settings["factor_y"], settings["factor_x"])
    if not all(1 <= factor <= limits["finest_factor"] for factor in factors) or settings["rounds"] < 0:
        raise refuse(NAME, "bad_option", f"factors are whole numbers from 1 to {limits['finest_factor']}")
    if settings["mode"] == "super_resolution" and image.array.size * int(np.prod(factors)) > limits["largest_voxels"]:
        raise refuse(NAME, "too_large", "the finer volume would not fit into memory", remedy="Use smaller factors.")
    return factors


def analyse(inputs: Mapping[str, Image], settings: Mapping[str, Any]) -> Result:
    """A derived image of one volume. Refusals: see `check`."""
    known, image = card(NAME), inputs["image"]
    factors = check(image, settings)
    values, maps, used = {}, {}, dict(settings)
    if settings["mode"] == "denoise":
        made, used["strength"] = denoise(image.array, settings["method"], settings["strength"])
        affine = image.affine_lps
        maps["removed"] = ScalarMap(
            known.concepts["removed"], np.asarray(image.array - made, np.float32), affine, image.unit
        )
        values["noise_before"] = known.value("noise_before", noise_sigma(image.array))
        values["noise_after"] = known.value("noise_after", noise_sigma(made))
    else:
        made, affine = super_resolve(image.array, factors, settings["rounds"]), finer_affine(image.affine_lps, factors)
        residual = float(np.sqrt(np.mean((coarse(made, factors) - image.array) ** 2)))
        values["consistency"] = known.value("consistency", residual)
    maps["enhanced"] = ScalarMap(known.concepts["enhanced"], made, affine, image.unit)
    cautions = ["a derived image: measure and diagnose on the original"]
    return Result(NAME, values, maps, cautions=tuple(cautions), parameters=used, citations=known.sources)
