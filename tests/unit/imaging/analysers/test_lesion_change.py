"""Lesion and brain change on a phantom head: new and grown lesions and a brain that shrank by a known volume."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from services.imaging.analysers.brain_change import boundary_shift, find_brain
from services.imaging.analysers.contract import Image
from services.imaging.analysers.registry import run
from services.imaging.findings import Interval
from services.platform.errors import RefusedError

SPACING = (2.0, 2.0, 3.0)
AFFINE = np.diag([*SPACING, 1.0])
SHAPE = (40, 72, 72)
OLD, NEW, OLD_MM, GROWN_MM, NEW_MM = (20, 30, 26), (22, 44, 46), 5.0, 8.0, 7.0


def away(centre: tuple[int, int, int]) -> np.ndarray:
    indices = np.indices(SHAPE)
    return np.sqrt(sum(((i - c) * e) ** 2 for i, c, e in zip(indices, centre, SPACING[::-1], strict=True)))


def head(shrink_mm: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Signed distance from the brain's surface, and the scalp's shell, mm."""
    z, y, x = np.indices(SHAPE)
    radius = np.sqrt(((z - 20) * 3.0) ** 2 + ((y - 36) * 2.0) ** 2 + ((x - 36) * 2.0) ** 2)
    return 48.0 - shrink_mm - radius, (radius > 57) & (radius < 63)


def visit(second: bool, *, bias: float = 0.0, seed: int = 1, shrink_mm: float = 0.0, flair: bool = True) -> Image:
    inside, scalp = head(shrink_mm)
    tissue = np.clip(inside / 2 + 0.5, 0, 1)
    signal = (0.2 + 0.8 * tissue) * 300
    ball = away((20, 36, 36))
    signal = np.where(ball < 10, 80 if flair else 90, signal) + 25 * np.sin(ball / 9) * tissue
    signal[scalp] = 450
    if flair:
        signal[away(OLD) < (GROWN_MM if second else OLD_MM)] = 480
        if second:
            signal[away(NEW) < NEW_MM] = 470
    x = np.indices(SHAPE)[2]
    signal = signal * (1 + bias * (x / SHAPE[2] - 0.5))
    noisy = signal + np.random.default_rng(seed).normal(0, 6, SHAPE)
    return Image(np.clip(noisy, 1, None).astype(np.float32), AFFINE)


def pair(**second: float) -> dict[str, Image]:
    return {"flair_1": visit(False), "flair_2": visit(True, seed=2, **second)}


@pytest.mark.parametrize("bias", [0.0, 0.3])
def test_new_and_grown_lesions(bias: float) -> None:
    result = run("lesion_change", pair(bias=bias))
    values = {name: value.value for name, value in result.values.items()}
    voxel = float(np.prod(SPACING))
    assert (values["new_count"], values["enlarged_count"]) == (1, 1)
    assert values["new_volume"] == pytest.approx((away(NEW) < NEW_MM).sum() * voxel, rel=0.35)
    ring = (away(OLD) < GROWN_MM) & (away(OLD) >= OLD_MM)
    assert values["enlarged_volume"] == pytest.approx(ring.sum() * voxel, rel=0.35)
    assert any("no T1" in caution for caution in result.cautions)


def test_nothing_new_between_two_scans_of_one_head() -> None:
    result = run("lesion_change", {"flair_1": visit(True), "flair_2": visit(True, seed=9, bias=0.2)})
    assert result.values["new_count"].value == 0
    assert result.values["enlarged_count"].value == 0


def test_t2_must_agree_when_it_is_given() -> None:
    images = pair()
    same = {"t2_1": visit(True, seed=5), "t2_2": visit(True, seed=6)}
    assert run("lesion_change", {**images, **same}).values["new_count"].value == 0
    rising = {"t2_1": visit(False, seed=5), "t2_2": visit(True, seed=6)}
    assert run("lesion_change", {**images, **rising}).values["new_count"].value == 1


def test_found_brain() -> None:
    inside, _ = head()
    found = find_brain(visit(False).array.astype(float), SPACING)
    truth = inside > 0
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.95


@pytest.mark.parametrize("shrink_mm", [0.0, 0.4, 1.0])
def test_brain_volume_change_is_that_of_the_shell(shrink_mm: float) -> None:
    """A ball of 48 mm that loses a shell; the boundary shift integral within 15 % and inside its own interval."""
    inside, _ = head()
    first, second = (visit(False, seed=seed, shrink_mm=s, flair=False).array for seed, s in ((3, 0.0), (4, shrink_mm)))
    found = boundary_shift(first.astype(float), second.astype(float), inside > 0, SPACING)
    truth = -4 / 3 * np.pi * (48.0**3 - (48.0 - shrink_mm) ** 3) / 1000
    assert found.change_ml == pytest.approx(truth, rel=0.15, abs=1.5)
    assert abs(found.change_ml - truth) < 3 * found.deviation_ml + 0.15 * abs(truth)
    assert found.brain_ml == pytest.approx(4 / 3 * np.pi * 48**3 / 1000, rel=0.02)


def test_brain_change_has_its_interval() -> None:
    images = pair() | {
        "t1_1": visit(False, seed=3, flair=False),
        "t1_2": visit(False, seed=4, shrink_mm=0.8, flair=False),
        "brain": Image(head()[0] > 0, AFFINE),
    }
    result = run("lesion_change", images)
    value = result.values["brain_change_percent"]
    assert value.value == pytest.approx(-100 * (1 - (47.2 / 48) ** 3), rel=0.25)
    assert isinstance(value.uncertainty, Interval)
    assert value.uncertainty.lower < value.value < value.uncertainty.upper < 0


def test_another_t1_contrast_gives_no_change_of_volume() -> None:
    first = visit(False, seed=3, flair=False)
    other = replace(
        first, array=(300 * np.sqrt(first.array / 300) + 120 * (np.indices(SHAPE)[0] % 2)).astype(np.float32)
    )
    result = run("lesion_change", pair() | {"t1_1": first, "t1_2": other, "brain": Image(head()[0] > 0, AFFINE)})
    assert any("another scanner or sequence" in caution for caution in result.cautions)
    assert "brain_change_ml" not in result.values


def test_refusals() -> None:
    images = pair()
    shuffled = np.abs(np.random.default_rng(0).normal(300, 80, SHAPE))
    cases = {
        "same_image": {**images, "flair_2": images["flair_1"]},
        "half_a_pair": {**images, "t1_1": images["flair_1"]},
        "not_registered": {**images, "flair_2": replace(images["flair_2"], array=shuffled)},
        "empty_mask": {**images, "brain": Image(np.zeros(SHAPE), AFFINE)},
        "grids_differ": {**images, "flair_2": replace(images["flair_2"], affine_lps=np.diag([2.0, 2.0, 2.0, 1.0]))},
        "no_brain": {role: replace(image, array=image.array * 0) for role, image in images.items()},
    }
    cases["no_brain"]["flair_2"] = images["flair_2"]
    for reason, wrong in cases.items():
        with pytest.raises(RefusedError) as refused:
            run("lesion_change", wrong)
        assert refused.value.reason == f"lesion_change.{reason}"
