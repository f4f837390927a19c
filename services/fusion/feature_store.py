"""Rows that say which facts a feature can need: an index of facts by token, so that a vector reads only its own codes.

The index holds no values and is never trusted blindly: it counts for a patient only when it has every fact that is held
under the key, by the vocabulary of today. Otherwise readers take all facts, which is slower and gives the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import BigInteger, Column, Integer, String, Table, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from services.fusion.facts import Fact
from services.fusion.feature_tokens import index_tokens, vocabulary
from services.fusion.identity_store import metadata

# Stands for "no effective time": such a fact is as new as the day on which it was known, and always read.
TIMELESS_US = 2**62
_CHUNK = 5_000

# One row for each token of each fact. The hashes find other facts of the same identity or origin; a collision only reads
# a fact too many.
INDEX = Table(
    "fusion_feature_index",
    metadata,
    Column("patient_key", String(128), primary_key=True),
    Column("token", String(127), primary_key=True),
    Column("effective_us", BigInteger, primary_key=True),
    Column("fact_id", String(32), primary_key=True),
    Column("identity_hash", BigInteger, nullable=False),
    Column("origin_hash", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
# How much of a key is indexed, and by which meaning of tokens.
INDEXED = Table(
    "fusion_feature_indexed",
    metadata,
    Column("patient_key", String(128), primary_key=True),
    Column("vocabulary", String(16), nullable=False),
    Column("facts", Integer, nullable=False),
)


def index_facts(
    session: Session, patient_key: str, facts: Iterable[Fact], held: int, everything: Callable[[], Sequence[Fact]]
) -> None:
    """Indexes facts just stored under a key; `held`: how many facts the key has now, these included.

    When earlier facts are not indexed by today's vocabulary, all are indexed, from `everything()`.
    """
    query = select(INDEXED.c.vocabulary).where(INDEXED.c.patient_key == patient_key)
    found = session.execute(query).scalar_one_or_none()
    if found in (None, vocabulary()):
        _insert(session, patient_key, facts)
    if found not in (None, vocabulary()) or _count(session, patient_key) != held:
        session.execute(delete(INDEX).where(INDEX.c.patient_key == patient_key))
        _insert(session, patient_key, everything())
    row = {"patient_key": patient_key, "vocabulary": vocabulary(), "facts": _count(session, patient_key)}
    changed = {name: row[name] for name in ("vocabulary", "facts")}
    statement = _dialect(session).insert(INDEXED).values(**row)
    session.execute(statement.on_conflict_do_update(index_elements=["patient_key"], set_=changed))


def _insert(session: Session, patient_key: str, facts: Iterable[Fact]) -> None:
    rows = index_rows(patient_key, list(facts))
    for start in range(0, len(rows), _CHUNK):
        session.execute(_dialect(session).insert(INDEX).on_conflict_do_nothing(), rows[start : start + _CHUNK])


def index_rows(patient_key: str, facts: Sequence[Fact]) -> list[dict[str, Any]]:
    """The rows of INDEX for facts that are held under a key."""
    return [
        {
            "patient_key": patient_key,
            "token": token,
            "effective_us": _effective_us(fact),
            "fact_id": fact.fact_id,
            "identity_hash": short_hash(fact.identity),
            "origin_hash": short_hash(fact.origin),
        }
        for fact, tokens in zip(facts, index_tokens(fact.entry for fact in facts), strict=True)
        for token in tokens
    ]


def _effective_us(fact: Fact) -> int:
    at = fact.entry.effective_at
    return at.seconds * 1_000_000 + at.nanos // 1_000 if fact.entry.HasField("effective_at") else TIMELESS_US


@lru_cache(maxsize=65_536)
def short_hash(text: str) -> int:
    """A signed 64-bit name of a text."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big", signed=True)


def _count(session: Session, patient_key: str) -> int:
    query = select(func.count(INDEX.c.fact_id.distinct())).where(INDEX.c.patient_key == patient_key)
    return int(session.execute(query).scalar_one())


def _dialect(session: Session) -> Any:
    return postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
