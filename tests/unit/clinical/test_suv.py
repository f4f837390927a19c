"""Standardised uptake values of known activities, and refusals that name the tag."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
from pydicom.dataset import Dataset

from services.clinical.body_mass import (
    body_surface_area_cm2,
    lean_body_mass_james_kg,
    lean_body_mass_janmahasatian_kg,
)
from services.clinical.suv import suv_scale
from services.platform.errors import RefusedError
from tests.unit.imaging.dicom_samples import make_series, read_folder

HALF_LIFE = 6586.2


def pet(**changes):
    isotope = Dataset()
    isotope.RadiopharmaceuticalStartTime = "091500"
    isotope.RadionuclideTotalDose, isotope.RadionuclideHalfLife = 300e6, HALF_LIFE
    attributes = {
        "Units": "BQML",
        "DecayCorrection": "START",
        "CorrectedImage": ["ATTN", "DECY", "SCAT"],
        "PatientWeight": 75.0,
        "PatientSize": 1.85,
        "RadiopharmaceuticalInformationSequence": [isotope],
    }
    return make_series(np.full((3, 4, 4), 5000.0), modality="PT", **(attributes | changes))


def change_isotope(datasets, **changes):
    for dataset in datasets:
        dataset.RadiopharmaceuticalInformationSequence = deepcopy(dataset.RadiopharmaceuticalInformationSequence)
        for keyword, value in changes.items():
            setattr(dataset.RadiopharmaceuticalInformationSequence[0], keyword, value)
    return datasets


def set_times(datasets, **times):
    for dataset in datasets:
        for keyword, value in times.items():
            setattr(dataset, keyword, value)
    return datasets


def expected(elapsed_s):
    return 75_000 / (300e6 * 2 ** (-elapsed_s / HALF_LIFE))


def reason_of(datasets):
    with pytest.raises(RefusedError) as caught:
        suv_scale(datasets)
    assert caught.value.missing
    assert caught.value.remedy
    return caught.value.reason


def test_body_measures_agree_with_published_values():
    assert lean_body_mass_james_kg(75, 1.85, "M") * 1000 == pytest.approx(62777.57, abs=0.01)
    assert lean_body_mass_james_kg(60, 1.65, "F") == pytest.approx(1.07 * 60 - 148 * (60 / 165) ** 2)
    assert lean_body_mass_janmahasatian_kg(75, 1.85, "M") == pytest.approx(9270 * 75 / (6680 + 216 * 75 / 1.85**2))
    assert body_surface_area_cm2(70, 1.70) == pytest.approx(18097, abs=20)


def test_known_activity_one_hour_after_injection():
    scale = suv_scale(pet())
    assert scale.body_weight == pytest.approx(expected(3600), rel=1e-6)
    assert scale.body_weight * 5000 == pytest.approx(1.8259, abs=1e-3)
    assert scale.lean_james == pytest.approx(62.77757 / 75, rel=1e-6)


def test_decay_across_midnight():
    datasets = set_times(pet(), AcquisitionTime="001000", SeriesTime="001000")
    change_isotope(datasets, RadiopharmaceuticalStartTime="231000")
    scale = suv_scale(datasets)
    assert scale.body_weight == pytest.approx(expected(3600), rel=1e-6)
    assert "day before" in " ".join(scale.cautions)


def test_start_date_time_wins_over_the_clock():
    datasets = change_isotope(
        pet(), RadiopharmaceuticalStartDateTime="20240301081500", RadiopharmaceuticalStartTime="091500"
    )
    assert suv_scale(datasets).body_weight == pytest.approx(expected(7200), rel=1e-6)


def test_shifted_date_of_injection_falls_back_to_the_clock():
    datasets = change_isotope(pet(), RadiopharmaceuticalStartDateTime="20190305091500")
    scale = suv_scale(datasets)
    assert scale.body_weight == pytest.approx(expected(3600), rel=1e-6)
    assert "contradicts the date of the scan" in " ".join(scale.cautions)


def test_offset_of_injection_counts_only_when_the_series_has_one():
    stated = "20240301101500+0100"
    assert suv_scale(
        set_times(change_isotope(pet(), RadiopharmaceuticalStartDateTime=stated), TimezoneOffsetFromUTC="+0000")
    ).body_weight == pytest.approx(expected(3600), rel=1e-6)
    local = change_isotope(pet(), RadiopharmaceuticalStartDateTime="20240301091500+0100")
    assert suv_scale(local).body_weight == pytest.approx(expected(3600), rel=1e-6)


def test_series_made_after_the_scan_uses_the_earliest_acquisition():
    datasets = set_times(pet(), SeriesTime="170000")
    datasets[2].AcquisitionTime = "101900"
    scale = suv_scale(datasets)
    assert scale.body_weight == pytest.approx(expected(3600), rel=1e-6)
    assert "earliest AcquisitionTime" in scale.how["scan_time"]


def test_series_made_after_the_scan_uses_the_frame_reference_time():
    """Third bed position: acquired 10 minutes in; its reference time counts from the scan start to mid-frame."""
    datasets = set_times(pet(), SeriesTime="170000", AcquisitionTime="102500", ActualFrameDuration="180000")
    rate = np.log(2) / HALF_LIFE
    average = np.log(rate * 180 / (1 - np.exp(-rate * 180))) / rate
    set_times(datasets, FrameReferenceTime=f"{(600 + average) * 1000:.3f}")
    assert suv_scale(datasets).body_weight == pytest.approx(expected(3600), rel=1e-6)


def test_ge_private_scan_time():
    datasets = set_times(pet(), SeriesTime="170000")
    for dataset in datasets:
        dataset.private_block(0x0009, "GEMS_PETD_01", create=True).add_new(0x0D, "DT", "20240301101500.00")
    assert "GE" in suv_scale(datasets).how["scan_time"]
    assert suv_scale(datasets).body_weight == pytest.approx(expected(3600), rel=1e-6)


def test_decay_corrected_to_administration():
    assert suv_scale(pet(DecayCorrection="ADMIN")).body_weight == pytest.approx(75_000 / 300e6)


def test_philips_counts():
    datasets = pet(Units="CNTS")
    for dataset in datasets:
        dataset.private_block(0x7053, "Philips PET Private Group", create=True).add_new(0x09, "DS", "2.5")
    assert suv_scale(datasets).body_weight == pytest.approx(2.5 * expected(3600), rel=1e-6)
    for dataset in datasets:
        dataset.private_block(0x7053, "Philips PET Private Group").add_new(0x00, "DS", "0.000412")
    assert suv_scale(datasets).body_weight == pytest.approx(0.000412)


def test_values_that_are_suv_already():
    assert suv_scale(pet(Units="GML")).body_weight == 1
    assert suv_scale(pet(Units="GML", SUVType="BW")).body_weight == 1
    assert suv_scale(pet(Units="GML", SUVType="LBM")).body_weight == pytest.approx(75 / 62.77757, rel=1e-6)
    assert suv_scale(pet(Units="GML", SUVType="LBMJANMA")).body_weight == pytest.approx(
        75 / lean_body_mass_janmahasatian_kg(75, 1.85, "M")
    )


def test_half_life_from_the_radionuclide_code():
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "C-111A1", "SRT"
    datasets = change_isotope(pet(), RadionuclideCodeSequence=[code], RadionuclideHalfLife=None)
    assert suv_scale(datasets).body_weight == pytest.approx(expected(3600), rel=1e-6)
    assert reason_of(change_isotope(datasets, RadionuclideHalfLife=4062)) == "suv.contradictory_half_life"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"CorrectedImage": None}, "suv.missing_corrected_image"),
        ({"CorrectedImage": ["ATTN"]}, "suv.not_corrected"),
        ({"CorrectedImage": "DECY"}, "suv.not_corrected"),
        ({"DecayCorrection": "NONE"}, "suv.not_corrected"),
        ({"DecayCorrection": ""}, "suv.missing_decay_correction"),
        ({"Units": ""}, "suv.missing_units"),
        ({"Units": "PROPCPS"}, "suv.wrong_units"),
        ({"Units": "CNTS"}, "suv.missing_philips_scale"),
        ({"Units": "GML", "SUVType": "IBW"}, "suv.wrong_units"),
        ({"Units": "GML", "SUVType": "LBM", "PatientSize": None}, "suv.missing_body_measures"),
        ({"PatientWeight": None}, "suv.missing_weight"),
        ({"PatientWeight": 75000}, "suv.implausible_weight"),
        ({"RadiopharmaceuticalInformationSequence": None}, "suv.missing_radiopharmaceutical"),
        ({"AcquisitionTime": ""}, "suv.missing_scan_time"),
    ],
)
def test_refusals(changes, reason):
    assert reason_of(pet(**changes)) == reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"RadionuclideTotalDose": None}, "suv.missing_dose"),
        ({"RadionuclideTotalDose": 300}, "suv.implausible_dose"),
        ({"RadionuclideHalfLife": None}, "suv.missing_half_life"),
        ({"RadiopharmaceuticalStartTime": ""}, "suv.missing_injection_time"),
        ({"RadiopharmaceuticalStartTime": "120000"}, "suv.contradictory_times"),
    ],
)
def test_refusals_about_the_injection(changes, reason):
    assert reason_of(change_isotope(pet(), **changes)) == reason


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"PatientSize": None}, "PatientSize"), ({"PatientSize": 185}, "metres"), ({"PatientSex": "O"}, "PatientSex")],
)
def test_lean_body_suv_is_not_estimated_without_height_and_sex(changes, words):
    scale = suv_scale(pet(**changes))
    assert scale.lean_janmahasatian is None
    assert words in " ".join(scale.cautions)


@pytest.mark.parametrize("patient", ["STS_044", "STS_031"])
@pytest.mark.shared_data
def test_real_series_in_suv_units(shared_data, patient):
    scale = suv_scale(read_folder(shared_data / "sts-petctmr" / "dicom" / patient / "PET" / "image"))
    assert scale.body_weight == 1
    assert scale.how["suv_type"] == "BW"
