"""Held-out figures, through the same functions that serve patients, beside thresholds with the same help."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.train.common import mean_with_interval, median_with_interval, rounded, write_json
from pipelines.train.pet_lesion.data import Patient
from pipelines.train.pet_lesion.modes import BASELINES, MODE_OF, OUTLINES
from services.imaging.pet_lesion import PetLesionModel, outline_in_box
from services.imaging.pet_lesion_network import tight_box

LEVEL = 0.9
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class PatientFigures:
    """One held-out patient. `dice` and `volume_mm3` for each way of pointing the lesion out and each threshold."""

    patient_id: str
    fold: int
    true_mm3: float
    suv_max: float
    suv_median: float
    unsure_share: float
    dice: Mapping[str, float]
    volume_mm3: Mapping[str, float]


def dice(a: BoolArray, b: BoolArray) -> float:
    """2 |a and b| / (|a| + |b|), 0 to 1; 1 where both are empty."""
    total = int(a.sum() + b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


def evaluate_patient(model: PetLesionModel, patient: Patient, fold: int) -> PatientFigures:
    """Outline one patient in every way and compare with the expert."""
    boxed = outline_in_box(model, patient.suv, patient.spacing_mm, tight_box(patient.mask))
    outlines = {name: outline(model, patient) for name, outline in OUTLINES.items()}
    outlines |= {name: threshold(patient) for name, threshold in BASELINES.items()}
    uptake = patient.suv[patient.mask]
    return PatientFigures(
        patient_id=patient.patient_id,
        fold=fold,
        true_mm3=float(patient.mask.sum()) * patient.voxel_mm3,
        suv_max=float(uptake.max()),
        suv_median=float(np.median(uptake)),
        unsure_share=boxed.unsure_share,
        dice={name: dice(mask, patient.mask) for name, mask in outlines.items()},
        volume_mm3={name: float(mask.sum()) * patient.voxel_mm3 for name, mask in outlines.items()},
    )


def evaluate(
    runs: Sequence[tuple[int, PetLesionModel, Sequence[Patient]]],
    track: Callable[[Iterable[Patient]], Iterable[Patient]] = lambda patients: patients,
) -> list[PatientFigures]:
    """Figures of every patient by the network that never saw it; `runs`: fold, its model, its held-out patients."""
    return [evaluate_patient(model, one, fold) for fold, model, patients in runs for one in track(patients)]


def half_width(figures: Sequence[PatientFigures], way: str, level: float = LEVEL) -> float:
    """The relative error that at least `level` of exchangeable new patients stay within (split conformal), at most 1.

    Of n errors |measured - expert| / measured in order, the ceil((n + 1) level)-th.
    """
    errors = np.sort([_relative_error(one, way) for one in figures])
    return float(errors[min(len(errors), int(np.ceil((len(errors) + 1) * level))) - 1])


def _relative_error(one: PatientFigures, way: str) -> float:
    measured = one.volume_mm3[way]
    return min(1.0, abs(measured - one.true_mm3) / measured) if measured else 1.0


def _way(figures: Sequence[PatientFigures], way: str) -> dict[str, Any]:
    scores = [one.dice[way] for one in figures]
    measured = np.array([one.volume_mm3[way] for one in figures])
    real = np.array([one.true_mm3 for one in figures])
    errors = 100 * (measured - real) / real
    return {
        "dice": median_with_interval(scores),
        "dice_mean": mean_with_interval(scores),
        "dice_lowest": min(scores),
        "share_above_0.8": float(np.mean(np.array(scores) >= 0.8)),
        "volume_error_percent": {
            "median": float(np.median(errors)),
            "median_absolute": median_with_interval(np.abs(errors).tolist()),
            "limits_low": float(np.percentile(errors, 2.5)),
            "limits_high": float(np.percentile(errors, 97.5)),
        },
    }


def _groups(
    figures: Sequence[PatientFigures], name: str, value: Callable[[PatientFigures], float]
) -> list[dict[str, Any]]:
    ordered = sorted(figures, key=value)
    thirds = [[ordered[i] for i in part] for part in np.array_split(np.arange(len(ordered)), 3) if len(part)]
    return [
        {
            "by": name,
            "patients": len(group),
            "from": value(group[0]),
            "to": value(group[-1]),
            **{f"dice_{way}": median_with_interval([one.dice[way] for one in group]) for way in OUTLINES},
        }
        for group in thirds
    ]


def summarise(figures: Sequence[PatientFigures]) -> dict[str, Any]:
    """What the model card reports."""
    paired = {
        name: median_with_interval([one.dice["box"] - one.dice[name] for one in figures])
        for name in ("ellipsoid_in_box", "suv_2.5_in_box", "41_percent_in_box")
    }
    return {
        "patients": len(figures),
        "folds": sorted({one.fold for one in figures}),
        "model": {way: _way(figures, way) for way in OUTLINES},
        "thresholds": {name: _way(figures, name) for name in BASELINES},
        "gain_over_same_box": paired,
        "by_volume_mm3": _groups(figures, "volume", lambda one: one.true_mm3),
        "by_median_suv": _groups(figures, "median SUV", lambda one: one.suv_median),
        "interval": {
            mode: {"level": LEVEL, "relative_half_width": half_width(figures, way)} for mode, way in MODE_OF.items()
        },
        "unsure_limit": float(np.quantile([one.unsure_share for one in figures], 0.975)),
        "unsure_dice_correlation": float(
            np.corrcoef([one.unsure_share for one in figures], [one.dice["box"] for one in figures])[0, 1]
        )
        if len(figures) > 2
        else float("nan"),
        "lowest": [_row(one) for one in sorted(figures, key=lambda one: one.dice["box"])[:6]],
    }


def _row(one: PatientFigures) -> dict[str, Any]:
    head = {
        "patient_id": one.patient_id,
        "fold": one.fold,
        "true_ml": one.true_mm3 / 1000,
        "suv_max": one.suv_max,
        "suv_median": one.suv_median,
        "unsure_share": one.unsure_share,
    }
    return (
        head
        | {f"dice_{way}": score for way, score in one.dice.items()}
        | {f"ml_{way}": one.volume_mm3[way] / 1000 for way in OUTLINES}
    )


def write_figures(figures: Sequence[PatientFigures], folder: Path) -> dict[str, Any]:
    """Write `held_out.csv` (a row for each patient) and `held_out.json` (the summary); returns the summary."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [rounded(_row(one)) for one in sorted(figures, key=lambda one: one.patient_id)]
    with (folder / "held_out.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    summary = summarise(figures)
    write_json(folder / "held_out.json", rounded(summary))
    return summary
