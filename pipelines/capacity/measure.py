"""What a study costs on this machine: a running Osler with every room as a process of its own, fed through its doors.

The demo patient is sent again and again under other record numbers and UIDs: first one at a time, which gives the cost model,
then several at once, which the simulation has to predict (`pipelines.capacity.model.one_machine`).
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import pydicom
from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.presentation import build_context

from pipelines.cohort import chart, demo
from services.compose.rooms import lay_foundations
from services.compose.topology import SUBSCRIPTIONS
from services.platform.config import ROOMS, Settings
from services.platform.errors import RetryableError

Say = Callable[[str], None]
STUDIES_OF_A_PATIENT = 2
_TICK = os.sysconf("SC_CLK_TCK")
_IDLE_S = 10.0
_LONGEST_S = 900.0


@dataclass(frozen=True)
class Patient:
    """A copy of the demo patient: what is sent, in the order of sending."""

    images: Sequence[Path]
    bundle: bytes
    messages: Sequence[bytes]

    @property
    def dicom_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.images)


@dataclass
class Machine:
    """A running Osler of this run alone: `home` keeps everything."""

    home: Path
    first_port: int
    quiet_period_s: float = 4.0
    _process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        named: dict[str, Any] = {"OSLER_HOME": self.home, "OSLER_DICOM__QUIET_PERIOD_S": self.quiet_period_s}
        named |= {"OMP_NUM_THREADS": 1, "OSLER_TELEMETRY__PROMETHEUS_PORT": self.first_port}
        numbers = iter(range(self.first_port + len(ROOMS) + 1, self.first_port + 40))
        named |= {"OSLER_DICOM__PORT": next(numbers), "OSLER_HL7__PORT": next(numbers)}
        for door, rooms in (
            ("GRPC", ("ingest", "imaging", "registration", "fusion", "twin", "advisor")),
            ("HTTP", ("ingest", "alerts", "board", "analytics")),
        ):
            named |= {f"OSLER_{door}__PORTS__{room.upper()}": next(numbers) for room in rooms}
        return {**os.environ, **{name: str(value) for name, value in named.items()}}

    def start(self, timeout_s: float = 600.0) -> None:
        """Returns when every room is ready. Raises TimeoutError or RuntimeError."""
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / "up.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "services.cli", "up"], stdout=log, stderr=log, env=self.environment
            )
        wait(lambda: all(self._ready(n) for n in range(len(ROOMS))), "every room is ready", timeout_s)

    def _ready(self, number: int) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise RuntimeError(f"`osler up` ended, see {self.home / 'up.log'}")
        try:
            url = f"http://127.0.0.1:{self.first_port + number}/readyz"
            return httpx.get(url, timeout=2, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(90)
            self._process = None

    def settings(self) -> Settings:
        with mock.patch.dict(os.environ, self.environment):
            return Settings.load()

    def token(self) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "services.cli", "token", "--role", "service"],
            capture_output=True, text=True, env=self.environment, check=True,
        )  # fmt: skip
        return done.stdout.strip()

    def cpu_seconds(self) -> dict[str, float]:
        """Room -> CPU seconds of its process and of what it started, since its start."""
        assert self._process is not None
        found = {entry: _stat(entry) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
        alive = {int(entry.name): stat for entry, stat in found.items() if stat is not None}
        rooms = {}
        for pid, (parent, own) in alive.items():
            if parent == self._process.pid:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if b"serve" in words:
                    room = words[words.index(b"serve") + 1].decode()
                    rooms[room] = own + sum(_below(pid, alive))
        return rooms

    def handled(self) -> dict[tuple[str, str], tuple[float, float]]:
        """(room, event type) -> (events, seconds in handlers), from every room's metrics."""
        counts: dict[tuple[str, str], list[float]] = {}
        line = re.compile(r'osler_event_seconds_(count|sum)\{group="([^"]+)",type="([^"]+)"\} (\S+)')
        for number in range(len(ROOMS)):
            text = httpx.get(f"http://127.0.0.1:{self.first_port + number}/metrics", timeout=30, trust_env=False).text
            for what, group, type_, value in line.findall(text):
                counts.setdefault((group, type_), [0.0, 0.0])[what == "sum"] = float(value)
        return {key: (events, seconds) for key, (events, seconds) in counts.items()}

    def stored_bytes(self) -> int:
        return sum(f.stat().st_size for f in self.home.rglob("*") if f.is_file())


def _stat(entry: Path) -> tuple[int, float] | None:
    """(parent, CPU seconds of the process and of its children that ended)."""
    try:
        fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return int(fields[1]), sum(int(fields[n]) for n in (11, 12, 13, 14)) / _TICK


def _below(pid: int, alive: Mapping[int, tuple[int, float]]) -> list[float]:
    children = [child for child, (parent, _) in alive.items() if parent == pid]
    return [alive[child][1] for child in children] + [s for child in children for s in _below(child, alive)]


def wait(condition: Callable[[], Any], what: str, timeout_s: float = _LONGEST_S, pause_s: float = 0.5) -> Any:
    """The condition's first true answer. Raises TimeoutError."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(pause_s)
    raise TimeoutError(f"not within {timeout_s:g} s: {what}")


def copies(folder: Path, number: int) -> list[Patient]:
    """The demo patient under `number` other identities."""
    demo.write(folder / "demo")
    originals = sorted((folder / "demo/dicom").rglob("*.dcm")) or sorted(
        f for f in (folder / "demo/dicom").rglob("*") if f.is_file()
    )
    return [_copy(originals, folder / f"copy-{n}", n) for n in range(number)]


def _copy(originals: Sequence[Path], folder: Path, number: int) -> Patient:
    folder.mkdir(parents=True)
    person = replace(demo.PERSON, name=f"SYNTHETIC^COPY{number}", record_number=f"COPY-{number:04d}")

    def renamed(_: Dataset, element: Any) -> None:
        if element.VR == "UI" and isinstance(element.value, str) and not element.value.startswith("1.2.840.10008."):
            element.value = _uid(element.value, number)

    images = []
    for n, original in enumerate(originals):
        dataset = pydicom.dcmread(original)
        dataset.walk(renamed)
        dataset.PatientName, dataset.PatientID = person.name, person.record_number
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        images.append(folder / f"{n:05d}.dcm")
        dataset.save_as(images[-1])
    bundle = json.dumps(chart.fhir_bundle(person)).encode()
    return Patient(images, bundle, [message.encode() for message in chart.hl7_messages(person)])


def _uid(uid: str, number: int) -> str:
    return f"2.25.{int(hashlib.sha256(f'{number}/{uid}'.encode()).hexdigest()[:30], 16)}"


def send_images(patient: Patient, port: int) -> None:
    """One association, every instance acknowledged. Raises RuntimeError when one is not."""
    datasets = [pydicom.dcmread(path) for path in patient.images]
    kinds = {(d.SOPClassUID, d.file_meta.TransferSyntaxUID) for d in datasets}
    entity = AE("MEASURE")
    association = entity.associate(
        "127.0.0.1", port, [build_context(*kind) for kind in sorted(kinds)], ae_title="OSLER"
    )
    if not association.is_established:
        raise RuntimeError("the DICOM door does not take the association")
    for dataset in datasets:
        status = association.send_c_store(dataset)
        if not status or status.Status != 0:
            raise RuntimeError(f"C-STORE was answered with {status}")
    association.release()


def send_chart(patient: Patient, settings: Settings, token: str) -> None:
    """Bundle and laboratory messages, each acknowledged."""
    for message in patient.messages:
        with socket.create_connection(("127.0.0.1", settings.hl7.port), timeout=60) as line:
            line.sendall(b"\x0b" + message + b"\x1c\r")
            answer = b""
            while not answer.endswith(b"\x1c\r"):
                part = line.recv(65536)
                if not part:
                    raise RuntimeError("the HL7 door closed before it acknowledged")
                answer += part
            if b"MSA|AA|" not in answer:
                raise RuntimeError("the HL7 door refused a laboratory message")
    url = f"http://127.0.0.1:{settings.http.port('ingest')}/fhir"
    headers = {"authorization": f"Bearer {token}", "content-type": "application/fhir+json"}
    httpx.post(url, content=patient.bundle, headers=headers, timeout=120, trust_env=False).raise_for_status()


@dataclass(frozen=True)
class Run:
    """Some patients sent, from the first byte until no room was behind. Seconds; CPU without what an idle room takes."""

    patients: int
    seconds: float
    cpu: Mapping[str, float]
    sender_cpu: float
    events: Mapping[str, int]
    turnaround_s: Sequence[float]


def run_patients(machine: Machine, patients: Sequence[Patient], token: str, idle: Mapping[str, float]) -> Run:
    """Sends the patients one after the other without waiting, then waits until all is done."""
    settings = machine.settings()
    foundations = lay_foundations(settings)
    try:
        before, began, own, at = machine.cpu_seconds(), time.monotonic(), time.process_time(), datetime.now(UTC)
        for patient in patients:
            send_chart(patient, settings, token)
            send_images(patient, settings.dicom.port)
        sent_cpu = time.process_time() - own

        def events() -> list[Any]:
            return [
                r.event for topic in sorted(EVENTS) for r in foundations.log.read([topic]) if r.event.known_time >= at
            ]

        def done() -> list[Any]:
            refused = [item.refusal.reason for item in foundations.quarantine.list()]
            if refused:
                raise RuntimeError(f"nothing is measured where work is refused: {', '.join(sorted(set(refused)))}")
            try:
                behind = any(sum(foundations.log.lag(r, topics).values()) for r, topics in SUBSCRIPTIONS.items())
                found = [] if behind else events()
            except RetryableError:
                return []
            studies = [e for e in found if e.type == "osler.study.received.v1"]
            read = {e.key for e in found if e.type == "osler.recommendation.ready.v1"}
            return found if len(studies) == STUDIES_OF_A_PATIENT * len(patients) and len(read) == len(patients) else []

        found = wait(done, "every room has done its work", pause_s=1.0)
        last = max(e.known_time for e in found)
        after = machine.cpu_seconds()
        lasted = time.monotonic() - began
        cpu = {room: max(0.0, after[room] - before[room] - idle[room] * lasted) for room in after}
        return Run(
            len(patients), (last - at).total_seconds(), cpu, sent_cpu,
            dict(Counter(e.type for e in found)), _turnarounds(found),
        )  # fmt: skip
    finally:
        foundations.close()


EVENTS = frozenset(
    {"osler.study.received.v1", "osler.record.received.v1", "osler.findings.ready.v1", "osler.registration.ready.v1",
     "osler.patient.updated.v1", "osler.prediction.ready.v1", "osler.recommendation.ready.v1"}
)  # fmt: skip


def _turnarounds(events: Sequence[Any]) -> list[float]:
    """Of each patient: seconds from the first study's announcement to the last advice."""
    first: dict[str, datetime] = {}
    last: dict[str, datetime] = {}
    for event in events:
        if event.type == "osler.study.received.v1":
            first[event.key] = min(first.get(event.key, event.known_time), event.known_time)
        if event.type == "osler.recommendation.ready.v1":
            last[event.key] = max(last.get(event.key, event.known_time), event.known_time)
    return sorted((last[key] - first[key]).total_seconds() for key in last if key in first)


def measure(
    folder: Path, first_port: int, single: int, burst: int, say: Say, begin: Callable[[], None]
) -> dict[str, Any]:
    """Everything: `single` patients one at a time, then `burst` at once. `begin` is called when all is prepared."""
    say("writing patients")
    patients = copies(folder / "patients", 1 + single + burst)
    machine = Machine(folder / "home", first_port)
    try:
        say("starting Osler")
        machine.start()
        token = machine.token()
        say("one patient to warm up: models are loaded, caches filled")
        run_patients(machine, patients[:1], token, dict.fromkeys(ROOMS, 0.0))
        begin()
        say(f"idle for {_IDLE_S:g} s")
        resting = machine.cpu_seconds()
        time.sleep(_IDLE_S)
        idle = {room: (cpu - resting[room]) / _IDLE_S for room, cpu in machine.cpu_seconds().items()}
        held, handled = machine.stored_bytes(), machine.handled()
        alone = []
        for n, patient in enumerate(patients[1 : 1 + single]):
            say(f"patient {n + 1} of {single}, alone")
            alone.append(run_patients(machine, [patient], token, idle))
        stored = (machine.stored_bytes() - held) / (single * STUDIES_OF_A_PATIENT)
        seconds = _per_event(handled, machine.handled())
        say(f"{burst} patients at once")
        together = run_patients(machine, patients[1 + single :], token, idle)
    finally:
        machine.stop()
    return _written(patients[0], alone, together, idle, stored, seconds, machine.quiet_period_s)


def _per_event(before: Mapping[Any, Any], after: Mapping[Any, Any]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for (room, type_), (events, seconds) in sorted(after.items()):
        old_events, old_seconds = before.get((room, type_), (0.0, 0.0))
        if events > old_events:
            found.setdefault(room, {})[type_] = round((seconds - old_seconds) / (events - old_events), 4)
    return found


def _written(
    patient: Patient, alone: Sequence[Run], together: Run, idle: Mapping[str, float], stored: float,
    seconds: Mapping[str, Any], quiet: float,
) -> dict[str, Any]:  # fmt: skip
    studies = STUDIES_OF_A_PATIENT * len(alone)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {"cores": os.cpu_count(), "processor": _processor(), "system": platform.platform(terse=True)},
        "setting": "embedded: SQLite log and state, files; every room a process; one worker each; models on the CPU",
        "load_average_before": [round(x, 2) for x in os.getloadavg()],
        "quiet_period_s": quiet,
        "per_study": {
            "instances": len(patient.images) / STUDIES_OF_A_PATIENT,
            "dicom_bytes": round(patient.dicom_bytes / STUDIES_OF_A_PATIENT),
            "stored_bytes": round(stored),
            "events": {t: round(sum(r.events.get(t, 0) for r in alone) / studies, 2) for t in sorted(EVENTS)},
            "cpu_s": {room: round(sum(r.cpu[room] for r in alone) / studies, 3) for room in ROOMS},
            "sender_cpu_s": round(sum(r.sender_cpu for r in alone) / studies, 3),
        },
        "handler_s": {room: dict(types) for room, types in seconds.items()},
        "idle_cores": {room: round(idle[room], 4) for room in ROOMS},
        "alone": {"patients": len(alone), "seconds": [round(r.seconds, 1) for r in alone],
                  "turnaround_s": [round(t, 1) for r in alone for t in r.turnaround_s]},
        "together": {"patients": together.patients, "seconds": round(together.seconds, 1),
                     "turnaround_s": [round(t, 1) for t in together.turnaround_s],
                     "cpu_s": {room: round(together.cpu[room], 2) for room in ROOMS},
                     "sender_cpu_s": round(together.sender_cpu, 2)},
    }  # fmt: skip


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
