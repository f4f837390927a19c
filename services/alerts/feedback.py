"""What became of cards: counted once, told to analytics by rule, and remembered as silence.

Source: CDS Hooks 2.0, "Feedback". The same interaction may be reported several times; it is one event.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from osler.events.v1 import events_pb2

from services.alerts import snooze, store
from services.alerts.hooks import FeedbackItem
from services.platform.database import Database
from services.platform.events import event_id, pack
from services.platform.room import Transaction

_LONGEST_CODE = 64


def receive(database: Database, items: Sequence[FeedbackItem], client: str, now: datetime) -> int:
    """Takes feedback in, all or nothing; how much of it was new.

    What speaks of a card that was not served to this client ("" for Osler's own tokens) changes nothing.
    """
    with database.transaction("alerts") as tx:
        return sum(_receive(tx, item, client, now) for item in items)


def _receive(tx: Transaction, item: FeedbackItem, client: str, now: datetime) -> bool:
    card = store.find_card(tx.session, str(item.card))
    if card is None or card.client != client:
        return False
    at = item.outcome_timestamp
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    # A clock that runs ahead must not make a silence longer.
    at = min(at.astimezone(UTC), now)
    accepted = ",".join(sorted(suggestion.id for suggestion in item.accepted_suggestions))
    identity = event_id(
        "alerts", "feedback", str(item.card), item.outcome, item.outcome_timestamp.isoformat(), accepted
    )
    if not store.save_feedback(tx.session, identity, str(item.card), item.outcome, at):
        return False
    code = _override_code(item)
    message = events_pb2.AlertFeedback(
        patient_key=card.patient_key,
        card_id=card.card_id,
        rule_id=card.rule_id,
        outcome=item.outcome,
        override_reason_code=code,
    )
    message.outcome_at.FromDatetime(at)
    tx.emit(pack(message, source="alerts", key=card.patient_key, id=identity, time=at))
    silence = snooze.policy().silence(card, item.outcome, code, at) if card.fingerprint else None
    if silence is not None:
        store.save_silence(tx.session, silence)
    return True


def _override_code(item: FeedbackItem) -> str:
    reason = item.override_reason.reason if item.override_reason else None
    return reason.code[:_LONGEST_CODE] if reason else ""
