"""From cases with known errors to the limits of a good verdict, and how well they hold on images that had no part in them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from services.registration.quality import Measures, Verdict, judge

TARGET = Path(__file__).resolve().parents[2] / "services/registration/calibration.yaml"
#: Errors above FAR_MM must not be called good; errors below NEAR_MM should be.
FAR_MM, NEAR_MM = 3.0, 1.0
#: Of two real scans no true place is known: their error is a distance to a result that is itself 1 to 2 mm uncertain.
_KNOWN = ("found", "pushed", "stranger", "mirrored", "apart")

#: The limit stands this far (ratio) below the first percentile of far errors. Two real scans make the search less sure than a
#: simulated partner does, and with the limit half way, right PET-CT pairs were sent to review.
_MARGIN = 1.5

Row = dict[str, Any]


def limits(rows: Sequence[Row]) -> dict[str, float]:
    """Fitted on simulated cases: the refit limit, below what far errors show, and its weight in the prediction.

    Weight: least squares of the squared error on the squared refit distance, each row by its own size. The weights of runs
    that disagree stay as quality.yaml has them: pushes move all runs alike, so these cases cannot tell them.
    """
    known = [row for row in rows if row["kind"] in ("found", "pushed")]
    far = [row["measures"]["refit_mm"] for row in known if row["error_mm"] > FAR_MM]
    part = np.asarray([row["measures"]["refit_mm"] ** 2 for row in known])
    squared = np.asarray([row["error_mm"] ** 2 for row in known])
    size = 1 / (squared + 0.2**2)
    weight = float((part * squared * size**2).sum() / ((part * size) ** 2).sum())
    return {
        "refit_mm": round(float(np.percentile(far, 1)) / _MARGIN, 2),
        "refit_weight": round(math.sqrt(weight), 3),
    }


def rates(rows: Sequence[Row]) -> dict[str, Any]:
    """What today's verdict says of the cases, by the limits in force."""
    verdicts = [(row, _verdict(row)) for row in rows if "measures" in row]
    refused = [row for row in rows if "measures" not in row]
    known = [(row, verdict) for row, verdict in verdicts if row["kind"] in _KNOWN]
    real = [(row, verdict) for row, verdict in verdicts if row["kind"] == "real"]
    found = [row["error_mm"] for row, _ in known if row["kind"] == "found"]
    return {
        "cases": len(rows),
        "images": len({row["case"].rsplit("-", 1)[0] for row, _ in known}),
        "errors_above_3mm": _share(known, lambda e: e > FAR_MM, caught=True),
        "errors_below_1mm": _share(known, lambda e: e < NEAR_MM, caught=False),
        "real_pairs_pushed_above_3mm": _share(real, lambda e: e > FAR_MM, caught=True),
        "real_pairs_pushed_above_5mm": _share(real, lambda e: e > 5.0, caught=True),
        "refused_before_a_verdict": len(refused),
        "registered_error_mm": {
            "cases": len(found),
            "median": round(float(np.median(found)), 3),
            "worst": round(max(found), 3),
        },
    }


def _share(judged: Sequence[tuple[Row, Verdict]], chosen: Any, *, caught: bool) -> dict[str, Any]:
    """How many of the chosen errors were caught (not good), or passed (good)."""
    verdicts = [verdict for row, verdict in judged if chosen(row["error_mm"])]
    right = sum((verdict is not Verdict.GOOD) == caught for verdict in verdicts)
    share = round(right / len(verdicts), 4) if verdicts else None
    return {"cases": len(verdicts), "caught" if caught else "passed": right, "share": share}


def _verdict(row: Row) -> Verdict:
    return judge(Measures(**row["measures"]), purpose="hybrid", same_frame=False).verdict


def write(rows: Sequence[Row]) -> dict[str, Any]:
    """Writes the limits. They are fitted on every other case of each image, so that the rest can judge them."""
    fitted = limits([row for row in rows if _fits(row)])
    text = (
        "# Written by `python -m pipelines.registration_study calibrate`; do not edit. Limits of a good verdict, from\n"
        "# registrations of real images with known displacements, fitted on even rounds. docs/registration.md has the\n"
        "# rates on odd rounds.\n"
    )
    TARGET.write_text(text + yaml.safe_dump({"cases": len(rows), **fitted}, sort_keys=False))
    return fitted


def held_out(rows: Sequence[Row]) -> list[Row]:
    """The cases that had no part in the limits."""
    return [row for row in rows if not _fits(row)]


def _fits(row: Row) -> bool:
    return int(row["case"].rsplit("-", 1)[1]) % 2 == 0
