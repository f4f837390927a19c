"""Random faults on a running Osler: `python -m tests.faults --schedules 200 --seed 1`.

Three Kafka brokers (KRaft, in network namespaces), PostgreSQL, and the rooms ingest, fusion (two processes), board and
analytics as processes of their own. Each schedule sends studies through C-STORE while brokers, the database and workers
are killed, lines are cut, disks filled, clocks skewed, deliveries doubled and reordered; then everything is healed, and
every accepted study must be in exactly one case. The same seed gives the same schedules. Needs root (namespaces, mounts).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

_INSIDE = "OSLER_FAULTS_INSIDE"
# A schedule that is not settled by then counts as failed.
_LONGEST_S = 240.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schedules", type=int, default=6, help="how many schedules (the full suite: 200)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--results", type=Path, help="file of results, one JSON a line; those that it holds are not run again"
    )
    parser.add_argument("--at-most", type=int, help="stop after this many; with --results the rest can be run later")
    parser.add_argument("--only", type=int, help="run this schedule alone")
    parser.add_argument("--points", action="store_true", help="instead: one death at each commit point of each room")
    options = parser.parse_args()
    if os.environ.get(_INSIDE) != "1":
        if os.geteuid() != 0 or shutil.which("unshare") is None:
            print("needs root and util-linux' unshare: network and mount namespaces of its own", file=sys.stderr)
            return 77
        environment = {**os.environ, _INSIDE: "1"}
        os.execvpe(
            "unshare",
            [
                "unshare",
                "--net",
                "--mount",
                "--propagation",
                "private",
                sys.executable,
                "-m",
                "tests.faults",
                *sys.argv[1:],
            ],
            environment,
        )
    return _run(options)


def _run(options: argparse.Namespace) -> int:
    # So that what was started ends with it, however it ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    logging.disable(logging.ERROR)
    if options.points:
        from tests.faults.kinds import commit_points

        options.schedules = len(commit_points())
    done = _known(options.results)
    numbers = [options.only] if options.only is not None else [n for n in range(options.schedules) if n not in done]
    numbers = numbers[: options.at_most]
    results = list(done.values())
    if numbers:
        from tests.faults.world import World

        world = World(Path(tempfile.mkdtemp(prefix="osler-faults-")))
        try:
            begun = time.monotonic()
            world.start()
            print(
                f"three brokers, PostgreSQL and five processes run after {time.monotonic() - begun:.0f} s", flush=True
            )
            for number in numbers:
                result = _schedule(world, options.seed, number, points=options.points)
                results.append(result)
                _tell(result)
                if options.results:
                    with options.results.open("a") as file:
                        file.write(json.dumps(result) + "\n")
                if result["problems"]:
                    _keep_logs(world)
                    break
        finally:
            world.close()
    _summary(results, options)
    return 1 if any(result["problems"] for result in results) else 0


def _known(file: Path | None) -> dict[int, dict[str, Any]]:
    if file is None or not file.exists():
        return {}
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return {row["number"]: row for row in rows}


def _schedule(world: Any, seed: int, number: int, *, points: bool) -> dict[str, Any]:
    from tests.faults.invariants import Before, accepted, outstanding, problems
    from tests.faults.kinds import death_at, schedule
    from tests.faults.modality import Modality, make_study
    from tests.faults.world import wait_until

    chance = random.Random(f"{seed}/{number}/studies")
    patients = [f"F{seed}-{number}-{n}" for n in range(2)]
    label = f"{seed}.{number + 1}.{os.getpid()}"
    studies = [make_study(label, n + 1, chance.choice(patients), chance) for n in range(4)]
    faults = [death_at(world, number)] if points else schedule(world, seed, number)
    before = Before(world.foundations)
    modality = Modality(world.dicom_port, studies, chance.uniform(0.1, 0.6), f"{seed}/{number}/sender")
    begun = time.monotonic()
    if points:
        faults[0].do()
        modality.start()
        wait_until(lambda: any(member.trigger.died_at.value >= 0 for member in world.members), _LONGEST_S / 4)
        faults[0].undo()
    else:
        modality.start()
        _carry_out(faults, begun)
    world.revive()
    healed = time.monotonic()
    sent = wait_until(lambda: not modality.is_alive(), _LONGEST_S)
    at_rest = sent and wait_until(lambda: _quietly(lambda: not outstanding(world.foundations, studies)), _LONGEST_S)
    recovery_s = time.monotonic() - healed
    modality.stopping = True
    in_order = not any(fault.kind.startswith("deliveries") for fault in faults)
    found = problems(world.foundations, studies, before, in_order=in_order) if at_rest else []
    if not at_rest:
        found = [f"not at rest: {outstanding(world.foundations, studies) if sent else 'the sender still sends'}"]
    from tests.faults.rooms import POINTS

    deaths = [
        f"{member.room} {POINTS[member.trigger.died_at.value]}"
        for member in world.members
        if member.trigger.died_at.value >= 0
    ]
    if points and not deaths:
        found.append("no process passed the point: nothing died")
    for member in world.members:
        member.trigger.died_at.value = -1
    return {
        "number": number,
        "seed": seed,
        "faults": [f"{fault.kind} ({fault.detail})" if fault.detail else fault.kind for fault in faults],
        "kinds": [fault.kind for fault in faults],
        "deaths": deaths,
        "accepted": accepted(studies),
        "refused_for_now": sum(status != 0 for study in studies for status in study.statuses),
        "recovery_s": round(recovery_s, 2),
        "took_s": round(time.monotonic() - begun, 2),
        "problems": found,
    }


def _carry_out(faults: Any, begun: float) -> None:
    """Does and undoes the faults at their times; returns when all are undone."""
    steps = sorted(
        [(fault.at_s, fault.do) for fault in faults] + [(fault.at_s + fault.lasts_s, fault.undo) for fault in faults],
        key=lambda step: step[0],
    )
    for at_s, act in steps:
        time.sleep(max(0.0, begun + at_s - time.monotonic()))
        act()


def _quietly(condition: Any) -> bool:
    from services.platform.errors import RetryableError

    with suppress(RetryableError):
        return bool(condition())
    return False


def _keep_logs(world: Any) -> None:
    target = Path(tempfile.gettempdir()) / "osler-faults-failed"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for log in world.folder.glob("*.log"):
        shutil.copy(log, target)
    for number, disk in enumerate(world.broker_disks, 1):
        shutil.copy(disk.folder / "node" / "broker.log", target / f"broker{number}.log")
    print(f"what is left of it: {target}", file=sys.stderr)


def _tell(result: dict[str, Any]) -> None:
    verdict = "; ".join(result["problems"]) or "nothing lost, nothing doubled, in order"
    print(
        f"{result['number']:4d}  {' + '.join(result['faults'])}\n      {result['accepted']} instances, at rest"
        f" {result['recovery_s']:.1f} s after the end of the faults: {verdict}",
        flush=True,
    )


def _summary(results: list[dict[str, Any]], options: argparse.Namespace) -> None:
    failed = [result for result in results if result["problems"]]
    print(
        f"\n{len(results)} of {options.schedules} schedules of seed {options.seed}: {len(results) - len(failed)} held,"
        f" {len(failed)} did not; {sum(r['accepted'] for r in results)} instances accepted,"
        f" {sum(r['refused_for_now'] for r in results)} refused for the moment"
    )
    from tests.faults.kinds import KINDS

    print(f"\n{'fault':34s} schedules   recovery: median   slowest (s, from the end of the faults to rest)")
    for kind in KINDS:
        all_of = [r["recovery_s"] for r in results if kind in r["kinds"]]
        alone = [r["recovery_s"] for r in results if r["kinds"] == [kind]]
        shown = f"{statistics.median(alone):17.1f} {max(alone):9.1f}" if alone else " " * 12 + "no schedule of it alone"
        print(f"{kind:34s} {len(all_of):9d} {shown}")
    points = sorted({death for result in results for death in result["deaths"]})
    print(f"\nprocesses died at {len(points)} different commit points: {', '.join(points)}")


if __name__ == "__main__":
    # Kept for debuggers: which threads are left when it does not end.
    threading.current_thread().name = "faults"
    sys.exit(main())
