"""The features of one stored patient at a time, from as few facts as will do.

Of what only its newest value is asked for, the newest few facts are read; when these do not settle it, all that were
known. What is read is closed under identity and origin, so that corrections, retractions and second sources of each fact
come along.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from osler.fusion.v1 import fusion_pb2
from osler.fusion.v1.fusion_pb2 import Feature, TimelineEntry
from sqlalchemy.orm import Session

from services.fusion import feature_schema as schema
from services.fusion import feature_select, identity_store, store
from services.fusion.feature_demographics import known_demographics
from services.fusion.feature_select import Pointer
from services.fusion.feature_series import too_old
from services.fusion.feature_store import TIMELESS_US, short_hash
from services.fusion.feature_tokens import chart_tokens, row_tokens, set_tokens
from services.fusion.feature_view import parse_duration
from services.fusion.features import compute
from services.fusion.timeline import build_timeline, some_entries
from services.platform.errors import RefusedError

# Of how many effective times the facts of a token are read first: the newest, and one more where that cannot be used.
_NEWEST = 2
# Facts of one identity are at most this far apart in effective time (facts.py takes whole minutes).
_APART_US = 3_600_000_000
# The horizon of a token of which nothing older is left.
_ALL = -(2**62)

# A caller's clock may be ahead of ours by this much.
_CLOCK = timedelta(minutes=5)


def check_as_of(as_of: datetime, now: datetime | None = None) -> datetime:
    """`as_of`, when it is not in the future. Raises RefusedError `features.as_of_in_future`."""
    if as_of > (now or datetime.now(UTC)) + _CLOCK:
        raise RefusedError(
            "features.as_of_in_future",
            "what will be known at a time to come cannot be told",
            remedy="ask as of now, or as of a time that is past",
        )
    return as_of


def read_features(
    session: Session, patient_key: str, declared: schema.FeatureSet, as_of: datetime
) -> fusion_pb2.FeatureVector | None:
    """The vector of a set at `as_of` (aware UTC) for any key of a patient; None for a key of which nothing is held."""
    survivor, merged = identity_store.keys_of(session, patient_key, as_of)
    keys = (survivor, *merged)
    held = feature_select.held_and_indexed(session, keys)
    if not held and not store.is_known(session, keys):
        return None
    who, conflicts = known_demographics(store.demographics_of(session, keys), as_of)
    complete = all(facts == indexed for facts, indexed in held)
    if not complete or identity_store.misplaced(session, keys, as_of) != identity_store.Misplaced():
        facts = store.load(session, patient_key, as_of).facts
        return compute(declared, build_timeline(survivor, facts, as_of), as_of, who, conflicts)
    at_us, brief = identity_store.to_us(as_of), _brief_tokens(declared)
    whole = set_tokens(declared) - brief
    first, horizon = _cut(brief, feature_select.first_pointers(session, keys, brief, whole, at_us, _NEWEST + 1))
    asked = {pointer.identity_hash for pointer in first}
    entries = _entries(session, survivor, keys, asked, as_of)
    vector = compute(declared, entries, as_of, who, conflicts)
    unsettled = set(_unsettled(declared, vector, horizon, as_of))
    rest = {row.identity_hash for row in feature_select.known_pointers(session, keys, unsettled, at_us)} - asked
    if not rest:
        return vector
    entries += _entries(session, survivor, keys, rest, as_of)
    return compute(declared, entries, as_of, who, conflicts)


def _cut(brief: Collection[str], found: Iterable[Pointer]) -> tuple[list[Pointer], dict[str, int]]:
    """(the facts to read first, each token of which only the newest are read -> the time of the newest left out)."""
    kept, times, horizon = list[Pointer](), defaultdict[str, set[int]](set), dict.fromkeys(brief, _ALL)
    for pointer in found:
        token, at = pointer.token, pointer.effective_us
        if token in brief and at != TIMELESS_US:
            times[token].add(at)
            if len(times[token]) > _NEWEST:
                horizon[token] = max(horizon[token], at)
                continue
        kept.append(pointer)
    return kept, horizon


def _entries(
    session: Session, survivor: str, keys: Sequence[str], identity_hashes: Collection[int], as_of: datetime
) -> list[TimelineEntry]:
    """The entries of some identities: of the others that come along, as versions of an origin, sources may be missing."""
    if not identity_hashes:
        return []
    facts = feature_select.closed_facts(session, keys, identity_hashes, identity_store.to_us(as_of))
    once = store.once(facts) if len(keys) > 1 else facts
    return some_entries(survivor, once, as_of, lambda identity: short_hash(identity) in identity_hashes)


@lru_cache(maxsize=64)
def _brief_tokens(declared: schema.FeatureSet) -> frozenset[str]:
    """Tokens of which every feature of a set needs the newest facts only."""
    brief, whole = set[str](), set[str]()
    for row in declared.features:
        brief.update(chart_tokens(declared, row))
        (brief if _asks_newest(row) else whole).update(row_tokens(row))
    return frozenset(brief - whole)


def _asks_newest(row: schema.FeatureRow) -> bool:
    if isinstance(row, schema.Observation):
        newest = row.aggregate in ("latest", "any", "time_since")
        return newest and row.derive is None and row.at_least == 1
    return isinstance(row, schema.Answer)


def _unsettled(
    declared: schema.FeatureSet, vector: fusion_pb2.FeatureVector, horizon: Mapping[str, int], as_of: datetime
) -> Iterable[str]:
    """Tokens whose facts that were left out (older ones, or dated later than `as_of`) could change a feature."""
    for row, feature in zip(declared.features, vector.features, strict=True):
        if feature.WhichOneof("value") == "missing_reason":
            yield from (token for token in chart_tokens(declared, row) if token in horizon)
        cut = [token for token in row_tokens(row) if token in horizon]
        if cut and not _is_certain(row, feature, max(horizon[token] for token in cut) + _APART_US, as_of):
            yield from cut


def _is_certain(row: schema.FeatureRow, feature: Feature, from_us: int, as_of: datetime) -> bool:
    """Whether a feature stands on facts so new, or is missing for a window so short, that older facts do not matter."""
    window = getattr(row, "window", None)
    if window and feature.missing_reason == too_old(window):
        return identity_store.to_us(as_of - parse_duration(window)) > from_us
    at = feature.observed_at
    return bool(feature.entry_ids) and at.seconds * 1_000_000 + at.nanos // 1_000 > from_us
