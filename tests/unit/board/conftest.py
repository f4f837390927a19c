"""A board of its own, fed through its handlers, and browsers that sign in."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from google.protobuf.message import Message
from osler.advisor.v1 import advisor_pb2
from osler.common.v1 import common_pb2
from osler.events.v1 import events_pb2
from osler.fusion.v1 import fusion_pb2
from osler.imaging.v1 import imaging_pb2
from osler.ingest.v1 import ingest_pb2
from osler.twin.v1 import twin_pb2
from sqlalchemy import select

from services.board import tables
from services.board.app import build_app
from services.board.worker import HANDLERS
from services.clinical import codes
from services.compose.rooms import Foundations, lay_foundations
from services.platform.audit import Audit
from services.platform.config import Settings
from services.platform.database import migrate
from services.platform.events import event_id, pack
from services.platform.http import SESSION_COOKIE
from services.platform.security import Principal
from services.platform.tables import OUTBOX

KEY = "a" * 32
OTHER = "b" * 32
NAME = "<script>alert('x')</script>"
FIRST = datetime(2026, 6, 2, 9, tzinfo=UTC)


def finding(
    number: int, study: str, day: int, long_axis: float, method: str = "RTSTRUCT contour"
) -> imaging_pb2.Finding:
    """Lesion `number` at a study `day` days after the first."""
    made = imaging_pb2.Finding(
        finding_id=f"{study}-f{number}", study_instance_uid=study, series_instance_uid=f"{study}.1",
        kind=imaging_pb2.FINDING_KIND_LESION, tracking_id=f"Lesion {number}", tracking_uid=f"2.25.{number}",
        centroid_lps_mm=[10, 20, 30], frame_of_reference_uid="1.9",
    )  # fmt: skip
    made.observed_at.FromDatetime(FIRST + timedelta(days=day))
    measurement = made.measurements.add(concept=codes.LONG_AXIS.proto, method=method)
    measurement.value.value, measurement.value.unit = long_axis, "mm"
    measurement.value.uncertainty.not_estimated = "one reading"
    made.provenance.method, made.provenance.agent, made.provenance.code_version = "measure@1", "imaging", "0.1.0"
    made.provenance.recorded_at.FromDatetime(FIRST)
    return made


def analysis(study: str, day: int, *findings: imaging_pb2.Finding, key: str = KEY) -> imaging_pb2.StudyFindings:
    made = imaging_pb2.StudyFindings(study_instance_uid=study, patient_key=key, study_revision=1, findings=findings)
    made.study_time.FromDatetime(FIRST + timedelta(days=day))
    return made


def snapshot(key: str, name: str, findings: list[imaging_pb2.Finding]) -> fusion_pb2.PatientSnapshot:
    made = fusion_pb2.PatientSnapshot(patient_key=key, revision=1)
    made.demographics.family_name, made.demographics.given_name = name, "Ada"
    made.demographics.birth_date, made.demographics.record_number, made.demographics.sex = (
        "1965-02-14",
        "MRN-778",
        "female",
    )
    cancer = made.entries.add(entry_id="c1", kind=fusion_pb2.ENTRY_KIND_CONDITION, title="Malignant neoplasm of colon")
    cancer.codes.add(system="http://snomed.info/sct", code="363406005", display="Malignant neoplasm of colon")
    cancer.effective_at.FromDatetime(FIRST - timedelta(days=30))
    for item in findings:
        entry = made.entries.add(
            entry_id=item.finding_id, kind=fusion_pb2.ENTRY_KIND_FINDING, title=item.tracking_id, finding=item
        )
        entry.effective_at.CopyFrom(item.observed_at)
    return made


def advice(key: str) -> advisor_pb2.PatientAdvice:
    made = advisor_pb2.PatientAdvice(patient_key=key, priority=0.6)
    made.responses.add(
        criterion="RECIST 1.1",
        label="PR",
        category=advisor_pb2.RESPONSE_CATEGORY_PARTIAL,
        change_percent=-40,
        explanation="fell",
    )
    card = made.recommendations.add(
        recommendation_id="r1",
        rule_id="response.pr",
        summary="Go on, image in 8 weeks",
        urgency=advisor_pb2.URGENCY_INFO,
    )
    card.missing.add(fact="egfr", statement="kidney function of this month", supplier="the laboratory")
    return made


@dataclass
class Feed:
    """A board with everything under it. `handle` feeds one event; `announced` gives what it put in the outbox."""

    foundations: Foundations
    audit: Audit
    _app: Any = None

    def handle(self, message: Message, key: str = KEY, cause: str = "c", source: str = "imaging") -> None:
        event = pack(message, source=source, key=key, id=event_id("test", cause, type(message).__name__, key))
        effect = HANDLERS[event.type](event, message)
        with self.foundations.database.transaction("board") as tx:
            effect(tx)

    def announced(self) -> list[dict[str, Any]]:
        with self.foundations.database.session() as session:
            rows = session.execute(select(OUTBOX).where(OUTBOX.c.room == "board")).mappings().all()
        return [dict(row) for row in rows]

    def rows(self, name: str) -> list[Any]:
        with self.foundations.database.session() as session:
            return list(session.execute(select(tables.metadata.tables[name])))

    def app(self) -> Any:
        app = build_app(self.foundations.context())
        app.state.audit = self.audit
        return app

    def client(self, user: str = "board", app: Any = None) -> TestClient:
        """A browser with the session of a user whose name is their role."""
        browser = TestClient(app or self.shared_app, headers={"accept": "text/html"}, follow_redirects=True)
        session = self.foundations.security.session(Principal(user, frozenset({user})), 3600)
        browser.cookies.set(SESSION_COOKIE, session)
        return browser

    @property
    def shared_app(self) -> Any:
        if self._app is None:
            self._app = self.app()
        return self._app


def csrf(browser: TestClient) -> str:
    return browser.get("/tasks").text.split('name="csrf" content="')[1].split('"')[0]


def seed(feed: Feed, key: str = KEY, name: str = NAME) -> None:
    """A case: two visits, two lesions, advice, a forecast."""
    blobs = feed.foundations.blobs
    studies = {f"1.{key[0]}.1": (0, [(1, 40.0), (2, 30.0)]), f"1.{key[0]}.2": (84, [(1, 22.0), (2, 20.0)])}
    found = []
    for study, (day, sizes) in studies.items():
        findings = [finding(n, study, day, size) for n, size in sizes]
        found += findings
        manifest = ingest_pb2.StudyManifest(study_instance_uid=study, patient_key=key, revision=1)
        received = events_pb2.StudyReceived(patient_key=key, study_instance_uid=study, revision=1)
        received.manifest.CopyFrom(blobs.put(manifest.SerializeToString(), "application/protobuf", f"m/{study}"))
        received.study_time.FromDatetime(FIRST + timedelta(days=day))
        feed.handle(received, key, study, "ingest")
        feed.handle(events_pb2.FindingsReady(findings=analysis(study, day, *findings, key=key)), key, study)
    updated = events_pb2.PatientUpdated(patient_key=key, revision=1)
    content = snapshot(key, name, found).SerializeToString()
    updated.snapshot.CopyFrom(blobs.put(content, "application/protobuf", f"s/{key}"))
    feed.handle(updated, key, "u", "fusion")
    predictions = events_pb2.PredictionReady(
        predictions=twin_pb2.PatientPredictions(patient_key=key, snapshot_revision=1)
    )
    predictions.snapshot.CopyFrom(common_pb2.BlobRef(uri="file:///none"))
    feed.handle(predictions, key, "p", "twin")
    feed.handle(events_pb2.RecommendationReady(advice=advice(key)), key, "r", "advisor")


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the tables of platform and board, to copy."""
    home = tmp_path_factory.mktemp("board-tables")
    foundations = lay_foundations(Settings.load(home=home))
    migrate(foundations.database, "platform")
    migrate(foundations.database, "board")
    foundations.close()
    return home / "osler.db"


@pytest.fixture
def make_feed(tmp_path: Path, empty_database: Path) -> Iterator[Callable[..., Feed]]:
    made: list[Feed] = []

    def make(**settings: Any) -> Feed:
        loaded = Settings.load(home=tmp_path / "home", **settings)
        loaded.home.mkdir()
        shutil.copy(empty_database, loaded.home / "osler.db")
        foundations = lay_foundations(loaded)
        feed = Feed(foundations, Audit.from_settings(foundations.database, loaded))
        seed(feed)
        made.append(feed)
        return feed

    yield make
    for feed in made:
        feed.foundations.close()


@pytest.fixture
def feed(make_feed: Callable[..., Feed]) -> Feed:
    return make_feed()
