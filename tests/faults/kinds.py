"""The faults: how each is done, and undone."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from tests.faults.rooms import POINTS
from tests.faults.world import BROKERS, World


@dataclass(frozen=True)
class Fault:
    """One fault of a schedule. `do` and `undo` act on the world at `at_s` and `at_s + lasts_s`."""

    kind: str
    detail: str
    at_s: float
    lasts_s: float
    do: Callable[[], object]
    undo: Callable[[], object]


def _nothing() -> None:
    return None


def commit_points() -> list[tuple[str, str]]:
    """Every (room, point) at which a process can die here: ingest hears of nothing, board and analytics tell nothing."""
    passed = {
        "ingest": ("publish", "rows", "blob"),
        "fusion": ("publish", "rows", "blob", "offsets"),
        "board": ("rows", "offsets"),
        "analytics": ("rows", "offsets", "lake"),
    }
    return [(room, point) for room in passed for point in POINTS if point.startswith(passed[room])]


def _kill_at_point(
    world: World, chance: random.Random, turn: int
) -> tuple[str, Callable[[], object], Callable[[], object]]:
    points = commit_points()
    room, point = points[turn % len(points)]
    member = world.of(room, chance)
    passage = chance.randint(1, 3)

    def arm() -> None:
        member.trigger.arm(point, passage)

    return f"{room} {point} #{passage}", arm, member.trigger.disarm


def _kill_worker(
    world: World, chance: random.Random, turn: int
) -> tuple[str, Callable[[], object], Callable[[], object]]:
    member = world.members[turn % len(world.members)]
    return member.room, lambda: member.process.kill(), _nothing


def _kill_broker(
    world: World, chance: random.Random, turn: int
) -> tuple[str, Callable[[], object], Callable[[], object]]:
    number = turn % BROKERS
    return f"broker {number + 1}", world.cluster.brokers[number].kill, _nothing


def _cut_broker(
    world: World, chance: random.Random, turn: int
) -> tuple[str, Callable[[], object], Callable[[], object]]:
    number = turn % BROKERS + 1
    return f"broker {number}", partial(world.network.cut, number), partial(world.network.heal, number)


def _kill_database(
    world: World, chance: random.Random, turn: int
) -> tuple[str, Callable[[], object], Callable[[], object]]:
    return "", partial(world.postgres.stop, how="immediate"), _nothing


def _cut_database(
    world: World, chance: random.Random, turn: int
) -> tuple[str, Callable[[], object], Callable[[], object]]:
    return "", world.line.cut, world.line.mend


def _fill(world: World, chance: random.Random, turn: int) -> tuple[str, Callable[[], object], Callable[[], object]]:
    disks = {"archive": world.disk, "database": world.database_disk}
    disks |= {f"broker {number}": disk for number, disk in enumerate(world.broker_disks, 1)}
    name = list(disks)[turn % len(disks)]
    return name, disks[name].fill, disks[name].heal


def _skew(world: World, chance: random.Random, turn: int) -> tuple[str, Callable[[], object], Callable[[], object]]:
    member = world.members[turn % len(world.members)]
    seconds = chance.choice([-86400, -3600, -90, 90, 3600, 86400])
    return f"{member.room} {seconds:+d} s", partial(member.skew, seconds), partial(member.skew, 0)


def _disturb(world: World, chance: random.Random, turn: int) -> tuple[str, Callable[[], object], Callable[[], object]]:
    def switch(value: int) -> None:
        for member in world.members:
            member.trigger.disturbed.value = value

    return "reversed and twice", partial(switch, 1), partial(switch, 0)


KINDS: Mapping[str, Callable[[World, random.Random, int], tuple[str, Callable[[], object], Callable[[], object]]]] = {
    "worker killed at a commit point": _kill_at_point,
    "broker killed": _kill_broker,
    "worker killed at any moment": _kill_worker,
    "database killed": _kill_database,
    "broker cut off": _cut_broker,
    "database cut off": _cut_database,
    "disk full": _fill,
    "clock skewed": _skew,
    "deliveries reordered and doubled": _disturb,
}


def death_at(world: World, number: int) -> Fault:
    """The death of a process at the first passage of one of the commit points, by number."""
    room, point = commit_points()[number]
    # Of two members of a group, the other one could have all the work.
    members = [member for member in world.members if member.room == room]

    def arm() -> None:
        for one in members:
            one.trigger.arm(point, 1)

    def disarm() -> None:
        for one in members:
            one.trigger.disarm()

    return Fault("worker killed at a commit point", f"{room} {point}", 0.0, 0.0, arm, disarm)


def schedule(world: World, seed: int, number: int) -> list[Fault]:
    """The faults of one schedule: the same seed and number give the same. Kinds take turns, every second is a single one;
    deaths at a commit point come twice as often, because there are many points.
    """
    chance = random.Random(f"{seed}/{number}")
    names = [*KINDS, "worker killed at a commit point"]
    chosen = [names[number % len(names)]]
    if number % 2:
        chosen += chance.choices(names, k=chance.randint(1, 2))
    faults = []
    for place, kind in enumerate(chosen):
        # Each kind goes through its own variants in turn.
        turn = (
            number // len(names) * 2 + (number % len(names) == len(names) - 1) if place == 0 else chance.randrange(1000)
        )
        if place == 0 and kind != "worker killed at a commit point":
            turn = number // len(names)
        detail, do, undo = KINDS[kind](world, chance, turn)
        lasts = chance.uniform(4, 7) if kind == "worker killed at a commit point" else chance.uniform(0.5, 4)
        faults.append(Fault(kind, detail, chance.uniform(0, 1.5) if place else 0.3, lasts, do, undo))
    return faults
