"""Tumour fractions on a phantom: a necrotic core, an enhancing rim, FLAIR-bright tissue around; uptake in the rim."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from services.imaging.analysers.contract import Image
from services.imaging.analysers.registry import run
from services.platform.errors import RefusedError

AFFINE = np.diag([1.0, 1.0, 1.5, 1.0])
GAIN = 1.8  # the scanner's gain differs between the two T1 images


def phantom(noise: float = 0.03, enhancing: bool = True) -> tuple[dict[str, Image], dict[str, np.ndarray]]:
    z, y, x = np.indices((24, 44, 44))
    radius = np.sqrt(((z - 12) * 1.5) ** 2 + (y - 22) ** 2 + (x - 26) ** 2)
    core, rim, around = radius < 6, (radius >= 6) & (radius < 10), (radius >= 10) & (radius < 14)
    tumour, reference = radius < 14, (x < 8) & (y > 10) & (y < 34)
    pre = np.ones(z.shape)
    pre[core], pre[around] = 0.6, 0.9
    post = pre.copy()
    if enhancing:
        post[rim] = 1.6
    flair, pet = np.ones(z.shape), np.full(z.shape, 1.0)
    flair[around], flair[core] = 1.7, 1.4
    pet[rim], pet[core] = 3.0, 0.3
    random = np.random.default_rng(4)

    def made(signal: np.ndarray, gain: float, unit: str = "1") -> Image:
        return Image((gain * (signal + random.normal(0, noise, signal.shape))).astype(np.float32), AFFINE, unit)

    images = {
        "t1_pre": made(pre, 400),
        "t1_post": made(post, 400 * GAIN),
        "flair": made(flair, 300),
        "pet": made(pet, 1, "g/ml{SUVbw}"),
        "tumour": Image(tumour, AFFINE),
        "reference": Image(reference, AFFINE),
    }
    return images, {"core": core, "rim": rim, "around": around, "tumour": tumour}


@pytest.mark.parametrize("with_pet", [True, False])
def test_fractions_of_a_ring_enhancing_tumour(with_pet: bool) -> None:
    images, truth = phantom()
    if not with_pet:
        images.pop("pet")
    result = run("tumour_fractions", images)
    whole, voxel_ml = truth["tumour"].sum(), 1.5 / 1000
    values = {name: value.value for name, value in result.values.items()}
    assert values["tumour_volume"] == pytest.approx(whole * voxel_ml)
    assert values["enhancing_fraction"] == pytest.approx(100 * truth["rim"].sum() / whole, abs=1.5)
    assert values["necrotic_fraction"] == pytest.approx(100 * truth["core"].sum() / whole, abs=1.5)
    assert values["flair_volume"] == pytest.approx(truth["around"].sum() * voxel_ml, rel=0.05)
    overlap = (result.regions["necrotic"].mask & truth["core"]).sum() / truth["core"].sum()
    assert overlap > 0.95
    assert ("viable_fraction" in values) is with_pet
    if with_pet:
        assert values["viable_fraction"] == pytest.approx(values["enhancing_fraction"], abs=2)
    else:
        assert any("no PET" in caution for caution in result.cautions)


def test_the_gain_of_the_scanner_does_not_matter() -> None:
    images, _ = phantom()
    louder = {**images, "t1_post": replace(images["t1_post"], array=images["t1_post"].array * 3)}
    first, second = (run("tumour_fractions", each).values for each in (images, louder))
    assert second["enhancing_fraction"].value == pytest.approx(first["enhancing_fraction"].value, abs=0.01)


def test_parts_do_not_overlap_and_stay_in_the_tumour() -> None:
    images, truth = phantom(noise=0.1)
    regions = run("tumour_fractions", images).regions
    parts = [regions[name].mask.astype(int) for name in ("enhancing", "necrotic", "flair_bright")]
    assert sum(parts).max() == 1
    assert not (sum(parts) * ~truth["tumour"]).any()


def test_treatment_effect_without_uptake_is_told() -> None:
    images, truth = phantom()
    cold = replace(images["pet"], array=np.where(truth["around"], 2.5, 0.8).astype(np.float32))
    result = run("tumour_fractions", {**images, "pet": cold})
    assert any("disagree" in caution for caution in result.cautions)


def test_a_tumour_that_does_not_enhance() -> None:
    images, _ = phantom(enhancing=False)
    images.pop("pet")
    result = run("tumour_fractions", images)
    assert result.values["enhancing_fraction"].value < 1
    assert any("hardly anything enhances" in caution for caution in result.cautions)


def test_refusals() -> None:
    images, truth = phantom()
    empty = Image(np.zeros(truth["tumour"].shape), AFFINE)
    tiny = np.zeros(truth["tumour"].shape)
    tiny[12, 22, 22] = 1
    cases = {
        "missing_input": {role: image for role, image in images.items() if role != "t1_post"},
        "empty_mask": {**images, "tumour": empty},
        "too_small": {**images, "tumour": Image(tiny, AFFINE)},
        "overlap": {**images, "reference": images["tumour"]},
        "no_contrast": {**images, "t1_post": images["t1_pre"]},
        "grids_differ": {**images, "flair": replace(images["flair"], affine_lps=np.diag([1.0, 1.0, 2.0, 1.0]))},
        "bad_reference": {**images, "t1_pre": replace(images["t1_pre"], array=images["t1_pre"].array * 0 - 1)},
    }
    for reason, wrong in cases.items():
        with pytest.raises(RefusedError) as refused:
            run("tumour_fractions", wrong)
        assert refused.value.reason == f"tumour_fractions.{reason}"
