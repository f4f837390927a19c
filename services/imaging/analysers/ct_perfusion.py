"""CT perfusion: flow, volume, transit time and Tmax by block-circulant deconvolution; core, penumbra and mismatch.

Source: Wu et al., Magn Reson Med 2003;50:164. The singular values of a circulant matrix are the magnitudes of its
Fourier coefficients, so dropping small singular values is dropping small coefficients; nothing is approximated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from services.imaging.analysers.cards import Card, card
from services.imaging.analysers.contract import (
    BoolArray,
    Curve,
    Image,
    Region,
    Result,
    ScalarMap,
    mask_of,
    refuse,
    require_same_grid,
)
from services.imaging.analysers.perfusion_curves import NAME, Enhancement, Vessels, enhancement, vessels
from services.imaging.findings import Value

Curves = NDArray[np.float64]
#: Shares of the largest singular value that osvd tries, rising.
_THRESHOLDS = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.13, 0.16, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
_CHUNK = 20_000


@dataclass(frozen=True)
class Perfusion:
    """One value for each curve: flow mL/100 g/min, volume mL/100 g, transit time s, Tmax s (negative: before the artery)."""

    cbf: Curves
    cbv: Curves
    mtt: Curves
    tmax: Curves


def oscillation_index(residue: Curves) -> Curves:
    """Mean absolute second difference over the peak (Wu 2003, equation 9); `residue` (n, t)."""
    peak = np.maximum(residue.max(axis=1), 1e-12)
    index: Curves = np.abs(np.diff(residue, 2, axis=1)).sum(axis=1) / peak / residue.shape[1]
    return index


def residues(
    tissue: Curves, aif: Curves, step_s: float, *, threshold: float | None = None, largest_oscillation: float = 0.095
) -> Curves:
    """Flow-scaled residue functions (n, 2 t), 1/s, of tissue curves (n, t); the second half are negative times.

    `threshold`: share of the largest singular value below which values are dropped, for all curves (cSVD); None
    takes for each curve the smallest share that keeps its oscillation index at `largest_oscillation` (oSVD).
    """
    length = 2 * aif.size
    spectrum = np.fft.rfft(aif, length) * step_s
    size = np.abs(spectrum) / np.abs(spectrum).max()
    wanted = np.fft.rfft(tissue, length, axis=1)

    def solve(rows: Any, share: float) -> Curves:
        kept = size >= share
        solved: Curves = np.fft.irfft(np.where(kept, wanted[rows] / np.where(kept, spectrum, 1.0), 0.0), length, axis=1)
        return solved

    if threshold is not None:
        return solve(slice(None), threshold)
    result = np.empty((len(tissue), length))
    open_rows = np.arange(len(tissue))
    for share in _THRESHOLDS:
        result[open_rows] = solve(open_rows, share)
        open_rows = open_rows[oscillation_index(result[open_rows]) > largest_oscillation]
        if not open_rows.size:
            break
    return result


def perfusion(tissue: Curves, aif: Curves, step_s: float, **how: Any) -> Perfusion:
    """Perfusion of tissue curves (n, t) in the units of `aif`; `how` as for `residues`."""
    known = card(NAME).constants
    plasma = (1 - known["haematocrit_large"]) / (1 - known["haematocrit_small"])
    per_100g = 100.0 * plasma / known["density_g_ml"]
    cbv = per_100g * tissue.sum(axis=1) / aif.sum()
    peaks, when = np.empty(len(tissue)), np.empty(len(tissue))
    for first in range(0, len(tissue), _CHUNK):
        rows = slice(first, first + _CHUNK)
        peaks[rows], when[rows] = _peaks(residues(tissue[rows], aif, step_s, **how), step_s)
    cbf = 60.0 * per_100g * np.maximum(peaks, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mtt = np.where(cbf > 0, 60.0 * cbv / cbf, np.nan)
    return Perfusion(cbf, cbv, mtt, when)


def _peaks(residue: Curves, step_s: float) -> tuple[Curves, Curves]:
    """Height at the largest sample, and its time by a parabola through it and its neighbours."""
    length, rows = residue.shape[1], np.arange(len(residue))
    top = residue.argmax(axis=1)
    before, at, after = residue[rows, top - 1], residue[rows, top], residue[rows, (top + 1) % length]
    bend = before - 2 * at + after
    shift = np.where(np.abs(bend) > 1e-12, 0.5 * (before - after) / np.where(bend == 0, 1, bend), 0.0)
    # A step (no delay) has its only neighbour on one side; a parabola would move it before zero.
    shift = np.where(top == 0, 0.0, np.clip(shift, -0.5, 0.5))
    when = np.where(top >= length // 2, top - length, top) + shift
    return at, when * step_s


@dataclass(frozen=True)
class Ischaemia:
    """Regions (z, y, x) and the flow they are relative to. `normal_cbf`: median where Tmax is normal."""

    core: BoolArray
    hypoperfusion: BoolArray
    tissue: BoolArray
    normal_cbf: float


def ischaemia(
    maps: Mapping[str, NDArray[np.float64]], baseline_hu: NDArray[np.float64], voxel_ml: float, used: Mapping[str, Any]
) -> Ischaemia:
    """Core, hypoperfusion and the tissue they were looked for in. Raises RefusedError `ct_perfusion.no_normal_tissue`."""
    known = card(NAME).constants
    low, high = known["tissue_hu"]
    cbv = np.nan_to_num(maps["cbv"], nan=np.inf)
    tissue = (baseline_hu >= low) & (baseline_hu <= high) & (cbv <= known["vessel_cbv_ml_100g"])
    tmax, cbf = np.nan_to_num(maps["tmax"], nan=0.0), np.nan_to_num(maps["cbf"], nan=0.0)
    normal = tissue & (tmax <= known["normal_tmax_s"]) & (cbf > 0)
    if normal.sum() * voxel_ml < known["smallest_normal_ml"]:
        raise refuse(
            NAME,
            "no_normal_tissue",
            f"less than {known['smallest_normal_ml']} mL of tissue with Tmax up to {known['normal_tmax_s']} s",
            "normally perfused tissue to compare with",
            remedy="Check the arterial input; a late one makes all tissue look early or late.",
        )
    reference = float(np.median(cbf[normal]))
    late = _large(tissue & (tmax > used["tmax_s"]), used["smallest_ml"] / voxel_ml)
    core = _large(late & (cbf < used["core_rcbf"] * reference), used["smallest_ml"] / voxel_ml)
    return Ischaemia(core, late, tissue, reference)


def _large(mask: BoolArray, fewest: float) -> BoolArray:
    pieces, _ = ndimage.label(mask)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    kept: BoolArray = (sizes >= fewest)[pieces] & mask
    return kept


def analyse(inputs: Mapping[str, Image], settings: Mapping[str, Any]) -> Result:
    """The whole analysis of one dynamic CT. Refusals: see `perfusion_curves` and `ischaemia`."""
    known, image = card(NAME), inputs["ct"]
    if settings["method"] not in ("osvd", "csvd"):
        raise refuse(NAME, "bad_option", f"method {settings['method']!r}", remedy=known.options["method"].what)
    others = {role: inputs[role] for role in ("mask", "aif", "vof") if role in inputs}
    require_same_grid(NAME, image, **others)
    masks = {role: mask_of(NAME, given, role) for role, given in others.items()}
    found = enhancement(image, masks.get("mask"), settings["smoothing_mm"])
    vessel = vessels(found, masks.get("aif"), masks.get("vof"))
    how = {"threshold": settings["threshold"]} if settings["method"] == "csvd" else {}
    how.setdefault("largest_oscillation", settings["oscillation_index"])
    computed = perfusion(found.curves, vessel.aif, found.step_s, **how)
    maps = {name: _on_grid(found.mask, getattr(computed, name)) for name in ("cbf", "cbv", "mtt", "tmax")}
    voxel_ml = image.voxel_mm3 / 1000.0
    regions = ischaemia(maps, found.baseline_hu, voxel_ml, settings)
    penumbra = regions.hypoperfusion & ~regions.core
    return Result(
        analyser=NAME,
        values=_values(known, maps, found, regions, voxel_ml, settings),
        maps=_scalar_maps(known, maps, image),
        regions={
            name: Region(known.concepts[name], mask, image.affine_lps)
            for name, mask in (
                ("core", regions.core),
                ("hypoperfusion", regions.hypoperfusion),
                ("penumbra", penumbra),
            )
        },
        curves=_vessel_curves(found, vessel),
        cautions=(*found.cautions, *_cautions(vessel, found, regions)),
        parameters={
            **settings,
            "vessels": vessel.how,
            "aif_scale": vessel.scale,
            "aif_voxels_kji": vessel.aif_voxels.tolist(),
            "vof_voxels_kji": vessel.vof_voxels.tolist(),
        },
        citations=known.sources,
    )


def _on_grid(mask: BoolArray, values: Curves) -> NDArray[np.float64]:
    full = np.full(mask.shape, np.nan)
    full[mask] = values
    return full


def _values(
    known: Card,
    maps: Mapping[str, NDArray[np.float64]],
    found: Enhancement,
    regions: Ischaemia,
    voxel_ml: float,
    settings: Mapping[str, Any],
) -> dict[str, Value]:
    core, late = regions.core.sum() * voxel_ml, regions.hypoperfusion.sum() * voxel_ml
    stricter, looser = known.constants["rcbf_sensitivity"]
    sooner, later = known.constants["tmax_sensitivity_s"]
    other = {
        share: ischaemia(maps, found.baseline_hu, voxel_ml, {**settings, "core_rcbf": share}).core.sum() * voxel_ml
        for share in (stricter, looser)
    }
    shifted = {
        when: ischaemia(maps, found.baseline_hu, voxel_ml, {**settings, "tmax_s": when}).hypoperfusion.sum() * voxel_ml
        for when in (sooner, later)
    }
    values = {
        "core": known.value(
            "core",
            core,
            f"not estimated: {known.measures['core'].uncertainty}; {other[stricter]:.1f} mL at rCBF < {stricter:.0%}, "
            f"{other[looser]:.1f} mL at rCBF < {looser:.0%}",
        ),
        "hypoperfusion": known.value(
            "hypoperfusion",
            late,
            f"not estimated: {known.measures['hypoperfusion'].uncertainty}; {shifted[sooner]:.1f} mL at "
            f"Tmax > {sooner:g} s, {shifted[later]:.1f} mL at Tmax > {later:g} s",
        ),
        "mismatch_volume": known.value("mismatch_volume", late - core),
        "normal_cbf": known.value("normal_cbf", regions.normal_cbf),
    }
    if core > 0:
        values["mismatch_ratio"] = known.value("mismatch_ratio", late / core)
    return values


def _scalar_maps(known: Card, maps: Mapping[str, NDArray[np.float64]], image: Image) -> dict[str, ScalarMap]:
    units = {"cbf": "mL/(100.g)/min", "cbv": "mL/(100.g)", "mtt": "s", "tmax": "s"}
    return {
        name: ScalarMap(known.concepts[name], array.astype(np.float32), image.affine_lps, units[name])
        for name, array in maps.items()
    }


def _vessel_curves(found: Enhancement, vessel: Vessels) -> dict[str, Curve]:
    times = tuple(float(found.first_s + step * found.step_s) for step in range(vessel.aif.size))
    return {
        name: Curve(times, "s", tuple(float(v) for v in curve), "[hnsf'U]")
        for name, curve in (("aif", vessel.aif), ("vof", vessel.vof))
    }


def _cautions(vessel: Vessels, found: Enhancement, regions: Ischaemia) -> list[str]:
    told = []
    if not regions.core.any():
        told.append("no core: the mismatch ratio has no value")
    if vessel.scale > 3:
        told.append(f"the arterial input was scaled by {vessel.scale:.1f}: a small or partly covered artery")
    if vessel.vof[-1] > 0.6 * vessel.vof.max():
        told.append("the venous curve has not come down by the end: volumes and transit times may be too low")
    if vessel.vof.argmax() * found.step_s > 0.9 * vessel.vof.size * found.step_s:
        told.append("the acquisition ends before the venous peak: truncated")
    return told
