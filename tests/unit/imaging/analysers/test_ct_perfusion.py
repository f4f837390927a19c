"""CT perfusion on digital phantoms: residue functions with known flow, convolved on a fine time grid, then sampled."""

from __future__ import annotations

import numpy as np
import pytest

from services.imaging.analysers.contract import Image
from services.imaging.analysers.ct_perfusion import oscillation_index, perfusion, residues
from services.imaging.analysers.registry import run
from services.platform.errors import RefusedError

FINE_S = 0.02
#: mL/100 g/min to 1/s with the card's haematocrits and density.
PER_S = 1.04 * (1 - 0.25) / (1 - 0.45) / 100 / 60
RESIDUES = {
    "exponential": lambda t, mtt: np.exp(-t / mtt),
    "box": lambda t, mtt: (t < mtt).astype(float),
    "linear": lambda t, mtt: np.clip(1 - t / (2 * mtt), 0, None),
}


def bolus(times_s: np.ndarray, start_s: float = 10.0, peak_hu: float = 400.0) -> np.ndarray:
    """Gamma variate with its peak 4.5 s after its start."""
    t = np.clip(times_s - start_s, 0, None)
    shape = t**3 * np.exp(-t / 1.5)
    return peak_hu * shape / (4.5**3 * np.exp(-3))


def tissue_curve(kind: str, cbf: float, mtt_s: float, delay_s: float, times_s: np.ndarray) -> np.ndarray:
    fine = np.arange(0, times_s[-1] + 1, FINE_S)
    response = cbf * PER_S * RESIDUES[kind](fine, mtt_s)
    response[0] /= 2
    curve = np.convolve(bolus(fine - delay_s), response)[: fine.size] * FINE_S
    return np.interp(times_s, fine, curve)


@pytest.mark.parametrize("kind", RESIDUES)
@pytest.mark.parametrize("delay_s", [0.0, 2.0, 5.0])
def test_flow_and_volume_of_noise_free_curves(kind: str, delay_s: float) -> None:
    """Volume within 3 %; flow biased low by the regularisation (Wu 2003), the same at every delay."""
    times = np.arange(0, 60, 1.0)
    flows = np.array([25.0, 40.0, 60.0])
    curves = np.stack([tissue_curve(kind, cbf, 60 * 4.0 / cbf, delay_s, times) for cbf in flows])
    found = perfusion(curves, bolus(times), 1.0, threshold=0.02)
    assert found.cbv == pytest.approx(np.full(3, 4.0), rel=0.03)
    assert np.all(found.cbf / flows > 0.72)
    assert np.all(found.cbf / flows < 1.25)
    undelayed = np.stack([tissue_curve(kind, cbf, 60 * 4.0 / cbf, 0.0, times) for cbf in flows])
    assert found.cbf == pytest.approx(perfusion(undelayed, bolus(times), 1.0, threshold=0.02).cbf, rel=0.02)
    assert np.all(np.diff(found.mtt) < 0)


@pytest.mark.parametrize("kind", ["exponential", "linear"])
def test_tmax_is_delay_plus_at_most_half_the_transit_time(kind: str) -> None:
    """Calamante et al., Stroke 2010;41:1169: Tmax reflects delay and, less, transit time."""
    times = np.arange(0, 70, 1.0)
    delays = np.array([0.0, 1.0, 3.0, 8.0])
    curves = np.stack([tissue_curve(kind, 60, 4.0, delay, times) for delay in delays])
    tmax = perfusion(curves, bolus(times), 1.0, threshold=0.02).tmax
    assert np.all(tmax >= delays)
    assert np.all(tmax <= delays + 2.0)
    assert tmax - tmax[0] == pytest.approx(delays, abs=0.05)


def test_tissue_before_the_artery_has_an_earlier_tmax() -> None:
    times = np.arange(0, 60, 1.0)
    early = tissue_curve("exponential", 60, 4.0, 0.0, times)[None]
    usual = perfusion(early, bolus(times), 1.0, threshold=0.05).tmax[0]
    assert perfusion(early, np.roll(bolus(times), 4), 1.0, threshold=0.05).tmax[0] == pytest.approx(usual - 4, abs=0.1)
    assert usual - 4 < 0


def test_regularisation_keeps_the_oscillation_index() -> None:
    times = np.arange(0, 60, 1.0)
    noise = np.random.default_rng(1).normal(0, 1.0, (200, times.size))
    curves = tissue_curve("exponential", 50, 5.0, 2.0, times)[None] + noise
    rough = residues(curves, bolus(times), 1.0, threshold=0.01)
    kept = residues(curves, bolus(times), 1.0, largest_oscillation=0.095)
    assert np.median(oscillation_index(rough)) > 0.095
    assert oscillation_index(kept).max() <= 0.095


def test_circulant_svd_and_fourier_forms_agree() -> None:
    """The regularised inverse by an explicit SVD of the circulant matrix (Wu 2003, equation 6)."""
    times = np.arange(0, 30, 1.0)
    aif, curve = bolus(times), tissue_curve("linear", 40, 5.0, 2.0, times)
    padded = np.concatenate([aif, np.zeros_like(aif)])
    matrix = np.stack([np.roll(padded, shift) for shift in range(60)], axis=1)
    u, s, vt = np.linalg.svd(matrix)
    inverse = np.where(s >= 0.1 * s.max(), 1 / s, 0)
    expected = vt.T @ (inverse * (u.T @ np.concatenate([curve, np.zeros_like(curve)])))
    assert residues(curve[None], aif, 1.0, threshold=0.1)[0] == pytest.approx(expected, abs=1e-9)


AFFINE = np.diag([2.0, 2.0, 5.0, 1.0])


def head(noise_hu: float = 0.0, interval_s: float = 1.0, contrast: bool = True) -> tuple[Image, dict[str, np.ndarray]]:
    """A head with grey-matter flow, a core (delay 8 s, flow 10) and a penumbra (delay 8 s, flow 30)."""
    times = np.arange(0, 60, interval_s)
    _, y, x = np.mgrid[0:4, 0:72, 0:72]
    radius = np.hypot(y - 36, x - 36)
    brain, skull = radius < 31, (radius >= 31) & (radius < 34)
    late = brain & (x > 38) & (np.abs(y - 36) < 18)
    core = late & (x > 46)
    frames = np.full((times.size, *brain.shape), -1000.0)
    frames[:, skull] = 900.0
    frames[:, brain] = 35.0
    gain = 1.0 if contrast else 0.01
    for where, (flow, mtt, delay) in ((brain, (60, 4, 0)), (late, (30, 8, 8)), (core, (10, 10, 8))):
        curve = tissue_curve("exponential", flow, mtt, delay, times)
        frames[:, where] = 35.0 + gain * curve[:, None]
    artery, vein = (brain & (abs(y - 10) < 2) & (abs(x - 36) < 2)), (brain & (abs(y - 62) < 2) & (abs(x - 34) < 2))
    frames[:, artery] = 40.0 + gain * 0.8 * bolus(times)[:, None]
    frames[:, vein] = 40.0 + gain * bolus(times, start_s=14.0)[:, None]
    frames[:, brain] += np.random.default_rng(5).normal(0, noise_hu, (times.size, int(brain.sum())))
    image = Image(frames.astype(np.float32), AFFINE, "[hnsf'U]", tuple(times))
    return image, {"brain": brain, "late": late, "core": core, "artery": artery, "vein": vein}


@pytest.mark.parametrize("noise_hu", [0.0, 1.0])
def test_core_and_mismatch_of_a_phantom_head(noise_hu: float) -> None:
    image, truth = head(noise_hu)
    result = run("ct_perfusion", {"ct": image}, {"smoothing_mm": 4.0})
    voxel_ml = image.voxel_mm3 / 1000
    assert result.values["core"].value == pytest.approx(truth["core"].sum() * voxel_ml, rel=0.12)
    assert result.values["hypoperfusion"].value == pytest.approx(truth["late"].sum() * voxel_ml, rel=0.15)
    both = result.values["hypoperfusion"].value / result.values["core"].value
    assert result.values["mismatch_ratio"].value == pytest.approx(both)
    assert result.values["mismatch_volume"].value == pytest.approx(
        result.values["hypoperfusion"].value - result.values["core"].value
    )
    found = np.array(result.parameters["aif_voxels_kji"])
    assert truth["artery"][tuple(found.T)].all()
    assert truth["vein"][tuple(np.array(result.parameters["vof_voxels_kji"]).T)].all()
    # The artery was dimmed to 0.8 of the vein as by partial volume.
    assert result.parameters["aif_scale"] == pytest.approx(1.25, rel=0.1)
    cbf = result.maps["cbf"].array[truth["brain"] & ~truth["late"] & ~truth["artery"] & ~truth["vein"]]
    assert 0.6 * 60 < np.nanmedian(cbf) < 1.1 * 60


def test_vessels_given_by_hand_are_used() -> None:
    image, truth = head()
    masks = {role: Image(truth[name], AFFINE) for role, name in (("aif", "artery"), ("vof", "vein"), ("mask", "brain"))}
    result = run("ct_perfusion", {"ct": image, **masks}, {"method": "csvd", "smoothing_mm": 0})
    assert result.parameters["vessels"] == "aif given, vof given"
    assert len(result.parameters["aif_voxels_kji"]) == truth["artery"].sum()
    assert max(result.curves["aif"].y) == pytest.approx(400, rel=0.03)


def changed(image: Image, **to: object) -> Image:
    return Image(**{"array": image.array, "affine_lps": AFFINE, "unit": image.unit, "times_s": image.times_s, **to})  # type: ignore[arg-type]


def test_refusals() -> None:
    image, truth = head()
    gap = tuple(t + (6.0 if t > 20 else 0.0) for t in image.times_s)
    cases = {
        "wrong_unit": changed(image, unit="1"),
        "not_dynamic": changed(image, array=image.array[0]),
        "too_few_frames": changed(image, array=image.array[:10], times_s=image.times_s[:10]),
        "bad_times": changed(image, times_s=image.times_s[:-1]),
        "too_short": changed(image, times_s=tuple(t / 3 for t in image.times_s)),
        "irregular_sampling": changed(image, times_s=gap),
        "no_baseline": changed(image, array=image.array[14:], times_s=image.times_s[14:]),
        "no_contrast": head(contrast=False)[0],
        "not_finite": changed(image, array=np.where(image.array > 800, np.nan, image.array)),
    }
    for reason, wrong in cases.items():
        with pytest.raises(RefusedError) as refused:
            run("ct_perfusion", {"ct": wrong})
        assert refused.value.reason == f"ct_perfusion.{reason}"
    with pytest.raises(RefusedError, match="grid"):
        run("ct_perfusion", {"ct": image, "mask": Image(truth["brain"][:2], AFFINE)})
    with pytest.raises(RefusedError, match="no float"):
        run("ct_perfusion", {"ct": image}, {"tmax_s": "late"})


def test_uneven_frames_are_bridged_and_told() -> None:
    image, truth = head()
    kept = np.array([i for i in range(60) if i < 40 or i % 3 == 0])
    sparse = changed(image, array=image.array[kept], times_s=tuple(np.array(image.times_s)[kept]))
    result = run("ct_perfusion", {"ct": sparse})
    assert any("not evenly spaced" in caution for caution in result.cautions)
    assert result.values["core"].value == pytest.approx(truth["core"].sum() * image.voxel_mm3 / 1000, rel=0.2)
