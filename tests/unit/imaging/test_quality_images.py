"""The quality gate on pictures of known faults: phantoms with a measured amount of noise, motion or missing anatomy."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from services.imaging.quality import Verdict, assess, assess_series, burned_in, motion, noise, truncation
from services.imaging.quality.verdict import graded
from tests.unit.imaging.dicom_samples import make_series

GLYPHS = burned_in.Glyphs(6, 40, 5)


def disc(shape, centre, radius):
    rows, columns = np.indices(shape)
    return (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2


def body(slices=16, size=96, radius=34, *, value=60.0, outside=-1000.0):
    """A cylinder with two inserts, so that slices can be told apart from their own shift."""
    plane = np.full((size, size), outside)
    middle = (size / 2, size / 2)
    plane[disc(plane.shape, middle, radius)] = value
    plane[disc(plane.shape, (middle[0] - 12, middle[1] + 8), 6)] = value + 60
    plane[disc(plane.shape, (middle[0] + 10, middle[1] - 9), 4)] = value + 90
    return np.repeat(plane[None], slices, axis=0)


def grain(shape, sigma, seed=0):
    return np.random.default_rng(seed).normal(0, sigma, shape)


def judge(values, **attributes):
    datasets = make_series(np.rint(values), **attributes)
    judged = assess_series(datasets)
    assert all(issue.remedy.endswith(".") for issue in judged.issues)
    return judged.verdict, {issue.code: issue for issue in judged.issues}


@pytest.mark.parametrize("sigma", [8, 25, 80])
def test_ct_noise_is_what_was_added(sigma):
    values = body() + grain((16, 96, 96), sigma)
    found = noise.ct_noise_hu(values.astype(np.float32), (1.0, 1.0), tissue_hu=(0, 170), window_mm=6, slices=16)
    assert found == pytest.approx(sigma, rel=0.1)


def test_a_noisy_ct_is_warned_about_and_a_useless_one_rejected():
    assert judge(body() + grain((16, 96, 96), 30))[0] is Verdict.ACCEPT
    verdict, issues = judge(body() + grain((16, 96, 96), 90))
    assert (verdict, set(issues)) == (Verdict.WARN, {"noise"})
    assert "HU" in issues["noise"].message
    assert judge(body(value=85) + grain((16, 96, 96), 200))[0] is Verdict.REJECT


def still_mr(sigma=4.0, seed=0):
    clean = body(value=300, outside=0)
    return np.hypot(clean + grain(clean.shape, sigma, seed), grain(clean.shape, sigma, seed + 1))


@pytest.mark.parametrize("sigma", [6, 30])
def test_mr_signal_to_noise(sigma):
    assert noise.signal_to_noise(still_mr(sigma).astype(np.float32), slices=8) == pytest.approx(300 / sigma, rel=0.15)


def test_mr_too_noisy_to_read():
    assert judge(still_mr(), modality="MR")[0] is Verdict.ACCEPT
    assert judge(still_mr(45), modality="MR")[1]["noise"].verdict is Verdict.WARN
    assert judge(still_mr(110), modality="MR")[1]["noise"].verdict is Verdict.REJECT


def moved(values, axis, amplitude_px, cycles=9.3):
    """Periodic motion along `axis` (1: rows, 2: columns) while the lines of k-space along it were measured."""
    lines = values.shape[axis]
    k = np.fft.fftfreq(lines)
    shift = amplitude_px * np.sin(2 * np.pi * cycles * np.arange(lines) / lines)
    phase = np.exp(-2j * np.pi * k * shift)
    spectrum = np.fft.fft2(values, axes=(1, 2))
    return np.abs(np.fft.ifft2(spectrum * (phase[None, :, None] if axis == 1 else phase[None, None, :]), axes=(1, 2)))


@pytest.mark.parametrize(("axis", "direction"), [(1, "COL"), (2, "ROW")])
def test_ghosts_of_motion_lie_along_the_phase_encoding_direction(axis, direction):
    still = still_mr()
    along = {"modality": "MR", "InPlanePhaseEncodingDirection": direction}
    assert judge(still, **along)[0] is Verdict.ACCEPT
    ghosted = moved(still, axis, 6.0)
    assert "motion" in judge(ghosted, **along)[1]
    other = "ROW" if direction == "COL" else "COL"
    assert "motion" not in judge(ghosted, modality="MR", InPlanePhaseEncodingDirection=other)[1]


def test_ghosting_grows_with_the_motion_and_needs_background():
    ratios = [motion.ghosting_ratio(moved(still_mr(), 1, a).astype(np.float32), 0, slices=8) for a in (0, 1, 2, 4)]
    assert ratios == sorted(ratios)
    assert ratios[0] < 0.005
    assert ratios[-1] > 0.03
    assert motion.ghosting_ratio(still_mr()[:, 20:70, 20:70].astype(np.float32), 0, slices=8) is None


@pytest.mark.parametrize(("modality", "outside"), [("CT", -1000), ("MR", 0)])
@pytest.mark.parametrize("millimetres", [6, 10])
def test_a_step_of_the_body_is_found_where_it_is_and_as_long_as_it_is(modality, outside, millimetres):
    values = body(20, value=100, outside=outside)
    values[12:] = np.roll(values[12:], millimetres // 2, axis=2)
    values = values + grain(values.shape, 5)
    found = motion.largest_jump(values.astype(np.float32), (2.0, 2.0, 2.0), size=128)
    assert found.after == 12
    assert found.mm == pytest.approx(millimetres, abs=0.5)
    verdict, issues = judge(values, modality=modality, spacing=(2.0, 2.0, 2.0))
    assert verdict is Verdict.WARN
    assert "slices 12 and 13" in issues["motion"].message


def test_a_slanted_body_is_no_motion():
    values = np.stack([np.roll(plane, k, axis=1) for k, plane in enumerate(body(20, size=128))])
    found = motion.largest_jump((values + grain(values.shape, 5)).astype(np.float32), (2, 2, 3), size=128)
    assert found.mm < 0.5


def test_a_patient_wider_than_the_field_of_view():
    wide = body(radius=56)
    share = truncation.border_tissue_share(wide.astype(np.float32), tissue_hu=-300, padding_hu=-1500)
    edge = np.ones((96, 96), bool)
    edge[2:-2, 2:-2] = False
    assert share == pytest.approx((disc((96, 96), (48, 48), 56) & edge).sum() / edge.sum(), abs=0.06)
    scanned = {"spacing": (5.2, 5.2, 2.0), "DataCollectionDiameter": "500"}
    assert set(judge(wide, **scanned)[1]) == {"truncated_field_of_view"}
    assert judge(body(), **scanned)[0] is Verdict.ACCEPT
    assert judge(wide, spacing=(2.0, 2.0, 2.0), DataCollectionDiameter="500")[0] is Verdict.ACCEPT


def test_padding_outside_the_reconstruction_circle_is_no_patient():
    padded = np.where(disc((96, 96), (47.5, 47.5), 47), body(), -3024)
    share = truncation.border_tissue_share(padded.astype(np.float32), tissue_hu=-300, padding_hu=-1500)
    assert share == 0
    wide = np.where(disc((96, 96), (47.5, 47.5), 47), body(radius=50), -3024)
    assert truncation.border_tissue_share(wide.astype(np.float32), tissue_hu=-300, padding_hu=-1500) > 0.9


def head(slices, cut):
    """An ellipsoid whose top lies above the last slice when `cut`."""
    values = np.zeros((slices, 80, 80))
    for k in range(slices):
        height = (k - slices * (0.85 if cut else 0.45)) / (slices * 0.52)
        values[k][disc((80, 80), (40, 40), 32 * np.sqrt(max(0.0, 1 - height**2)))] = 400
    return values + np.abs(grain(values.shape, 5))


@pytest.mark.parametrize("upward", [True, False])
def test_a_head_without_its_vertex(upward):
    orientation = (1, 0, 0, 0, 1, 0) if upward else (1, 0, 0, 0, -1, 0)
    for cut in (False, True):
        values = head(24, cut)
        stored = values if upward else values[::-1]
        issues = judge(stored, modality="MR", BodyPartExamined="BRAIN", orientation=orientation)[1]
        assert ("truncated_anatomy" in issues) is cut
    assert "truncated_anatomy" not in judge(head(24, True), modality="MR", BodyPartExamined="KNEE")[1]


def test_a_chest_without_lung_is_another_region():
    abdomen = body(radius=40) + grain((16, 96, 96), 10)
    chest = abdomen.copy()
    for side in (-16, 16):
        chest[:, disc((96, 96), (48, 48 + side), 12)] = -850
    assert judge(chest, BodyPartExamined="CHEST")[0] is Verdict.ACCEPT
    verdict, issues = judge(abdomen, BodyPartExamined="CHEST")
    assert (verdict, set(issues)) == (Verdict.REJECT, {"wrong_region"})
    assert judge(abdomen, BodyPartExamined="ABDOMEN")[0] is Verdict.ACCEPT


def test_blank_slices_inside_the_stack_but_not_at_its_ends():
    values = body() + grain((16, 96, 96), 5)
    values[[0, 15]] = -1000
    assert "blank_slices" not in judge(values)[1]
    values[[5, 6]] = -1000
    assert judge(values)[1]["blank_slices"].message.endswith("2 slice(s) inside the stack show nothing: 6, 7")


def written(shape, text, value, *, at=(6, 4), size=12):
    ink = Image.new("L", shape[::-1])
    ImageDraw.Draw(ink).text(at, text, fill=255, font_size=size)
    return np.asarray(ink) > 128, value


def test_text_that_stands_still_through_a_stack():
    values = body() + grain((16, 96, 96), 10)
    assert "burned_in_text" not in judge(values)[1]
    ink, value = written((96, 96), "SMITH 1961", 3000)
    values[:, ink] = value
    assert judge(values)[1]["burned_in_text"].verdict is Verdict.WARN


@pytest.mark.parametrize("size", [10, 24])
def test_text_in_an_x_ray_but_not_its_side_marker(size):
    plane = np.clip(grain((300, 400), 30, 3) + np.linspace(40, 160, 400), 0, 200)
    assert burned_in.text_in_picture(plane, GLYPHS) == 0
    marker, _ = written(plane.shape, "L", 255, at=(350, 20), size=30)
    plane[marker] = 255
    assert burned_in.text_in_picture(plane, GLYPHS) == 0
    ink, _ = written(plane.shape, "DOE JANE 1950", 255, at=(20, 20), size=size)
    plane[ink] = 255
    assert burned_in.text_in_picture(plane, GLYPHS) >= 5


def pet(suv_body=1.0, dose_bq=3.7e8, weight=75.0, **attributes):
    """A body of one SUV for the true dose of 370 MBq at 75 kg; counts as stored are Bq/mL."""
    values = np.where(disc((40, 40), (20, 20), 15), suv_body * 3.7e8 / 75000, 0.0)[None].repeat(12, axis=0)
    datasets = make_series(
        values,
        **{
            "modality": "PT", "Units": "BQML", "CorrectedImage": ["ATTN", "DECY"], "DecayCorrection": "ADMIN",
            "PatientWeight": weight, "spacing": (4.0, 4.0, 4.0),
        } | attributes,
    )  # fmt: skip
    from pydicom.dataset import Dataset

    for dataset in datasets:
        dose, nuclide = Dataset(), Dataset()
        dose.RadionuclideTotalDose, dose.RadionuclideHalfLife = dose_bq, 6586.2
        dose.Radiopharmaceutical, dose.RadiopharmaceuticalStartTime = "FDG", attributes.get("start", "091500")
        nuclide.CodeValue, nuclide.CodingSchemeDesignator, nuclide.CodeMeaning = "77004003", "SCT", "^18^Fluorine"
        dose.RadionuclideCodeSequence = [nuclide]
        dataset.RadiopharmaceuticalInformationSequence = [dose]
    return assess_series(datasets)


def codes_of(judged):
    return {issue.code for issue in judged.issues}


def test_plausible_uptake_is_accepted():
    assert codes_of(pet()) == set()
    assert codes_of(pet(suv_body=0.4)) == set()


def test_a_dose_or_weight_that_cannot_be_is_rejected():
    for judged in (pet(dose_bq=3.7e7), pet(dose_bq=3.7e9), pet(suv_body=0.05)):
        assert codes_of(judged) == {"implausible_suv"}
        assert judged.verdict is Verdict.REJECT
    heavy = pet(suv_body=2.0, weight=7.5, dose_bq=3.7e8, spacing=(18.0, 18.0, 18.0))
    assert any("than all of it" in issue.message for issue in heavy.issues)


def test_uptake_time_of_fdg():
    assert codes_of(pet(start="083000")) == {"uptake_time"}
    assert codes_of(pet(start="094500")) == {"uptake_time"}


def test_x_rays_need_no_place_in_space():
    plane = np.clip(grain((1, 64, 64), 30, 3) + 100, 0, 255)
    datasets = make_series(plane, modality="CT")
    for dataset in datasets:
        dataset.Modality = "DX"
        del dataset.ImagePositionPatient
        del dataset.ImageOrientationPatient
    assert assess_series(datasets).verdict is Verdict.ACCEPT
    datasets[0].PixelData = datasets[0].PixelData[:100]
    assert codes_of(assess_series(datasets)) == {"undecodable_pixel_data"}


def test_grades():
    assert [graded(value, {"warn": 1, "reject": 2}) for value in (1, 1.5, 3)] == [1, 2, 3]
    assert graded(9, {"warn": 1}) is Verdict.WARN
    assert assess([]).verdict is Verdict.REJECT
