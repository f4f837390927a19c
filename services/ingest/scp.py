"""DICOM listener: verification, storage, storage commitment, query and retrieve.

Source: DICOM PS3.4 annex A (verification), B (storage; status codes in table B.2-1), C (query/retrieve), J (storage
commitment push model), PS3.7 9.1 (DIMSE-C).
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import AllTransferSyntaxes, ImplicitVRLittleEndian
from pynetdicom import AE, _config, evt
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.transport import ThreadedAssociationServer

from services.ingest import sop_classes, store
from services.ingest.archive import instance_ref
from services.ingest.commitment import CommitmentReporter, Peer
from services.ingest.dicom_file import storage_classes
from services.ingest.dimse_find import answers, query_of
from services.ingest.receive import Receiver
from services.ingest.search import find
from services.platform.errors import ConfigurationError, OslerError, RefusedError, RetryableError

# Any SOP class is let in and judged by the door, so that an unknown one is quarantined and not lost at the sender.
_config.UNRESTRICTED_STORAGE_SERVICE = True
# Identifiers hold names.
_config.LOG_REQUEST_IDENTIFIERS = False
_config.LOG_RESPONSE_IDENTIFIERS = False

SUCCESS, PENDING, CANCEL = 0x0000, 0xFF00, 0xFE00
OUT_OF_RESOURCES, MISMATCH, CANNOT_UNDERSTAND = 0xA700, 0xA900, 0xC000
# Refusal reason -> C-STORE status (PS3.4 table B.2-1, PS3.7 annex C); everything else is "cannot understand".
STORE_STATUS: Mapping[str, int] = {
    "dicom.unknown_sop_class": 0x0122,
    "dicom.conflicting_instance": 0x0111,
    "dicom.contradictory_patient": MISMATCH,
    "dicom.contradictory_series": MISMATCH,
    "dicom.missing_patient_id": MISMATCH,
    "dicom.missing_uid": MISMATCH,
    "dicom.invalid_uid": MISMATCH,
}
_MODELS = (
    sop_classes.PATIENT_ROOT_FIND,
    sop_classes.PATIENT_ROOT_GET,
    sop_classes.PATIENT_ROOT_MOVE,
    sop_classes.STUDY_ROOT_FIND,
    sop_classes.STUDY_ROOT_GET,
    sop_classes.STUDY_ROOT_MOVE,
)
# A department has more devices than pynetdicom's default of 10.
_MOST_ASSOCIATIONS = 100
_log = logging.getLogger(__name__)


class _SharingServer(ThreadedAssociationServer):
    """Lets other processes of this user listen on the same port."""

    def server_bind(self) -> None:
        assert self.socket is not None
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        super().server_bind()


class DicomListener:
    """`services.platform.room.Background` around a pynetdicom server.

    `peers`: AE title -> where it listens, for results of storage commitment and as destinations of C-MOVE.
    `allowed_calling_aes`: empty lets in all; otherwise the called AE title must be ours as well.
    `port` 0 picks a free one; after `start`, `port` is the real one. `admit` raises RetryableError while nothing more is to
    be let in. `share_port`: other processes listen on the same port, and the kernel spreads associations among them.
    """

    def __init__(
        self,
        receiver: Receiver,
        *,
        ae_title: str,
        host: str,
        port: int,
        peers: Mapping[str, Peer],
        allowed_calling_aes: tuple[str, ...] = (),
        max_pdu_bytes: int = 131072,
        admit: Callable[[], None] = lambda: None,
        share_port: bool = False,
    ) -> None:
        self._receiver = receiver
        self._host, self.port = host, port
        self._admit = admit
        self._server_class = _SharingServer if share_port else ThreadedAssociationServer
        self._peers = peers
        self._ae = AE(ae_title)
        self._ae.maximum_pdu_size = max_pdu_bytes
        self._ae.maximum_associations = _MOST_ASSOCIATIONS
        self._ae.require_calling_aet = list(allowed_calling_aes)
        self._ae.require_called_aet = bool(allowed_calling_aes)
        self._reporter = CommitmentReporter(self._ae, peers)
        self._server: Any = None
        self._add_contexts()

    def _add_contexts(self) -> None:
        for offered in (sop_classes.VERIFICATION, sop_classes.STORAGE_COMMITMENT_PUSH, *_MODELS):
            self._ae.add_supported_context(offered)
        for uid in sorted(storage_classes()):
            # Both roles: the requestor of a C-GET receives on the association that it opened.
            self._ae.add_supported_context(uid, AllTransferSyntaxes, scu_role=True, scp_role=True)

    def start(self) -> None:
        """Listens. Raises ConfigurationError when the port is taken."""
        handlers: list[Any] = [
            (evt.EVT_C_ECHO, lambda _event: SUCCESS),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_C_FIND, self._find),
            (evt.EVT_C_GET, self._get),
            (evt.EVT_C_MOVE, self._move),
            (evt.EVT_N_ACTION, self._commit),
        ]
        try:
            self._server = self._ae.make_server(
                (self._host, self.port), evt_handlers=handlers, server_class=self._server_class
            )
        except OSError as error:
            raise ConfigurationError(f"dicom.port: cannot listen on {self._host}:{self.port} ({error})") from error
        # `make_server` leaves this to its caller, and the server's shutdown undoes it.
        self._ae._servers.append(self._server)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, name="dicom-listener", daemon=True).start()

    def stop(self) -> None:
        """Stops listening and aborts open associations: what was not acknowledged stays with its sender."""
        if self._server is not None:
            self._server.shutdown()
            self._ae.shutdown()
            self._server = None

    def _store(self, event: Any) -> int:
        try:
            self._admit()
            outcome = self._receiver.receive(event.encoded_dataset())
        except RetryableError as error:
            _log.warning("C-STORE not taken in now: %s", error)
            return OUT_OF_RESOURCES
        except Exception as error:  # the sender keeps what met a fault of ours
            _log.error("C-STORE failed: %s", type(error).__name__)
            return OUT_OF_RESOURCES
        if outcome.refusal is None:
            return SUCCESS
        return STORE_STATUS.get(outcome.refusal.reason, CANNOT_UNDERSTAND)

    def _find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        try:
            identifier = event.identifier
            query = query_of(identifier)
            with self._receiver.archive.database.session() as session:
                found = find(session, query)
            for answer in answers(found, identifier, self._ae.ae_title):
                if event.is_cancelled:
                    yield CANCEL, None
                    return
                yield PENDING, answer
        except OslerError as error:
            yield _failure(error), None

    def _get(self, event: Any) -> Iterator[Any]:
        try:
            rows = self._matches(event)
        except OslerError as error:
            yield 0
            yield _failure(error), None
            return
        yield len(rows)
        yield from self._send(event, rows)

    def _move(self, event: Any) -> Iterator[Any]:
        peer = self._peers.get(event.move_destination.strip())
        if peer is None:
            yield None, None
            return
        try:
            rows = self._matches(event)
        except OslerError as error:
            yield peer.host, peer.port
            yield 0
            yield _failure(error), None
            return
        syntaxes = {(row.sop_class_uid, row.transfer_syntax_uid) for row in rows}
        contexts = [sending_context(*pair) for pair in sorted(syntaxes)][:128]
        yield peer.host, peer.port, {"contexts": contexts, "ae_title": event.move_destination.strip()}
        yield len(rows)
        yield from self._send(event, rows)

    def _matches(self, event: Any) -> list[Any]:
        query = query_of(event.identifier, instances=True)
        with self._receiver.archive.database.session() as session:
            uids = [found["00080018"]["Value"][0] for found in find(session, query)]
            rows = [store.find_instance(session, uid) for uid in uids]
        return [row for row in rows if row is not None]

    def _send(self, event: Any, rows: list[Any]) -> Iterator[tuple[int, Dataset | None]]:
        for row in rows:
            if event.is_cancelled:
                yield CANCEL, None
                return
            try:
                content = self._receiver.archive.blobs.get(instance_ref(row))
            except OslerError as error:
                yield _failure(error), None
                return
            yield PENDING, pydicom.dcmread(BytesIO(content))

    def _commit(self, event: Any) -> tuple[int, Dataset | None]:
        try:
            items = event.action_information.ReferencedSOPSequence
            transaction = str(event.action_information.TransactionUID)
            wanted = [(str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID)) for item in items]
        except AttributeError:
            return 0x0115, None
        try:
            held, missing = self._receiver.archive.commit(wanted)
        except OslerError as error:
            _log.warning("storage commitment not answered: %s", error)
            return 0x0213 if isinstance(error, RetryableError) else 0x0110, None
        report = threading.Thread(
            target=self._reporter.report,
            args=(
                event.assoc,
                transaction,
                [pair for pair in wanted if pair[1] in held],
                [pair for pair in wanted if pair[1] in missing],
            ),
            name="storage-commitment",
            daemon=True,
        )
        report.start()
        return SUCCESS, None


def sending_context(sop_class_uid: str, transfer_syntax_uid: str) -> PresentationContext:
    """A presentation context to send one kind of instance as it is kept."""
    syntaxes = [transfer_syntax_uid]
    if transfer_syntax_uid in ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"):
        syntaxes.append(str(ImplicitVRLittleEndian))
    return build_context(sop_class_uid, syntaxes)


def _failure(error: OslerError) -> int:
    if isinstance(error, RetryableError):
        return OUT_OF_RESOURCES
    return MISMATCH if isinstance(error, RefusedError) else CANNOT_UNDERSTAND
