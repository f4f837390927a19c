"""The facts that rules ask about: from the snapshot, from predictions, from a caller; the fresher one wins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from osler.advisor.v1 import advisor_pb2
from osler.fusion.v1 import fusion_pb2
from osler.twin.v1 import twin_pb2

from services.advisor import kidney
from services.advisor.tables import table
from services.clinical import terminology, units
from services.platform.errors import RefusedError

_CREATININE = "creatinine"


@dataclass(frozen=True)
class Fact:
    """One thing known. Flags are True or False; numbers in the unit of facts.yaml. `source`: "chart", "caller", "order"
    or "derived"; `reference` is the caller's own reference to where it stands."""

    name: str
    value: float | str
    observed_at: datetime | None = None
    entry_ids: tuple[str, ...] = ()
    source: str = "chart"
    reference: str = ""


Facts = Mapping[str, Fact]


def definitions() -> Mapping[str, Mapping[str, Any]]:
    """facts.yaml: what may be asked about."""
    found: Mapping[str, Mapping[str, Any]] = table("facts.yaml")["facts"]
    return found


def describe(fact: Fact) -> str:
    """A fact in plain words, with its date where that is known; no patient identity in it."""
    definition = definitions()[fact.name]
    flag = "holds" if fact.value else "fails"
    words = str(definition[flag] if flag in definition else definition["known"].format(value=fact.value))
    when = f" ({fact.observed_at:%Y-%m-%d})" if fact.observed_at and fact.name != "age" else ""
    # "eGFR" keeps its small letter.
    return (words[:1].upper() + words[1:] if words[:2].islower() else words) + when


def absent(name: str) -> str:
    """What was looked for, in plain words."""
    return str(definitions()[name]["absent"])


def from_snapshot(features: fusion_pb2.FeatureVector) -> dict[str, Fact]:
    """Facts from the feature vector; features without a value are left out."""
    by_feature = {definition.get("feature", name): name for name, definition in definitions().items()}
    found = {}
    for feature in features.features:
        kind, name = feature.WhichOneof("value"), by_feature.get(feature.name)
        if name is None or kind not in ("number", "flag"):
            continue
        value = feature.number if kind == "number" else feature.flag
        observed = feature.observed_at.ToDatetime(UTC) if feature.HasField("observed_at") else None
        found[name] = Fact(name, value, observed, tuple(feature.entry_ids))
    return found


def from_timeline(entries: Iterable[fusion_pb2.TimelineEntry], as_of: datetime) -> dict[str, Fact]:
    """Acute kidney injury from the creatinine values on the timeline, where they can tell."""
    values, ids = [], []
    for entry in entries:
        analyte = terminology.analyte_of((code.system, code.code) for code in entry.codes)
        usable = entry.status != fusion_pb2.ENTRY_STATUS_RETRACTED and "implausible" not in entry.flags
        if analyte is None or analyte.name != _CREATININE or not usable or not entry.HasField("quantity"):
            continue
        if entry.quantity.unit == analyte.unit and entry.HasField("effective_at"):
            values.append((entry.effective_at.ToDatetime(UTC), entry.quantity.value))
            ids.append(entry.entry_id)
    injured = kidney.acute_kidney_injury(values, as_of)
    if injured is None:
        return {}
    return {"acute_kidney_injury": Fact("acute_kidney_injury", injured, max(values)[0], tuple(ids), "derived")}


def from_predictions(predictions: twin_pb2.PatientPredictions) -> dict[str, Fact]:
    """PREVENT 10-year cardiovascular risk in per cent, where it was estimated."""
    for risk in predictions.risks:
        if risk.name == "prevent_cvd_10y" and risk.HasField("value"):
            ids = tuple(dict.fromkeys(entry_id for used in risk.inputs for entry_id in used.entry_ids))
            name = "prevent_cvd_percent"
            return {name: Fact(name, 100 * risk.value.value, None, ids, "derived")}
    return {}


def from_caller(facts: Iterable[advisor_pb2.ClinicalFact], now: datetime) -> dict[str, Fact]:
    """What a caller brought, in canonical units; names that facts.yaml does not list are ignored.

    A fact without a time is as of the call: it comes from the record that the caller has open. Raises RefusedError when a
    unit cannot be converted.
    """
    found: dict[str, Fact] = {}
    for given in facts:
        name = _names().get(given.name)
        if name is None:
            continue
        definition = definitions()[name]
        observed = given.observed_at.ToDatetime(UTC) if given.HasField("observed_at") else now
        value: float = bool(given.value) if "holds" in definition else _canonical(given, definition)
        fact = Fact(name, value, observed, (), "caller", given.source_reference)
        found[name] = _fresher(found.get(name), fact)
    return found


@cache
def _names() -> Mapping[str, str]:
    """Every name that a caller may use -> name of the fact."""
    return {
        alias: name
        for name, definition in definitions().items()
        if not definition.get("derived")
        for alias in (name, *definition.get("aliases", []))
    }


def _canonical(given: advisor_pb2.ClinicalFact, definition: Mapping[str, Any]) -> float:
    if not given.unit:
        return given.value
    try:
        return units.convert(given.value, given.unit, definition["unit"], analyte=definition.get("analyte"))
    except RefusedError as error:
        raise RefusedError(
            error.reason,
            f"the fact {given.name!r} has a unit that cannot be read as {definition['unit']}",
            remedy=error.remedy,
            subject=given.name,
        ) from None


def _fresher(held: Fact | None, other: Fact) -> Fact:
    if held is None or held.observed_at is None:
        return other
    return other if other.observed_at is not None and other.observed_at >= held.observed_at else held


def merge(chart: Facts, caller: Facts) -> dict[str, Fact]:
    """Both together; where both know a thing the one observed later counts, the caller's at equal times."""
    merged = dict(chart)
    for name, fact in caller.items():
        merged[name] = _fresher(chart.get(name), fact)
    return merged


def with_kidney_function(facts: Facts, as_of: datetime) -> dict[str, Fact]:
    """Adds eGFR from creatinine, age and sex where that is fresher than a reported eGFR, and its age in days.

    On dialysis creatinine says nothing of filtration: no eGFR then.
    """
    result = dict(facts)
    dialysis = facts.get("on_dialysis")
    if dialysis is not None and dialysis.value:
        result.pop("egfr", None)
        return result
    estimated = _estimated_gfr(facts)
    if estimated is not None:
        result["egfr"] = _fresher(facts.get("egfr"), estimated)
    known = result.get("egfr")
    if known is not None and known.observed_at is not None:
        days = max((as_of - known.observed_at).total_seconds() / 86400, 0.0)
        result["egfr_age_days"] = Fact("egfr_age_days", days, None, known.entry_ids, "derived")
    return result


def _estimated_gfr(facts: Facts) -> Fact | None:
    try:
        creatinine, age, sex = facts[_CREATININE], facts["age"], facts["sex_female"]
    except KeyError:
        return None
    value = kidney.egfr(float(creatinine.value), float(age.value), bool(sex.value))
    if value is None:
        return None
    return Fact("egfr", value, creatinine.observed_at, creatinine.entry_ids, "derived", creatinine.reference)
