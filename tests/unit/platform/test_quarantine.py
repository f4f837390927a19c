"""The quarantine: refused input is kept once, with its reason, until it goes in again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from osler.common.v1.common_pb2 import BlobRef, Refusal

from services.platform.blobs import BlobStore
from services.platform.database import Database, migrate
from services.platform.errors import RefusedError
from services.platform.quarantine import Quarantine, refusal_of

_NO_ID = Refusal(
    reason="dicom.missing_patient_id", message="no PatientID", missing=["(0010,0020)"], remedy="fill it in"
)


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(f"file://{tmp_path}/blobs")


@pytest.fixture
def quarantine(tmp_path: Path, blobs: BlobStore) -> Iterator[Quarantine]:
    database = Database(f"sqlite:///{tmp_path}/state.db")
    migrate(database, "platform")
    yield Quarantine(database, blobs)
    database.close()


def test_an_item_keeps_content_and_reason(quarantine: Quarantine) -> None:
    item_id = quarantine.add("dicom", b"not DICOM", _NO_ID)
    item = quarantine.get(item_id)
    assert (item.door, item.refusal, item.replays, item.replayed_at) == ("dicom", _NO_ID, 0, None)
    assert item.added_at.tzinfo is not None
    assert quarantine.content(item_id) == b"not DICOM"


def test_the_same_content_for_the_same_reason_is_one_item(quarantine: Quarantine) -> None:
    first = quarantine.add("dicom", b"x", _NO_ID)
    assert quarantine.add("dicom", b"x", _NO_ID) == first
    others = {
        quarantine.add("hl7", b"x", _NO_ID),
        quarantine.add("dicom", b"y", _NO_ID),
        quarantine.add("dicom", b"x", Refusal(reason="dicom.truncated", message="cut short")),
    }
    assert len(others | {first}) == 4
    assert len(quarantine.list()) == 4


def test_content_that_is_stored_already_is_kept_by_reference(quarantine: Quarantine, blobs: BlobStore) -> None:
    ref = blobs.put(b"stored", "application/dicom", "instances/1.2.dcm")
    item_id = quarantine.add("dicom", ref, _NO_ID)
    assert quarantine.get(item_id).content == ref
    assert quarantine.add("dicom", ref, _NO_ID) == item_id


def test_foreign_objects_without_a_hash_are_told_apart_by_their_address(quarantine: Quarantine) -> None:
    refs = [BlobRef(uri=f"https://pacs.example/instances/{number}") for number in range(2)]
    assert len({quarantine.add("dicom", ref, _NO_ID) for ref in refs}) == 2


def test_a_replay_goes_through_the_door_and_is_noted(quarantine: Quarantine) -> None:
    taken: list[bytes] = []
    quarantine.register("dicom", taken.append)
    item_id = quarantine.add("dicom", b"now fine", _NO_ID)
    quarantine.replay(item_id)
    assert taken == [b"now fine"]
    assert quarantine.list() == []
    (item,) = quarantine.list(include_replayed=True)
    assert item.replays == 1
    assert item.replayed_at is not None


def test_what_is_refused_again_stays(quarantine: Quarantine) -> None:
    error = RefusedError("dicom.missing_patient_id", "no PatientID")

    def refuse(_content: bytes) -> None:
        raise error

    quarantine.register("dicom", refuse)
    item_id = quarantine.add("dicom", b"x", _NO_ID)
    with pytest.raises(RefusedError):
        quarantine.replay(item_id)
    assert [item.id for item in quarantine.list()] == [item_id]


def test_what_is_refused_again_after_a_replay_waits_again(quarantine: Quarantine) -> None:
    item_id = quarantine.add("event:imaging", b"x", _NO_ID)
    quarantine.mark_replayed(item_id)
    assert quarantine.list() == []
    quarantine.add("event:imaging", b"x", _NO_ID)
    assert [item.id for item in quarantine.list()] == [item_id]


def test_one_replayer_serves_the_events_of_every_group(quarantine: Quarantine) -> None:
    taken: list[bytes] = []
    quarantine.register("event", taken.append)
    quarantine.replay(quarantine.add("event:imaging", b"1", _NO_ID))
    quarantine.replay(quarantine.add("event:fusion", b"2", _NO_ID))
    assert taken == [b"1", b"2"]


def test_an_unknown_item_or_door_is_named(quarantine: Quarantine) -> None:
    with pytest.raises(KeyError, match="osler quarantine list"):
        quarantine.get("no-such-item")
    item_id = quarantine.add("fax", b"x", _NO_ID)
    with pytest.raises(LookupError, match="'fax'"):
        quarantine.replay(item_id)


def test_a_refusal_carries_what_the_error_said() -> None:
    error = RefusedError("suv.missing_dose", "no dose", missing=["(0018,1074)"], remedy="ask")
    assert refusal_of(error, "1.2.3") == Refusal(
        reason="suv.missing_dose", message="no dose", missing=["(0018,1074)"], remedy="ask", subject="1.2.3"
    )
