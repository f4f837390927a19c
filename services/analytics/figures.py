"""From the lake to the figures that need more than SQL: drift, fairness, and forecasts beside what came later."""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from services.analytics import drift, groups, lake, truth
from services.analytics.settings import monitor

Attribute = Literal["sex", "age", "site", "scanner", "manufacturer"]
ATTRIBUTES: tuple[Attribute, ...] = ("sex", "age", "site", "scanner", "manufacturer")

# What may happen to a study, and the condition that says so. One study of each patient counts, the latest.
OUTCOMES = {
    "rejected": "list_contains(verdicts, 'REJECT')",
    "warned": "list_contains(verdicts, 'WARN') OR list_contains(verdicts, 'REJECT')",
    "refused": "refusals > 0",
    "lesion": "lesions > 0",
}
_STUDY_OUTCOMES = """
SELECT s.{attribute} AS member, ({condition}) AS happened
FROM studies s JOIN (
  SELECT study_instance_uid, json_extract_string(data, '$.findings.quality[*].verdict')
           .list_transform(lambda v: replace(v, 'QUALITY_VERDICT_', '')) AS verdicts,
         coalesce(json_array_length(data, '$.findings.refusals'), 0) AS refusals,
         len(list_filter(json_extract_string(data, '$.findings.findings[*].kind'),
                         lambda k: k = 'FINDING_KIND_LESION')) AS lesions
  FROM latest_findings
) f USING (study_instance_uid)
QUALIFY row_number() OVER (PARTITION BY s.patient_key ORDER BY s.received_time DESC, study_instance_uid) = 1
"""


def drift_of(folder: Path, since: datetime) -> list[drift.Drift]:
    """Every signal before and after `since`; of a patient the latest value on each side counts."""
    sql = """
    SELECT signal, known_time >= $since AS late, patient_key, arg_max(value, known_time) AS value
    FROM signals WHERE isfinite(value) GROUP BY ALL ORDER BY ALL
    """
    sides: tuple[_Side, _Side] = (defaultdict(dict), defaultdict(dict))
    for row in lake.query(folder, sql, {"since": since}):
        sides[row["late"]][row["signal"]][row["patient_key"]] = row["value"]
    names = sorted({*sides[0], *sides[1]})
    samples = {name: (_values(sides[0][name]), _values(sides[1][name])) for name in names}
    return drift.watch(samples, together=_together(sides, names))


_Side = dict[str, dict[str, float]]


def _values(side: dict[str, float]) -> drift.Array:
    return np.array(list(side.values()), dtype=float)


def _together(sides: tuple[_Side, _Side], names: list[str]) -> tuple[drift.Array, drift.Array] | None:
    """Patients (rows) with all of the signals (columns) that most patients on both sides have."""
    patients = [{key for values in side.values() for key in values} for side in sides]
    common = [
        name
        for name in names
        if all(2 * len(side[name]) > len(all_) for side, all_ in zip(sides, patients, strict=True))
    ]
    if len(common) < 2:
        return None
    whole = [sorted(set.intersection(*(set(side[name]) for name in common))) for side in sides]
    before, now = (
        np.array([[side[name][key] for name in common] for key in keys], dtype=float).reshape(len(keys), len(common))
        for side, keys in zip(sides, whole, strict=True)
    )
    return before, now


def fairness_of(folder: Path, outcome: str, attribute: Attribute) -> list[groups.GroupRate]:
    """Rate of an outcome of `OUTCOMES` by an attribute of `ATTRIBUTES`. Raises KeyError or ValueError for others."""
    if attribute not in ATTRIBUTES:
        raise ValueError(f"unknown attribute {attribute!r}; known: {', '.join(ATTRIBUTES)}")
    sql = _STUDY_OUTCOMES.format(attribute=attribute, condition=OUTCOMES[outcome])
    return groups.by_group((row["member"], bool(row["happened"])) for row in lake.query(folder, sql))


def coverage_of(folder: Path) -> list[truth.Coverage]:
    """Forecasts against the first measurement after those that they had seen."""
    curves, measured = [], defaultdict[tuple[str, str], dict[datetime, float]](dict)
    for row in lake.query(folder, "SELECT * FROM forecasts ORDER BY known_time"):
        observed = {_time(point["at"]): float(point.get("value", 0)) for point in json.loads(row["observed"] or "[]")}
        if not observed:
            continue
        # A measurement that was corrected counts as it stands now: later forecasts overwrite it.
        measured[(row["patient_key"], row["quantity"])].update(observed)
        bands = [_band(point) for point in json.loads(row["curve"] or "[]")]
        curves.append(truth.Curve(row["patient_key"], row["quantity"], row["known_time"], max(observed), bands))
    return truth.coverage(truth.check_curves(curves, measured))


def calibration_of(folder: Path) -> truth.Calibration | None:
    """Is a forecast progression of 30 % one? Of several forecasts from the same day the last counts."""
    visits: dict[str, list[tuple[datetime, bool]]] = defaultdict(list)
    for row in lake.query(folder, "SELECT patient_key, visited_at, category FROM response_visits ORDER BY visited_at"):
        if row["category"] not in (None, "UNSPECIFIED", "NOT_EVALUABLE"):
            visits[row["patient_key"]].append((row["visited_at"], row["category"] == "PROGRESSIVE"))
    forecasts: dict[tuple[str, str, str], tuple[str, datetime, list[tuple[datetime, float]]]] = {}
    for row in lake.query(folder, "SELECT * FROM forecasts ORDER BY known_time"):
        observed = json.loads(row["observed"] or "[]")
        dated = [(_time(p["by"]), float(p.get("probability", 0))) for p in json.loads(row["progression_by"] or "[]")]
        if observed and dated:
            seen = max(point["at"] for point in observed)
            forecasts[(row["patient_key"], row["quantity"], seen)] = (row["patient_key"], _time(seen), dated)
    known = truth.progression_outcomes(forecasts.values(), visits)
    return truth.calibration(known, monitor().calibration_bins)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _band(point: dict[str, Any]) -> truth.Band:
    # protobuf's JSON leaves out what is zero
    names = ("median", "lower50", "upper50", "lower90", "upper90")
    return truth.Band(_time(point["at"]), *(float(point.get(name, 0)) for name in names))
