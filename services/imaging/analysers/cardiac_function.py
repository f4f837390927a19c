"""Cardiac function over a cine segmentation: volumes by summation of discs in every frame, and what follows from them.

Source: SCMR post-processing recommendations, Schulz-Menger et al., J Cardiovasc Magn Reson 2020;22:19.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.imaging.analysers.cards import card
from services.imaging.analysers.contract import BoolArray, Curve, Image, Result, refuse, require_unit
from services.imaging.findings import Interval, Value

NAME = "cardiac_function"
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """A number and the standard deviation of its sampling error."""

    number: float
    deviation: float


def disc_volume(areas_mm2: Floats, step_mm: float) -> Measured:
    """Volume in mL from the areas of parallel slices `step_mm` apart, and the error of sampling by slices.

    Source: Gundersen and Jensen 1987: variance of the sum (3A - 4B + C) / 12 with A, B, C the products of areas that are
    0, 1 and 2 slices apart; 1/12 holds for shapes that end abruptly, as a ventricle does at its base.
    """
    a = np.concatenate([areas_mm2, [0.0, 0.0]])
    spread = 3 * (a @ a) - 4 * (a[:-1] @ a[1:]) + a[:-2] @ a[2:]
    return Measured(float(areas_mm2.sum() * step_mm / 1000), float(step_mm * np.sqrt(max(spread, 0.0) / 12) / 1000))


@dataclass(frozen=True)
class Ventricle:
    """Volumes in mL, `ef` in %; `curve` for each frame."""

    edv: Measured
    esv: Measured
    sv: Measured
    ef: Measured
    curve: Floats
    ed: int
    es: int


def ventricle(cavity: BoolArray, area_mm2: float, step_mm: float, ed: int = -1, es: int = -1) -> Ventricle:
    """Function of one ventricle from its cavity (t, z, y, x). `ed`, `es`: frames, -1 for largest and smallest volume."""
    areas = cavity.sum(axis=(2, 3)) * area_mm2
    curve = areas.sum(axis=1) * step_mm / 1000
    ed = int(curve.argmax()) if ed < 0 else ed
    es = int(curve.argmin()) if es < 0 else es
    full, empty = disc_volume(areas[ed], step_mm), disc_volume(areas[es], step_mm)
    share = empty.number / full.number
    relative = np.hypot(full.deviation / full.number, empty.deviation / max(empty.number, 1e-9))
    return Ventricle(
        edv=full,
        esv=empty,
        sv=Measured(full.number - empty.number, float(np.hypot(full.deviation, empty.deviation))),
        ef=Measured(100 * (1 - share), float(100 * share * relative)),
        curve=curve,
        ed=ed,
        es=es,
    )


def rates(curve_ml: Floats, times_s: Floats) -> tuple[float, float]:
    """Peak ejection and peak filling rate, mL/s, both positive; central differences over a closed beat."""
    period = times_s[-1] - times_s[0] + np.median(np.diff(times_s))
    slope = (np.roll(curve_ml, -1) - np.roll(curve_ml, 1)) / (
        np.mod(np.roll(times_s, -1) - np.roll(times_s, 1), period)
    )
    return float(-slope.min()), float(slope.max())


def check(image: Image, settings: Mapping[str, Any]) -> NDArray[np.int64]:
    """Labels as integers.

    Raises RefusedError `cardiac_function.wrong_unit|not_dynamic|too_few_frames|bad_times|not_labels|bad_frame`.
    """
    limits = card(NAME).constants
    require_unit(NAME, "segmentation", image, "1")
    if image.array.ndim != 4:
        raise refuse(NAME, "not_dynamic", "the segmentation has no time dimension", "labels (t, z, y, x)")
    labels = np.rint(image.array).astype(np.int64)
    if np.abs(labels - image.array).max() > 1e-3:
        raise refuse(
            NAME, "not_labels", "the segmentation holds values between labels", remedy="Resample by nearest label."
        )
    frames, named = len(labels), (settings["ed_frame"], settings["es_frame"])
    if any(frame >= frames for frame in named):
        raise refuse(NAME, "bad_frame", f"there are {frames} frames, counted from 0")
    if frames < limits["fewest_frames"] and min(named) < 0:
        raise refuse(
            NAME,
            "too_few_frames",
            f"{frames} frames; finding end-diastole and end-systole needs {limits['fewest_frames']}",
            remedy="Give ed_frame and es_frame when these are the frames that were segmented.",
        )
    if image.times_s and (len(image.times_s) != frames or not np.all(np.diff(image.times_s) > 0)):
        raise refuse(NAME, "bad_times", f"{len(image.times_s)} times for {frames} frames, or not rising")
    return labels


def _cavity(labels: NDArray[np.int64], label: int, what: str, frames: tuple[int, ...]) -> BoolArray:
    """Raises RefusedError `cardiac_function.empty_mask|lost_ventricle|missing_slice|too_few_slices`."""
    cavity: BoolArray = labels == label
    each = cavity.any(axis=(1, 2, 3)) if not frames else cavity[list(frames)].any(axis=(1, 2, 3))
    if not cavity.any():
        raise refuse(NAME, "empty_mask", f"no voxel has the label {label} of the {what}", what)
    if not each.all():
        raise refuse(NAME, "lost_ventricle", f"the {what} is not outlined in {int((~each).sum())} frames", what)
    slices = np.flatnonzero(cavity.any(axis=(0, 2, 3)))
    least = card(NAME).constants["fewest_slices"]
    if slices.size < least:
        raise refuse(NAME, "too_few_slices", f"the {what} lies in {slices.size} slices; discs need {least}")
    for number in frames or range(len(cavity)):
        held = np.flatnonzero(cavity[number].any(axis=(1, 2)))
        if held.size != np.ptp(held) + 1:
            raise refuse(
                NAME, "missing_slice", f"frame {number} has a slice without {what} between slices with it", what
            )
    return cavity


def analyse(inputs: Mapping[str, Image], settings: Mapping[str, Any]) -> Result:
    """The whole analysis of one segmented cine. Refusals: see `check` and `_cavity`."""
    known, image = card(NAME), inputs["segmentation"]
    labels = check(image, settings)
    x, y, step = image.spacing_mm
    frames = tuple(f for f in (settings["ed_frame"], settings["es_frame"]) if f >= 0)
    frames = frames if len(frames) == 2 else ()
    named = (settings["ed_frame"], settings["es_frame"])
    left = ventricle(_cavity(labels, settings["lv_label"], "left ventricle", frames), x * y, step, *named)
    values = _volumes("lv", left)
    cautions = _cautions(left, frames)
    muscle = labels[left.ed] == settings["myocardium_label"]
    if muscle.any():
        values |= _mass(muscle, x * y, step, settings["body_surface_m2"])
    else:
        cautions.append("no myocardium is outlined at end-diastole: mass has no value")
    if (labels == settings["rv_label"]).any():
        right = ventricle(
            _cavity(labels, settings["rv_label"], "right ventricle", frames), x * y, step, left.ed, left.es
        )
        values |= _volumes("rv", right)
        if abs(right.sv.number - left.sv.number) > 0.2 * left.sv.number:
            cautions.append(
                "stroke volumes of left and right differ by more than a fifth: outlines, or a shunt or leak"
            )
    if settings["body_surface_m2"] > 0:
        values["lv_edv_index"] = _told("lv_edv_index", left.edv, 1 / settings["body_surface_m2"])
    times = np.asarray(image.times_s, float)
    values |= _timing(left, times, settings["heart_rate_bpm"], cautions)
    return Result(
        analyser=NAME,
        values=values,
        curves={"lv_volume": Curve(tuple(map(float, times)), "s", tuple(map(float, left.curve)), "mL")}
        if times.size
        else {"lv_volume": Curve(tuple(map(float, range(len(labels)))), "1", tuple(map(float, left.curve)), "mL")},
        cautions=tuple(cautions),
        parameters={**settings, "ed_frame": left.ed, "es_frame": left.es},
        citations=known.sources,
    )


def _told(name: str, measured: Measured, factor: float = 1.0) -> Value:
    known = card(NAME)
    half = known.constants["normal_deviate"] * measured.deviation * factor
    middle = measured.number * factor
    return known.value(name, middle, Interval(middle - half, middle + half, known.constants["level"]))


def _volumes(side: str, found: Ventricle) -> dict[str, Value]:
    return {f"{side}_{part}": _told(f"{side}_{part}", getattr(found, part)) for part in ("edv", "esv", "sv", "ef")}


def _mass(muscle: BoolArray, area_mm2: float, step_mm: float, body_surface_m2: float) -> dict[str, Value]:
    density = card(NAME).constants["density_g_ml"]
    volume = disc_volume(muscle.sum(axis=(1, 2)) * area_mm2, step_mm)
    values = {"lv_mass": _told("lv_mass", volume, density)}
    if body_surface_m2 > 0:
        values["lv_mass_index"] = _told("lv_mass_index", volume, density / body_surface_m2)
    return values


def _timing(left: Ventricle, times: Floats, heart_rate_bpm: float, cautions: list[str]) -> dict[str, Value]:
    known, values = card(NAME), {}
    if not times.size:
        cautions.append("the frames have no times: rates and phases have no value")
    elif times.size >= known.constants["rate_frames"]:
        interval = float(np.median(np.diff(times)))
        period = float(np.ptp(times) + interval)
        ejection, filling = rates(left.curve, times)
        values["peak_ejection_rate"] = known.value("peak_ejection_rate", ejection)
        values["peak_filling_rate"] = known.value("peak_filling_rate", filling)
        systole = float(np.mod(times[left.es] - times[left.ed], period))
        values["systole"] = known.value("systole", systole, Interval(systole - interval, systole + interval, 1.0))
        heart_rate_bpm = heart_rate_bpm or 60.0 / period
    if heart_rate_bpm > 0:
        values["cardiac_output"] = _told("cardiac_output", left.sv, heart_rate_bpm / 1000)
    return values


def _cautions(left: Ventricle, frames: tuple[int, ...]) -> list[str]:
    low, high = card(NAME).constants["plausible_ef"]
    told = []
    if not low <= left.ef.number <= high:
        told.append(f"an ejection fraction of {left.ef.number:.0f} % is unlikely: check the labels and the frames")
    if not frames and min(left.ed, len(left.curve) - left.ed) > 0.25 * len(left.curve):
        told.append("the largest volume is not near the start of the beat: check the trigger")
    return told
