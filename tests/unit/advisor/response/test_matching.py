"""Lesions matched by name, by place through registrations, and by a person's correction; sums that count each once."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from osler.fusion.v1 import fusion_pb2
from osler.registration.v1 import registration_pb2

from services.advisor.provenance import Source
from services.advisor.response.matching import Frames, match
from services.advisor.response.snapshot import assess, respond
from services.advisor.visits import visits
from services.clinical import codes

SOURCE = Source("key-1", 3, "0" * 64, datetime(2024, 6, 1, tzinfo=UTC))
GOOD, REVIEW = registration_pb2.VERDICT_GOOD, registration_pb2.VERDICT_REVIEW
LEFT = codes.Concept(codes.SCT, "7771000", "Left")
RIGHT = codes.Concept(codes.SCT, "24028007", "Right")


def _rotated(shift, degrees=20.0):
    angle = np.radians(degrees)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:3, 3] = shift
    return matrix


def _registration(fixed, moving, matrix, verdict=GOOD):
    made = registration_pb2.Registration(registration_id=f"{fixed}-{moving}")
    made.pair.fixed.frame_of_reference_uid, made.pair.moving.frame_of_reference_uid = fixed, moving
    made.transform.matrix.extend(np.asarray(matrix).ravel())
    made.quality.verdict = verdict
    return fusion_pb2.TimelineEntry(
        entry_id=f"entry-{fixed}-{moving}", kind=fusion_pb2.ENTRY_KIND_REGISTRATION, registration=made
    )


CT1_CT2 = _rotated((30, -10, 5))
CT_MR = _rotated((-12, 4, 40), degrees=-8)


def _to(matrix, point):
    return (np.asarray(matrix) @ [*point, 1.0])[:3].tolist()


@pytest.fixture
def outlined(finding):
    """(study, day, name, diameter, centre, frame, technique) -> entry."""

    def make(study, day, name, mm, centre, frame, technique="CT", side=None):
        measured = {codes.LONG_AXIS: mm, **({codes.MEAN_ATTENUATION: 45.0} if technique == "CT" else {})}
        entry = finding(study, day, name, measured)
        entry.finding.series_instance_uid = f"{study}.{technique}"
        entry.finding.finding_id = f"{study}/{technique}/{name}"
        entry.entry_id = f"entry-{study}-{technique}-{name}"
        entry.finding.centroid_lps_mm.extend(centre)
        entry.finding.frame_of_reference_uid = frame
        if side:
            entry.finding.laterality.CopyFrom(side.proto)
        return entry

    return make


LINKS = [
    _registration("ct1", "ct2", CT1_CT2),
    _registration("ct1", "mr1", CT_MR),
    _registration("ct2", "mr2", CT_MR),
]
PLACES = ((0, 0, 0), (60, 20, -40))


def _both(outlined, study, day, sizes, names=("a", "b"), mr_names=("T1", "T2"), scale=1.3):
    """One visit: every lesion on CT and, under another name and a little larger, on MR."""
    frame = "1" if day == 0 else "2"
    made = []
    for place, mm, name, mr_name in zip(PLACES, sizes, names, mr_names, strict=True):
        centre = place if frame == "1" else _to(CT1_CT2, place)
        made.append(outlined(study, day, name, mm, centre, f"ct{frame}"))
        in_mr = np.add(_to(CT_MR, centre), (1.5, -1.0, 0.5))
        made.append(outlined(study, day, mr_name, scale * mm, in_mr, f"mr{frame}", "MR"))
    return made


def _recist(entries, corrections=None):
    (found,) = [item for item in assess(entries, SOURCE, corrections) if item.criterion == "RECIST 1.1"]
    return found


def test_a_lesion_outlined_on_ct_and_mr_under_two_names_counts_once(outlined):
    entries = [*_both(outlined, "1", 0, (50, 30)), *_both(outlined, "2", 60, (30, 20)), *LINKS]
    answer = _recist(entries)
    assert (answer.label, answer.baseline_value, answer.current_value) == ("PR", 80, 50)
    assert any("count as one lesion" in note for note in answer.notes)


def test_a_lesion_that_only_mr_shows_is_added_once_where_mr_is_registered(outlined):
    def visit(study, day, frame, sizes):
        place = PLACES[0] if frame == "1" else _to(CT1_CT2, PLACES[0])
        far = _to(CT_MR, PLACES[1] if frame == "1" else _to(CT1_CT2, PLACES[1]))
        return [
            outlined(study, day, "a", sizes[0], place, f"ct{frame}"),
            outlined(study, day, "brain", sizes[1], far, f"mr{frame}", "MR"),
        ]

    entries = [*visit("1", 0, "1", (50, 20)), *visit("2", 60, "2", (50, 10))]
    assert _recist([*entries, *LINKS]).baseline_value == 70
    apart = _recist(entries)
    assert apart.baseline_value == 50
    assert "may be the same lesions" in apart.explanation


def test_lesions_are_followed_by_place_where_names_differ(outlined):
    before = [outlined("1", 0, "GTV-1", 50, PLACES[0], "ct1"), outlined("1", 0, "GTV-2", 30, PLACES[1], "ct1")]
    after = [
        outlined("2", 60, "left lesion", 20, _to(CT1_CT2, PLACES[1]), "ct2"),
        outlined("2", 60, "big one", 30, _to(CT1_CT2, PLACES[0]), "ct2"),
    ]
    answer = _recist([*before, *after, *LINKS])
    assert (answer.label, answer.current_value) == ("PR", 50)
    lesions = {item.key: list(item.finding_ids) for item in respond([*before, *after, *LINKS], SOURCE).lesions}
    assert lesions == {"uid-GTV-1": ["1/CT/GTV-1", "2/CT/big one"], "uid-GTV-2": ["1/CT/GTV-2", "2/CT/left lesion"]}
    refused = _recist([*before, *after, _registration("ct1", "ct2", CT1_CT2, REVIEW)])
    assert refused.refusal.reason == "response.lesions_not_matched"


@pytest.mark.parametrize(("offset", "joined"), [(12.4, True), (12.6, False)])
def test_the_tolerance_is_half_of_the_smaller_diameter(outlined, offset, joined):
    entries = [
        outlined("1", 0, "a", 50, (0, 0, 0), "ct1"),
        outlined("2", 60, "x", 25, _to(CT1_CT2, (offset, 0, 0)), "ct2"),
    ]
    found = match(visits(entries), Frames([item.registration for item in LINKS]))
    assert (len({lesion.key for visit in found.visits for lesion in visit.lesions}) == 1) is joined


def test_two_lesions_of_one_series_stay_two_however_close(outlined):
    entries = [outlined("1", 0, name, 40, (shift, 0, 0), "ct1") for name, shift in (("a", 0), ("b", 3))]
    found = match(visits(entries), Frames([]))
    assert len({lesion.key for lesion in found.visits[0].lesions}) == 2


def test_a_correction_counts_before_name_and_place(outlined):
    before = [outlined("1", 0, "a", 50, PLACES[0], "ct1"), outlined("1", 0, "b", 30, PLACES[1], "ct1")]
    after = [
        outlined("2", 60, "a", 20, _to(CT1_CT2, PLACES[0]), "ct2"),
        outlined("2", 60, "c", 45, _to(CT1_CT2, PLACES[1]), "ct2"),
    ]
    entries = [*before, *after, *LINKS]
    assert _recist(entries).label == "SD"  # c lies where b was: 65 of 80 mm
    apart = _recist(entries, {"2/CT/c": "a lesion of its own"})
    assert apart.label == "PD"  # then it is new
    assert any("assigned to their lesion by a person" in note for note in apart.notes)
    swapped = _recist(entries, {"2/CT/a": "uid-b", "2/CT/c": "uid-a"})
    assert [round(item.value) for item in swapped.visits] == [65]
    assert swapped.label == "SD"


def test_a_name_that_moved_is_not_used(outlined):
    before = [outlined("1", 0, "a", 50, PLACES[0], "ct1"), outlined("1", 0, "b", 30, PLACES[1], "ct1")]
    after = [
        outlined("2", 60, "a", 10, _to(CT1_CT2, (0, 0, 200)), "ct2"),
        outlined("2", 60, "b", 30, _to(CT1_CT2, PLACES[1]), "ct2"),
    ]
    answer = _recist([*before, *after, *LINKS])
    assert answer.label == "NE"
    assert "response.lesion_moved" in {item.reason for item in answer.statements}


def test_a_lesion_on_the_other_side_is_not_used(outlined):
    entries = [
        outlined("1", 0, "a", 50, PLACES[0], "ct1", side=LEFT),
        outlined("2", 60, "a", 20, PLACES[0], "ct9", side=RIGHT),
    ]
    answer = _recist(entries)
    assert answer.label == "NE"
    assert answer.refusal.reason in ("response.side_changed", "recist.target_not_measured")
    assert "response.side_changed" in {item.reason for item in answer.statements}


def test_transforms_are_joined_and_inverted():
    frames = Frames([item.registration for item in LINKS])
    point = (10.0, -20.0, 30.0)
    through = frames.between("mr1", "mr2")
    expected = _to(CT_MR, _to(CT1_CT2, _to(np.linalg.inv(CT_MR), point)))
    assert _to(through, point) == pytest.approx(expected)
    assert frames.between("mr1", "elsewhere") is None
    assert Frames([]).between("same", "same") is not None


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(8)))
def test_the_order_of_findings_does_not_matter(order):
    made = []
    for study, frame in (("1", "ct1"), ("2", "ct2")):
        for index, place in enumerate(((0, 0, 0), (8, 0, 0), (60, 20, -40), (90, 0, 0))):
            made.append((study, f"{study}-{index}", place if frame == "ct1" else _to(CT1_CT2, place), frame))
    entries = []
    for study, name, centre, frame in (made[index] for index in order):
        entry = fusion_pb2.TimelineEntry(entry_id=name, kind=fusion_pb2.ENTRY_KIND_FINDING)
        found = entry.finding
        found.finding_id, found.tracking_id, found.study_instance_uid = name, name, study
        found.series_instance_uid, found.frame_of_reference_uid, found.kind = f"{study}.ct", frame, 1
        found.centroid_lps_mm.extend(centre)
        found.observed_at.FromDatetime(datetime(2024, 1 if study == "1" else 3, 1, tzinfo=UTC))
        measurement = found.measurements.add(concept=codes.LONG_AXIS.proto, method="RTSTRUCT")
        measurement.value.value, measurement.value.unit = 20, "mm"
        entries.append(entry)
    found = match(visits(entries), Frames([item.registration for item in LINKS]))
    keys = {lesion.finding_id: lesion.key for visit in found.visits for lesion in visit.lesions}
    assert all(keys[f"2-{index}"] == keys[f"1-{index}"] for index in range(4))
    assert len(set(keys.values())) == 4
