"""Which facts a vector is computed from, and they themselves: three statements that are made once, for any patient."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, Select, bindparam, func, literal, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from services.fusion.facts import Fact
from services.fusion.feature_store import INDEX, INDEXED, TIMELESS_US
from services.fusion.feature_tokens import vocabulary
from services.fusion.store import FACT, fact_of

_OURS = INDEX.c.patient_key.in_(bindparam("keys", expanding=True))
_POINTER = (INDEX.c.token, INDEX.c.effective_us, INDEX.c.identity_hash)


class Pointer(NamedTuple):
    """One fact that has a token. `effective_us`: microseconds since 1970 UTC, TIMELESS_US for none."""

    token: str
    effective_us: int
    identity_hash: int


@lru_cache(maxsize=1)
def _held() -> Select[Any]:
    indexed = (
        select(INDEXED.c.facts)
        .where(INDEXED.c.patient_key == FACT.c.patient_key, INDEXED.c.vocabulary == bindparam("vocabulary"))
        .scalar_subquery()
    )
    ours = FACT.c.patient_key.in_(bindparam("keys", expanding=True))
    return select(func.count(), indexed).where(ours).group_by(FACT.c.patient_key)


def held_and_indexed(session: Session, patient_keys: Sequence[str]) -> list[tuple[int, int]]:
    """(facts held, facts indexed by today's vocabulary) of each key under which any fact is held."""
    rows = session.execute(_held(), {"keys": patient_keys, "vocabulary": vocabulary()})
    return [(held, indexed or 0) for held, indexed in rows]


@lru_cache(maxsize=64)
def _first(brief: frozenset[str], whole: frozenset[str]) -> Select[Any]:
    place = func.dense_rank().over(partition_by=INDEX.c.token, order_by=INDEX.c.effective_us.desc()).label("place")
    among = _OURS & _one_of(brief)
    ranked = select(*_POINTER, place).where(among, INDEX.c.effective_us <= bindparam("at")).subquery()
    dated = select(*(column for column in ranked.c if column.name != "place")).where(ranked.c.place <= bindparam("n"))
    timeless = select(*_POINTER).where(among, INDEX.c.effective_us == TIMELESS_US)
    return dated.union_all(timeless, select(*_POINTER).where(_OURS, _one_of(whole)))  # type: ignore[return-value]


def _one_of(tokens: Collection[str]) -> ColumnElement[bool]:
    # As parameters of their own: a list that is expanded is written anew at each execution.
    return INDEX.c.token.in_([literal(token) for token in sorted(tokens)])


def first_pointers(
    session: Session, patient_keys: Sequence[str], brief: frozenset[str], whole: frozenset[str], at_us: int, times: int
) -> list[Pointer]:
    """Of each `brief` token the facts of its newest so many effective times by a time, newest first, and all that have
    no time; of each `whole` token all facts."""
    found = session.execute(_first(brief, whole), {"keys": patient_keys, "at": at_us, "n": times})
    return sorted((Pointer(*row) for row in found.all()), key=lambda pointer: -pointer.effective_us)


@lru_cache(maxsize=1)
def _known() -> Select[Any]:
    tokens = INDEX.c.token.in_(bindparam("tokens", expanding=True))
    fact = (FACT.c.patient_key == INDEX.c.patient_key) & (FACT.c.fact_id == INDEX.c.fact_id)
    return select(*_POINTER).join(FACT, fact).where(_OURS, tokens, FACT.c.known_us <= bindparam("at"))


def known_pointers(session: Session, patient_keys: Sequence[str], tokens: Collection[str], at_us: int) -> list[Pointer]:
    """All facts known at a time that have one of some tokens."""
    if not tokens:
        return []
    found = session.execute(_known(), {"keys": patient_keys, "tokens": sorted(tokens), "at": at_us})
    return [Pointer(*row) for row in found.all()]


@lru_cache(maxsize=2)
def _closure(dialect: str) -> Select[Any]:
    if dialect == "postgresql":
        wanted = INDEX.c.identity_hash == func.any(bindparam("hashes", type_=ARRAY(BigInteger)))
    else:
        hashes = func.json_each(bindparam("hashes")).table_valued("value")
        wanted = INDEX.c.identity_hash.in_(select(hashes.c.value))
    origins = select(INDEX.c.origin_hash).where(_OURS, wanted)
    ids = select(INDEX.c.patient_key, INDEX.c.fact_id).where(_OURS, INDEX.c.origin_hash.in_(origins)).distinct()
    near = ids.subquery()
    fact = (FACT.c.patient_key == near.c.patient_key) & (FACT.c.fact_id == near.c.fact_id)
    return select(FACT).join(near, fact).where(FACT.c.known_us <= bindparam("at"))


def closed_facts(
    session: Session, patient_keys: Sequence[str], identity_hashes: Collection[int], at_us: int
) -> list[Fact]:
    """What was known at a time of some identities, and all versions of the records that it came in.

    A fact that is held under several keys comes several times.
    """
    dialect = session.get_bind().dialect.name
    hashes = list(identity_hashes)
    parameters = {"keys": patient_keys, "hashes": hashes if dialect == "postgresql" else json.dumps(hashes)}
    return [fact_of(row) for row in session.execute(_closure(dialect), {**parameters, "at": at_us}).all()]
