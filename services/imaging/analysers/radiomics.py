"""Radiomics features of one region by the IBSI standard, through the library `mirp` (extra `radiomics`).

Source: Zwanenburg et al., Radiology 2020;295:328; IBSI reference manual, arXiv:1612.07003.
"""

from __future__ import annotations

import logging
import math
import re
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel
import numpy as np
import yaml

from services.clinical.codes import IBSI, OSLER_MEASUREMENT, Concept
from services.imaging.analysers.cards import card
from services.imaging.analysers.contract import Image, Result, mask_of, refuse, require_same_grid
from services.imaging.findings import Value

NAME = "radiomics"
#: How mirp marks where a texture feature was computed and merged, and how IBSI's tables do.
_PLACES = {
    "_2d_avg": "_2D_avg",
    "_2d_s_mrg": "_2D_comb",
    "_2.5d_d_mrg": "_2_5D_avg",
    "_2.5d_v_mrg": "_2_5D_comb",
    "_3d_avg": "_3D_avg",
    "_3d_v_mrg": "_3D_comb",
    "_2.5d": "_2_5D",
    "_2d": "_2D",
    "_3d": "_3D",
}
_IN_SPACE = {"glcm": ["3d_average", "3d_volume_merge"], "zone": ["3d"]}
_IN_PLANE = {
    "glcm": ["2d_average", "2d_slice_merge", "2.5d_direction_merge", "2.5d_volume_merge"],
    "zone": ["2d", "2.5d"],
}
_LENGTHS = {"morph_diam", "morph_pca_maj_axis", "morph_pca_min_axis", "morph_pca_least_axis", "morph_com"}
_UNITS = {"morph_volume": "mm3", "morph_vol_approx": "mm3", "morph_area_mesh": "mm2", "morph_av": "/mm"}
_AS_IMAGE = {"mean", "median", "min", "max", "p10", "p90", "iqr", "range", "mad", "rmad", "medad", "rms"}


@cache
def identifiers() -> dict[str, list[str]]:
    """mirp's stem -> [IBSI identifier, name]."""
    content: dict[str, list[str]] = yaml.safe_load(
        Path(__file__).with_name("radiomics_ibsi.yaml").read_text(encoding="utf-8")
    )
    return content


def standard_name(column: str) -> str:
    """mirp's column as IBSI's tables name it: without distance, tolerance and binning, with IBSI's place suffix."""
    name = re.sub(r"_(fbs_w|fbn_n)[\d.]+$", "", column)
    name = re.sub(r"_(d1(\.0)?|a0(\.0)?)(?=_)", "", name)
    for ending, place in _PLACES.items():
        if name.endswith(ending):
            return name.removesuffix(ending) + place
    return name


def concept_of(name: str) -> Concept | None:
    """The IBSI concept of a standard name; None for what IBSI does not define."""
    stem = re.sub(r"_(2D|2_5D|3D)(_avg|_comb)?$", "", name)
    if stem not in identifiers():
        return None
    code, display = identifiers()[stem]
    return Concept(IBSI, code, display)


def unit_of(name: str, image_unit: str) -> str:
    """UCUM unit of a feature."""
    if name in _LENGTHS:
        return "mm"
    family, _, rest = name.partition("_")
    return image_unit if family == "stat" and rest in _AS_IMAGE else _UNITS.get(name, "1")


def library() -> ModuleType:
    """mirp. Raises RefusedError `radiomics.not_installed`."""
    try:
        import mirp
    except ModuleNotFoundError as error:
        raise refuse(
            NAME, "not_installed", "the library mirp is not installed", "mirp", remedy=card(NAME).constants["install"]
        ) from error
    found: ModuleType = mirp
    return found


def mirp_settings(settings: Mapping[str, Any], image_unit: str) -> dict[str, Any]:
    """mirp's keywords for the card's options. Raises RefusedError `radiomics.bad_option`."""
    if settings["bin_width"] > 0 and settings["bin_count"] > 0:
        raise refuse(NAME, "bad_option", "both a width and a number of bins are given", remedy="Set one of them to 0.")
    chosen: dict[str, Any] = {"by_slice": settings["by_slice"], "base_feature_families": "all"}
    if image_unit == "[hnsf'U]":
        chosen["image_modality"] = "ct"
    if settings["spacing_mm"] > 0:
        chosen |= {
            "new_spacing": settings["spacing_mm"],
            "spline_order": settings["spline_order"],
            "anti_aliasing": False,
        }
    bounds = [settings["lowest"], settings["highest"]]
    if any(math.isfinite(bound) for bound in bounds):
        chosen["resegmentation_intensity_range"] = [bound if math.isfinite(bound) else np.nan for bound in bounds]
    if settings["outlier_sigma"] > 0:
        chosen["resegmentation_sigma"] = settings["outlier_sigma"]
    chosen |= _bins("base", settings["bin_width"], settings["bin_count"])
    chosen |= _bins("ivh", settings["ivh_bin_width"], settings["ivh_bin_count"])
    places = _IN_PLANE if settings["by_slice"] else _IN_SPACE
    chosen |= {f"{family}_spatial_method": places["glcm"] for family in ("glcm", "glrlm")}
    chosen |= {f"{family}_spatial_method": places["zone"] for family in ("glszm", "gldzm", "ngtdm", "ngldm")}
    return chosen


def _bins(kind: str, width: float, count: int) -> dict[str, Any]:
    if width > 0:
        return {f"{kind}_discretisation_method": "fixed_bin_size", f"{kind}_discretisation_bin_width": width}
    if count > 0:
        return {f"{kind}_discretisation_method": "fixed_bin_number", f"{kind}_discretisation_n_bins": count}
    return {f"{kind}_discretisation_method": "none"}


def features(image: Image, mask: Image, chosen: Mapping[str, Any]) -> dict[str, float]:
    """Features by standard name; `chosen`: mirp's keywords. mirp reads files, so both pass through a scratch folder."""
    mirp = library()
    logging.getLogger("mirp").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        paths = {}
        for role, one in (("image", image), ("mask", mask)):
            paths[role] = str(Path(folder) / f"{role}.nii.gz")
            array = np.asarray(one.array, np.float32 if role == "image" else np.uint8)
            affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ one.affine_lps
            nibabel.save(nibabel.Nifti1Image(array.T, affine), paths[role])
        tables = mirp.extract_features(**paths, write_features=False, export_features=True, **chosen)
    row = tables[0].iloc[0]
    return {standard_name(column): float(row[column]) for column in row.index if concept_of(standard_name(column))}


def analyse(inputs: Mapping[str, Image], settings: Mapping[str, Any]) -> Result:
    """All features of one region. Raises RefusedError `radiomics.empty_mask|too_small|not_a_volume|failed`."""
    known, image, region = card(NAME), inputs["image"], inputs["mask"]
    if image.array.ndim != 3:
        raise refuse(NAME, "not_a_volume", "the image is no single volume", "one volume (z, y, x)")
    require_same_grid(NAME, image, mask=region)
    mask = mask_of(NAME, region, "mask")
    if mask.sum() < known.constants["fewest_voxels"]:
        least = known.constants["fewest_voxels"]
        raise refuse(NAME, "too_small", f"the region holds {int(mask.sum())} voxels; texture needs {least}")
    found = features(image, Image(mask, region.affine_lps), mirp_settings(settings, image.unit))
    if not found:
        raise refuse(NAME, "failed", "no feature came back", remedy="Check that the range leaves voxels in the region.")
    cautions = []
    if mask.sum() * image.voxel_mm3 < known.constants["small_mm3"]:
        cautions.append("the region is under 1 mL: texture features depend mostly on its size")
    if mask.sum() > known.constants["approximated_voxels"]:
        cautions.append("Moran's I and Geary's C are approximated in a region of this size: outside IBSI's tolerance")
    if image.unit == "1":
        cautions.append("the intensities have no unit: fixed bin widths mean nothing across scanners")
    return Result(
        analyser=NAME,
        values={name: _value(name, number, image.unit) for name, number in found.items() if math.isfinite(number)},
        cautions=tuple(cautions),
        parameters={**settings, "library": f"mirp {library_version()}"},
        citations=known.sources,
    )


def library_version() -> str:
    """Version of mirp as installed."""
    from importlib.metadata import version

    return version("mirp")


def _value(name: str, number: float, image_unit: str) -> Value:
    known, concept = card(NAME), concept_of(name)
    return Value(
        concept or Concept(OSLER_MEASUREMENT, name, name),
        number,
        unit_of(name, image_unit),
        f"{NAME} {known.version}: {name}",
        f"not estimated: {known.constants['uncertainty']}",
    )
