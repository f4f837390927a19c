"""`osler quality`: a folder of series, judged without being stored."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from services.cli import app
from tests.unit.imaging.dicom_samples import make_series


@pytest.fixture
def scan(tmp_path):
    values = np.random.default_rng(0).integers(0, 500, (8, 16, 16)).astype(float)
    sound = make_series(values, modality="MR", name="sound")
    holed = make_series(values, modality="MR", name="holed")
    del holed[3]
    for number, dataset in enumerate((*sound, *holed)):
        folder = tmp_path / "scan" / str(number % 3)
        folder.mkdir(parents=True, exist_ok=True)
        dataset.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    (tmp_path / "scan" / "notes.txt").write_text("no image")
    return tmp_path / "scan"


def test_series_are_told_apart_and_the_faulty_one_is_named(scan):
    done = CliRunner().invoke(app, ["quality", str(scan), "--json"])
    assert done.exit_code == 2, done.output
    rows = {row["instances"]: row for row in json.loads(done.stdout)}
    assert set(rows) == {8, 7}
    (issue,) = [found for found in rows[7]["issues"] if found["code"] == "missing_slices"]
    assert rows[7]["verdict"] == issue["verdict"] == "reject"
    assert issue["what_to_do"].startswith("Send the missing slices")
    assert rows[8]["verdict"] != "reject"
    assert "TEST-1" not in done.stdout


def test_words_for_people(scan):
    done = CliRunner().invoke(app, ["quality", str(scan)])
    assert "REJECT: MR, 7 image(s)" in done.stdout


def test_a_folder_without_images_is_an_error(tmp_path):
    done = CliRunner().invoke(app, ["quality", str(tmp_path)])
    assert done.exit_code == 1
    assert "no DICOM images" in str(done.exception)
