"""Cardiac function on beating ellipsoids with known volumes."""

from __future__ import annotations

import numpy as np
import pytest

from services.imaging.analysers.cardiac_function import disc_volume
from services.imaging.analysers.contract import Image
from services.imaging.analysers.registry import run
from services.imaging.findings import Interval
from services.platform.errors import RefusedError

FRAMES, PERIOD_S = 25, 0.8
TIMES = tuple(np.arange(FRAMES) * PERIOD_S / FRAMES)
LONG_MM, WALL = 80.0, 9.0


def half_ellipsoid_ml(radius_mm: float, long_mm: float = LONG_MM) -> float:
    return 2 / 3 * np.pi * radius_mm**2 * long_mm / 1000


def heart(
    edv: float = 120.0, esv: float = 50.0, spacing: tuple[float, float, float] = (1.5, 1.5, 8.0), offset: float = 0.0
) -> Image:
    """A left ventricle (half ellipsoid, apex down) with myocardium, volume as a cosine; a right ventricle beside it."""
    x_mm, y_mm, z_mm = spacing
    z, y, x = (np.arange(n) for n in (14, 64, 110))
    depth = (z * z_mm + offset)[:, None, None]
    from_left = np.hypot((y * y_mm - 48)[:, None], (x * x_mm - 48)[None, :])[None]
    from_right = np.hypot((y * y_mm - 48)[:, None], (x * x_mm - 118)[None, :])[None]
    frames = []
    for number in range(FRAMES):
        volume = edv - (edv - esv) * (1 - np.cos(2 * np.pi * number / FRAMES)) / 2
        radius = np.sqrt(volume / half_ellipsoid_ml(1.0))
        profile = np.sqrt(np.clip(1 - ((depth - 4) / LONG_MM) ** 2, 0, None)) * ((depth >= 4) & (depth < 4 + LONG_MM))
        labels = np.zeros((z.size, y.size, x.size), np.uint8)
        labels[np.broadcast_to(from_right < radius * profile, labels.shape)] = 1
        labels[(from_left < (radius + WALL) * profile) & (profile > 0)] = 2
        labels[from_left < radius * profile] = 3
        frames.append(labels)
    return Image(np.stack(frames), np.diag([x_mm, y_mm, z_mm, 1.0]), "1", TIMES)


@pytest.mark.parametrize("spacing", [(1.5, 1.5, 8.0), (1.5, 1.5, 4.0)])
def test_volumes_of_a_beating_ellipsoid(spacing: tuple[float, float, float]) -> None:
    result = run("cardiac_function", {"segmentation": heart(spacing=spacing)}, {"body_surface_m2": 2.0})
    values = {name: value.value for name, value in result.values.items()}
    reach = 1.0 if spacing[2] == 8.0 else 56.0 / 80.0  # 14 slices of 4 mm do not reach the apex
    if reach == 1.0:
        assert values["lv_edv"] == pytest.approx(120, rel=0.03)
        assert values["lv_esv"] == pytest.approx(50, rel=0.03)
        outer = half_ellipsoid_ml(np.sqrt(120 / half_ellipsoid_ml(1.0)) + WALL)
        assert values["lv_mass"] == pytest.approx(1.05 * (outer - 120), rel=0.03)
        assert values["lv_edv_index"] == pytest.approx(values["lv_edv"] / 2)
    assert values["lv_ef"] == pytest.approx(100 * 70 / 120, abs=1.5)
    assert values["rv_ef"] == pytest.approx(values["lv_ef"], abs=1.0)
    assert values["lv_sv"] == pytest.approx(values["lv_edv"] - values["lv_esv"])
    assert values["cardiac_output"] == pytest.approx(values["lv_sv"] * 75 / 1000, rel=1e-6)
    assert values["systole"] == pytest.approx(PERIOD_S / 2, abs=PERIOD_S / FRAMES)
    # V = EDV - SV (1 - cos wt) / 2 has its steepest slope SV w / 2.
    steepest = values["lv_sv"] * np.pi / PERIOD_S
    assert values["peak_ejection_rate"] == pytest.approx(steepest, rel=0.08)
    assert values["peak_filling_rate"] == pytest.approx(steepest, rel=0.08)
    assert (result.parameters["ed_frame"], result.parameters["es_frame"]) in {(0, 12), (0, 13)}
    assert result.curves["lv_volume"].x == pytest.approx(TIMES)


def test_the_interval_covers_the_sampling_by_slices() -> None:
    """Random places of the first slice through a shape that ends abruptly; the true volume is known."""
    random, covered, step = np.random.default_rng(3), 0, 8.0
    for _ in range(400):
        place = random.uniform(0, step) + np.arange(12) * step - step
        inside = (place >= 0) & (place < LONG_MM)
        areas = np.where(inside, np.pi * 25.0**2 * (1 - (place / LONG_MM) ** 2), 0.0)
        found = disc_volume(areas, step)
        covered += abs(found.number - half_ellipsoid_ml(25.0)) <= 1.96 * found.deviation
    assert covered / 400 >= 0.93


def test_two_frames_named_as_diastole_and_systole() -> None:
    image = heart()
    pair = Image(image.array[[0, 12]], image.affine_lps)
    with pytest.raises(RefusedError) as refused:
        run("cardiac_function", {"segmentation": pair})
    assert refused.value.reason == "cardiac_function.too_few_frames"
    result = run("cardiac_function", {"segmentation": pair}, {"ed_frame": 0, "es_frame": 1, "heart_rate_bpm": 60})
    assert result.values["lv_ef"].value == pytest.approx(58, abs=1.5)
    assert isinstance(result.values["lv_ef"].uncertainty, Interval)
    assert "peak_filling_rate" not in result.values
    assert any("no times" in caution for caution in result.cautions)


def test_refusals() -> None:
    image = heart()
    hole, lost = image.array.copy(), image.array.copy()
    hole[3, 5], lost[7] = 0, 0
    cases = {
        "not_dynamic": (Image(image.array[0], image.affine_lps), {}),
        "not_labels": (Image(image.array * 0.5, image.affine_lps), {}),
        "wrong_unit": (Image(image.array, image.affine_lps, "m/s"), {}),
        "empty_mask": (image, {"lv_label": 9}),
        "missing_slice": (Image(hole, image.affine_lps, "1", TIMES), {}),
        "lost_ventricle": (Image(lost, image.affine_lps, "1", TIMES), {}),
        "bad_times": (Image(image.array, image.affine_lps, "1", TIMES[::-1]), {}),
        "bad_frame": (image, {"ed_frame": 99}),
        "too_few_slices": (Image(image.array[:, 4:6], image.affine_lps, "1", TIMES), {}),
    }
    for reason, (wrong, options) in cases.items():
        with pytest.raises(RefusedError) as refused:
            run("cardiac_function", {"segmentation": wrong}, options)
        assert refused.value.reason == f"cardiac_function.{reason}"
