"""Feature vectors: what a model may know of a patient at a time, with the entries that each value stands on.

Features are declared in features/*.yaml; this module says what the declarations mean. A value that is not known is
missing with a reason, never zero.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from importlib import resources
from typing import Any

import yaml
from google.protobuf.timestamp_pb2 import Timestamp
from osler.fusion.v1 import fusion_pb2
from osler.fusion.v1.fusion_pb2 import Feature, TimelineEntry

from services.clinical.terminology import analyte_of
from services.fusion import feature_flags, feature_imaging
from services.fusion.demographics import age_years
from services.fusion.feature_view import View, missing, stand_on
from services.fusion.timeline import entry_order
from services.platform.errors import RefusedError

DEFAULT_SET = "default"
# Entries with these flags are shown to people and used by no feature.
UNUSABLE = frozenset(("implausible", "unit_unknown", "unit_mismatch"))


@lru_cache(maxsize=16)
def load_set(name: str = DEFAULT_SET) -> Mapping[str, Any]:
    """A declared feature set. Raises RefusedError `features.unknown_set`."""
    file = resources.files("services.fusion").joinpath("features", f"{name}.yaml")
    if not re.fullmatch(r"[a-z0-9_]+", name) or not file.is_file():
        raise RefusedError("features.unknown_set", "there is no feature set of that name", remedy="use 'default'")
    declared: Mapping[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return declared


def compute_features(
    entries: Iterable[TimelineEntry],
    as_of: datetime,
    feature_set: str = "",
    demographics: fusion_pb2.Demographics | None = None,
) -> fusion_pb2.FeatureVector:
    """The vector of `feature_set` ("" for the default) at `as_of` (aware UTC).

    `entries`: the timeline built for the same `as_of`; what was known or happened later is left out here as well.
    Retracted, preliminary and unusable entries count for nothing. Raises RefusedError `features.unknown_set`.
    """
    declared = load_set(feature_set or DEFAULT_SET)
    view = _view(entries, as_of, declared, demographics)
    vector = fusion_pb2.FeatureVector(feature_set=declared["name"])
    vector.as_of.FromDatetime(as_of.astimezone(UTC).replace(tzinfo=None))
    computed: dict[str, Feature] = {}
    for row in declared["features"]:
        feature = _SOURCES[row["source"]](view, row, computed)
        feature.name = row["name"]
        feature.unit = row.get("unit", "1")
        computed[row["name"]] = feature
        vector.features.append(feature)
    return vector


def _view(
    entries: Iterable[TimelineEntry],
    as_of: datetime,
    declared: Mapping[str, Any],
    demographics: fusion_pb2.Demographics | None,
) -> View:
    limit = Timestamp()
    limit.FromDatetime(as_of.astimezone(UTC).replace(tzinfo=None))
    latest = (limit.seconds, limit.nanos)
    by_kind: dict[int, list[TimelineEntry]] = {}
    measured: dict[str, list[TimelineEntry]] = {}
    wanted = {row["analyte"] for row in declared["features"] if "analyte" in row}
    for entry in sorted(entries, key=entry_order):
        known = (entry.known_at.seconds, entry.known_at.nanos)
        happened = (entry.effective_at.seconds, entry.effective_at.nanos)
        if entry.status != fusion_pb2.ENTRY_STATUS_ACTIVE or known > latest or happened > latest:
            continue
        by_kind.setdefault(entry.kind, []).append(entry)
        if entry.kind == fusion_pb2.ENTRY_KIND_OBSERVATION and entry.WhichOneof("value") == "quantity":
            analyte = analyte_of((code.system, code.code) for code in entry.codes)
            if analyte and analyte.name in wanted:
                measured.setdefault(analyte.name, []).append(entry)
    return View(as_of, by_kind, measured, demographics, declared.get("chart_kinds", {}))


def _observation(view: View, row: Mapping[str, Any], computed: Mapping[str, Feature]) -> Feature:
    everything = view.measured.get(row["analyte"], ())
    usable = [e for e in everything if e.quantity.unit == row["unit"] and not UNUSABLE.intersection(e.flags)]
    since = view.since(row.get("window"))
    recent = [e for e in usable if since is None or e.effective_at.ToDatetime(UTC) >= since]
    if not recent:
        derived = _DERIVED[row["derive"]](computed) if "derive" in row else None
        if derived is not None:
            return derived
        if usable:
            return missing(f"the latest value is older than {row['window']}")
        return missing(
            "only values with an implausible number or an unusable unit" if everything else "no value recorded"
        )
    return _aggregate(recent, row["aggregate"])


def _aggregate(entries: Sequence[TimelineEntry], how: str) -> Feature:
    values = [entry.quantity.value for entry in entries]
    if how == "latest":
        return stand_on(Feature(number=values[-1]), entries[-1:])
    if how in ("min", "max"):
        best = (min if how == "min" else max)(range(len(values)), key=lambda index: values[index])
        return stand_on(Feature(number=values[best]), [entries[best]])
    if how == "any":
        return stand_on(Feature(flag=True), entries[-1:])
    totals = {"mean": sum(values) / len(values), "sum": sum(values), "count": float(len(values))}
    return stand_on(Feature(number=totals[how]), entries)


def _body_mass_index(computed: Mapping[str, Feature]) -> Feature | None:
    weight, height = computed.get("weight_kg"), computed.get("height_cm")
    if not weight or not height or weight.WhichOneof("value") != "number" or height.WhichOneof("value") != "number":
        return None
    feature = Feature(number=round(weight.number / (height.number / 100) ** 2, 2))
    feature.entry_ids.extend([*weight.entry_ids, *height.entry_ids])
    feature.observed_at.CopyFrom(weight.observed_at)
    return feature


def _demographic(view: View, row: Mapping[str, Any], computed: Mapping[str, Feature]) -> Feature:
    demographics = view.demographics
    if demographics is None:
        return missing("no demographics received")
    if row["field"] == "birth_date":
        age = age_years(demographics.birth_date, view.as_of) if demographics.birth_date else None
        if age is None:
            return missing("no birth date with year and month recorded")
        return Feature(number=float(age)) if age >= 0 else missing("the birth date is later than the date asked for")
    if demographics.sex in ("female", "male"):
        return Feature(flag=demographics.sex == "female")
    return missing(
        f"administrative sex is {demographics.sex}" if demographics.sex else "administrative sex not recorded"
    )


_DERIVED: Mapping[str, Callable[[Mapping[str, Feature]], Feature | None]] = {"body_mass_index": _body_mass_index}
_SOURCES: Mapping[str, Callable[[View, Mapping[str, Any], Mapping[str, Feature]], Feature]] = {
    "observation": _observation,
    "demographic": _demographic,
    "answer": lambda view, row, _: feature_flags.answer(view, row),
    "condition": lambda view, row, _: feature_flags.condition(view, row),
    "medication": lambda view, row, _: feature_flags.medication(view, row),
    "allergy": lambda view, row, _: feature_flags.allergy(view, row),
    "pregnancy": lambda view, row, _: feature_flags.pregnancy(view, row),
    "finding": lambda view, row, _: feature_imaging.finding(view, row),
}
