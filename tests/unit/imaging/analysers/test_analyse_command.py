"""`osler analyse` on files: NIfTI and DICOM in, measurements as JSON, maps and a result file out."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from services.compose.commands_analyse import add_to
from services.imaging.analysers.files import read
from services.imaging.analysers.registry import card_named
from services.platform.errors import RefusedError
from tests.unit.imaging.dicom_samples import make_series

APP = typer.Typer()
add_to(APP)


def invoke(*arguments: Any) -> Any:
    return CliRunner().invoke(APP, [str(argument) for argument in arguments])


def beating(folder: Path) -> Path:
    """A cylinder whose radius beats: 12 frames 60 ms apart, labels 3 (cavity) and 2 (muscle)."""
    y, x = np.indices((40, 40)) - 20
    frames = []
    for number in range(12):
        radius = 11 + 3 * np.cos(2 * np.pi * number / 12)
        plane = np.where(np.hypot(x, y) < radius, 3, np.where(np.hypot(x, y) < 17, 2, 0))
        frames.append(np.stack([plane * 0, *[plane] * 6, plane * 0]))
    image = nibabel.Nifti1Image(np.stack(frames).T.astype(np.uint8), np.diag([-1.5, -1.5, 8.0, 1.0]))
    image.header.set_zooms((1.5, 1.5, 8.0, 0.06))
    image.header.set_xyzt_units("mm", "sec")
    path = folder / "segmentation.nii.gz"
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("as_folder", [True, False])
def test_one_file_or_a_folder_of_roles(tmp_path: Path, as_folder: bool) -> None:
    (tmp_path / "in").mkdir()
    path = beating(tmp_path / "in")
    out = tmp_path / "out"
    told = invoke("cardiac_function", path.parent if as_folder else path, "--out", out, "--json", "--set", "rv_label=9")
    assert told.exit_code == 0, told.output
    document = json.loads(told.stdout)
    values = {value["name"]: value for value in document["values"]}
    expected = np.pi * 14**2 * 1.5**2 * 6 * 8 / 1000
    assert values["lv_edv"]["value"] == pytest.approx(expected, rel=0.02)
    assert values["lv_edv"]["code"] == {
        "system": "http://loinc.org", "code": "8821-1", "display": "Left Ventricular ED Volume"
    }  # fmt: skip
    assert values["lv_edv"]["interval"]["level"] == 0.95
    assert document["curves"]["lv_volume"]["x"][1] == pytest.approx(0.06)
    assert len(document["inputs"]["segmentation"]) == 64
    written = json.loads((out / "result.json").read_text())
    assert written["values"] == document["values"]
    assert json.loads(invoke("cardiac_function", path, "--json").stdout)["values"] == document["values"] or as_folder


def test_a_person_reads_a_table_and_the_card(tmp_path: Path) -> None:
    told = invoke("cardiac_function", beating(tmp_path))
    assert "Left Ventricular ED Volume" in told.stdout
    assert "Schulz-Menger" in invoke("cardiac_function").stdout
    listed = json.loads(invoke("list", "--json").stdout)
    assert {row["analyser"] for row in listed} >= {"ct_perfusion", "vertebra", "radiomics"}


def test_refusals_reach_the_caller(tmp_path: Path) -> None:
    path = beating(tmp_path)
    for arguments, reason in (
        (("alchemy", path), "analysers.unknown"),
        (("cardiac_function", path, "--set", "lv_label"), "analysers.bad_argument"),
        (("cardiac_function", path, "--set", "lv_label=7"), "cardiac_function.empty_mask"),
        (("vertebra", path, "--input", "nonsense=" + str(path)), "vertebra.unknown_input"),
    ):
        told = invoke(*arguments)
        assert isinstance(told.exception, RefusedError)
        assert told.exception.reason == reason


def test_dynamic_dicom_becomes_frames_with_times(tmp_path: Path) -> None:
    start = datetime(2024, 3, 1, 10, 0, 0)  # noqa: DTZ001 - written into a DICOM time without zone
    for frame in range(4):
        at = start + timedelta(seconds=1.5 * frame)
        series = make_series(np.full((3, 8, 8), 10.0 * frame), name="dynamic")
        for number, dataset in enumerate(series):
            dataset.SOPInstanceUID = f"{dataset.SOPInstanceUID}.{frame}"[-64:]
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            dataset.AcquisitionDate, dataset.AcquisitionTime = f"{at:%Y%m%d}", f"{at:%H%M%S.%f}"
            dataset.save_as(tmp_path / f"{3 - frame}-{number}.dcm", enforce_file_format=True)
    image = read(card_named("ct_perfusion"), "ct", tmp_path)
    assert image.array.shape == (4, 3, 8, 8)
    assert image.times_s == pytest.approx((0.0, 1.5, 3.0, 4.5))
    assert image.array[:, 0, 0, 0] == pytest.approx([0, 10, 20, 30])
    assert image.unit == "[hnsf'U]"
    (tmp_path / "3-1.dcm").unlink()
    with pytest.raises(RefusedError) as refused:
        read(card_named("ct_perfusion"), "ct", tmp_path)
    assert refused.value.reason == "series.missing_frames"


def test_a_unit_beside_a_nifti_is_taken(tmp_path: Path) -> None:
    path = beating(tmp_path)
    (tmp_path / "segmentation.json").write_text('{"unit": "cm/s", "times_s": [0, 1]}')
    image = read(card_named("cardiac_function"), "segmentation", path)
    assert (image.unit, image.times_s) == ("cm/s", (0, 1))
    (tmp_path / "broken.nii.gz").write_bytes(b"no image")
    with pytest.raises(RefusedError) as refused:
        read(card_named("cardiac_function"), "segmentation", tmp_path / "broken.nii.gz")
    assert refused.value.reason == "cardiac_function.unreadable_input"
