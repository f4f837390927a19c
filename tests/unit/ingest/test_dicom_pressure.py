"""Back-pressure from the event bus to the DICOM association: refused for now, never dropped."""

from __future__ import annotations

from datetime import UTC, datetime
from io import BytesIO

import pydicom
import pytest
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage
from sqlalchemy import select, update

from services.ingest.archive import ROOM
from services.ingest.dicom_pressure import Backlog
from services.ingest.scp import DicomListener
from services.platform.bus import SqliteEventLog
from services.platform.errors import RetryableError
from services.platform.outbox import Relay
from services.platform.tables import OUTBOX
from tests.fixtures import ingest_rooms
from tests.fixtures.dicom_files import ROOT, ct

STUDY = "osler.study.received.v1"
LIMIT = 2


@pytest.fixture
def parts(tmp_path):
    parts = ingest_rooms.build(tmp_path)
    yield parts
    parts.database.close()


def study(number: int) -> bytes:
    """A study of one slice, complete and announced at once."""
    uid = f"{ROOT}.{number}"
    return ct(1, study=uid, series=f"{uid}.1", PatientID=f"P{number}", NumberOfStudyRelatedInstances=1)


def send(port: int, *contents: bytes) -> list[int]:
    scanner = AE("SCANNER")
    scanner.add_requested_context(CTImageStorage)
    association = scanner.associate("127.0.0.1", port)
    statuses = [association.send_c_store(pydicom.dcmread(BytesIO(content))).Status for content in contents]
    association.release()
    return statuses


def test_c_store_is_refused_for_now_while_the_bus_is_away_and_nothing_is_dropped(parts, tmp_path):
    clock = ingest_rooms.Clock()
    backlog = Backlog(parts.database, ROOM, LIMIT, lambda: clock().timestamp())
    listener = DicomListener(
        parts.receiver, ae_title="OSLER", host="127.0.0.1", port=0, peers={}, admit=backlog.check, share_port=True
    )
    listener.start()
    studies = [study(number) for number in range(1, 6)]
    log = SqliteEventLog(tmp_path / "log.db")
    relay = Relay(parts.database, log, ROOM)
    try:
        # The bus is away: nothing empties the outbox. The first look finds room, the next one does not.
        assert send(listener.port, *studies[:3]) == [0, 0, 0]
        clock.pass_s(1)
        assert send(listener.port, *studies[3:]) == [0xA700, 0xA700]
        assert relay.pending() == 3
        assert relay.drain() == 3
        clock.pass_s(1)
        # A scanner's queue sends again what was not accepted.
        assert send(listener.port, *studies[3:]) == [0, 0]
    finally:
        listener.stop()
    relay.drain()
    keys = [record.event.subject for record in log.read([STUDY])]
    assert sorted(keys) == [f"{ROOT}.{number}" for number in range(1, 6)]
    assert parts.quarantine.list() == []


def test_two_listeners_share_a_port_and_stop_on_their_own(parts):
    doors = []
    for port in (0, None):
        door = DicomListener(
            parts.receiver,
            ae_title="OSLER",
            host="127.0.0.1",
            port=doors[0].port if port is None else port,
            peers={},
            share_port=True,
        )
        door.start()
        doors.append(door)
    assert doors[0].port == doors[1].port
    doors[0].stop()
    assert send(doors[1].port, study(1)) == [0]
    doors[1].stop()


def test_the_limit_eases_below_itself_and_0_is_none(parts):
    for number in range(1, 12):
        parts.receiver.receive(study(number))
    now = [0.0]
    Backlog(parts.database, ROOM, 0).check()
    Backlog(parts.database, ROOM, 11).check()
    backlog = Backlog(parts.database, ROOM, 10, lambda: now[0])
    for left, let_in in ((11, False), (9, False), (8, True), (10, True)):
        _leave(parts.database, left)
        now[0] += 1.0
        if let_in:
            backlog.check()
        else:
            with pytest.raises(RetryableError, match="event bus"):
                backlog.check()


def _leave(database, count: int) -> None:
    """Marks all but `count` events as published."""
    with database.transaction(ROOM) as tx:
        ids = list(tx.session.scalars(select(OUTBOX.c.id).order_by(OUTBOX.c.id)))
        tx.session.execute(update(OUTBOX).values(sent_at=None))
        sent = OUTBOX.c.id.in_(ids[count:])
        tx.session.execute(update(OUTBOX).where(sent).values(sent_at=datetime.now(UTC)))
