"""Images that are not whole are said to be so: on the page, in the viewer's answer, and never as an error of the server."""

from __future__ import annotations

from datetime import timedelta

import pytest
from osler.events.v1 import events_pb2
from osler.imaging.v1 import imaging_pb2
from osler.ingest.v1 import ingest_pb2

from services.board.image_trouble import troubles
from tests.unit.board.conftest import FIRST, KEY, Feed, analysis, finding

STUDY, SERIES = "1.7.1", "1.7.1.1"


def manifest(content: ingest_pb2.InstanceEntry | None = None) -> ingest_pb2.StudyManifest:
    made = ingest_pb2.StudyManifest(study_instance_uid=STUDY, patient_key=KEY, revision=1)
    series = made.series.add(series_instance_uid=SERIES, modality="CT", series_description="Chest")
    series.instances.extend([content] * 6 if content else [])
    return made


def judged(verdict: int) -> imaging_pb2.StudyFindings:
    made = analysis(STUDY, 100, finding(1, STUDY, 100, 20.0))
    quality = made.quality.add(series_instance_uid=SERIES, verdict=verdict)
    quality.issues.add(code="missing_slices", message="3 slices are missing", remedy="send the series again")
    return made


def test_a_rejected_series_is_broken_and_named_once() -> None:
    found = judged(imaging_pb2.QUALITY_VERDICT_REJECT)
    found.refusals.add(
        reason="quality.missing_slices", message="3 slices are missing", remedy="send the series again", subject=SERIES
    )
    (trouble,) = troubles("02 Jun 2026", manifest(), found)
    assert (trouble.level, trouble.series, trouble.what) == ("broken", "CT Chest", "3 slices are missing")


@pytest.mark.parametrize(
    ("found", "levels"),
    [
        (None, ["waiting"]),
        (judged(imaging_pb2.QUALITY_VERDICT_WARN), ["caution"]),
        (analysis(STUDY, 100), []),
    ],
)
def test_what_is_not_analysed_or_doubtful_is_said(found: imaging_pb2.StudyFindings | None, levels: list[str]) -> None:
    assert [t.level for t in troubles("02 Jun 2026", manifest(), found)] == levels


def receive(feed: Feed, content: bytes) -> None:
    """A study whose six instances all hold `content`, and imaging's word on it."""
    blobs = feed.foundations.blobs
    instance = ingest_pb2.InstanceEntry(sop_instance_uid="1.7.1.1.1")
    instance.content.CopyFrom(blobs.put(content, "application/dicom", "i"))
    received = events_pb2.StudyReceived(patient_key=KEY, study_instance_uid=STUDY, revision=1)
    received.manifest.CopyFrom(blobs.put(manifest(instance).SerializeToString(), "application/protobuf", "m"))
    received.study_time.FromDatetime(FIRST + timedelta(days=100))
    feed.handle(received, KEY, STUDY, "ingest")
    feed.handle(events_pb2.FindingsReady(findings=judged(imaging_pb2.QUALITY_VERDICT_REJECT)), KEY, STUDY)


def test_a_broken_study_is_shown_as_broken_and_its_images_are_refused_in_words(feed: Feed) -> None:
    receive(feed, b"this is no DICOM file")
    browser = feed.client()
    page = browser.get(f"/case/{KEY}")
    assert page.status_code == 200
    assert "Broken images" in page.text
    assert "CT Chest" in page.text
    assert "Send the series again" in page.text
    answer = browser.get(f"/case/{KEY}/volume/{SERIES}/in/{SERIES}.nii.gz", headers={"accept": "*/*"})
    assert answer.status_code == 422
    assert "not a DICOM file" in answer.json()["detail"]


def test_headers_without_pixels_are_refused_in_words(feed: Feed) -> None:
    receive(feed, b"\0" * 128 + b"DICM" + b"\x08\x00\x60\x00CS\x02\x00CT")
    answer = feed.client().get(f"/case/{KEY}/volume/{SERIES}/in/{SERIES}.nii.gz", headers={"accept": "*/*"})
    assert answer.status_code == 422
    assert answer.json()["remedy"]
