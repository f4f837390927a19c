"""Features from imaging findings: always of one study, the newest that measured the quantity."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from osler.fusion.v1.fusion_pb2 import Feature, TimelineEntry
from osler.imaging.v1 import imaging_pb2

from services.clinical import units
from services.clinical.codes import SUV_MEAN
from services.fusion.feature_view import View, missing, stand_on
from services.platform.errors import RefusedError

_KINDS = {
    "lesion": imaging_pb2.FINDING_KIND_LESION,
    "organ": imaging_pb2.FINDING_KIND_ORGAN,
    "reference": imaging_pb2.FINDING_KIND_REFERENCE,
}


def finding(view: View, row: Mapping[str, Any]) -> Feature:
    """`aggregate` of a measurement over the findings of the newest study that has it.

    With `zero_when_analysed`, a study whose PET reference regions were measured and that shows no lesion counts as zero.
    """
    studies: dict[str, list[TimelineEntry]] = defaultdict(list)
    for entry in view.of("FINDING"):
        studies[entry.finding.study_instance_uid].append(entry)
    newest: tuple[tuple[int, int, str], list[tuple[TimelineEntry, float]], list[TimelineEntry]] | None = None
    for uid, entries in studies.items():
        measured = _measured(entries, row)
        reference = _reference(entries) if row.get("zero_when_analysed") and not measured else []
        if measured or (reference and not _any_lesion(entries)):
            times = [(e.effective_at.seconds, e.effective_at.nanos) for e in entries]
            key = (*max(times), uid)
            if newest is None or key > newest[0]:
                newest = (key, measured, reference)
    if newest is None:
        return missing("no study with this measurement")
    _, measured, reference = newest
    if not measured:
        return stand_on(Feature(number=0.0), reference)
    measured.sort(key=lambda pair: (-pair[1], pair[0].entry_id))
    if "largest" in row:
        measured = measured[: int(row["largest"])]
    how = row["aggregate"]
    if how == "max":
        measured = measured[:1]
    value = float(len(measured)) if how == "count" else sum(value for _, value in measured)
    return stand_on(Feature(number=value), [entry for entry, _ in measured])


def _measured(entries: Sequence[TimelineEntry], row: Mapping[str, Any]) -> list[tuple[TimelineEntry, float]]:
    wanted_type = row.get("finding_type", "")
    found = []
    for entry in entries:
        what = entry.finding
        if what.kind != _KINDS[row["kind"]]:
            continue
        if wanted_type and f"{what.finding_type.system}|{what.finding_type.code}" != wanted_type:
            continue
        value = 1.0 if "concept" not in row else _value(what, row["concept"], row["unit"])
        if value is not None:
            found.append((entry, value))
    return found


def _value(what: imaging_pb2.Finding, concept: str, unit: str) -> float | None:
    for measurement in what.measurements:
        if f"{measurement.concept.system}|{measurement.concept.code}" == concept:
            try:
                return units.convert(measurement.value.value, measurement.value.unit, unit)
            except RefusedError:
                return None
    return None


def _reference(entries: Sequence[TimelineEntry]) -> list[TimelineEntry]:
    return [
        entry
        for entry in entries
        if entry.finding.kind == imaging_pb2.FINDING_KIND_REFERENCE
        and any(SUV_MEAN.matches(measurement.concept) for measurement in entry.finding.measurements)
    ]


def _any_lesion(entries: Sequence[TimelineEntry]) -> bool:
    return any(entry.finding.kind == imaging_pb2.FINDING_KIND_LESION for entry in entries)
