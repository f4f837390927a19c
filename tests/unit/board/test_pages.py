"""Doors of the board: who may come in, what a page may hold, and what happens when something is missing or hostile."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from fastapi.testclient import TestClient
from osler.events.v1 import events_pb2

from services.board.access import CaseAccess, Grant, may_open
from services.board.app import build_app
from services.board.pages import IdleLock, percent_words, unit_words
from services.board.ranges import ranged
from services.platform.http import SESSION_COOKIE
from services.platform.security import AuthenticationError, Principal
from services.platform.tables import AUDIT
from tests.unit.board.conftest import KEY, NAME, OTHER, Feed, csrf, seed

NOW = datetime(2026, 9, 1, 12, tzinfo=UTC)
CLINICIAN = Principal("ada", frozenset({"clinician"}))
KEEPER = Principal("office", frozenset({"board"}))


def grant(subject: str = "ada", minutes: int | None = None) -> Grant:
    until = NOW + timedelta(minutes=minutes) if minutes is not None else None
    return Grant(subject, "glass", "", subject, NOW, until)


@pytest.mark.parametrize(
    ("principal", "case", "policy", "opens"),
    [
        (CLINICIAN, CaseAccess(False, [], False), "all", True),
        (CLINICIAN, CaseAccess(False, [], False), "team", False),
        (KEEPER, CaseAccess(False, [], False), "team", True),
        (KEEPER, CaseAccess(True, [], False), "all", False),
        (CLINICIAN, CaseAccess(True, [], True), "team", True),
        (CLINICIAN, CaseAccess(True, [grant()], False), "team", True),
        (CLINICIAN, CaseAccess(True, [grant(minutes=1)], False), "team", True),
        (CLINICIAN, CaseAccess(True, [grant(minutes=0)], False), "team", False),
        (CLINICIAN, CaseAccess(True, [grant("bob")], False), "team", False),
    ],
)
def test_who_may_open_a_case(principal: Principal, case: CaseAccess, policy: str, opens: bool) -> None:
    assert may_open(principal, case, policy, NOW) is opens


def test_a_script_in_a_name_stays_text_and_nothing_of_the_patient_is_in_address_or_title(feed: Feed) -> None:
    browser = feed.client()
    for path in ("/", f"/case/{KEY}", f"/case/{KEY}/access", "/reads"):
        page = browser.get(path)
        assert page.status_code == 200
        assert NAME not in page.text
        title = re.search("<title>(.*?)</title>", page.text).group(1)  # type: ignore[union-attr]
        assert not re.search("Ada|alert|1965|MRN", title + str(page.url))
        policy = page.headers["content-security-policy"]
        assert "unsafe-inline" not in policy
        assert "default-src 'none'" in policy
    assert "&lt;script&gt;" in browser.get(f"/case/{KEY}").text


def test_a_reader_without_the_role_is_told_so(feed: Feed) -> None:
    browser = feed.client("analyst")
    page = browser.get(f"/case/{KEY}")
    assert page.status_code == 403
    assert "Ask whoever keeps the board" in page.text
    assert "colon" not in page.text


def test_without_a_session_one_signs_in_first(feed: Feed) -> None:
    browser = TestClient(feed.shared_app, headers={"accept": "text/html"}, follow_redirects=False)
    assert browser.get(f"/case/{KEY}").headers["location"].startswith("/login?next=")
    assert browser.get(f"/case/{KEY}", headers={"accept": "application/json"}).status_code == 401


def test_a_forged_post_changes_nothing(feed: Feed) -> None:
    browser = feed.client()
    forged = {"finding": "1.a.2-f1", "verdict": "rejected", "reason": "artefact"}
    for extra in ({}, {"csrf_token": "x"}):
        assert browser.post(f"/case/{KEY}/review", data=forged | extra).status_code == 403
    assert browser.post("/meetings", data={"title": "x", "day": "2026-01-01"}).status_code == 403
    assert feed.rows("board_review") == []
    assert feed.rows("board_meeting") == []


def test_an_idle_session_ends_and_stays_ended() -> None:
    lock = IdleLock(600)
    somebody = Principal("ada", frozenset(), token_id="t1")
    lock.touch(somebody, passive=False, now=0)
    lock.touch(somebody, passive=True, now=550)
    with pytest.raises(AuthenticationError):
        lock.touch(somebody, passive=False, now=601)
    with pytest.raises(AuthenticationError):
        lock.touch(somebody, passive=False, now=602)
    lock.touch(Principal("ada", frozenset(), token_id="t2"), passive=False, now=603)


def test_an_expired_session_asks_to_sign_in(feed: Feed) -> None:
    browser = feed.client()
    security = feed.foundations.security
    browser.cookies.set(SESSION_COOKIE, security.session(Principal("board", frozenset({"board"})), -120))
    answer = browser.get(f"/case/{KEY}", follow_redirects=False)
    assert answer.status_code == 303
    assert "/login" in answer.headers["location"]


def test_a_restricted_case_opens_by_breaking_the_glass_which_is_recorded(feed: Feed) -> None:
    office, clinician = feed.client("board"), feed.client("clinician")
    office.post(f"/case/{KEY}/access", data={"do": "restrict", "csrf_token": csrf(office)})
    assert office.get(f"/case/{KEY}").status_code == 200
    closed = clinician.get(f"/case/{KEY}")
    assert closed.status_code == 403
    assert "break" in closed.text.lower() or "open to its team" in closed.text
    assert "colon" not in closed.text
    for path in ("part/findings", "surfaces", "volume/1/in/1.nii.gz", "teaching.zip", "access"):
        assert clinician.get(f"/case/{KEY}/{path}").status_code == 403, path
    assert clinician.get("/dicom-web/studies/1.a.1/series").status_code == 403
    assert "Restricted case" in clinician.get("/").text
    token = csrf(clinician)
    assert clinician.post(f"/case/{KEY}/glass", data={"reason": "short", "csrf_token": token}).status_code == 422
    opened = clinician.post(f"/case/{KEY}/glass", data={"reason": "on call, patient in the ward", "csrf_token": token})
    assert opened.status_code == 200
    assert "colon" in opened.text
    with feed.foundations.database.session() as session:
        rows = [dict(r) for r in session.execute(AUDIT.select()).mappings()]
    broken = [r for r in rows if r["resource_type"] == "board break-glass"]
    assert [(r["principal"], r["resource_id_hash"]) for r in broken] == [("clinician", feed.audit.hash_id(KEY))]
    assert "patient in the ward" in office.get(f"/case/{KEY}/access").text
    views = [
        r for r in rows if r["resource_type"].endswith("GET /case/{patient_key}") and r["principal"] == "clinician"
    ]
    assert {r["outcome"] for r in views} == {"denied", "success"}


def test_joining_a_meeting_is_no_way_around_a_restriction(feed: Feed) -> None:
    office, clinician = feed.client("board"), feed.client("clinician")
    token = csrf(office)
    path = office.post("/meetings", data={"csrf_token": token, "title": "x", "day": "2026-09-01"}).url.path
    office.post(f"{path}/agenda", data={"csrf_token": token, "case": KEY})
    office.post(f"/case/{KEY}/access", data={"do": "restrict", "csrf_token": token})
    join = {"csrf_token": csrf(clinician), "discipline": "surgery"}
    assert clinician.post(f"{path}/join", data=join).status_code == 403
    assert clinician.get(f"/case/{KEY}").status_code == 403
    office.post(f"{path}/join", data={"csrf_token": token, "discipline": "surgery", "subject": "clinician"})
    assert clinician.get(f"/case/{KEY}").status_code == 200


def test_only_the_team_sees_a_case_where_the_rule_is_team(make_feed: Callable[..., Feed]) -> None:
    feed = make_feed(board={"case_access": "team"})
    seed(feed, OTHER, "Second")
    office, clinician = feed.client("board"), feed.client("clinician")
    assert clinician.get(f"/case/{OTHER}").status_code == 403
    office.post(f"/case/{OTHER}/access", data={"do": "add", "subject": "clinician", "csrf_token": csrf(office)})
    assert clinician.get(f"/case/{OTHER}").status_code == 200
    assert clinician.get(f"/case/{KEY}").status_code == 403


def test_the_archive_is_not_searched_through_the_board(feed: Feed) -> None:
    browser = feed.client()
    assert browser.get("/dicom-web/studies").status_code == 403
    assert browser.get("/dicom-web/studies?PatientName=D*").status_code == 403
    assert browser.get("/dicom-web/studies/9.9.9/series").status_code == 404


@contextmanager
def archive_with(studies: list[str]) -> Iterator[int]:
    """An archive on loopback that answers every search with these studies; gives its port."""
    found = json.dumps([{"0020000D": {"vr": "UI", "Value": [uid]}} for uid in studies]).encode()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(found)

        def log_message(self, *_: object) -> None:
            """Nothing: a search may name a patient."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_a_patients_other_studies_are_told_as_far_as_their_case_is_open(feed: Feed) -> None:
    for uid, key in (("1.9.1", KEY), ("1.9.2", OTHER)):
        manifest = feed.foundations.blobs.put(b"", "application/protobuf", "manifest")
        message = events_pb2.StudyReceived(patient_key=key, study_instance_uid=uid, revision=1, manifest=manifest)
        feed.handle(message, key=key, cause=uid, source="ingest")
    seed(feed, OTHER, "Second")
    office = feed.client("board")
    office.post(f"/case/{OTHER}/access", data={"do": "restrict", "csrf_token": csrf(office)})
    with archive_with(["1.9.1", "1.9.2", "1.9.3"]) as port:
        context = feed.foundations.context()
        http = context.settings.http
        http = http.model_copy(update={"ports": http.ports.model_copy(update={"ingest": port})})
        app = build_app(replace(context, settings=context.settings.model_copy(update={"http": http})))
        app.state.audit = feed.audit
        answer = feed.client("clinician", app).get("/dicom-web/studies?00100020=MRN")
    assert [study["0020000D"]["Value"] for study in answer.json()] == [["1.9.1"]]


def test_what_is_away_is_said_and_the_page_stays(feed: Feed) -> None:
    browser = feed.client()
    page = browser.get(f"/case/{KEY}/whatif?course=stop", headers={"hx-request": "true"})
    assert page.status_code == 503
    assert "digital twin does not answer" in page.text
    assert "<html" not in page.text
    assert browser.get(f"/case/{KEY}").status_code == 200
    assert browser.get(f"/case/{KEY}/volume/9/in/9.nii.gz").status_code == 404
    assert browser.get("/case/0000").status_code == 404


def test_readers_of_a_double_reading_do_not_see_each_other(feed: Feed) -> None:
    office, first, second = feed.client("board"), feed.client("clinician"), feed.client("admin")
    office.post("/reads", data={"case": KEY, "first": "clinician", "second": "admin", "csrf_token": csrf(office)})
    path = f"/reads/{feed.rows('board_read')[0].read_id}"
    blind = first.get(path).text
    assert "RECIST 1.1</strong>" not in blind
    given = {"category": "SD", "sum_mm": "44.5", "note": "seen at first", "csrf_token": csrf(first)}
    assert first.post(path, data=given).status_code == 200
    assert first.post(path, data=given).status_code == 422
    assert "44.5" in first.get(path).text
    assert "44.5" not in second.get(path).text
    assert "44.5" not in office.get(path).text
    assert office.post(path, data=given | {"csrf_token": csrf(office)}).status_code == 422
    second.post(path, data={"category": "PR", "sum_mm": "40", "csrf_token": csrf(second)})
    assert "seen at first" in second.get(path).text
    assert "disagree" in first.get(path).text.lower()
    settle = {"category": "PR", "note": "third look", "csrf_token": csrf(office)}
    assert "third look" in office.post(f"{path}/adjudicate", data=settle).text


def test_a_part_of_a_volume_is_served_as_asked() -> None:
    class Asked:
        def __init__(self, value: str) -> None:
            self.headers = {"range": value} if value else {}

    content = bytes(range(100))
    cases = {"": (200, content), "bytes=10-19": (206, content[10:20]), "bytes=90-": (206, content[90:]),
             "bytes=-5": (206, content[95:]), "bytes=200-": (416, b""), "bytes=x-": (200, content)}  # fmt: skip
    for asked, (status, part) in cases.items():
        answer = ranged(Asked(asked), content, "application/octet-stream")  # type: ignore[arg-type]
        assert (answer.status_code, bytes(answer.body)) == (status, part), asked
    assert ranged(Asked("bytes=10-19"), content, "x").headers["content-range"] == "bytes 10-19/100"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ucum", "words"),
    [("10*9/L", "×10⁹/L"), ("mm[Hg]", "mmHg"), ("mL/min/{1.73_m2}", "mL/min/1.73 m²"), ("1", ""), ("ug/L", "µg/L")],
)
def test_units_as_clinicians_write_them(ucum: str, words: str) -> None:
    assert unit_words(ucum) == words


def test_changes_in_percent() -> None:
    assert [percent_words(v) for v in (-47.6, 0.2, 12.0)] == ["−48 %", "0 %", "+12 %"]
