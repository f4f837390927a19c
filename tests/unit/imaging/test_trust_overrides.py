"""What readers do with findings reaches the monitoring of models: from the board's announcement to the lake's views."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from osler.common.v1 import common_pb2
from osler.events.v1 import events_pb2
from osler.imaging.v1 import imaging_pb2

from services.analytics import lake
from services.board.findings_review import Review, apply
from services.platform.events import Event, pack
from tests.unit.analytics.conftest import Lake, lake_of  # noqa: F401 - a fixture

NOW = datetime(2026, 5, 4, 9, tzinfo=UTC)


def study(number, methods, revision=1):
    made = imaging_pb2.StudyFindings(study_instance_uid=f"1.2.{number}", patient_key="p", study_revision=revision)
    for index, method in enumerate(methods):
        finding = made.findings.add(
            finding_id=f"{number}.{index}", study_instance_uid=made.study_instance_uid, series_instance_uid="1.3",
            kind=imaging_pb2.FINDING_KIND_LESION,
            provenance=common_pb2.Provenance(code_version="1", method=method, agent="imaging"),
        )  # fmt: skip
        finding.provenance.recorded_at.FromDatetime(NOW)
        value = common_pb2.Quantity(value=20, unit="mm")
        value.uncertainty.not_estimated = "one outline"
        finding.measurements.add(
            concept=common_pb2.Code(system="http://snomed.info/sct", code="103339001"), value=value
        )
    return made


def announce(findings, source, minutes) -> Event:
    event = pack(
        events_pb2.FindingsReady(findings=findings), source=source, key="p",
        id=f"{source} {findings.study_instance_uid} {minutes}",
    )  # fmt: skip
    return Event(**{**vars(event), "known_time": NOW + timedelta(minutes=minutes)})


def review(finding_id, verdict, size=None):
    corrections = {} if size is None else {"103339001": size}
    return Review(finding_id, "", verdict, "reason", "", "reader", NOW, corrections)


def test_overrides_by_method(lake_of: Lake) -> None:  # noqa: F811
    first = study(1, ["a@1", "a@1", "b@2", "b@2"])
    second = study(2, ["a@1"])
    third = study(3, ["a@1"])
    reviews = {
        "1.0": review("1.0", "accepted"),
        "1.1": review("1.1", "rejected"),
        "1.2": review("1.2", "corrected", size=14.0),
    }
    again = study(3, ["a@1"], revision=2)
    lake_of.fill(
        [
            *(announce(made, "imaging", 0) for made in (first, second, third)),
            announce(apply(first, {"1.0": reviews["1.0"]}), "board", 1),
            announce(apply(first, reviews), "board", 2),
            announce(apply(third, {"3.0": review("3.0", "rejected")}), "board", 3),
            announce(again, "imaging", 4),
        ]
    )
    rows = lake.query(lake_of.folder, "SELECT finding_id, outcome, reason FROM finding_reviews ORDER BY finding_id")
    assert [(row["finding_id"], row["outcome"]) for row in rows] == [
        ("1.0", "accepted"), ("1.1", "rejected"), ("1.2", "corrected"), ("1.3", "unreviewed"), ("2.0", "unreviewed"),
        ("3.0", "unreviewed"),
    ]  # fmt: skip
    assert rows[0]["reason"] == "reason"
    by_method = {row["method"]: row for row in lake.query(lake_of.folder, "SELECT * FROM overrides_by_method")}
    assert (by_method["a@1"]["findings"], by_method["a@1"]["reviewed"], by_method["a@1"]["override_share"]) == (
        4,
        2,
        0.5,
    )
    assert (by_method["b@2"]["corrected"], by_method["b@2"]["override_share"]) == (1, 1.0)


def test_nothing_announced_is_nothing_overridden(lake_of: Lake) -> None:  # noqa: F811
    lake_of.flush()
    assert lake.query(lake_of.folder, "SELECT * FROM overrides_by_method") == []
