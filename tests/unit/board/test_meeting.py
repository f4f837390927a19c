"""Decisions, votes, signatures, minutes: what a board may do, and what of it can be read afterwards."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import reportlab.rl_config
from fastapi.testclient import TestClient
from fhir.resources.R4B.bundle import Bundle

from services.board import meeting as m
from services.board.tables import PARTICIPANT
from services.platform.errors import RefusedError
from tests.unit.board.conftest import KEY, NAME, Feed, csrf

NOW = datetime(2026, 9, 1, 12, tzinfo=UTC)
DECISION = m.Decision("Resect after two cycles", "curative", ["surgery", "systemic"], "three lesions shrink")


def recorded(*signers: str) -> m.Recorded:
    made = m.Recorded("d1", 1, DECISION, "ada", NOW)
    return replace(made, signatures=[m.Signature(f"s{n}", d, made.digest, NOW) for n, d in enumerate(signers)])


@pytest.mark.parametrize(
    ("signers", "unsigned"),
    [
        ((), ["chair", "imaging", "treatment"]),
        (("chair",), ["imaging", "treatment"]),
        (("chair", "radiology"), ["treatment"]),
        (("chair", "nursing", "pathology"), ["imaging", "treatment"]),
        (("chair", "nuclear_medicine", "surgery"), []),
    ],
)
def test_a_decision_stands_once_each_group_has_signed(signers: tuple[str, ...], unsigned: list[str]) -> None:
    assert recorded(*signers).unsigned == unsigned
    assert recorded(*signers).final is not bool(unsigned)


def test_signatures_of_another_wording_do_not_count() -> None:
    signed = recorded("chair", "radiology", "surgery")
    changed = replace(signed, decision=replace(DECISION, summary="Ablate"))
    assert signed.final
    assert changed.unsigned == ["chair", "imaging", "treatment"]


def test_a_dissent_needs_its_reason() -> None:
    m.check_vote("agree", "")
    with pytest.raises(RefusedError, match="reason"):
        m.check_vote("dissent", "  ")
    with pytest.raises(RefusedError):
        m.check_vote("maybe", "x")


def test_an_incomplete_decision_names_what_is_missing() -> None:
    with pytest.raises(RefusedError) as error:
        m.read_decision({"summary": "x", "intent": "unheard"}, ["unheard"])
    assert list(error.value.missing) == ["rationale", "intent", "at least one option"]


def board_with_meeting(feed: Feed) -> tuple[TestClient, TestClient, TestClient, str]:
    """(chair's browser, oncologist's, radiologist's, path of the meeting): planned, case on the agenda, all joined."""
    chair = feed.client("board")
    form = {"csrf_token": csrf(chair), "title": "GI board", "day": "2026-09-01", "time": "12:00", "place": "Room 4"}
    path = str(chair.post("/meetings", data=form).url.path)
    chair.post(f"{path}/agenda", data={"csrf_token": csrf(chair), "case": KEY, "question": "Resect or go on?"})
    oncologist, radiologist = feed.client("clinician"), feed.client("admin")
    for browser, discipline in ((oncologist, "medical_oncology"), (radiologist, "radiology")):
        answer = browser.post(f"{path}/join", data={"csrf_token": csrf(browser), "discipline": discipline})
        assert answer.status_code == 200, answer.text
    return chair, oncologist, radiologist, path


FORM = {"summary": "Resect <b>now</b>", "intent": "curative", "options": ["surgery"], "rationale": "fit & willing"}


def decision_id(page: str) -> str:
    return re.search(r'name="decision" value="([^"]+)"', page).group(1)  # type: ignore[union-attr]


def test_from_decision_to_signed_minutes(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reportlab.rl_config, "pageCompression", 0)
    chair, oncologist, radiologist, path = board_with_meeting(feed)
    case = f"{path}/case/{KEY}"
    tokens = {browser: csrf(browser) for browser in (chair, oncologist, radiologist)}
    dock = chair.post(f"{case}/decision", data=FORM | {"csrf_token": tokens[chair]}).text
    assert "Resect &lt;b&gt;now" in dock
    decision = decision_id(dock)
    vote = {"decision": decision, "choice": "dissent", "reason": "ablate instead", "csrf_token": tokens[oncologist]}
    assert "clinician dissents: ablate instead" in oncologist.post(f"{case}/vote", data=vote).text
    chair.post(f"{case}/comment", data={"text": "margins look clear", "csrf_token": tokens[chair]})
    task = {"title": "Book liver MR", "owner": "radiology", "due_on": "2026-09-20", "csrf_token": tokens[chair]}
    chair.post(f"{case}/task", data=task)

    draft = json.loads(chair.get(f"{path}/minutes.fhir.json").text)
    assert (
        next(e["resource"] for e in draft["entry"] if e["resource"]["resourceType"] == "CarePlan")["status"] == "draft"
    )
    for browser in (chair, oncologist, radiologist):
        browser.post(f"{case}/sign", data={"decision": decision, "csrf_token": tokens[browser]})
    assert "Signed by all groups" in chair.get(f"{case}/part/dock").text

    pdf = chair.get(f"{path}/minutes.pdf").content.decode("latin-1")
    for words in ("Resect", "ablate instead", "Book liver MR", "margins look clear", "MRN-778", "Medical oncology"):
        assert words in pdf, words
    assert "draft" not in pdf
    assert "/Title (Tumour board minutes)" in pdf

    bundle = Bundle.model_validate_json(chair.get(f"{path}/minutes.fhir.json").text)
    made = {e.resource.get_resource_type(): e.resource for e in bundle.entry}
    assert made["CarePlan"].status == "active"
    assert "Dissent of clinician: ablate instead" in [n.text for n in made["CarePlan"].note]
    assert made["CarePlan"].activity[0].detail.code.coding[0].code == "387713003"
    assert (made["Task"].status, made["Task"].description) == ("requested", "Book liver MR")
    attachment = made["DocumentReference"].content[0].attachment
    assert attachment.size == len(attachment.data)
    assert attachment.data[:5] == b"%PDF-"
    # Outside the minutes themselves the patient is a key.
    named = [r.model_dump_json() for name, r in made.items() if name != "DocumentReference"]
    assert not any(word in text for text in named for word in ("MRN-778", "1965", "Ada"))


def test_a_new_version_needs_new_votes_and_signatures(feed: Feed) -> None:
    chair, oncologist, _, path = board_with_meeting(feed)
    case = f"{path}/case/{KEY}"
    token, other = csrf(chair), csrf(oncologist)
    first = decision_id(chair.post(f"{case}/decision", data=FORM | {"csrf_token": token}).text)
    chair.post(f"{case}/decision", data=FORM | {"summary": "Ablate", "csrf_token": token})
    late = oncologist.post(
        f"{case}/sign", data={"decision": first, "csrf_token": other}, headers={"hx-request": "true"}
    )
    assert late.status_code == 422
    assert "read the new version" in late.text.lower()
    assert [row.version for row in feed.rows("board_decision")] == [1, 2]
    assert feed.rows("board_signature") == []


def test_who_only_looks_on_cannot_vote_and_a_closed_meeting_takes_nothing(feed: Feed) -> None:
    chair, _, _, path = board_with_meeting(feed)
    case, token = f"{path}/case/{KEY}", csrf(chair)
    outsider = feed.client("clinician")
    with feed.foundations.database.transaction("board") as tx:
        tx.session.execute(PARTICIPANT.delete().where(PARTICIPANT.c.subject == "clinician"))
    answer = outsider.post(f"{case}/comment", data={"text": "hello", "csrf_token": csrf(outsider)})
    assert answer.status_code == 403
    chair.post(f"{path}/status", data={"status": "closed", "csrf_token": token})
    assert chair.post(f"{case}/comment", data={"text": "late", "csrf_token": token}).status_code == 422
    assert feed.rows("board_comment") == []


def test_readiness_names_what_is_missing_and_who_can_give_it(feed: Feed) -> None:
    chair, _, _, path = board_with_meeting(feed)
    page = chair.get(path).text
    assert "2 of 2 findings wait for a reader" in page
    assert "kidney function of this month (the laboratory)" in page
    assert "Resect or go on?" in page
    assert NAME not in page


def test_tasks_are_tracked_to_done(feed: Feed) -> None:
    chair, _, _, path = board_with_meeting(feed)
    token = csrf(chair)
    chair.post(f"{path}/case/{KEY}/task", data={"title": "Book MR", "due_on": "2026-01-02", "csrf_token": token})
    assert "overdue" in chair.get("/tasks").text
    (task,) = feed.rows("board_task")
    chair.post(f"/tasks/{task.task_id}", data={"status": "done", "csrf_token": token})
    assert [row.status for row in feed.rows("board_task")] == ["done"]
    assert "overdue" not in chair.get("/tasks").text
