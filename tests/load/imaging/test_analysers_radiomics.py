"""IBSI: features of the two public phantoms against the published values; prints how many lie within tolerance.

Run alone: `pytest -s -m slow tests/load/imaging/test_analysers_radiomics.py`. mirp takes about half a minute to start.
"""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel
import numpy as np
import pytest

from services.imaging.analysers.contract import Image
from services.imaging.analysers.radiomics import concept_of, features, mirp_settings, unit_of
from services.imaging.analysers.registry import card_named

pytest.importorskip("mirp", reason="radiomics library missing: uv sync --extra radiomics")

HU = "[hnsf'U]"
#: IBSI-1 configurations of the CT phantom (reference manual, chapter "Reference data sets").
CONFIGURATIONS = {
    "a": {"by_slice": True, "lowest": -500, "highest": 400, "bin_width": 25},
    "b": {"by_slice": True, "spacing_mm": 2, "lowest": -500, "highest": 400, "bin_width": 0, "bin_count": 32},
    "c": {"spacing_mm": 2, "lowest": -1000, "highest": 400, "bin_width": 25, "ivh_bin_width": 2.5},
    "d": {"spacing_mm": 2, "outlier_sigma": 3, "bin_width": 0, "bin_count": 32},
    "e": {
        "spacing_mm": 2,
        "spline_order": 3,
        "lowest": -1000,
        "highest": 400,
        "outlier_sigma": 3,
        "bin_width": 0,
        "bin_count": 32,
        "ivh_bin_count": 1000,
    },
}


def read(path: Path, unit: str = "1") -> Image:
    loaded = nibabel.load(path)
    return Image(np.asarray(loaded.dataobj).T, np.diag([-1.0, -1.0, 1.0, 1.0]) @ loaded.affine, unit)


def compared(found: dict[str, float], table: Path) -> tuple[int, int, list[str]]:
    """Features within tolerance, features compared, and those that are not within."""
    within, outside = 0, []
    for row in csv.DictReader(table.open(), delimiter=";"):
        name = row["tag"]
        if name not in found or not row["reference value"] or not row["tolerance"]:
            continue
        published, tolerance = float(row["reference value"]), float(row["tolerance"])
        if abs(found[name] - published) <= tolerance + 0.5 * 10 ** (np.floor(np.log10(abs(published) or 1)) - 2):
            within += 1
        else:
            outside.append(f"{name} {found[name]:.4g} for {published:.4g} +- {tolerance:.2g}")
    return within, within + len(outside), outside


@pytest.mark.slow
def test_digital_phantom(shared_data: Path) -> None:
    folder = shared_data / "ibsi-phantoms"
    phantom = folder / "ibsi_1_digital_phantom" / "nifti"
    image, mask = read(phantom / "image" / "phantom.nii.gz"), read(phantom / "mask" / "mask.nii.gz")
    found: dict[str, float] = {}
    for by_slice in (True, False):
        used = card_named("radiomics").settings({"bin_width": 0, "by_slice": by_slice})
        # Its intensities are whole numbers, as HU are; mirp bins those of other images for the volume histogram.
        found |= features(image, mask, mirp_settings(used, HU) | {"by_slice": False})
    table = folder / "test" / "data" / "ibsi_1_reference_values" / "ibsi_1_dig_phantom.csv"
    within, total, outside = compared(found, table)
    print(f"\nIBSI digital phantom: {within} of {total} features within tolerance", *outside, sep="\n  ")
    assert total >= 470
    assert within == total


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_ct_phantom(shared_data: Path, name: str) -> None:
    folder = shared_data / "ibsi-phantoms"
    phantom = folder / "ibsi_1_ct_radiomics_phantom" / "nifti"
    image, mask = read(phantom / "image" / "phantom.nii.gz", HU), read(phantom / "mask" / "mask.nii.gz")
    used = card_named("radiomics").settings(CONFIGURATIONS[name])
    found = features(image, mask, mirp_settings(used, HU))
    table = folder / "test" / "data" / "ibsi_1_reference_values" / f"ibsi_1_chest_config_{name}.csv"
    within, total, outside = compared(found, table)
    print(f"\nIBSI CT phantom, configuration {name.upper()}: {within} of {total} features", *outside[:20], sep="\n  ")
    assert within >= 0.97 * total
    assert unit_of("morph_volume", HU) == "mm3"
    assert concept_of("stat_mean") is not None
