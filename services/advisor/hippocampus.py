"""Hippocampal volume over visits, from the findings of a snapshot."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from osler.fusion.v1 import fusion_pb2
from osler.imaging.v1 import imaging_pb2

from services.advisor.facts import Fact
from services.advisor.visits import usable_findings, value
from services.clinical import codes

_DAYS_PER_YEAR = 365.25
# Over shorter times the error of segmentation outweighs the loss.
_SHORTEST_YEARS = 0.5


def facts(entries: Iterable[fusion_pb2.TimelineEntry]) -> dict[str, Fact]:
    """Number of visits with a volume, and the loss in per cent a year between the first and the last.

    The volume of a visit is the sum of its hippocampal regions (left and right). The loss needs half a year, and the same
    number of regions at both visits: one side less is no atrophy.
    """
    volumes: dict[str, tuple[datetime, float, int, list[str]]] = {}
    for entry_id, finding in usable_findings(entries):
        volume = value(finding, codes.VOLUME, codes.UNIT_MM3)
        named = codes.HIPPOCAMPUS.matches(finding.site) or codes.HIPPOCAMPUS.matches(finding.finding_type)
        if finding.kind != imaging_pb2.FINDING_KIND_ORGAN or not named or volume is None:
            continue
        at = finding.observed_at.ToDatetime(UTC)
        start, total, count, ids = volumes.get(finding.study_instance_uid, (at, 0.0, 0, []))
        volumes[finding.study_instance_uid] = (min(start, at), total + volume, count + 1, [*ids, entry_id])
    if not volumes:
        return {}
    ordered = sorted(volumes.values(), key=lambda item: item[0])
    first, last = ordered[0], ordered[-1]
    all_ids = tuple(entry_id for item in ordered for entry_id in item[3])
    name = "hippocampus_scans"
    found = {name: Fact(name, float(len(ordered)), last[0], all_ids, "derived")}
    years = (last[0] - first[0]).total_seconds() / 86400 / _DAYS_PER_YEAR
    if years >= _SHORTEST_YEARS and first[2] == last[2] and first[1] > 0:
        name = "hippocampus_loss_percent_per_year"
        loss = 100 * (first[1] - last[1]) / first[1] / years
        found[name] = Fact(name, loss, last[0], (*first[3], *last[3]), "derived")
    return found
