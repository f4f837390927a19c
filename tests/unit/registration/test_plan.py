"""Which series of a patient are paired, and why."""

from __future__ import annotations

import random
from datetime import UTC, datetime

from osler.common.v1 import common_pb2
from osler.ingest.v1 import ingest_pb2

from services.registration.plan import Purpose, plan


def series(
    uid: str, modality: str, *, slices: int = 40, frame: str = "f", text: str = "", part: str = "", derived=False
):
    return ingest_pb2.SeriesEntry(
        series_instance_uid=uid,
        modality=modality,
        frame_of_reference_uid=frame,
        series_description=text,
        body_part_examined=part,
        derived=derived,
        instances=[
            ingest_pb2.InstanceEntry(
                sop_instance_uid=f"{uid}.{k}", content=common_pb2.BlobRef(uri=f"file:///{uid}/{k}")
            )
            for k in range(slices)
        ],
    )


def study(uid: str, day: int, *entries, revision: int = 1) -> ingest_pb2.StudyManifest:
    manifest = ingest_pb2.StudyManifest(study_instance_uid=uid, patient_key="p", series=entries, revision=revision)
    manifest.study_time.FromDatetime(datetime(2024, 1, day, 9, tzinfo=UTC))
    return manifest


def shape(pairs) -> list[tuple[str, str, str]]:
    return [(p.fixed.series_instance_uid, p.moving.series_instance_uid, p.purpose.value) for p in pairs]


def test_hybrid_pairs_of_one_session() -> None:
    pairs = plan([study("1", 1, series("ct", "CT"), series("pt", "PT"), series("mr", "MR", frame="g"))])
    assert shape(pairs) == [("ct", "pt", "hybrid"), ("ct", "mr", "hybrid")]
    assert pairs[0].reason == "PET with CT of one session; one frame of reference, to be verified"
    assert [pair.same_frame for pair in pairs] == [True, False]


def test_pet_goes_with_mr_where_there_is_no_ct() -> None:
    pairs = plan([study("1", 1, series("pt", "PT"), series("mr", "MR"))])
    assert shape(pairs) == [("mr", "pt", "hybrid")]


def test_pet_follows_up_through_the_ct_of_its_gantry() -> None:
    visits = [
        study("1", 1, series("ct1", "CT"), series("pt1", "PT")),
        study("2", 20, series("ct2", "CT"), series("pt2", "PT")),
    ]
    assert ("ct2", "ct1", "follow_up") in shape(plan(visits))
    assert ("pt2", "pt1", "follow_up") not in shape(plan(visits))
    alone = [study("1", 1, series("pt1", "PT")), study("2", 20, series("pt2", "PT"))]
    assert shape(plan(alone)) == [("pt2", "pt1", "follow_up")]


def test_a_session_may_span_studies_of_one_day() -> None:
    pairs = plan([study("1", 1, series("ct", "CT")), study("2", 1, series("mr", "MR", frame="g"))])
    assert shape(pairs) == [("ct", "mr", "hybrid")]


def test_follow_up_takes_the_last_earlier_visit_of_the_same_region() -> None:
    visits = [
        study("1", 1, series("old-chest", "CT", part="CHEST")),
        study("2", 5, series("mid-head", "CT", part="HEAD", frame="g")),
        study("3", 20, series("new-chest", "CT", part="chest ", frame="h")),
    ]
    (pair,) = [pair for pair in plan(visits) if pair.fixed.series_instance_uid == "new-chest"]
    assert (pair.moving.series_instance_uid, pair.purpose) == ("old-chest", Purpose.FOLLOW_UP)
    assert "19 days before" in pair.reason
    assert "CHEST" in pair.reason


def test_localizers_derived_and_tiny_series_are_left_out() -> None:
    manifest = study(
        "1",
        1,
        series("ct", "CT"),
        series("scout", "CT", text="CT Scout 120kV"),
        series("topo", "CT", text="TOPOGRAM  0.6"),
        series("loc", "MR", text="3-plane LOC", frame="g"),
        series("tiny", "PT", slices=3),
        series("made", "MR", derived=True),
        series("seg", "SEG"),
    )
    assert plan([manifest]) == []


def test_a_multi_frame_instance_is_a_volume() -> None:
    enhanced = series("mr", "MR", slices=1, frame="g")
    enhanced.instances[0].sop_class_uid = "1.2.840.10008.5.1.4.1.1.4.1"
    assert shape(plan([study("1", 1, series("ct", "CT"), enhanced)])) == [("ct", "mr", "hybrid")]


def test_one_contrast_stands_for_its_frame_of_reference() -> None:
    contrasts = [series("flair", "MR", frame="g", text="AX FLAIR"), series("t1", "MR", frame="g", text="AX T1 SE")]
    assert shape(plan([study("1", 1, series("ct", "CT"), *contrasts)])) == [("ct", "t1", "hybrid")]


def test_pet_is_paired_with_the_ct_of_its_own_frame() -> None:
    entries = [series("diagnostic", "CT", slices=400, frame="g"), series("attenuation", "CT"), series("pt", "PT")]
    assert ("attenuation", "pt", "hybrid") in shape(plan([study("1", 1, *entries)]))


def test_order_and_old_revisions_do_not_matter() -> None:
    visits = [
        study("1", 1, series("a", "CT"), series("b", "PT")),
        study("2", 9, series("c", "CT", frame="g"), series("d", "PT", frame="g")),
        study("2", 9, series("c", "CT", frame="g", slices=10), revision=2),
    ]
    expected = plan(visits)
    assert shape(expected) == [("c", "a", "follow_up"), ("a", "b", "hybrid")]
    for seed in range(5):
        random.Random(seed).shuffle(visits)
        assert plan(visits) == expected
