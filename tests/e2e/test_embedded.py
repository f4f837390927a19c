"""The flow on one machine: SQLite event log, SQLite state, files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from pipelines.cohort import demo
from services.platform.config import ROOMS
from tests.e2e.collector import Collector, collecting
from tests.e2e.flow import *  # noqa: F403 - the same tests in both settings
from tests.e2e.flow import STUDIES
from tests.e2e.running import RunningOsler

# What a study passes on its way to a card in the EHR.
ON_THE_WAY = {f"osler-{room}" for room in ("ingest", "imaging", "fusion", "twin", "advisor", "alerts", "board")}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


@pytest.fixture(scope="module")
def osler(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[RunningOsler]:
    """Osler with every room as a process of its own."""
    traced = {"OSLER_TELEMETRY__OTLP_ENDPOINT": collector.endpoint}
    found = RunningOsler(tmp_path_factory.mktemp("osler") / "home", traced)
    try:
        found.start()
        yield found
    finally:
        found.stop()


def test_one_trace_leads_from_the_first_instance_to_the_card(
    case: dict[str, Any], osler: RunningOsler, collector: Collector
) -> None:
    """C-STORE, event headers, every room on the way, the advice that alerts keeps for its cards: one trace of a study."""
    with osler.foundations() as foundations:
        received = list(foundations.log.read(["osler.study.received.v1"]))
        advice = list(foundations.log.read(["osler.recommendation.ready.v1"]))
    # The bad input of another test left studies of its own.
    told = {record.event.subject: record.event.traceparent.split("-")[1] for record in received}
    traces = {uid: told[uid] for uid in STUDIES}
    assert len(set(traces.values())) == len(STUDIES)
    assert set(traces.values()) & {record.event.traceparent.split("-")[1] for record in advice}

    def followed() -> bool:
        spans = [s for s in collector.spans() if s.trace_id in traces.values()]
        kept = {s.trace_id for s in spans if s.service == "osler-alerts" and "recommendation.ready" in s.name}
        filed = {s.trace_id for s in spans if s.name == "instance file"}
        return filed == set(traces.values()) and any(
            {s.service for s in spans if s.trace_id == trace} >= ON_THE_WAY for trace in kept
        )

    osler.wait_until(followed, "one trace holds every room", 60)


def test_no_patient_data_in_traces_and_metrics(case: dict[str, Any], osler: RunningOsler, collector: Collector) -> None:
    scraped = b""
    for number, _ in enumerate(ROOMS):
        url = f"http://127.0.0.1:{osler.ports['operations'] + number}/metrics"
        scraped += httpx.get(url, timeout=30, trust_env=False).content
    assert b"osler_events_handled_total" in scraped
    sent = collector.everything()
    assert len(collector.spans()) > 100
    person = demo.PERSON
    key = case["patients"][0]["patient_key"]
    for secret in ("SYNTHETIC", person.record_number, person.birth_date, "1965-02-14", person.issuer, key, *STUDIES):
        assert secret.encode() not in scraped, secret
        assert secret.encode() not in sent, secret
