"""A person's word on what imaging found: accepted, corrected or rejected, and the findings as they then stand.

Reviewed findings are announced as the study's findings (`osler.findings.ready.v1`), so timeline, prediction and response
follow by the same path as the first reading. Imaging's own findings are kept: a review can be withdrawn.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from osler.common.v1 import common_pb2
from osler.imaging.v1 import imaging_pb2

from services.platform.errors import RefusedError

Verdict = Literal["accepted", "corrected", "rejected", "withdrawn"]
METHOD_CONFIRMED = "region confirmed by a reader"
METHOD_CORRECTED = "corrected by a reader"
_LARGEST = 1e6


@dataclass(frozen=True)
class Review:
    """One review. `corrections`: code of the measured concept -> value in the unit of the measurement."""

    finding_id: str
    study_instance_uid: str
    verdict: Verdict
    reason: str
    note: str
    author: str
    at: datetime
    corrections: Mapping[str, float] = field(default_factory=dict)


@cache
def reasons() -> Mapping[str, Mapping[str, str]]:
    """Verdict -> reason code -> words."""
    found: Mapping[str, Mapping[str, str]] = yaml.safe_load(Path(__file__).with_name("review.yaml").read_text("utf-8"))
    return found


def from_row(row: Any) -> Review:
    """A stored review."""
    return Review(
        row.finding_id, row.study_instance_uid, row.verdict, row.reason, row.note, row.author, row.at,
        json.loads(row.corrections),
    )  # fmt: skip


def standing(reviews: Iterable[Review]) -> dict[str, Review]:
    """The newest review of each finding; none where the newest withdraws it. `reviews`: oldest first."""
    newest = {review.finding_id: review for review in reviews}
    return {finding_id: review for finding_id, review in newest.items() if review.verdict != "withdrawn"}


#: Finding id -> code of the measured concept -> value in the unit of the measurement.
Corrections = Mapping[str, Mapping[str, float]]


def siblings(finding: imaging_pb2.Finding, study: imaging_pb2.StudyFindings) -> list[imaging_pb2.Finding]:
    """Every finding of the same lesion in the study, as PET and CT each measure it; the finding alone without tracking."""
    if not finding.tracking_uid:
        return [finding]
    return [f for f in study.findings if f.tracking_uid == finding.tracking_uid]


def check(verdict: str, reason: str, corrections: Corrections, findings: Sequence[imaging_pb2.Finding]) -> None:
    """Raises RefusedError for an unknown verdict or reason, and for corrections that the findings cannot have."""
    if reason not in reasons().get(verdict, {}):
        raise RefusedError(
            "review.reason_missing",
            "a review needs a verdict and one of the listed reasons",
            missing=["reason"],
            remedy="choose a reason from the list",
        )
    if verdict != "corrected":
        return
    known = {(f.finding_id, m.concept.code) for f in findings for m in f.measurements}
    given = {(finding_id, code): value for finding_id, values in corrections.items() for code, value in values.items()}
    if not given or not set(given) <= known:
        raise RefusedError(
            "review.nothing_corrected",
            "a correction needs at least one new value of a measurement that the finding has",
            missing=["a new value"],
            remedy="change a value, or accept or reject the finding",
        )
    if not all(0 <= value <= _LARGEST for value in given.values()):
        raise RefusedError(
            "review.implausible_value",
            "a corrected value is negative or too large",
            remedy="check the value and its unit",
        )


def apply(analysis: imaging_pb2.StudyFindings, reviews: Mapping[str, Review]) -> imaging_pb2.StudyFindings:
    """The study's findings with `reviews` (finding id -> review) applied; names no objects, which are filed already."""
    result = imaging_pb2.StudyFindings()
    result.CopyFrom(analysis)
    result.ClearField("derived_objects")
    result.ClearField("findings")
    for finding in analysis.findings:
        review = reviews.get(finding.finding_id)
        if review is None:
            result.findings.append(finding)
        elif review.verdict != "rejected":
            result.findings.append(_reviewed(finding, review))
    return result


def _reviewed(finding: imaging_pb2.Finding, review: Review) -> imaging_pb2.Finding:
    made = imaging_pb2.Finding()
    made.CopyFrom(finding)
    provenance = made.provenance
    provenance.inputs.append(common_pb2.InputRef(kind="finding", id=finding.finding_id))
    provenance.agent = review.author
    provenance.recorded_at.FromDatetime(review.at)
    provenance.parameters["review"] = review.verdict
    provenance.parameters["review_reason"] = review.reason
    for measurement in made.measurements:
        code = measurement.concept.code
        corrected = code in review.corrections
        if not corrected and "threshold" not in measurement.method.lower():
            continue
        # What a threshold found stays a candidate until a reader confirms it; how it was found is kept beside.
        provenance.parameters[f"method.{code}"] = measurement.method
        measurement.method = METHOD_CORRECTED if corrected else METHOD_CONFIRMED
        if corrected:
            provenance.parameters[f"before.{code}"] = f"{measurement.value.value:g} {measurement.value.unit}"
            measurement.value.value = review.corrections[code]
            measurement.value.uncertainty.not_estimated = "entered by a reader"
    return made
