"""Figures of the analysers on phantoms and real images; run with `pytest -s -m slow` on this file to see them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from scipy import ndimage
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from services.clinical.dicom.series import load_series
from services.imaging.analysers.ct_perfusion import perfusion
from services.imaging.analysers.enhancement import coarse, denoise, super_resolve
from services.imaging.analysers.registry import run
from tests.unit.imaging.analysers.test_ct_perfusion import RESIDUES, bolus, head, tissue_curve
from tests.unit.imaging.analysers.test_flow_4d import centre_line, expected, inside, mask, options, tube


@pytest.mark.slow
def test_bias_of_perfusion() -> None:
    """Flow 20 to 80 mL/100 g/min at a volume of 4 mL/100 g, delays of 0 to 6 s, with and without noise."""
    times, random = np.arange(0, 60, 1.0), np.random.default_rng(0)
    print("\nCBF found / true (median), Tmax less delay (s); noise 1 HU in tissue curves of about 10 HU")
    for method, how in (("osvd", {}), ("csvd", {"threshold": 0.1})):
        for kind in RESIDUES:
            for noise in (0.0, 1.0):
                ratios, late, spread = [], [], []
                for flow in (20.0, 40.0, 80.0):
                    for delay in (0.0, 3.0, 6.0):
                        curve = tissue_curve(kind, flow, 60 * 4 / flow, delay, times)
                        curves = curve + random.normal(0, noise, (200 if noise else 1, times.size))
                        found = perfusion(curves, bolus(times), 1.0, **how)
                        ratios.append(np.median(found.cbf) / flow)
                        late.append(np.median(found.tmax) - delay)
                        spread.append(np.std(found.cbf) / flow)
                print(
                    f"  {method} {kind:11s} noise {noise:.0f} HU: CBF {np.median(ratios):.2f} "
                    f"({min(ratios):.2f} to {max(ratios):.2f}), spread {np.mean(spread):.2f}; Tmax {np.median(late):+.1f}"
                )
                assert 0.5 < np.median(ratios) < 1.6


@pytest.mark.slow
@pytest.mark.parametrize("noise_hu", [0.0, 1.0, 3.0])
def test_core_and_mismatch_of_the_phantom_head(noise_hu: float) -> None:
    image, truth = head(noise_hu)
    voxel_ml = image.voxel_mm3 / 1000
    for method in ("osvd", "csvd"):
        result = run("ct_perfusion", {"ct": image}, {"method": method})
        values = result.values
        core, late = result.regions["core"].mask, result.regions["hypoperfusion"].mask
        dice = [2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in ((core, truth["core"]), (late, truth["late"]))]
        print(
            f"\nphantom head, noise {noise_hu:.0f} HU, {method}: core {values['core'].value:.1f} of "
            f"{truth['core'].sum() * voxel_ml:.1f} mL (Dice {dice[0]:.2f}), hypoperfusion "
            f"{values['hypoperfusion'].value:.1f} of {truth['late'].sum() * voxel_ml:.1f} mL (Dice {dice[1]:.2f})"
        )
        assert dice[1] > 0.9


@pytest.mark.slow
def test_flow_by_noise_and_aliasing() -> None:
    line = centre_line()
    forward, reverse = expected(line)
    print()
    for venc in (0.0, 0.8, 0.6):
        for noise in (0.0, 0.05):
            images = tube(line, venc=venc, noise=noise) | {"lumen": mask(inside())}
            values = run("flow_4d", images, options(venc_m_s=venc)).values
            print(
                f"4D flow, encoding {venc or 'wide'} m/s, noise {noise} m/s: net {values['net_volume'].value:.1f} of "
                f"{forward - reverse:.1f} mL, regurgitant fraction {values['regurgitant_fraction'].value:.1f} of "
                f"{100 * reverse / forward:.1f} %, peak {values['peak_velocity'].value:.2f} of {line.max():.2f} m/s"
            )
            assert values["net_volume"].value == pytest.approx(forward - reverse, rel=0.05)


def real(folder: Path, slices: int) -> np.ndarray:
    """Slices from the middle of a real series, in its units, at most 256 pixels square and even in size."""
    array = load_series([pydicom.dcmread(path) for path in sorted(folder.glob("*.dcm"))]).array
    middle = [size // 2 for size in array.shape]
    half = [slices // 2, *(min(128, size // 2) for size in array.shape[1:])]
    box = tuple(slice(m - h, m + h) for m, h in zip(middle, half, strict=True))
    return np.asarray(array[box], np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("series", ["CT", "MR_T1"])
def test_gain_of_denoising_on_real_images(shared_data: Path, series: str) -> None:
    """Noise of a known size is added to real images; the gain is told against the image as it was."""
    clean = real(shared_data / "sts-petctmr" / "dicom" / "STS_044" / series / "image", 16)
    span = float(np.quantile(clean, 0.999) - np.quantile(clean, 0.001))
    noisy = clean + np.random.default_rng(0).normal(0, 0.04 * span, clean.shape).astype(np.float32)
    print()
    gains = {}
    for method in ("nl_means", "wavelet", "tv"):
        made, strength = denoise(noisy, method)
        psnr = [peak_signal_noise_ratio(clean, each, data_range=span) for each in (noisy, made)]
        ssim = [structural_similarity(clean, each, data_range=span) for each in (noisy, made)]
        gains[method] = psnr[1] - psnr[0]
        print(
            f"denoising {series} STS_044, {method} ({strength:.1f} sigma): PSNR {psnr[0]:.1f} to {psnr[1]:.1f} dB, "
            f"SSIM {ssim[0]:.3f} to {ssim[1]:.3f}"
        )
    assert gains["nl_means"] > 1.0


@pytest.mark.slow
@pytest.mark.parametrize("series", ["CT", "MR_T1"])
def test_gain_of_a_finer_grid_on_real_images(shared_data: Path, series: str) -> None:
    """Pixels are averaged two by two; the finer grid is compared with the pixels that were held back."""
    fine = real(shared_data / "sts-petctmr" / "dicom" / "STS_044" / series / "image", 6)
    span = float(np.quantile(fine, 0.999) - np.quantile(fine, 0.001))
    measured = coarse(fine, (1, 2, 2))
    ways = {
        "nearest": np.repeat(np.repeat(measured, 2, axis=1), 2, axis=2),
        "linear": ndimage.zoom(measured, (1, 2, 2), order=1, grid_mode=True, mode="nearest"),
        "B-spline": super_resolve(measured, (1, 2, 2), 0),
        "back-projection": super_resolve(measured, (1, 2, 2), 8),
    }
    found = {}
    print()
    for name, made in ways.items():
        found[name] = peak_signal_noise_ratio(fine, made, data_range=span)
        ssim = structural_similarity(fine, made, data_range=span, win_size=5)
        print(f"finer grid {series} STS_044, {name}: PSNR {found[name]:.2f} dB, SSIM {ssim:.3f}")
    assert found["back-projection"] > found["linear"] + 0.5
