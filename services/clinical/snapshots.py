"""Patient snapshots: what fusion knew of a patient at one revision, read by its reference."""

from __future__ import annotations

from google.protobuf.message import DecodeError
from osler.common.v1 import common_pb2
from osler.fusion.v1 import fusion_pb2

from services.platform.blobs import BlobStore
from services.platform.errors import RefusedError


def read_snapshot(blobs: BlobStore, reference: common_pb2.BlobRef) -> fusion_pb2.PatientSnapshot:
    """The snapshot behind a reference. Raises RefusedError `snapshot.unreadable`."""
    try:
        return fusion_pb2.PatientSnapshot.FromString(blobs.get(reference))
    except DecodeError as error:
        raise RefusedError(
            "snapshot.unreadable",
            "the blob that the event refers to is not a patient snapshot",
            remedy="announce the update again from fusion",
            subject=reference.sha256,
        ) from error
