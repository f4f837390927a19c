"""Enhancement: noise goes and edges stay; the finer grid agrees with what was measured; the original is kept."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from services.clinical.dicom.series import load_series
from services.imaging.analysers.contract import Image
from services.imaging.analysers.enhancement import coarse, finer_affine, super_resolve
from services.imaging.analysers.enhancement_dicom import derived_series
from services.imaging.analysers.files import read, write, write_derived
from services.imaging.analysers.registry import card_named, run
from services.platform.errors import RefusedError
from tests.unit.imaging.dicom_samples import make_series

AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])
MADE_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def blobs(shape: tuple[int, int, int] = (8, 48, 48)) -> np.ndarray:
    """Smooth background with discs of three contrasts, HU."""
    z, y, x = np.indices(shape)
    image = 20 * np.sin(x / 15) + 40.0
    for number, height in enumerate((60.0, 120.0, -50.0)):
        inside = np.hypot(y - 24, x - (10 + 14 * number)) < 5 + 0.3 * z
        image = image + height * inside
    return image.astype(np.float32)


@pytest.mark.parametrize("method", ["nl_means", "wavelet", "tv"])
def test_denoising_tuned_on_the_image_itself_gains(method: str) -> None:
    clean = blobs()
    noisy = clean + np.random.default_rng(0).normal(0, 10, clean.shape).astype(np.float32)
    result = run("enhancement", {"image": Image(noisy, AFFINE, "[hnsf'U]")}, {"method": method})
    made = result.maps["enhanced"].array
    gain = peak_signal_noise_ratio(clean, made, data_range=200) - peak_signal_noise_ratio(clean, noisy, data_range=200)
    assert gain > 1.5
    assert result.values["noise_before"].value == pytest.approx(10, rel=0.15)
    assert result.values["noise_after"].value < 0.8 * result.values["noise_before"].value
    assert result.maps["removed"].array + made == pytest.approx(noisy, abs=1e-3)


def test_a_finer_grid_agrees_with_the_measured_slices_and_beats_nearest() -> None:
    z, _, _ = np.indices((24, 32, 32))
    fine = (100 + 40 * np.sin(z / 3.0)).astype(np.float32) + blobs((24, 32, 32))
    measured = coarse(fine, (2, 1, 1))
    made = super_resolve(measured, (2, 1, 1), 8)
    nearest = np.repeat(measured, 2, axis=0)
    assert coarse(made, (2, 1, 1)) == pytest.approx(measured, abs=0.5)
    assert np.abs(made - fine).mean() < 0.5 * np.abs(nearest - fine).mean()


def test_the_finer_grid_has_the_same_outer_faces() -> None:
    affine = np.array([[0.0, 0.5, 0.0, 3.0], [0.5, 0.0, 0.0, -7.0], [0.0, 0.0, -3.0, 20.0], [0, 0, 0, 1]])
    finer = finer_affine(affine, (3, 1, 2))
    corner, fine_corner = np.array([-0.5, -0.5, -0.5, 1]), np.array([-0.5, -0.5, -0.5, 1])
    assert finer @ fine_corner == pytest.approx(affine @ corner)
    assert finer @ [2 * 10 - 0.5, 9.5, 3 * 4 - 0.5, 1] == pytest.approx(affine @ [9.5, 9.5, 3.5, 1])


@pytest.mark.parametrize(("mode", "slices"), [("denoise", 8), ("super_resolution", 16)])
def test_derived_dicom_is_marked_and_leaves_the_original_alone(mode: str, slices: int, tmp_path: Path) -> None:
    sources = make_series(blobs() + np.random.default_rng(1).normal(0, 8, (8, 48, 48)), spacing=(1.0, 1.0, 2.0))
    folder = tmp_path / "image"
    folder.mkdir()
    for number, dataset in enumerate(sources):
        dataset.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    before = {one.name: one.read_bytes() for one in folder.iterdir()}
    image = read(card_named("enhancement"), "image", folder)
    result = run("enhancement", {"image": image}, {"mode": mode, "method": "tv"})
    write(result, tmp_path / "out", {"image": folder})
    write_derived(result, folder, tmp_path / "out" / "dicom")
    assert {one.name: one.read_bytes() for one in folder.iterdir()} == before

    back = read(card_named("enhancement"), "image", tmp_path / "out" / "dicom")
    assert back.array.shape == (slices, 48, 48)
    assert back.affine_lps == pytest.approx(result.maps["enhanced"].affine_lps, abs=1e-4)
    assert back.array == pytest.approx(result.maps["enhanced"].array, abs=0.02)
    made = derived_series(sources, result.maps["enhanced"].array, image.affine_lps, mode, "how", MADE_AT)
    assert made[0].ImageType[:2] == ["DERIVED", "SECONDARY"]
    assert {one.SeriesInstanceUID for one in made} != {sources[0].SeriesInstanceUID}
    assert made[0].StudyInstanceUID == sources[0].StudyInstanceUID
    named = {item.ReferencedSOPInstanceUID for item in made[0].SourceImageSequence}
    assert named == {dataset.SOPInstanceUID for dataset in sources}
    assert made[0].DerivationDescription == "how"
    assert sources[0].ImageType[0] == "ORIGINAL"
    again = derived_series(sources, result.maps["enhanced"].array, image.affine_lps, mode, "how", MADE_AT)
    assert [one.SOPInstanceUID for one in again] == [one.SOPInstanceUID for one in made]
    assert load_series(sources).array.shape[0] == 8


def test_an_output_folder_that_holds_the_input_is_refused(tmp_path: Path) -> None:
    result = run("enhancement", {"image": Image(blobs(), AFFINE)}, {"method": "tv", "strength": 0.5})
    with pytest.raises(RefusedError, match="holds the input"):
        write(result, tmp_path, {"image": tmp_path / "image.nii.gz"})


def test_refusals() -> None:
    image = Image(blobs(), AFFINE)
    cases: list[tuple[str, Image, dict[str, object]]] = [
        ("not_a_volume", Image(blobs()[None], AFFINE), {}),
        ("too_small", Image(blobs()[:1], AFFINE), {}),
        ("bad_option", image, {"mode": "invent"}),
        ("bad_option", image, {"method": "gan"}),
        ("bad_option", image, {"mode": "super_resolution", "factor_z": 9}),
    ]
    for reason, wrong, options in cases:
        with pytest.raises(RefusedError) as refused:
            run("enhancement", {"image": wrong}, options)
        assert refused.value.reason == f"enhancement.{reason}"
