"""4D flow through an oblique tube with a parabolic profile that pulsates: every volume is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from services.imaging.analysers.contract import Image
from services.imaging.analysers.registry import run
from services.imaging.findings import Interval
from services.platform.errors import RefusedError

RADIUS_MM, FRAMES, PERIOD_S = 11.0, 24, 0.9
TIMES = tuple(np.arange(FRAMES) * PERIOD_S / FRAMES)
AXIS = np.array([0.36, 0.48, 0.8])
CENTRE = np.array([5.0, -8.0, 12.0])
SPACING = (1.8, 1.8, 2.2)


def centre_line(mean: float = 0.35, swing: float = 0.8) -> np.ndarray:
    """Velocity on the axis, m/s: forward most of the beat, backward for the rest."""
    return mean + swing * np.sin(2 * np.pi * np.arange(FRAMES) / FRAMES)


def tube(
    line: np.ndarray, venc: float = 0.0, noise: float = 0.0, offset: float = 0.0, unit: str = "m/s"
) -> dict[str, Image]:
    """Poiseuille profile v (1 - r2/R2); wrapped into +-venc when it is given."""
    affine = np.diag([*SPACING, 1.0])
    shape = (24, 28, 28)
    affine[:3, 3] = CENTRE - affine[:3, :3] @ (np.array(shape[::-1]) - 1) / 2
    k, j, i = np.indices(shape)
    places = np.stack([i, j, k], axis=-1) @ affine[:3, :3].T + affine[:3, 3] - CENTRE
    across = np.linalg.norm(places - (places @ AXIS)[..., None] * AXIS, axis=-1)
    profile = np.clip(1 - (across / RADIUS_MM) ** 2, 0, None)
    velocity = line[:, None, None, None, None] * profile[..., None] * AXIS
    velocity = velocity + np.random.default_rng(2).normal(0, noise, velocity.shape) + offset * (1 + 0.02 * i[..., None])
    if venc:
        velocity = (velocity + venc) % (2 * venc) - venc
    velocity = velocity * (100 if unit == "cm/s" else 1)
    return {f"velocity_{axis}": Image(velocity[..., n], affine, unit, TIMES) for n, axis in enumerate("lps")}


def changed(images: dict[str, Image], **to: object) -> dict[str, Image]:
    return {role: replace(image, **to) for role, image in images.items()}  # type: ignore[arg-type]


def mask(voxels: np.ndarray) -> Image:
    return Image(voxels, tube(np.zeros(FRAMES))["velocity_l"].affine_lps)


def inside() -> np.ndarray:
    return np.abs(tube(np.ones(FRAMES))["velocity_s"].array[0]) > 0


def options(**more: object) -> dict[str, object]:
    return {"point_mm": list(CENTRE), "normal": list(AXIS), "radius_mm": RADIUS_MM + 3, **more}


def expected(line: np.ndarray) -> tuple[float, float]:
    """Forward and reverse volume, mL: the mean of a parabola is half its top."""
    rate = line * np.pi * RADIUS_MM**2 / 2
    step = PERIOD_S / FRAMES
    return float(np.clip(rate, 0, None).sum() * step), float(np.clip(-rate, 0, None).sum() * step)


@pytest.mark.parametrize("unit", ["m/s", "cm/s"])
def test_volumes_and_peak_of_pulsating_poiseuille_flow(unit: str) -> None:
    line = centre_line()
    result = run("flow_4d", {**tube(line, unit=unit)}, options())
    forward, reverse = expected(line)
    values = {name: value.value for name, value in result.values.items()}
    assert values["forward_volume"] == pytest.approx(forward, rel=0.03)
    assert values["reverse_volume"] == pytest.approx(reverse, rel=0.03)
    assert values["net_volume"] == pytest.approx(forward - reverse, rel=0.03)
    assert values["regurgitant_fraction"] == pytest.approx(100 * reverse / forward, rel=0.02)
    assert values["peak_velocity"] == pytest.approx(line.max(), rel=0.05)
    assert np.array(result.curves["rate"].y) == pytest.approx(line * np.pi * RADIUS_MM**2 / 2, rel=0.03)


def test_turning_the_plane_round_swaps_forward_and_reverse() -> None:
    image = tube(centre_line())
    there = run("flow_4d", image, options()).values
    back = run("flow_4d", image, options(normal=list(-AXIS))).values
    assert back["forward_volume"].value == pytest.approx(there["reverse_volume"].value, rel=1e-4)
    assert back["net_volume"].value == pytest.approx(-there["net_volume"].value, rel=1e-4)


def test_aliasing_is_found_and_undone() -> None:
    line = centre_line()
    wrapped = tube(line, venc=0.6, noise=0.02)
    assert np.abs(tube(line)["velocity_s"].array).max() > 0.6
    lumen = mask(inside())
    naive = run("flow_4d", {**wrapped, "lumen": lumen}, options()).values["net_volume"].value
    result = run("flow_4d", {**wrapped, "lumen": lumen}, options(venc_m_s=0.6))
    forward, reverse = expected(line)
    assert abs(naive - (forward - reverse)) > 0.15 * (forward - reverse)
    assert result.values["net_volume"].value == pytest.approx(forward - reverse, rel=0.04)
    assert any("was undone" in caution for caution in result.cautions)


def test_aliasing_that_cannot_be_undone_is_refused() -> None:
    line = centre_line(mean=0.2, swing=3.0)
    wrapped = tube(line, venc=0.2)
    with pytest.raises(RefusedError) as refused:
        run("flow_4d", {**wrapped, "lumen": mask(inside())}, options(venc_m_s=0.2))
    assert refused.value.reason == "flow_4d.aliased"


def test_offset_of_static_tissue_is_taken_off() -> None:
    line = centre_line()
    image = tube(line, offset=0.05)
    static = mask(~inside())
    forward, reverse = expected(line)
    raw = run("flow_4d", image, options()).values["net_volume"].value
    corrected = run("flow_4d", {**image, "static": static}, options()).values["net_volume"].value
    assert abs(raw - (forward - reverse)) > 0.1 * (forward - reverse)
    assert corrected == pytest.approx(forward - reverse, rel=0.03)


def test_interval_comes_from_parallel_planes_and_holds_the_truth() -> None:
    line = centre_line()
    value = run("flow_4d", {**tube(line, noise=0.05)}, options()).values["net_volume"]
    forward, reverse = expected(line)
    assert isinstance(value.uncertainty, Interval)
    assert value.uncertainty.lower < forward - reverse < value.uncertainty.upper


def test_refusals() -> None:
    image = tube(centre_line())
    times = tuple(t + (0.2 if t > 0.4 else 0) for t in TIMES)
    short = {role: replace(one, array=one.array[:5], times_s=TIMES[:5]) for role, one in image.items()}
    cases = {
        "wrong_unit": (changed(image, unit="1"), options()),
        "not_dynamic": ({**image, "velocity_p": replace(mask(inside()), unit="m/s")}, options()),
        "too_few_frames": (short, options()),
        "bad_times": (changed(image, times_s=TIMES[:-1]), options()),
        "irregular_sampling": (changed(image, times_s=times), options()),
        "bad_plane": (image, options(normal=[0, 0, 0])),
        "plane_outside": (image, options(point_mm=[500, 0, 0])),
        "missing_input": ({"velocity_l": image["velocity_l"]}, options()),
        "empty_mask": ({**image, "lumen": mask(np.zeros(inside().shape))}, options()),
    }
    for reason, (wrong, chosen) in cases.items():
        with pytest.raises(RefusedError) as refused:
            run("flow_4d", wrong, chosen)
        assert refused.value.reason == f"flow_4d.{reason}"
    centimetres = {role: replace(one, array=one.array * 100) for role, one in image.items()}
    with pytest.raises(RefusedError, match="cannot come from an encoding"):
        run("flow_4d", centimetres, options(venc_m_s=1.5))
