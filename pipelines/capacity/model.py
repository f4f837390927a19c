"""Studies that pass the rooms, on one machine and in a cluster: a discrete-event simulation (simpy), seconds.

One machine: every room works off its events one after the other, and all share the cores, in turns (processor sharing).
A cluster: every room has pods, each works on one event at a time on its own cores; a scaler changes their number, they take
time to start, and may vanish with work in hand, which another then does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import simpy
import yaml

from services.platform.errors import ConfigurationError

_HERE = Path(__file__).parent
MEASURED = _HERE / "measured.yaml"
DAY_S = 86400.0
# What an announced study makes the rooms do, besides `ingest`, which files what it is sent: (room, what comes after it).
# After imaging, and again after registration, the patient's picture, forecast and advice are made anew.
AFTER: Mapping[str, tuple[str, ...]] = {
    "study": ("imaging", "registration"),
    "imaging": ("fusion",),
    "registration": ("fusion",),
    "fusion": ("twin",),
    "twin": ("advisor",),
    "advisor": ("alerts", "board", "analytics"),
    "alerts": (),
    "board": (),
    "analytics": (),
}
# How often each room works for one study in this picture.
VISITS: Mapping[str, int] = {
    "imaging": 1, "registration": 1, "fusion": 2, "twin": 2, "advisor": 2, "alerts": 2, "board": 2, "analytics": 2,
}  # fmt: skip
_TURN_S = 0.05


def assumptions() -> dict[str, Any]:
    """`capacity.yaml`."""
    return dict(yaml.safe_load((_HERE / "capacity.yaml").read_text(encoding="utf-8")))


def measured() -> dict[str, Any]:
    """`measured.yaml`, written by `python -m pipelines.capacity measure`. Raises ConfigurationError before that."""
    if not MEASURED.exists():
        raise ConfigurationError(
            f"{MEASURED} is missing: measure this machine first (python -m pipelines.capacity measure)"
        )
    return dict(yaml.safe_load(MEASURED.read_text(encoding="utf-8")))


def demand(costs: Mapping[str, Any]) -> dict[str, float]:
    """Room -> CPU seconds of one visit of a study."""
    return {room: costs["per_study"]["cpu_s"][room] / visits for room, visits in VISITS.items()}


@dataclass
class OneMachine:
    """The machine of the measurement: `cores`, less what idle rooms take, shared by all that is ready to run."""

    costs: Mapping[str, Any]
    hop_s: float
    env: simpy.Environment = field(default_factory=simpy.Environment)
    finished: dict[int, float] = field(default_factory=dict)
    announced: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        cores = self.costs["machine"]["cores"]
        self._slowness = cores / (cores - sum(self.costs["idle_cores"].values()))
        self._cores = simpy.Resource(self.env, cores)
        self._rooms = {room: simpy.Resource(self.env, 1) for room in VISITS}
        self._demand = demand(self.costs)

    def run(self, patients: int) -> float:
        """Seconds from the first instance until the last room has done its work."""
        self.env.process(self._sender(patients))
        self.env.run()
        return self.env.now

    def _use(self, seconds: float) -> Generator[Any, Any, None]:
        """So many CPU seconds, in turns with everybody else."""
        left = seconds * self._slowness
        while left > 0:
            turn = min(_TURN_S, left)
            with self._cores.request() as core:
                yield core
                yield self.env.timeout(turn)
            left -= turn

    def _sender(self, patients: int) -> Generator[Any, Any, None]:
        """One association after the other; sender and door take turns, as C-STORE is acknowledged one by one."""
        per = self.costs["per_study"]
        for patient in range(patients):
            studies = 2
            for _ in range(studies):
                yield from self._use(per["sender_cpu_s"] + per["cpu_s"]["ingest"])
                self.env.process(self._study(patient))

    def _study(self, patient: int) -> Generator[Any, Any, None]:
        yield self.env.timeout(self.costs["quiet_period_s"])
        self.announced.setdefault(patient, self.env.now)
        yield self.env.all_of([self.env.process(self._work(room, patient)) for room in AFTER["study"]])

    def _work(self, room: str, patient: int) -> Generator[Any, Any, None]:
        yield self.env.timeout(self.hop_s)
        with self._rooms[room].request() as turn:
            yield turn
            yield from self._use(self._demand[room])
        if room == "advisor":
            self.finished[patient] = self.env.now
        yield self.env.all_of([self.env.process(self._work(after, patient)) for after in AFTER[room]])


def hop_of(costs: Mapping[str, Any]) -> float:
    """Seconds that an event waits between two rooms of an idle machine, so that one patient alone takes what was measured."""
    wanted = float(np.mean(costs["alone"]["seconds"]))
    low, high = 0.0, 10.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if OneMachine(costs, middle).run(1) < wanted else (low, middle)
    return (low + high) / 2


def one_machine(costs: Mapping[str, Any]) -> tuple[float, float]:
    """Seconds for the patients that were sent at once: (simulated, measured). Only the patients sent alone are used."""
    together = costs["together"]
    return OneMachine(costs, hop_of(costs)).run(int(together["patients"])), float(together["seconds"])


def arrivals(per_day: float, hourly: Sequence[float], first_hour: float, hours: float, seed: int) -> np.ndarray:
    """Times of a Poisson process that follows the hours of the day; seconds from `first_hour`, sorted."""
    random = np.random.default_rng(seed)
    shares = np.asarray(hourly, dtype=float) / sum(hourly)
    peak = per_day * shares.max() / 3600.0
    count = random.poisson(peak * hours * 3600.0)
    times = np.sort(random.uniform(0.0, hours * 3600.0, count))
    rates = per_day * shares[((times / 3600.0 + first_hour) % 24).astype(int)] / 3600.0
    return np.asarray(times[random.uniform(0.0, peak, count) < rates])


@dataclass
class Pool:
    """The pods of one room. `waiting` holds work that none has taken."""

    room: str
    env: simpy.Environment
    service_s: float
    start_s: float
    limit: int
    waiting: simpy.Store = field(init=False)
    wanted: int = 0
    pods: dict[int, Any] = field(default_factory=dict)
    in_hand: int = 0
    busy_s: float = 0.0
    pod_s: float = 0.0
    _next: int = 0
    _changed_at: float = 0.0

    def __post_init__(self) -> None:
        self.waiting = simpy.Store(self.env)

    def scale(self, wanted: int, *, at_once: bool = False) -> None:
        """Starts or stops pods; one that stops finishes what it does."""
        self._count()
        self.wanted = max(0, min(wanted, self.limit))
        while len(self.pods) < self.wanted:
            self._next += 1
            self.pods[self._next] = self.env.process(self._pod(self._next, 0.0 if at_once else self.start_s))
        for number in list(self.pods)[self.wanted :]:
            pod = self.pods.pop(number)
            if pod.is_alive:
                pod.interrupt("stop")

    def lose(self, share: float) -> None:
        """That share of the pods vanishes with what it does; others are started in their place."""
        self._count()
        for number in list(self.pods)[: math.ceil(len(self.pods) * share)]:
            pod = self.pods.pop(number)
            if pod.is_alive:
                pod.interrupt("lost")
        self.scale(self.wanted)

    def pod_hours(self) -> float:
        self._count()
        return self.pod_s / 3600.0

    def _count(self) -> None:
        self.pod_s += len(self.pods) * (self.env.now - self._changed_at)
        self._changed_at = self.env.now

    def _pod(self, number: int, start_s: float) -> Generator[Any, Any, None]:
        stopping = False
        taking: Any = None
        work: Any = None
        try:
            yield self.env.timeout(start_s)
            while not stopping:
                taking = self.waiting.get()
                work = yield taking
                taking = None
                began = self.env.now
                self.in_hand += 1
                try:
                    yield self.env.timeout(self.service_s)
                except simpy.Interrupt as sign:
                    if sign.cause == "lost":
                        raise
                    stopping = True
                    yield self.env.timeout(self.service_s - (self.env.now - began))
                self.busy_s += self.env.now - began
                self.in_hand -= 1
                done, work = work, None
                done.succeed()
        except simpy.Interrupt:
            if taking is not None:
                self._give_back(taking)
            if work is not None:
                self.in_hand -= 1
                self.env.process(self._redeliver(work))

    def _give_back(self, taking: Any) -> None:
        if taking.triggered:
            self.waiting.put(taking.value)
        else:
            taking.cancel()

    redelivery_s: float = 45.0

    def _redeliver(self, work: Any) -> Generator[Any, Any, None]:
        yield self.env.timeout(self.redelivery_s)
        yield self.waiting.put(work)


# Given a pool, the hour of the day and the arrivals per second expected in it: how many pods.
Policy = Callable[[Pool, float, float], int]


@dataclass(frozen=True)
class Outcome:
    """What a simulated time cost and gave. Seconds; `unfinished` were still on their way at the end."""

    studies: int
    unfinished: int
    p50_s: float
    p95_s: float
    longest_s: float
    pod_hours: Mapping[str, float]
    most_pods: Mapping[str, int]
    busy: Mapping[str, float]


@dataclass
class Cluster:
    """`policy` None: `pods` stays as it is. `gpu`: imaging's and registration's heavy work runs on GPUs."""

    costs: Mapping[str, Any]
    rules: Mapping[str, Any]
    pods: Mapping[str, int]
    policy: Policy | None = None
    gpu: bool = False
    zone_lost: bool = False
    limit: int = 0
    first_hour: float = 0.0
    env: simpy.Environment = field(default_factory=simpy.Environment)
    times: list[float] = field(default_factory=list)
    most: dict[str, int] = field(default_factory=dict)

    def run(self, per_day: float, hours: float, seed: int) -> Outcome:
        """Simulates so many hours from `first_hour` on, then lets what is on its way come to its end for an hour."""
        rules = self.rules
        started = arrivals(per_day, rules["hourly"], self.first_hour, hours, seed)
        self.pools = {room: self._pool(room) for room in VISITS}
        for room, pool in self.pools.items():
            pool.scale(self.pods[room], at_once=True)
        self.env.process(self._arrive(started))
        if self.policy is not None:
            self.env.process(self._scaler(per_day))
        if self.zone_lost:
            self.env.process(self._lose_a_zone())
        self.env.run(hours * 3600.0)
        spent = {room: pool.pod_hours() for room, pool in self.pools.items()}
        busy = {room: pool.busy_s / 3600.0 / max(spent[room], 1e-9) for room, pool in self.pools.items()}
        self.env.run(hours * 3600.0 + 3600.0)
        took = np.asarray(self.times) if self.times else np.asarray([math.inf])
        p50, p95 = np.percentile(took, [50, 95])
        most = {room: max(self.most.get(room, 0), self.pods[room]) for room in VISITS}
        return Outcome(
            len(started), len(started) - len(self.times), float(p50), float(p95), float(took.max()), spent, most, busy
        )

    def _pool(self, room: str) -> Pool:
        on_gpu = self.gpu and room == "imaging"
        service = demand(self.costs)[room] / (self.rules["gpu_speedup"] if on_gpu else 1)
        start = self.rules["start_s"]["gpu" if on_gpu else "pod"]
        pool = Pool(room, self.env, service, start, self.limit or self.rules["partitions"])
        pool.redelivery_s = self.rules["redelivery_s"]
        return pool

    def _arrive(self, times: np.ndarray) -> Generator[Any, Any, None]:
        for at in times:
            yield self.env.timeout(at - self.env.now)
            self.env.process(self._study())

    def _study(self) -> Generator[Any, Any, None]:
        began = self.env.now
        yield self.env.all_of([self.env.process(self._chain(room)) for room in AFTER["study"]])
        self.times.append(self.env.now - began)

    def _chain(self, room: str) -> Generator[Any, Any, None]:
        """Until the advice is with the clinician; board and analytics work on the side."""
        while True:
            done = self.env.event()
            self.pools[room].waiting.put(done)
            yield done
            after = AFTER[room]
            if not after:
                return
            for beside in after[1:]:
                self.pools[beside].waiting.put(self.env.event())
            room = after[0]

    def _scaler(self, per_day: float) -> Generator[Any, Any, None]:
        """Asks the policy every `period_s`; goes down only to the most that was wanted in the last `stabilisation_s`."""
        rules = self.rules["autoscaling"]
        shares = np.asarray(self.rules["hourly"], dtype=float) / sum(self.rules["hourly"])
        kept = max(1, round(rules["stabilisation_s"] / rules["period_s"]))
        recent: dict[str, list[int]] = {room: [] for room in VISITS}
        assert self.policy is not None
        while True:
            hour = (self.env.now / 3600.0 + self.first_hour) % 24
            for room, pool in self.pools.items():
                rate = VISITS[room] * per_day * shares[int(hour)] / 3600.0
                least = 0 if self.gpu and room == "imaging" else 1
                recent[room] = [*recent[room], max(least, self.policy(pool, hour, rate))][-kept:]
                pool.scale(max(recent[room]))
                self.most[room] = max(self.most.get(room, 0), len(pool.pods))
            yield self.env.timeout(rules["period_s"])

    def _lose_a_zone(self) -> Generator[Any, Any, None]:
        yield self.env.timeout(((self.rules["zone_lost_at_hour"] - self.first_hour) % 24) * 3600.0)
        for pool in self.pools.values():
            pool.lose(0.5)


def by_queue(rules: Mapping[str, Any]) -> Policy:
    """A pod for every so many events that are not committed: KEDA's lag of the consumer group, thresholds of the chart."""
    threshold = rules["autoscaling"]["queue"]
    return lambda pool, _hour, _rate: math.ceil((len(pool.waiting.items) + pool.in_hand) / threshold[pool.room])


def by_delay(rules: Mapping[str, Any]) -> Policy:
    """The pods that are at work, and as many as work off what waits within so many seconds."""
    seconds = rules["autoscaling"]["delay"]["seconds"]
    return lambda pool, _hour, _rate: pool.in_hand + math.ceil(len(pool.waiting.items) * pool.service_s / seconds)


def by_schedule(rules: Mapping[str, Any]) -> Policy:
    """As many pods as the hour's expected arrivals need, and a margin; blind to what waits."""
    margin = rules["autoscaling"]["schedule"]["margin"]
    return lambda pool, _hour, rate: math.ceil(margin * rate * pool.service_s)


def by_both(rules: Mapping[str, Any]) -> Policy:
    """The larger of schedule and delay: ready for what is expected, and for what is not."""
    scheduled, delayed = by_schedule(rules), by_delay(rules)
    return lambda pool, hour, rate: max(scheduled(pool, hour, rate), delayed(pool, hour, rate))


POLICIES: Mapping[str, Callable[[Mapping[str, Any]], Policy]] = {
    "queue length": by_queue,
    "delay": by_delay,
    "schedule": by_schedule,
    "schedule and delay": by_both,
}


def pods_for(per_day: float, costs: Mapping[str, Any], rules: Mapping[str, Any], gpu: bool = False) -> dict[str, int]:
    """Pods of each room at the busiest hour, each busy `utilisation` of the time; two at least where nobody may wait."""
    peak = per_day * max(rules["hourly"]) / sum(rules["hourly"]) / 3600.0
    found = {}
    for room, seconds in demand(costs).items():
        speed = rules["gpu_speedup"] if gpu and room == "imaging" else 1
        found[room] = max(1, math.ceil(peak * VISITS[room] * seconds / speed / rules["utilisation"]))
    return found
