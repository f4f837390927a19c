"""Treatment of cancer on the record: told where it is known, asked for where it is not."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from osler.common.v1 import common_pb2
from osler.fusion.v1 import fusion_pb2

from services.advisor.advice import advise
from services.advisor.treatments import evidence, from_timeline
from services.twin.predictions import predict

NOW = datetime(2024, 6, 1, tzinfo=UTC)
JANUARY, MARCH, JULY = (datetime(2024, month, 5, tzinfo=UTC) for month in (1, 3, 7))


def entry(title, at=MARCH, *, kind=fusion_pb2.ENTRY_KIND_MEDICATION, ended=None, code=None, **more):
    made = fusion_pb2.TimelineEntry(
        entry_id=f"{title}-{at}", kind=kind, title=title, status=fusion_pb2.ENTRY_STATUS_ACTIVE, **more
    )
    if at:
        made.effective_at.FromDatetime(at)
    if ended:
        made.effective_end.FromDatetime(ended)
    if code:
        made.codes.append(common_pb2.Code(system=code[0], code=code[1]))
    return made


@pytest.mark.parametrize(
    ("made", "known"),
    [
        (entry("oxaliplatin"), True),
        (entry("1 ML pembrolizumab 25 MG/ML Injection"), True),
        (entry("Drug of a trial", code=("http://www.whocc.no/atc", "L01FF02")), True),
        (entry("External beam radiation", kind=fusion_pb2.ENTRY_KIND_PROCEDURE), True),
        (entry("metformin 500 MG Oral Tablet"), False),
        (entry("Allergy to oxaliplatin", kind=fusion_pb2.ENTRY_KIND_ALLERGY), False),
        (entry("oxaliplatin", JULY), False),
    ],
)
def test_what_counts_as_treatment(made, known):
    assert bool(from_timeline([made], NOW)) is known


def test_repeats_are_one_treatment_and_say_when_it_began_and_whether_it_ended():
    found = from_timeline(
        [
            entry("Oxaliplatin", MARCH, ended=MARCH),
            entry("oxaliplatin", JANUARY, ended=JANUARY),
            entry("bevacizumab", None),
        ],
        NOW,
    )
    assert [(item.title.lower(), item.since, item.ended) for item in found] == [
        ("oxaliplatin", JANUARY, True),
        ("bevacizumab", None, False),
    ]
    assert [item.statement for item in evidence(found)] == [
        "Treatment on the record: Oxaliplatin, since 2024-01-05, ended",
        "Treatment on the record: bevacizumab, start not recorded",
    ]


def test_a_retracted_order_is_no_treatment():
    made = entry("oxaliplatin")
    made.status = fusion_pb2.ENTRY_STATUS_RETRACTED
    assert from_timeline([made], NOW) == []


@pytest.mark.parametrize("treated", [True, False])
def test_the_next_step_names_the_treatment_or_asks_for_it(snapshot, on_ct, treated):
    lesions = [*on_ct("1", 0, {"a": 50}), *on_ct("2", 60, {"a": 30})]
    case = snapshot([*lesions, *([entry("oxaliplatin")] if treated else [])])
    advice = advise(case, predict(case, "0" * 64, NOW), "0" * 64, NOW)
    (step,) = [item for item in advice.recommendations if item.rule_id.startswith("next_step.")]
    assert any(item.startswith("treatment") for item in step.not_found) is not treated
    assert any("oxaliplatin" in item.statement for item in step.evidence) is treated
