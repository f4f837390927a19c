"""A reader's word on a finding reaches everybody who uses the finding, and can be taken back."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from osler.events.v1 import events_pb2
from osler.imaging.v1 import imaging_pb2

from services.board import findings_review as fr
from services.clinical import codes
from services.platform.errors import RefusedError
from tests.unit.board.conftest import KEY, Feed, analysis, csrf, finding

NOW = datetime(2026, 9, 1, 12, tzinfo=UTC)
LONG = codes.LONG_AXIS.code


def review(finding_id: str, verdict: str, long_mm: float | None = None) -> fr.Review:
    reason = next(iter(fr.reasons()[verdict]))
    return fr.Review(finding_id, "1.2", verdict, reason, "", "reader", NOW, {} if long_mm is None else {LONG: long_mm})  # type: ignore[arg-type]


def study(method: str = "RTSTRUCT contour") -> imaging_pb2.StudyFindings:
    return analysis("1.2", 0, finding(1, "1.2", 0, 23.9, method), finding(2, "1.2", 0, 13.6, method))


def test_a_corrected_value_replaces_the_measured_one_and_says_so() -> None:
    result = fr.apply(study(), {"1.2-f1": review("1.2-f1", "corrected", 33.0)})
    measurement = result.findings[0].measurements[0]
    assert (measurement.value.value, measurement.value.unit) == (33.0, "mm")
    assert measurement.method == fr.METHOD_CORRECTED
    assert measurement.value.uncertainty.not_estimated
    provenance = result.findings[0].provenance
    assert provenance.agent == "reader"
    assert provenance.parameters[f"before.{LONG}"] == "23.9 mm"
    assert result.findings[1] == study().findings[1]


def test_a_rejected_finding_no_longer_counts() -> None:
    result = fr.apply(study(), {"1.2-f2": review("1.2-f2", "rejected")})
    assert [f.finding_id for f in result.findings] == ["1.2-f1"]


def test_an_accepted_candidate_of_a_threshold_is_confirmed() -> None:
    result = fr.apply(study("fixed threshold SUV 4.0"), {"1.2-f1": review("1.2-f1", "accepted")})
    assert "threshold" not in result.findings[0].measurements[0].method
    assert "threshold" in result.findings[1].measurements[0].method
    assert result.findings[0].provenance.parameters[f"method.{LONG}"] == "fixed threshold SUV 4.0"


def test_the_newest_review_counts_and_a_withdrawn_one_does_not() -> None:
    first, second = review("f", "rejected"), review("f", "accepted")
    assert fr.standing([first, second]) == {"f": second}
    assert fr.standing([first, review("f", "withdrawn")]) == {}


@given(st.sets(st.sampled_from(["1.2-f1", "1.2-f2"])), st.sampled_from(["accepted", "rejected"]))
def test_findings_without_a_review_stay_as_imaging_said(reviewed: set[str], verdict: str) -> None:
    before = study()
    before.derived_objects.add(
        sop_instance_uid="1", sop_class_uid="2", study_instance_uid="1.2", series_instance_uid="3"
    )
    result = fr.apply(before, {f: review(f, verdict) for f in reviewed})
    untouched = [f for f in before.findings if f.finding_id not in reviewed]
    assert [f for f in result.findings if f.finding_id not in reviewed] == untouched
    # Objects are filed already: naming them again would file them again.
    assert not result.derived_objects


@pytest.mark.parametrize(
    ("verdict", "reason", "corrections", "refusal"),
    [
        ("rejected", "", {}, "review.reason_missing"),
        ("unheard", "other", {}, "review.reason_missing"),
        ("corrected", "outline", {}, "review.nothing_corrected"),
        ("corrected", "outline", {"no-such-code": 3.0}, "review.nothing_corrected"),
        ("corrected", "outline", {LONG: -1.0}, "review.implausible_value"),
        ("corrected", "outline", {LONG: float("nan")}, "review.implausible_value"),
    ],
)
def test_reviews_that_say_nothing_are_refused(
    verdict: str, reason: str, corrections: dict[str, float], refusal: str
) -> None:
    with pytest.raises(RefusedError) as error:
        fr.check(verdict, reason, {"1.2-f1": corrections}, study().findings)
    assert error.value.reason == refusal


def announced(feed: Feed) -> list[imaging_pb2.StudyFindings]:
    return [events_pb2.FindingsReady.FromString(row["data"]).findings for row in feed.announced()]


def test_a_review_on_the_page_is_announced_and_survives_a_new_analysis(feed: Feed) -> None:
    browser = feed.client()
    form = {
        "finding": "1.a.2-f1",
        "verdict": "corrected",
        "reason": "outline",
        f"value.1.a.2-f1|{LONG}": "33,5",
        f"was.1.a.2-f1|{LONG}": "22",
    }
    answer = browser.post(f"/case/{KEY}/review", data=form | {"csrf_token": csrf(browser), "note": "seen <b>again</b>"})
    assert answer.status_code == 200
    assert "Corrected" in answer.text
    assert "seen &lt;b&gt;again" in answer.text
    (findings,) = announced(feed)
    assert {f.finding_id: f.measurements[0].value.value for f in findings.findings} == {
        "1.a.2-f1": 33.5,
        "1.a.2-f2": 20.0,
    }
    # The words of a person stay on the board.
    assert b"again" not in findings.SerializeToString()
    # The board's own announcement is not taken for a new analysis; imaging's is, with the review on top.
    feed.handle(events_pb2.FindingsReady(findings=findings), cause="own", source="board")
    assert len(announced(feed)) == 1
    fresh = analysis("1.a.2", 84, finding(1, "1.a.2", 84, 23.0), finding(2, "1.a.2", 84, 19.0))
    feed.handle(events_pb2.FindingsReady(findings=fresh), cause="again")
    latest = announced(feed)[-1]
    assert [f.measurements[0].value.value for f in latest.findings] == [33.5, 19.0]


def test_a_withdrawn_review_brings_the_finding_back(feed: Feed) -> None:
    browser = feed.client("clinician")
    token = csrf(browser)
    for verdict, reason in (("rejected", "artefact"), ("withdrawn", "reconsidered")):
        form = {"finding": "1.a.2-f1", "verdict": verdict, "reason": reason, "csrf_token": token}
        assert browser.post(f"/case/{KEY}/review", data=form).status_code == 200
    counts = [len(findings.findings) for findings in announced(feed)]
    assert counts == [1, 2]


def test_a_rejected_finding_stays_in_sight_with_its_reason(feed: Feed) -> None:
    browser = feed.client()
    form = {"finding": "1.a.2-f2", "verdict": "rejected", "reason": "artefact", "csrf_token": csrf(browser)}
    browser.post(f"/case/{KEY}/review", data=form)
    page = browser.get(f"/case/{KEY}").text
    assert 'class="rejected"' in page
    assert "Artefact or motion" in page
    assert "1 of 2" in page


def test_a_lesion_that_pet_and_ct_measured_is_reviewed_once(feed: Feed) -> None:
    """Both findings carry the lesion's tracking UID: a rejection takes both, a correction changes the one that has the value."""
    pet = finding(1, "1.a.2", 84, 0.0)
    pet.finding_id, pet.measurements[0].concept.code = "1.a.2-pet", codes.SUV_MAX.code
    both = analysis("1.a.2", 84, finding(1, "1.a.2", 84, 22.0), pet, finding(2, "1.a.2", 84, 20.0))
    feed.handle(events_pb2.FindingsReady(findings=both), cause="both")
    browser = feed.client()
    form = {"finding": "1.a.2-pet", "verdict": "corrected", "reason": "outline", f"value.1.a.2-f1|{LONG}": "30"}
    browser.post(f"/case/{KEY}/review", data=form | {"csrf_token": csrf(browser)})
    assert {f.finding_id: f.measurements[0].value.value for f in announced(feed)[-1].findings} == {
        "1.a.2-f1": 30.0, "1.a.2-pet": 0.0, "1.a.2-f2": 20.0,
    }  # fmt: skip
    reject = {"finding": "1.a.2-f1", "verdict": "rejected", "reason": "duplicate", "csrf_token": csrf(browser)}
    browser.post(f"/case/{KEY}/review", data=reject)
    assert [f.finding_id for f in announced(feed)[-1].findings] == ["1.a.2-f2"]
