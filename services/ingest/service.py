"""gRPC: records in, studies and quarantine out."""

from __future__ import annotations

from typing import Any

from osler.ingest.v1 import ingest_pb2, ingest_pb2_grpc

from services.clinical.refusals import to_refusal
from services.ingest import store
from services.ingest.archive import Archive
from services.ingest.records import Records, Taken
from services.platform.errors import RefusedError
from services.platform.quarantine import Quarantine, QuarantineItem
from services.platform.rpc import InvalidRequestError, NotFoundError

DEFAULT_PAGE = 100


class IngestService(ingest_pb2_grpc.IngestServiceServicer):
    """`osler.ingest.v1.IngestService`."""

    def __init__(self, archive: Archive, records: Records, quarantine: Quarantine) -> None:
        self._archive = archive
        self._records = records
        self._quarantine = quarantine

    def ImportRecord(  # noqa: N802 - named by the contract
        self, request: ingest_pb2.ImportRecordRequest, context: Any
    ) -> ingest_pb2.ImportRecordResponse:
        """Takes in a FHIR document or HL7 v2 messages; what is refused is quarantined and named."""
        if request.format == ingest_pb2.RECORD_FORMAT_FHIR_R4:
            taken: Taken = self._records.receive_fhir(request.content)
        else:
            taken = self._records.receive_messages(request.content)
        return ingest_pb2.ImportRecordResponse(event_ids=taken.event_ids, refusals=taken.refusals)

    def GetStudy(  # noqa: N802 - named by the contract
        self, request: ingest_pb2.GetStudyRequest, context: Any
    ) -> ingest_pb2.GetStudyResponse:
        """One study as it is stored now. Raises NotFoundError."""
        found = self._archive.manifest(request.study_instance_uid)
        if found is None:
            raise NotFoundError("no such study in the archive")
        return ingest_pb2.GetStudyResponse(study=found[0], complete=found[1])

    def ListStudies(  # noqa: N802 - named by the contract
        self, request: ingest_pb2.ListStudiesRequest, context: Any
    ) -> ingest_pb2.ListStudiesResponse:
        """Studies, newest first."""
        size, offset = request.page_size or DEFAULT_PAGE, _offset(request.page_token)
        with self._archive.database.session() as session:
            uids = store.list_studies(session, request.patient_key, size + 1, offset)
        found = [self._archive.manifest(uid) for uid in uids[:size]]
        return ingest_pb2.ListStudiesResponse(
            studies=[study[0] for study in found if study is not None],
            next_page_token=str(offset + size) if len(uids) > size else "",
        )

    def ListQuarantine(  # noqa: N802 - named by the contract
        self, request: ingest_pb2.ListQuarantineRequest, context: Any
    ) -> ingest_pb2.ListQuarantineResponse:
        """What was turned away, newest first."""
        size, offset = request.page_size or DEFAULT_PAGE, _offset(request.page_token)
        items = self._quarantine.list(request.include_replayed)[::-1]
        return ingest_pb2.ListQuarantineResponse(
            items=[_item(item) for item in items[offset : offset + size]],
            next_page_token=str(offset + size) if len(items) > offset + size else "",
        )

    def ReplayQuarantine(  # noqa: N802 - named by the contract
        self, request: ingest_pb2.ReplayQuarantineRequest, context: Any
    ) -> ingest_pb2.ReplayQuarantineResponse:
        """Puts one item through its door again; the refusal when it is refused again. Raises NotFoundError."""
        try:
            self._quarantine.replay(request.item_id)
        except RefusedError as error:
            return ingest_pb2.ReplayQuarantineResponse(refusal=to_refusal(error, subject=request.item_id))
        except LookupError as error:
            raise NotFoundError(str(error.args[0]) if error.args else "no such item") from error
        return ingest_pb2.ReplayQuarantineResponse()


def _offset(page_token: str) -> int:
    if page_token and not page_token.isdecimal():
        raise InvalidRequestError("page_token", "is none of ours: pass on next_page_token as it came")
    return int(page_token or 0)


def _item(item: QuarantineItem) -> ingest_pb2.QuarantineItem:
    message = ingest_pb2.QuarantineItem(item_id=item.id, door=item.door, refusal=item.refusal, content=item.content)
    message.quarantined_at.FromDatetime(item.added_at)
    if item.replayed_at is not None:
        message.replayed_at.FromDatetime(item.replayed_at)
    return message
