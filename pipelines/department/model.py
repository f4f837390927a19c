"""Studies that arrive, readers that take the next one, and an order in which they take it.

A discrete-event simulation (simpy), minutes from midnight of day 0. The studies of a replication are drawn once, so every
order is judged on the same work. The order of Osler is not imitated: it is `services.alerts.worklist.priority` itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import simpy
import yaml

from services.alerts.worklist import priority
from services.alerts.worklist.priority import Place, Reason

_EPOCH = datetime(2026, 1, 5, tzinfo=UTC)
_DAY = 24 * 60.0


@dataclass(frozen=True)
class Study:
    """`truth` and `flagged`: a category of critical results, or "". Times in minutes."""

    uid: str
    arrived: float
    reading: float
    truth: str
    flagged: str
    setting: str
    cancer: bool


@dataclass(frozen=True)
class Read:
    """One study that was read. `turn`: its place in the order in which studies were taken, from 0."""

    study: Study
    turn: int
    taken: float
    done: float

    @property
    def turnaround(self) -> float:
        """Minutes from arrival to the end of the reading."""
        return self.done - self.study.arrived


# A study, and whether imaging has spoken about it -> its key; the smallest is read next.
Key = Callable[[Study, bool], tuple[Any, ...]]


def parameters() -> dict[str, Any]:
    """`department.yaml`."""
    return dict(yaml.safe_load(Path(__file__).with_name("department.yaml").read_text(encoding="utf-8")))


def draw(rows: Mapping[str, Any], days: int, seed: int) -> list[Study]:
    """The studies of some days, in order of arrival."""
    random = np.random.default_rng(seed)
    arrivals = _arrivals(rows, days, random)
    count = len(arrivals)
    settings = list(rows["settings"])
    shares = np.array([rows["settings"][name]["share"] for name in settings])
    where = random.choice(len(settings), count, p=shares / shares.sum())
    truth = _truth(rows, [settings[n] for n in where], random)
    mean, sd = rows["reading_minutes"]["mean"], rows["reading_minutes"]["sd"]
    spread = math.log(1 + (sd / mean) ** 2)
    reading = random.lognormal(math.log(mean) - spread / 2, math.sqrt(spread), count)
    luck, cancer = random.random(count), random.random(count) < rows["cancer_share"]
    return [
        Study(
            f"{n:06d}",
            float(arrivals[n]),
            float(reading[n]),
            truth[n],
            _flag(rows["detector"], truth[n], float(luck[n])),
            settings[where[n]],
            bool(cancer[n]),
        )
        for n in range(count)
    ]


def _arrivals(rows: Mapping[str, Any], days: int, random: np.random.Generator) -> np.ndarray:
    """A Poisson process with the rate of each hour."""
    shape = np.array(rows["hourly"], float)
    rates = rows["studies_per_day"] * shape / shape.sum()
    counts = random.poisson(np.tile(rates, days))
    starts = np.repeat(np.arange(24 * days) * 60.0, counts)
    return np.asarray(np.sort(starts + random.random(len(starts)) * 60))


def _truth(rows: Mapping[str, Any], settings: Sequence[str], random: np.random.Generator) -> list[str]:
    """Critical findings, more often where the odds are higher; the overall share stays that of the table."""
    weights = np.array([rows["settings"][name]["odds"] for name in settings])
    shares = np.array([rows["settings"][name]["share"] for name in rows["settings"]])
    mean = float(np.dot(shares / shares.sum(), [rows["settings"][name]["odds"] for name in rows["settings"]]))
    luck = random.random(len(settings))
    found = np.full(len(settings), "", dtype=object)
    floor = np.zeros(len(settings))
    for category, share in rows["prevalence"].items():
        ceiling = floor + share * weights / mean
        found[(luck >= floor) & (luck < ceiling)] = category
        floor = ceiling
    return [str(name) for name in found]


def _flag(detector: Mapping[str, float], truth: str, luck: float) -> str:
    """What imaging announces: misses some, and raises false alarms of the lesser category."""
    if truth:
        return truth if luck < detector["sensitivity"] else ""
    return "hours" if luck > detector["specificity"] else ""


def first_in_first_out(study: Study, analysed: bool) -> tuple[Any, ...]:
    return (study.arrived, study.uid)


def flagged_first(study: Study, analysed: bool) -> tuple[Any, ...]:
    """What the detector flags before all else; no regard to waiting."""
    rank = {"immediate": 0, "hours": 1}.get(study.flagged, 2) if analysed else 2
    return (rank, study.arrived, study.uid)


def osler(study: Study, analysed: bool) -> tuple[Any, ...]:
    """The worklist's own order: due time from findings, setting and history."""
    place = place_of(study, analysed)
    return (place.due_at, place.arrived_at, place.uid)


def place_of(study: Study, analysed: bool) -> Place:
    """The study as the worklist sees it."""
    rows = priority.table()
    reasons = [Reason("in the record: cancer", rows["history"]["cancer"]["weight"])] if study.cancer else []
    if study.setting in rows["setting"]:
        reasons.append(Reason(study.setting, rows["setting"][study.setting]["weight"]))
    if analysed and study.flagged:
        reasons.append(Reason("flagged", rows["critical"][study.flagged]))
    arrived = _EPOCH + timedelta(minutes=study.arrived)
    return Place(study.uid, arrived, priority.judge(reasons).due(arrived))


ORDERS: Mapping[str, Key] = {"fifo": first_in_first_out, "flagged_first": flagged_first, "osler": osler}


@dataclass
class _Room:
    """What waits, and who is told when something comes. A study's key changes once, when imaging has spoken."""

    env: simpy.Environment
    key: Key
    keys: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    waiting: dict[str, Study] = field(default_factory=dict)
    news: simpy.Event = field(init=False)
    read: list[Read] = field(default_factory=list)
    turns: int = 0

    def __post_init__(self) -> None:
        self.news = self.env.event()

    def add(self, study: Study) -> None:
        self.waiting[study.uid] = study
        self.keys[study.uid] = self.key(study, False)
        self.news.succeed()
        self.news = self.env.event()

    def analysed(self, study: Study) -> None:
        if study.uid in self.waiting:
            self.keys[study.uid] = self.key(study, True)

    def take(self) -> tuple[Study, int]:
        """The next study, and its turn."""
        uid = min(self.waiting, key=self.keys.__getitem__)
        del self.keys[uid]
        self.turns += 1
        return self.waiting.pop(uid), self.turns - 1


def run(studies: Sequence[Study], order: Key, readers: Sequence[int], analysis_minutes: float) -> list[Read]:
    """Reads every study, in `order`; `readers`: at work in each hour of the day. Reader n works while n < readers[hour]."""
    env = simpy.Environment()
    room = _Room(env, order)
    env.process(_arriving(env, room, studies, analysis_minutes))
    done = env.event()
    for number in range(max(readers)):
        env.process(_reader(env, room, number, readers, len(studies), done))
    env.run(until=done)
    return room.read


def _arriving(
    env: simpy.Environment, room: _Room, studies: Sequence[Study], analysis: float
) -> Generator[simpy.Event, Any, None]:
    for study in studies:
        yield env.timeout(max(0.0, study.arrived - env.now))
        room.add(study)
        env.process(_analysing(env, room, study, analysis))


def _analysing(env: simpy.Environment, room: _Room, study: Study, minutes: float) -> Generator[simpy.Event, Any, None]:
    yield env.timeout(minutes)
    room.analysed(study)


def _reader(
    env: simpy.Environment, room: _Room, number: int, readers: Sequence[int], total: int, done: simpy.Event
) -> Generator[simpy.Event, Any, None]:
    while True:
        hour = int(env.now % _DAY // 60)
        if number >= readers[hour]:
            yield env.timeout(60 - env.now % 60)
        elif not room.waiting:
            yield room.news | env.timeout(60 - env.now % 60)
        else:
            (study, turn), taken = room.take(), env.now
            yield env.timeout(study.reading)
            room.read.append(Read(study, turn, taken, env.now))
            if len(room.read) == total and not done.triggered:
                done.succeed()
