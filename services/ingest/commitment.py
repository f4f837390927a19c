"""Results of storage commitment: N-EVENT-REPORT to whoever asked.

Source: DICOM PS3.4 J.3.3 (notifications). The result goes over a new association to a configured peer, with the roles
turned round (J.3.1), else over the association on which it was asked for.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, build_role

from services.ingest.sop_classes import STORAGE_COMMITMENT_PUSH, STORAGE_COMMITMENT_PUSH_INSTANCE

ALL_COMMITTED, FAILURES_EXIST = 1, 2
NO_SUCH_OBJECT_INSTANCE = 0x0112
_ATTEMPTS = 5
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Peer:
    """Where an application entity listens."""

    host: str
    port: int


def result(
    transaction_uid: str, held: Sequence[tuple[str, str]], missing: Sequence[tuple[str, str]]
) -> tuple[int, Dataset]:
    """(event type, event information) for (SOP class, SOP instance) pairs held and not held (table J.3-3)."""
    information = Dataset()
    information.TransactionUID = transaction_uid
    if held:
        information.ReferencedSOPSequence = [_reference(*pair) for pair in held]
    if missing:
        information.FailedSOPSequence = [_reference(*pair) for pair in missing]
        for item in information.FailedSOPSequence:
            item.FailureReason = NO_SUCH_OBJECT_INSTANCE
    return (FAILURES_EXIST if missing else ALL_COMMITTED), information


def _reference(sop_class_uid: str, sop_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class_uid
    item.ReferencedSOPInstanceUID = sop_uid
    return item


@dataclass(frozen=True)
class CommitmentReporter:
    """Sends results; a peer that does not answer is tried a few times, and may always ask again."""

    ae: AE
    peers: Mapping[str, Peer]

    def report(
        self,
        association: Any,
        transaction_uid: str,
        held: Sequence[tuple[str, str]],
        missing: Sequence[tuple[str, str]],
    ) -> None:
        """Reports on `association` or to the configured peer that opened it."""
        event_type, information = result(transaction_uid, held, missing)
        title = str(association.requestor.ae_title).strip()
        peer = self.peers.get(title)
        for attempt in range(_ATTEMPTS):
            # The response to the request must be out before the result.
            time.sleep(0.2 * 4**attempt)
            if peer is None and not association.is_established:
                break
            try:
                sent = self._send(association, event_type, information, peer, title)
            except (RuntimeError, ValueError) as error:
                _log.info("storage commitment result not sent: %s", type(error).__name__)
                sent = False
            if sent:
                return
        _log.warning("a result of storage commitment could not be sent: set dicom.storage_commitment_peers")

    def _send(self, association: Any, event_type: int, information: Dataset, peer: Peer | None, title: str) -> bool:
        if peer is None:
            return _notify(association, event_type, information)
        role = build_role(STORAGE_COMMITMENT_PUSH, scp_role=True)
        opened = AE(self.ae.ae_title)
        opened.add_requested_context(STORAGE_COMMITMENT_PUSH)
        link = opened.associate(peer.host, peer.port, ae_title=title, ext_neg=[role])
        if not link.is_established:
            return False
        try:
            return _notify(link, event_type, information)
        finally:
            link.release()


def _notify(association: Any, event_type: int, information: Dataset) -> bool:
    status, _ = association.send_n_event_report(
        information, event_type, STORAGE_COMMITMENT_PUSH, STORAGE_COMMITMENT_PUSH_INSTANCE
    )
    return bool(status) and status.Status == 0x0000
