"""How fast records come in, on real parts: SQLite, blobs on disk. Prints resources and messages per second.

The figure that counts is per second of CPU time of one process, next to a bare loop that only reads the same JSON: a busy
machine stretches the wall clock. Peers: HAPI FHIR takes 2,214 resources/s in bundles on 8 cores (published).
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import orjson
import pytest

from services.fusion.chart import read_chart
from services.fusion.laboratory import read_message
from services.ingest import fhir_stream
from services.ingest.mllp import MllpListener
from services.ingest.mllp_framing import frame
from tests.fixtures import ingest_rooms

pytestmark = pytest.mark.slow
RECEIVED = datetime(2026, 1, 1, tzinfo=UTC)
PATIENTS, EACH = 1000, 100
MESSAGES = 4000


@pytest.fixture
def parts(tmp_path):
    made = ingest_rooms.build(tmp_path)
    yield made
    made.database.close()


class Watch:
    """CPU seconds of this process and wall seconds since it was made."""

    def __init__(self) -> None:
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def rates(self, count: int) -> tuple[float, float]:
        return count / (time.process_time() - self._cpu), count / (time.perf_counter() - self._wall)


def export(folder: Path) -> list[Path]:
    """A bulk export: 1,000 patients with 100 observations each, observations of all patients mixed."""
    folder.mkdir()
    patients, observations = folder / "Patient.ndjson", folder / "Observation.ndjson"
    with patients.open("w") as file:
        for p in range(PATIENTS):
            file.write(json.dumps({"resourceType": "Patient", "id": f"p{p}", "identifier": [{"value": f"{p}"}]}) + "\n")
    with observations.open("w") as file:
        for n in range(EACH):
            for p in range(PATIENTS):
                file.write(json.dumps(observation(p, n)) + "\n")
    return [patients, observations]


def observation(p: int, n: int) -> dict:
    return {
        "resourceType": "Observation",
        "id": f"00000000-0000-4000-8000-{p:06d}{n:06d}",
        "meta": {"lastUpdated": "2025-03-01T12:00:00Z", "profile": ["http://hl7.org/fhir/StructureDefinition/x"]},
        "status": "final",
        "category": [{"coding": [{"system": "http://hl7.org/fhir/observation-category", "code": "laboratory"}]}],
        "code": {"coding": [{"system": "http://loinc.org", "code": "2160-0", "display": "Creatinine"}], "text": "Creatinine"},
        "subject": {"reference": f"Patient/p{p}"},
        "effectiveDateTime": f"2025-{n % 12 + 1:02d}-{n % 28 + 1:02d}T10:00:00Z",
        "issued": "2025-03-01T11:00:00Z",
        "valueQuantity": {"value": 1 + n / 100, "unit": "mg/dL", "system": "http://unitsofmeasure.org", "code": "mg/dL"},
        "referenceRange": [{"low": {"value": 0.6, "code": "mg/dL"}, "high": {"value": 1.2, "code": "mg/dL"}}],
    }  # fmt: skip


def bare_loop(paths: list[Path]) -> float:
    """Resources per CPU second of a loop that parses every line and does nothing with it."""
    watch, count = Watch(), 0
    for path in paths:
        with path.open("rb") as file:
            for line in file:
                orjson.loads(line)
                count += 1
    return watch.rates(count)[0]


def test_ndjson_import(parts, tmp_path, capsys):
    paths = export(tmp_path / "export")
    size = sum(path.stat().st_size for path in paths)
    bare = bare_loop(paths)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    watch = Watch()
    done = fhir_stream.import_files(parts.records, paths)
    cpu, wall = watch.rates(done.resources)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert (done.resources, done.records, done.refused_resources) == (PATIENTS * (EACH + 1), PATIENTS, 0)
    with capsys.disabled():
        print(
            f"\nNDJSON import: {cpu:,.0f} resources/s of CPU, {wall:,.0f}/s of wall clock; {size / 1e6:.0f} MB, peak memory "
            f"+{grown:.0f} MB, {done.checked} checked against the model; bare parse {bare:,.0f}/s, ratio {cpu / bare:.2f}"
        )
    assert grown < 200
    watch = Watch()
    again = fhir_stream.import_files(parts.records, paths)
    assert (again.records, again.unchanged) == (0, PATIENTS)


def test_charts_into_facts(capsys):
    content = json.dumps(
        {"resourceType": "Bundle", "entry": [{"resource": observation(1, n)} for n in range(1000)]}
    ).encode()
    read_chart(content, received_at=RECEIVED)
    watch = Watch()
    facts = sum(len(read_chart(content, received_at=RECEIVED).facts) for _ in range(3))
    with capsys.disabled():
        print(f"\nFHIR into facts: {watch.rates(facts)[0]:,.0f} resources/s of CPU, one process")
    assert facts == 3000


def oru(n: int) -> bytes:
    obx = "".join(
        f"OBX|{i}|NM|{code}^x^LN||{1 + (n + i) % 70 / 10}|{unit}|0.6-9||||F\r"
        for i, (code, unit) in enumerate([("2160-0", "mg/dL"), ("2951-2", "mmol/L"), ("718-7", "g/dL")], 1)
    )
    return (
        "MSH|^~\\&|LAB|GH|OSLER|GH|20250302103000+0000||ORU^R01^ORU_R01|"
        f"C{n}|P|2.5.1\rPID|1||{n % 200}^^^GH^MR||Muster^Erika||19640229|F\r"
        f"OBR|1||L{n}|24323-8^CMP^LN|||20250301100000+0000|||||||||||||||20250301110000+0000|||F\r{obx}"
    ).encode()


def test_hl7_files(parts, capsys):
    content = b"\r".join(oru(n) for n in range(MESSAGES))
    watch = Watch()
    taken = parts.records.receive_messages(content)
    cpu, wall = watch.rates(MESSAGES)
    assert len(taken.event_ids) == MESSAGES
    with capsys.disabled():
        print(f"\nHL7 v2 file: {cpu:,.0f} messages/s of CPU, {wall:,.0f}/s of wall clock, kept and announced")


def test_hl7_over_mllp(parts, capsys):
    """Sixty-four senders that each wait for the acknowledgement before they send the next message, in a process of their
    own, as senders are other machines."""
    listener = MllpListener(parts.records, "127.0.0.1", 0, 1 << 20)
    listener.start()
    senders, each = 64, 60
    spawn = multiprocessing.get_context("spawn")
    ready, accepted = spawn.Barrier(2), spawn.Queue()
    process = spawn.Process(target=send_all, args=(listener.port, senders, each, ready, accepted))
    process.start()
    ready.wait(60)
    watch = Watch()
    count = accepted.get(timeout=300)
    cpu, wall = watch.rates(senders * each)
    process.join()
    listener.stop()
    assert count == senders * each
    with capsys.disabled():
        print(
            f"\nMLLP, {senders} senders: {wall:,.0f} messages/s kept and acknowledged, {cpu:,.0f}/s of the listener's CPU"
        )


def send_all(port: int, senders: int, each: int, ready: Barrier, accepted: Queue[int]) -> None:
    """Opens the lines, then sends; puts how many messages were accepted."""
    counts = []

    def send(line: socket.socket, sender: int) -> None:
        replies = answers(line, (oru(sender * each + n) for n in range(each)))
        counts.append(sum(b"MSA|AA|" in ack for ack in replies))

    lines = [socket.create_connection(("127.0.0.1", port)) for _ in range(senders)]
    threads = [threading.Thread(target=send, args=(line, n)) for n, line in enumerate(lines)]
    ready.wait()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    accepted.put(sum(counts))


def answers(line: socket.socket, messages: Iterator[bytes]) -> Iterator[bytes]:
    for message in messages:
        line.sendall(frame(message))
        ack = b""
        while not ack.endswith(b"\x1c\r"):
            ack += line.recv(4096)
        yield ack


def test_messages_into_facts(capsys):
    messages = [oru(n) for n in range(1500)]
    read_message(messages[0], received_at=RECEIVED)
    watch = Watch()
    facts = sum(len(read_message(m, received_at=RECEIVED).facts) for m in messages)
    cpu, _ = watch.rates(len(messages))
    with capsys.disabled():
        print(f"\nHL7 v2 into facts: {cpu:,.0f} messages/s of CPU, {facts} facts, one process")
    assert facts == 4 * len(messages)
