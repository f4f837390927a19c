"""`osler twin outcome`, `glioma` and `validate` as a user runs them."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from services.compose import commands_twin_validate
from services.platform.errors import OslerError, RefusedError
from services.twin.survival import load, predict

PBC = {"age_years": 55.0, "sex_male": 0.0, "bilirubin_mg_dl": 2.4}


@pytest.fixture(scope="module")
def run():
    app = typer.Typer()
    commands_twin_validate.register(app)

    def invoke(*arguments):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """Label maps on 3 mm voxels: a brain, a tumour now and sixty days ago, and a PET of the tumour."""
    folder = tmp_path_factory.mktemp("maps")
    place = (np.indices((24, 24, 24)) - 12) * 3.0
    brain = np.sqrt((place**2).sum(axis=0))
    tumour = np.sqrt(((place - np.array([-12.0, 0, 0])[:, None, None, None]) ** 2).sum(axis=0))
    maps = {
        "tissue": np.select([brain < 26, brain < 33], [3, 2], 0),
        "now": np.select([tumour < 9, tumour < 16], [4, 2], 0),
        "before": np.select([tumour < 6.5, tumour < 12.5], [4, 2], 0),
        "suv": np.where(tumour < 9, 9.0, 1.0),
    }
    for name, values in maps.items():
        kind = np.float32 if name == "suv" else np.int16
        nib.save(nib.Nifti1Image(values.astype(kind), np.diag([3.0, 3.0, 3.0, 1.0])), folder / f"{name}.nii.gz")
    return folder


def test_outcome_gives_the_answer_of_the_library(run, repository_root):
    asked = [part for name, value in PBC.items() for part in ("-i", f"{name}={value}")]
    found = json.loads(run("outcome", "pbc-transplant-free-survival", *asked, "--json").stdout)
    known = predict(load(repository_root / "models" / "pbc-transplant-free-survival"), PBC)
    assert [risk["value"] for risk in found["risks"]] == [risk.value for risk in known.risks]
    assert "Albumin is missing" in " ".join(found["cautions"])


def test_outcome_refuses_grams_per_litre_and_unknown_models(run):
    asked = [part for name, value in PBC.items() for part in ("-i", f"{name}={value}")]
    with pytest.raises(RefusedError, match="albumin_g_dl must be between"):
        run("outcome", "pbc-transplant-free-survival", *asked, "-i", "albumin_g_dl=35")
    for name, reason in (
        ("no-such-model", "unknown_model"),
        ("../models", "unknown_model"),
        ("colorectal-progression", "not_shipped"),
    ):
        with pytest.raises(RefusedError) as refusal:
            run("outcome", name)
        assert refusal.value.reason == f"survival.{reason}"
    assert run("outcome", "pbc-transplant-free-survival", "-i", "age_years").exit_code == 2


def test_glioma_grows_untreated_and_shrinks_treated(run, head, tmp_path):
    maps = [
        "--tissue",
        head / "tissue.nii.gz",
        "--tumour",
        head / "now.nii.gz",
        "--earlier",
        f"60={head / 'before.nii.gz'}",
    ]
    plan = ["--radiotherapy", "10x3@0", "--resect", "0", "--horizon", "45", "--draws", "4"]
    found = json.loads(run("glioma", *maps, *plan, "--out", tmp_path, "--json").stdout)
    untreated, planned = (found["courses"][name]["flair"] for name in ("untreated", "planned"))
    assert untreated[-1]["median_mm3"] > untreated[0]["median_mm3"] > planned[-1]["median_mm3"]
    assert found["probability_smaller_if_treated"] == 1.0
    assert found["rates"]["speed_mm_per_year"]["lower"] < found["rates"]["speed_mm_per_year"]["upper"]
    image = nib.load(tmp_path / "density-untreated.nii.gz")
    inside = np.argmax(np.asarray(image.dataobj))
    peak = image.affine @ [*np.unravel_index(inside, image.shape), 1]
    tumour = np.array([(12 - 4) * 3.0, 36.0, 36.0])
    assert np.linalg.norm(peak[:3] - tumour) < 10.0


def test_glioma_refuses_maps_on_other_grids_and_unreadable_ones(run, head, tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)), tmp_path / "other.nii.gz")
    (tmp_path / "text.nii.gz").write_text("no image")
    maps = ["--tissue", head / "tissue.nii.gz", "--earlier", f"60={head / 'before.nii.gz'}"]
    with pytest.raises(RefusedError):
        run("glioma", *maps, "--tumour", tmp_path / "other.nii.gz")
    with pytest.raises(OslerError, match=r"text.nii.gz: the file is no readable NIfTI"):
        run("glioma", *maps, "--tumour", tmp_path / "text.nii.gz")


def test_validate_writes_a_report_and_says_what_it_could_not_look_at(run, tmp_path, monkeypatch):
    monkeypatch.delenv("OSLER_SHARED_DATA", raising=False)
    out = tmp_path / "reports"
    models = ["--model", "glioma", "--model", "growth", "--model", "pbc-transplant-free-survival"]
    found = json.loads(run("validate", "--out", out, *models, "--virtual-patients", "20", "--json").stdout)
    glioma = found["reports"]["glioma"]
    assert glioma["largest_speed_error"] < 0.02
    assert glioma["largest_loss_of_cells"] < 1e-6
    assert glioma["coverage_90"]["speed_mm_per_year"]["upper"] > 0.9
    assert set(found["left_out"]) == {"growth", "pbc-transplant-free-survival"}
    assert (out / "glioma" / "report.html").read_text().count("<img") == 4
    assert "not looked at" in (out / "index.md").read_text()
    with pytest.raises(OslerError, match="known: glioma"):
        run("validate", "--out", out, "--model", "nothing")
