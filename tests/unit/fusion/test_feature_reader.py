"""Stored features: read by an index, they are what a replay of everything known at the time gives; nothing later leaks."""

from __future__ import annotations

import itertools
from collections import Counter
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from services.fusion import feature_reader, feature_select, feature_store, identity_store, store
from services.fusion.demographics import contradictions
from services.fusion.facts import DemographicFact, Reading, Standing, identity_of, make_fact
from services.fusion.feature_demographics import known_demographics
from services.fusion.feature_reader import check_as_of, read_features
from services.fusion.feature_schema import load_set, set_names
from services.fusion.features import compute
from services.fusion.merges import Statement
from services.fusion.store import Source
from services.fusion.timeline import build_timeline
from services.platform.database import Database, migrate
from services.platform.errors import RefusedError
from tests.unit.fusion.feature_histories import LABS, as_of_times, coded, day, histories, lab, smoking

_numbers = itertools.count()


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    made = Database(f"sqlite:///{tmp_path_factory.mktemp('features')}/state.db")
    migrate(made, "platform")
    migrate(made, "fusion")
    yield made
    made.close()


def keep(database, history, batches=1):
    """Stores a history under two new keys, in as many messages; returns the keys by their names in the history."""
    number = next(_numbers)
    keys = {name: f"patient-{number}-{name}" for name in "ab"}
    with database.transaction("fusion") as tx:
        for batch, name in itertools.product(range(batches), "ab"):
            facts = tuple(fact for key, fact in history.facts if key == name)[batch::batches]
            who = tuple(fact for key, fact in history.demographics if key == name)[batch::batches]
            source = Source(f"{number}-{name}-{batch}", day(0), f"e{number}-{name}-{batch}")
            store.add_reading(tx.session, keys[name], Reading(facts, who), source)
        if history.merged_at is not None:
            statement = Statement(history.merged_at, keys["b"], keys["a"])
            identity_store.add_statement(tx.session, statement, f"merge-{number}")
    return keys


def replayed(history, keys, declared, as_of):
    """The vector of patient a from a world in which nothing was received after `as_of`."""
    together = history.merged_at is not None and history.merged_at <= as_of
    names = "ab" if together else "a"
    facts = {fact.fact_id: fact for key, fact in history.facts if key in names and fact.known_at <= as_of}
    said = [fact for key, fact in history.demographics if key in names and fact.known_at <= as_of]
    who, conflicts = known_demographics(said, datetime.max.replace(tzinfo=UTC))
    return compute(declared, build_timeline(keys["a"], facts.values()), as_of, who, conflicts)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    history=histories,
    times=as_of_times,
    batches=st.integers(1, 4),
    name=st.sampled_from(set_names()),
    newest=st.sampled_from([1, 2, 5]),
)
def test_what_is_read_is_a_replay_of_what_was_known(database, history, times, batches, name, newest):
    keys = keep(database, history, batches)
    with pytest.MonkeyPatch.context() as patch, database.session() as session:
        patch.setattr(feature_reader, "_NEWEST", newest)
        for as_of in times:
            read = read_features(session, keys["a"], load_set(name), as_of)
            assert read == replayed(history, keys, load_set(name), as_of)


def facts_of(entries, known=None, standing=Standing.FINAL):
    return [
        make_fact(
            entry,
            origin=f"fhir:Observation/{number}",
            identity=identity_of(entry),
            standing=standing,
            known_at=known or entry.effective_at.ToDatetime(UTC),
            recorded_at=known or entry.effective_at.ToDatetime(UTC),
        )
        for number, entry in enumerate(entries)
    ]


def add(database, key, facts, message="m1", who=()):
    with database.transaction("fusion") as tx:
        store.add_reading(
            tx.session, key, Reading(tuple(facts), tuple(who)), Source(message, day(0), f"{key}-{message}")
        )


def named(vector):
    return {feature.name: feature for feature in vector.features}


@contextmanager
def loaded_facts(monkeypatch):
    """Counts the facts that were read."""
    counted, original = Counter(), feature_select.closed_facts

    def counting(*asked):
        found = original(*asked)
        counted["facts"] += len(found)
        counted["rounds"] += 1
        return found

    monkeypatch.setattr(feature_reader.feature_select, "closed_facts", counting)
    yield counted


def test_of_a_thousand_values_only_the_newest_are_read(database, monkeypatch):
    entries = [lab("2160-0", 1.0 + n / 1000, "mg/dL", day(n)) for n in range(1000)]
    add(database, "long", facts_of(entries))
    with loaded_facts(monkeypatch) as counted, database.session() as session:
        found = named(read_features(session, "long", load_set(), day(2000)))
    assert found["creatinine_mg_dl"].number == pytest.approx(1.999)
    assert counted["facts"] <= 5


def test_when_the_newest_do_not_settle_it_all_are_read(database, monkeypatch):
    good = [lab("2160-0", 1.0, "mg/dL", day(n)) for n in range(20)]
    bad = [lab("2160-0", 900.0, "mg/dL", day(20 + n), ["implausible"]) for n in range(20)]
    add(database, "bad", facts_of([*good, *bad]))
    with loaded_facts(monkeypatch) as counted, database.session() as session:
        found = named(read_features(session, "bad", load_set(), day(60)))
    assert found["creatinine_mg_dl"].number == 1.0
    assert counted["rounds"] == 2


def test_what_was_known_later_is_not_read(database, monkeypatch):
    entries = [lab("2160-0", 1.0, "mg/dL", day(n)) for n in range(100, 120)]
    add(database, "later", facts_of([lab("718-7", 12.0, "g/dL", day(1)), *entries]))
    with loaded_facts(monkeypatch) as counted, database.session() as session:
        found = named(read_features(session, "later", load_set(), day(50)))
    assert found["creatinine_mg_dl"].missing_reason == "no value recorded"
    assert counted == {"facts": 1, "rounds": 1}


def test_without_an_index_the_answer_is_the_same(database):
    facts = facts_of([lab(code, 1.1, unit, day(n)) for code, unit in LABS.items() for n in range(12)])
    add(database, "plain", facts)
    with database.session() as session:
        before = read_features(session, "plain", load_set("kidney"), day(30))
    with database.transaction("fusion") as tx:
        tx.session.execute(feature_store.INDEX.delete().where(feature_store.INDEX.c.patient_key == "plain"))
        tx.session.execute(feature_store.INDEXED.delete().where(feature_store.INDEXED.c.patient_key == "plain"))
    with database.session() as session:
        assert read_features(session, "plain", load_set("kidney"), day(30)) == before


def test_an_index_of_another_vocabulary_is_made_anew(database, monkeypatch):
    facts = facts_of([lab("2160-0", 1.1, "mg/dL", day(n)) for n in range(3)])
    with monkeypatch.context() as older:
        older.setattr(feature_store, "vocabulary", lambda: "of long ago")
        older.setattr(feature_store, "index_tokens", lambda entries: [["kind:OBSERVATION"] for _ in entries])
        add(database, "old", facts[:2])
    with database.session() as session:
        assert feature_select.held_and_indexed(session, ["old"]) == [(2, 0)]
        assert named(read_features(session, "old", load_set(), day(9)))["creatinine_mg_dl"].number == 1.1
    add(database, "old", facts[2:], "m2")
    with database.session() as session:
        assert feature_select.held_and_indexed(session, ["old"]) == [(3, 3)]
        assert len(feature_select.known_pointers(session, ["old"], ["analyte:creatinine"], 2**62)) == 3


def test_the_number_of_statements_does_not_grow_with_the_patient(database):
    add(database, "few", facts_of([lab("2160-0", 1.0, "mg/dL", day(n)) for n in range(10)]))
    add(database, "many", facts_of([lab("2160-0", 1.0, "mg/dL", day(n / 4)) for n in range(600)]))
    counts = []
    for key in ("few", "many"):
        statements = []
        event.listen(database.engine, "before_cursor_execute", lambda *a, seen=statements: seen.append(a[2]))
        with database.session() as session:
            read_features(session, key, load_set(), day(400))
        counts.append(len([s for s in statements if s.startswith("SELECT")]))
    assert counts[0] <= 7
    assert counts[1] <= counts[0] + 1


def test_an_unknown_patient_has_no_vector(database):
    with database.session() as session:
        assert read_features(session, "nobody", load_set(), day(0)) is None


def test_what_will_be_known_is_not_told():
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert check_as_of(now, now) == now
    with pytest.raises(RefusedError) as refused:
        check_as_of(now + timedelta(days=1), now)
    assert refused.value.reason == "features.as_of_in_future"


def test_a_value_dated_later_is_named_as_such(database):
    add(database, "early", facts_of([lab("2160-0", 1.0, "mg/dL", day(100))], known=day(1)))
    with database.session() as session:
        found = named(read_features(session, "early", load_set(), day(50)))["creatinine_mg_dl"]
    assert found.missing_reason == "only values dated later than the date asked for"


def who(source, number, **fields):
    from osler.fusion.v1 import fusion_pb2

    return DemographicFact(day(number), source, fusion_pb2.Demographics(**fields))


def test_two_sexes_from_two_sources_give_none(database):
    said = [who("fhir:Patient/1", 1, sex="female"), who("hl7v2:LAB:7", 5, sex="male")]
    add(database, "two", facts_of([lab("2160-0", 1.0, "mg/dL", day(1))]), who=said)
    with database.session() as session:
        assert named(read_features(session, "two", load_set(), day(2)))["sex_female"].flag is True
        later = named(read_features(session, "two", load_set(), day(6)))["sex_female"]
    assert later.missing_reason == "sources disagree on the administrative sex"


def test_a_source_that_corrects_itself_does_not_disagree():
    said = [who("hl7v2:LAB:7", 1, sex="female"), who("hl7v2:LAB:8", 5, sex="male", birth_date="1964-02-29")]
    assert contradictions(said)
    settled, conflicts = known_demographics(said, day(9))
    assert (settled.sex, conflicts) == ("male", frozenset())
    assert known_demographics(said, day(0)) == (None, frozenset())


def test_flags_and_answers_are_read_too(database):
    entries = [
        coded(("CONDITION", "http://snomed.info/sct", "44054006", "active"), day(3), None),
        *(smoking("449868002", day(n)) for n in range(10)),
        smoking("8517006", day(40)),
    ]
    add(database, "flags", facts_of(entries))
    with database.session() as session:
        found = named(read_features(session, "flags", load_set(), day(50)))
    assert found["diabetes"].flag is True
    assert found["current_smoker"].flag is False
    assert found["statin_treatment"].flag is False
