"""The page of figures: for those who may sign in, without a patient on it, and whole also when the lake is empty."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from services.analytics import app as analytics_app
from services.compose.rooms import Foundations, lay_foundations, migrate_all
from services.platform.config import Settings
from services.platform.http import SESSION_COOKIE
from services.platform.security import Principal
from tests.unit.analytics.conftest import Lake
from tests.unit.analytics.hospital import feedback, hospital_events, judged, predicted


@pytest.fixture
def foundations(tmp_path: Path):
    found = lay_foundations(Settings.load(home=tmp_path / "home"))
    migrate_all(found.database, ["analytics"])
    yield found
    found.close()


def browser(foundations: Foundations, folder: Path, role: str | None) -> TestClient:
    client = TestClient(
        analytics_app.build_app(foundations.context(), folder), headers={"accept": "text/html"}, follow_redirects=False
    )
    if role:
        session = foundations.security.session(Principal(role, frozenset({role})), 3600)
        client.cookies.set(SESSION_COOKIE, session)
    return client


def test_a_full_lake_and_an_empty_one(foundations: Foundations, lake_of: Lake, tmp_path: Path) -> None:
    lake_of.fill(
        [
            *hospital_events(lake_of),
            *(feedback(str(n), "accepted" if n % 3 else "overridden", 0) for n in range(60)),
            *(feedback(f"r{n}", "accepted", 0, rule="rare.rule") for n in range(3)),
            predicted("p", 0, [(0, 20)], 0.9), predicted("p", 70, [(0, 20), (70, 23)], 0.9), judged("p", 40, "PROGRESSIVE"),
        ]
    )  # fmt: skip
    client = browser(foundations, lake_of.folder, "admin")
    page = client.get("/?outcome=rejected&by=scanner").text
    for shown in (
        "SUVmax",
        "duplicate.recent",
        "Old",
        "<option selected>scanner</option>",
        "Probability of progression, 1",
    ):
        assert shown in page
    rare = page.split("rare.rule")[1].split("</tr>")[0]
    assert "3" not in rare
    assert "–" in rare
    assert '"p1"' not in client.get("/figures").text
    assert client.get("/figures").json()["fairness"]
    assert browser(foundations, tmp_path / "none", "board").get("/").text.count("yet.") == 8


@pytest.mark.parametrize(
    ("role", "path", "status"),
    [
        (None, "/", 303),
        (None, "/figures", 303),
        ("service", "/", 403),
        ("service", "/figures", 200),
        ("analyst", "/?by=patient_key", 422),
        ("analyst", "/?outcome=x", 422),
    ],
)
def test_who_may_not_and_what_there_is_not(foundations: Foundations, tmp_path: Path, role, path, status) -> None:
    answer = browser(foundations, tmp_path, role).get(path)
    assert answer.status_code == status
    if status == 303:
        assert answer.headers["location"].startswith("/login")
