"""Held-out figures, through the same `segment` that serves patients."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipelines.train.common import mean_with_interval, rounded
from pipelines.train.hippocampus.data import Case
from services.imaging.hippocampus import LABELS, HippocampusModel, segment
from services.platform.errors import RefusedError

#: Voxel (right, anterior, superior) of a 1 mm crop to LPS millimetres; its place in the scanner is not recorded.
CROP_AFFINE_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
INTERVAL_LEVEL = 0.9
PARTS = ("anterior", "posterior", "total")


@dataclass(frozen=True)
class CaseFigures:
    """One held-out case. Volumes in mm3; `hd95_mm` is the 95th percentile of the distances between the two surfaces."""

    case_id: str
    fold: int
    dice_anterior: float
    dice_posterior: float
    dice_total: float
    hd95_total_mm: float
    volume_anterior_mm3: float
    volume_posterior_mm3: float
    volume_total_mm3: float
    true_anterior_mm3: float
    true_posterior_mm3: float
    true_total_mm3: float
    mean_entropy_nats: float
    anterior_offset_mm: float
    orientation_ratio: float
    cautions: str

    @property
    def refused(self) -> bool:
        """Whether `cautions` holds a refusal's reason."""
        return self.cautions.startswith("hippocampus.")


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """2 |a and b| / (|a| + |b|), 0 to 1; 1 where both are empty."""
    total = int(a.sum() + b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


def hausdorff95(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """95th percentile of surface distances in voxels, both ways; the crop's diagonal where one mask is empty."""
    if not a.any() or not b.any():
        return float(np.linalg.norm(a.shape))
    edge_a, edge_b = a & ~ndimage.binary_erosion(a), b & ~ndimage.binary_erosion(b)
    to_b, to_a = ndimage.distance_transform_edt(~edge_b), ndimage.distance_transform_edt(~edge_a)
    return float(np.percentile(np.concatenate([to_b[edge_a], to_a[edge_b]]), 95))


def evaluate_case(model: HippocampusModel, case: Case, fold: int) -> CaseFigures:
    """Segment one case and compare with its expert labels; a refusal counts as an empty outline."""
    truth = {name: case.label == value for name, value in LABELS.items()} | {"total": case.label > 0}
    real = {f"true_{name}_mm3": float(mask.sum()) for name, mask in truth.items()}
    try:
        result = segment(model, case.image.transpose(2, 1, 0), CROP_AFFINE_LPS)
    except RefusedError as refusal:
        nothing = {f"volume_{name}_mm3": 0.0 for name in truth} | {f"dice_{name}": 0.0 for name in truth}
        return CaseFigures(
            case.case_id,
            fold,
            hd95_total_mm=float(np.linalg.norm(case.label.shape)),
            mean_entropy_nats=0.0,
            anterior_offset_mm=0.0,
            orientation_ratio=0.0,
            cautions=refusal.reason,
            **nothing,
            **real,
        )
    labels = result.labels_zyx.transpose(2, 1, 0)
    found = {name: labels == value for name, value in LABELS.items()} | {"total": labels > 0}
    measures = {"anterior": result.anterior, "posterior": result.posterior, "total": result.total}
    # LPS y grows towards the back.
    offset = result.posterior.centroid_lps_mm[1] - result.anterior.centroid_lps_mm[1]
    return CaseFigures(
        case.case_id,
        fold,
        hd95_total_mm=hausdorff95(found["total"], truth["total"]),
        mean_entropy_nats=result.total.mean_entropy_nats,
        anterior_offset_mm=offset,
        orientation_ratio=result.orientation.entropy_ratio,
        cautions=" ".join(c.code for c in result.cautions),
        **{f"dice_{name}": dice(found[name], truth[name]) for name in truth},
        **{f"volume_{name}_mm3": measures[name].volume_mm3 for name in truth},
        **real,
    )


def evaluate(
    runs: Sequence[tuple[int, HippocampusModel, Sequence[Case]]],
    track: Callable[[Iterable[Case]], Iterable[Case]] = lambda cases: cases,
) -> list[CaseFigures]:
    """Figures of every case by the model that never saw it.

    Args:
        runs: for each fold its number, its model and its held-out cases.
        track: wraps the cases to show progress.
    """
    return [evaluate_case(model, case, fold) for fold, model, cases in runs for case in track(cases)]


def conformal_half_width(figures: Sequence[CaseFigures], part: str, level: float = INTERVAL_LEVEL) -> float:
    """The relative error that at least `level` of exchangeable new cases stay within (split conformal).

    Of n errors |measured - expert| / measured in order, the ceil((n + 1) level)-th; with too few cases, the largest.
    """
    errors = np.sort([_relative_error(one, part) for one in figures])
    rank = min(len(errors), int(np.ceil((len(errors) + 1) * level)))
    return float(errors[rank - 1])


def _relative_error(one: CaseFigures, part: str) -> float:
    measured, real = float(getattr(one, f"volume_{part}_mm3")), float(getattr(one, f"true_{part}_mm3"))
    # A refusal measures nothing, and no finite interval around nothing holds the truth: 1 stands for "all of it".
    return min(1.0, abs(measured - real) / measured) if measured else 1.0


def left_out_coverage(figures: Sequence[CaseFigures], part: str) -> float:
    """Share of cases inside the interval that the other cases give."""
    inside = [
        _relative_error(one, part) <= conformal_half_width([o for o in figures if o is not one], part)
        for one in figures
    ]
    return float(np.mean(inside))


def _volume_agreement(figures: Sequence[CaseFigures], part: str) -> dict[str, float]:
    measured = np.array([getattr(f, f"volume_{part}_mm3") for f in figures])
    real = np.array([getattr(f, f"true_{part}_mm3") for f in figures])
    difference = measured - real
    spread = float(difference.std(ddof=1)) if len(figures) > 1 else 0.0
    return {
        "bias_mm3": float(difference.mean()),
        "limits_low_mm3": float(difference.mean() - 1.96 * spread),
        "limits_high_mm3": float(difference.mean() + 1.96 * spread),
        "mean_absolute_percent": float(100 * np.mean(np.abs(difference) / real)),
        "correlation": float(np.corrcoef(measured, real)[0, 1]) if len(figures) > 2 else float("nan"),
        "interval_half_width_percent": 100 * conformal_half_width(figures, part),
        "left_out_coverage": left_out_coverage(figures, part),
    }


def _by_size(figures: Sequence[CaseFigures]) -> dict[str, dict[str, Any]]:
    """Dice by third of the expert's total volume."""
    ordered = sorted(figures, key=lambda f: f.true_total_mm3)
    thirds = [part.tolist() for part in np.array_split(np.arange(len(ordered)), 3)]
    groups = {}
    for name, indices in zip(("small", "middle", "large"), thirds, strict=True):
        group = [ordered[i] for i in indices]
        if group:
            groups[name] = {
                "cases": len(group),
                "volume_low_mm3": group[0].true_total_mm3,
                "volume_high_mm3": group[-1].true_total_mm3,
                "volume_bias_percent": mean_with_interval(
                    [100 * (f.volume_total_mm3 / f.true_total_mm3 - 1) for f in group]
                ),
                **{f"dice_{p}": mean_with_interval([getattr(f, f"dice_{p}") for f in group]) for p in PARTS},
            }
    return groups


def summarise(figures: Sequence[CaseFigures]) -> dict[str, Any]:
    """What the model card reports."""
    return {
        "cases": len(figures),
        "folds": sorted({f.fold for f in figures}),
        "dice": {p: mean_with_interval([getattr(f, f"dice_{p}") for f in figures]) for p in PARTS},
        "dice_lowest": {p: min(getattr(f, f"dice_{p}") for f in figures) for p in PARTS},
        "hd95_total_mm": mean_with_interval([f.hd95_total_mm for f in figures]),
        "volume": {p: _volume_agreement(figures, p) for p in PARTS},
        "by_size": _by_size(figures),
        "entropy_dice_correlation": float(
            np.corrcoef([f.mean_entropy_nats for f in figures], [f.dice_total for f in figures])[0, 1]
        )
        if len(figures) > 2
        else float("nan"),
        "orientation_ratio_lowest": min((f.orientation_ratio for f in figures if not f.refused), default=1.0),
        "refused": [f.case_id for f in figures if f.refused],
        "lowest_cases": [asdict(f) for f in sorted(figures, key=lambda f: min(f.dice_anterior, f.dice_posterior))[:5]],
    }


def write_figures(figures: Sequence[CaseFigures], folder: Path) -> dict[str, Any]:
    """Write `held_out.csv` (a row for each case) and `held_out.json` (the summary); returns the summary."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "held_out.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [f.name for f in fields(CaseFigures)], lineterminator="\n")
        writer.writeheader()
        for one in figures:
            writer.writerow({k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(one).items()})
    summary = summarise(figures)
    (folder / "held_out.json").write_text(json.dumps(rounded(summary), indent=2) + "\n", encoding="utf-8")
    return summary
