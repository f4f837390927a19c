"""The archive's index on SQLite and on PostgreSQL: the same answers, and every instance once, however many send."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from services.ingest.query import from_parameters
from services.ingest.search import find
from services.platform.database import migrate
from tests.fixtures import ingest_rooms
from tests.fixtures.dicom_files import ROOT, ct

ORU = b"MSH|^~\\&|LAB|GH|OSLER|GH|20250102||ORU^R01|C-1|P|2.5.1\rPID|1||MRN-1^^^^MR\r"


@pytest.fixture
def parts(database, tmp_path):
    migrate(database, "ingest")
    return ingest_rooms.build(tmp_path, database=database)


def search(parts, level, **parameters):
    query = from_parameters(level, list(parameters.items()), {})
    with parts.database.session() as session:
        return find(session, query)


def test_matching_is_the_same(parts):
    parts.receiver.receive(ct(1))
    parts.receiver.receive(ct(2, study=f"{ROOT}.2", series=f"{ROOT}.2.1", PatientName="Müller^Ö", Modality="MR"))
    assert len(search(parts, "study")) == 2
    assert len(search(parts, "study", PatientName="DOE*")) == 1
    assert len(search(parts, "study", PatientName="müller*")) == 1
    assert len(search(parts, "study", PatientName="jan", fuzzymatching="true")) == 1
    assert len(search(parts, "study", StudyDescription="ct*")) == 2
    assert len(search(parts, "study", StudyDescription="c_*")) == 0
    assert len(search(parts, "study", ModalitiesInStudy="MR")) == 1
    assert len(search(parts, "instance", StudyDate="20250101-20250103", limit="1")) == 1
    assert [s["00080060"]["Value"] for s in search(parts, "series", SeriesInstanceUID=f"{ROOT}.2.1")] == [["MR"]]


def test_many_senders_store_each_instance_once_and_it_is_announced_once(parts):
    files = [ct(number) for number in range(1, 7)] * 3
    with ThreadPoolExecutor(4) as pool:
        statuses = list(pool.map(lambda content: parts.receiver.receive(content).status, files))
        assert sorted(statuses) == ["duplicate"] * 12 + ["stored"] * 6
        announced = list(pool.map(lambda _: parts.archive.complete_due(force=True), range(4)))
    assert announced.count(True) == 1
    assert len(parts.events("osler.study.received")) == 1


def test_records_are_kept_once(parts):
    with ThreadPoolExecutor(4) as pool:
        taken = list(pool.map(lambda _: parts.records.receive_message(ORU), range(8)))
    assert sum(len(one.event_ids) for one in taken) == 1
    assert len(parts.events()) == 1


def test_padding_with_nul_is_no_trouble(parts):
    parts.receiver.receive(ct(1, PatientName="Doe\x00^Jane\x00", PatientID="MRN-1\x00", StudyDescription="a\x00b"))
    assert parts.reasons() == []
    assert len(search(parts, "study", PatientID="MRN-1")) == 1
