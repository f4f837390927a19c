"""The quality gate and the routing of series."""

from __future__ import annotations

import numpy as np
import pytest

from services.imaging import quality, routing
from services.imaging.quality import Verdict
from tests.unit.imaging.dicom_samples import make_series, read_folder

BLOCK = np.arange(6 * 5 * 5, dtype=float).reshape(6, 5, 5)
PET = {"modality": "PT", "Units": "BQML", "CorrectedImage": ["ATTN", "DECY"]}


def codes_of(datasets, array=None):
    found = quality.assess(datasets, array)
    assert all(issue.remedy.endswith(".") and len(issue.message) > 10 for issue in found.issues)
    return found.verdict, {issue.code for issue in found.issues}


def test_a_sound_series_is_accepted():
    assert codes_of(make_series(BLOCK), BLOCK) == (Verdict.ACCEPT, set())
    assert codes_of(make_series(BLOCK, **PET)) == (Verdict.ACCEPT, set())


def test_every_fault_is_named_at_once():
    datasets = make_series(BLOCK)
    del datasets[2]
    del datasets[0].PixelData
    verdict, found = codes_of(datasets)
    assert verdict is Verdict.REJECT
    assert found == {"missing_slices", "no_pixel_data"}


@pytest.mark.parametrize(
    ("attributes", "verdict", "code"),
    [
        ({**PET, "Units": "PROPCPS"}, Verdict.REJECT, "wrong_units"),
        ({**PET, "Units": None}, Verdict.REJECT, "wrong_units"),
        ({**PET, "CorrectedImage": ["ATTN"]}, Verdict.REJECT, "not_corrected"),
        ({**PET, "NumberOfSlices": 9}, Verdict.WARN, "incomplete_series"),
        ({"spacing": (1, 1, 8)}, Verdict.WARN, "thick_slices"),
        ({"FrameOfReferenceUID": None}, Verdict.WARN, "no_frame_of_reference"),
        ({"LossyImageCompression": "01"}, Verdict.WARN, "lossy_compression"),
    ],
)
def test_faults(attributes, verdict, code):
    assert codes_of(make_series(BLOCK, **attributes)) == (verdict, {code})


def test_constant_image_and_few_slices():
    assert codes_of(make_series(BLOCK), BLOCK * 0)[1] == {"constant_image"}
    assert codes_of(make_series(BLOCK[:2]))[1] == {"few_slices"}


def decide(datasets, has_regions=False):
    return routing.route("1.2", routing.facts_of(datasets, has_regions), quality.assess(datasets))


def crop(**attributes):
    values = np.random.default_rng(0).integers(0, 500, (35, 50, 35)).astype(float)
    return make_series(values, **{"modality": "MR", "spacing": (1, 1, 1)} | attributes)


def test_a_crop_sized_mr_volume_goes_to_the_hippocampus_model_whatever_it_is_called():
    assert decide(crop(SeriesDescription="", Manufacturer="")).analyses == (routing.HIPPOCAMPUS,)
    assert decide(crop(SeriesDescription="T1 MPRAGE crop")).analyses == (routing.HIPPOCAMPUS,)


@pytest.mark.parametrize(
    "attributes",
    [
        {"modality": "CT"},
        {"spacing": (3, 3, 3)},
        {"SeriesDescription": "T2 hippocampus crop"},
        {"EchoTime": 95, "RepetitionTime": 4000, "SeriesDescription": "HippoCrop"},
        {"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]},
    ],
)
def test_others_do_not(attributes):
    decision = decide(crop(**attributes))
    assert decision.analyses == ()
    assert decision.reason


def test_pet_and_ct():
    assert decide(make_series(BLOCK, **PET)).analyses == (routing.PET,)
    rejected = decide(make_series(BLOCK, **{**PET, "Units": "PROPCPS"}))
    assert (rejected.analyses, rejected.reason) == ((), "rejected by the quality gate: wrong_units")
    assert decide(make_series(BLOCK), has_regions=True).analyses == (routing.LESION_SIZE,)
    assert "no CT model" in decide(make_series(BLOCK)).reason


def test_what_is_no_volume_is_set_aside_without_a_verdict():
    assert "contours are read" in routing.set_aside("RTSTRUCT")
    assert "no analysis for this modality" in routing.set_aside("DX")
    scout = make_series(BLOCK[:2], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    assert "localizer" in routing.set_aside("CT", scout)
    capture = make_series(BLOCK[:1], SOPClassUID="1.2.840.10008.5.1.4.1.1.7")
    assert "screen capture" in routing.set_aside("CT", capture)
    assert routing.set_aside("CT", make_series(BLOCK)) == ""


@pytest.mark.parametrize(
    ("echo", "repetition", "inversion", "text", "contrast"),
    [
        (9.5, 500, None, "", "T1"),
        (92, 4000, None, "T1 something", "T2"),
        (90, 10000, 2600, "", "FLAIR"),
        (3, 2300, 900, "", "T1"),
        (None, None, None, "AX T2 FLAIR", "FLAIR"),
        (None, None, None, "Sag MPRAGE", "T1"),
        (None, None, None, "HippoCrop", ""),
    ],
)
def test_contrast(echo, repetition, inversion, text, contrast):
    (dataset,) = make_series(BLOCK[:1], modality="MR", EchoTime=echo, RepetitionTime=repetition, SeriesDescription=text)
    dataset.InversionTime = inversion
    assert routing.contrast_of(dataset) == contrast


@pytest.mark.shared_data
def test_glioblastoma_study(shared_data):
    study = shared_data / "glioblastoma-mr" / "PGBM-003"
    decisions = {folder.name: decide(read_folder(folder)) for folder in study.iterdir()}
    routed = {name for name, decision in decisions.items() if decision.analyses == (routing.HIPPOCAMPUS,)}
    assert routed == {"11_HCropVolume"}
    assert all("no model for it" in d.reason for name, d in decisions.items() if name not in routed)


@pytest.mark.parametrize("patient", ["STS_044", "STS_031"])
@pytest.mark.shared_data
def test_sarcoma_studies(shared_data, patient):
    folder = shared_data / "sts-petctmr" / "dicom" / patient
    for name, analysis in {"PET": routing.PET, "CT": routing.LESION_SIZE, "MR_T1": routing.LESION_SIZE}.items():
        datasets = read_folder(folder / name / "image")
        assert quality.assess(datasets).verdict is not Verdict.REJECT
        assert decide(datasets, has_regions=True).analyses == (analysis,)
