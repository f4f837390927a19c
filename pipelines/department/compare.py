"""Orders of the worklist against each other, on the same studies: turnaround of critical studies, and the price of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipelines.department.model import ORDERS, Read, draw, run
from services.alerts.worklist.priority import overtaking_bound

_T = 1.96
_PROMPT_MINUTES = 60.0


def compare(rows: Mapping[str, Any], days: int, replications: int, seed: int, on_step: Any = None) -> dict[str, Any]:
    """Figures of each order with 95 % intervals over replications, and paired differences to first-in-first-out.

    Minutes; `load` is the work that arrives over the work that readers can do.
    """
    results: dict[str, list[dict[str, float]]] = {name: [] for name in ORDERS}
    loads = []
    for number in range(replications):
        studies = draw(rows, days, seed + number)
        work = sum(study.reading for study in studies)
        loads.append(work / (days * 60 * sum(rows["readers"])))
        for name, order in ORDERS.items():
            read = run(studies, order, rows["readers"], rows["analysis_minutes"])
            results[name].append(figures(read, rows["warm_up_days"] * 24 * 60.0, days * 24 * 60.0))
        if on_step:
            on_step(number + 1, replications)
    return {
        "days": days,
        "replications": replications,
        "seed": seed,
        "load": round(float(np.mean(loads)), 3),
        "overtaking_bound_minutes": overtaking_bound().total_seconds() / 60,
        "orders": {name: {key: _interval([r[key] for r in rs]) for key in rs[0]} for name, rs in results.items()},
        "difference_to_fifo": {
            name: {key: _interval([a[key] - b[key] for a, b in zip(rs, results["fifo"], strict=True)]) for key in rs[0]}
            for name, rs in results.items()
            if name != "fifo"
        },
    }


def figures(read: Sequence[Read], first: float, last: float) -> dict[str, float]:
    """Turnaround of what arrived between two times (minutes), and how far anything was overtaken."""
    counted = [r for r in read if first <= r.study.arrived < last]
    immediate = [r.turnaround for r in counted if r.study.truth == "immediate"]
    seen = [r.turnaround for r in counted if r.study.truth == "immediate" and r.study.flagged]
    missed = [r.turnaround for r in counted if r.study.truth == "immediate" and not r.study.flagged]
    urgent = [r.turnaround for r in counted if r.study.truth == "hours"]
    others = [r.turnaround for r in counted if not r.study.truth]
    return {
        "immediate_mean": _mean(immediate),
        "immediate_p95": _quantile(immediate, 0.95),
        "immediate_within_60": _mean([float(t <= _PROMPT_MINUTES) for t in immediate]),
        "immediate_flagged_mean": _mean(seen),
        "immediate_missed_mean": _mean(missed),
        "hours_mean": _mean(urgent),
        "others_mean": _mean(others),
        "others_p95": _quantile(others, 0.95),
        "longest": max(r.turnaround for r in counted),
        "overtaken_by": overtaken_by(read),
    }


def overtaken_by(read: Sequence[Read]) -> float:
    """The most by which something that was read before a study had arrived after it, in minutes; 0 where nothing was."""
    latest, most = 0.0, 0.0
    for item in sorted(read, key=lambda r: r.turn):
        most = max(most, latest - item.study.arrived)
        latest = max(latest, item.study.arrived)
    return most


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def _quantile(values: Sequence[float], level: float) -> float:
    return float(np.quantile(values, level)) if values else float("nan")


def _interval(values: Sequence[float]) -> dict[str, float]:
    """Mean over replications and half the width of its 95 % interval."""
    kept = np.array([value for value in values if not np.isnan(value)])
    if not len(kept):
        return {"mean": float("nan"), "half": float("nan")}
    half = _T * float(kept.std(ddof=1)) / float(np.sqrt(len(kept))) if len(kept) > 1 else float("nan")
    return {"mean": round(float(kept.mean()), 3), "half": round(half, 3)}
