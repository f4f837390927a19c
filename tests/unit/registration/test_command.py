"""`osler register`: two folders in, DICOM and a report out, or a refusal that says why."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_series import slices
from phantoms import phantom
from typer.testing import CliRunner

from services.cli import app
from services.registration.geometry import distances, inverse, rigid

TRUTH = rigid((2, -3, 4), (5, -3, 4), (0, 0, 0))
PROBE = np.array([[x, y, z] for x in (-50, 50) for y in (-35, 35) for z in (-50, 50)], dtype=float)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("series")
    volumes = {"1.2.10": phantom("CT"), "1.2.11": phantom("MR", to_body=inverse(TRUTH), seed=2, frame="1.2.4")}
    for series, volume in volumes.items():
        (root / series).mkdir()
        for uid, _, content in slices(volume, series, "1.2.1"):
            (root / series / f"{uid}.dcm").write_bytes(content)
    return root / "1.2.10", root / "1.2.11"


def run(*arguments) -> tuple[int, dict]:
    result = CliRunner().invoke(app, ["register", *map(str, arguments), "--json"])
    return result.exit_code, json.loads(result.stdout)


def test_two_folders_become_objects_and_a_report(folders, tmp_path: Path) -> None:
    status, report = run(*folders, "--out", tmp_path)
    assert (status, report["verdict"]) == (0, "good")
    assert distances(np.array(report["matrix_fixed_to_moving_lps_mm"]), TRUTH, PROBE).max() < 1.0
    assert pydicom.dcmread(tmp_path / "registration.dcm").Modality == "REG"
    assert len(list((tmp_path / "resampled").iterdir())) == len(list(folders[0].iterdir()))
    assert json.loads((tmp_path / "report.json").read_text())["verdict"] == "good"


def test_two_patients_are_refused_before_any_work(folders, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for path in folders[1].iterdir():
        dataset = pydicom.dcmread(path)
        dataset.PatientID = "somebody else"
        dataset.save_as(other / path.name)
    status, answer = run(folders[0], other, "--out", tmp_path / "out")
    assert (status, answer["refusal"]["reason"]) == (1, "registration.different_patients")
    assert "somebody" not in json.dumps(answer)
    assert not (tmp_path / "out").exists()


def test_a_folder_without_images_is_refused(folders, tmp_path: Path) -> None:
    status, answer = run(tmp_path, folders[1], "--out", tmp_path / "out")
    assert (status, answer["refusal"]["reason"]) == (1, "register.no_images")
