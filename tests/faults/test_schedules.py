"""A few random schedules of faults: every accepted study ends in exactly one case. All 200: `make test-faults SCHEDULES=200`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.rooms import LAKE_POINTS
from tests.fixtures.kafka.broker import jars
from tests.peers import require_or_skip

pytestmark = [pytest.mark.slow, pytest.mark.kafka, pytest.mark.postgres]
SCHEDULES = os.environ.get("SCHEDULES", "6")
SEED = os.environ.get("SEED", "1")


def test_nothing_is_lost_or_doubled_whatever_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("ip") is None:
        require_or_skip("network and mount namespaces of its own: run as root, with util-linux and iproute2")
    if shutil.which("cc") is None:
        require_or_skip("no C compiler for the clock that goes wrong: apt-get install gcc")
    jars()
    results = Path(os.environ.get("RESULTS", tmp_path / "results.jsonl"))
    command = [
        sys.executable,
        "-m",
        "tests.faults",
        "--schedules",
        SCHEDULES,
        "--seed",
        SEED,
        "--results",
        str(results),
    ]
    with capsys.disabled():
        done = subprocess.run(command, check=False)
    assert done.returncode == 0


def test_the_points_of_the_lake_are_among_the_faults() -> None:
    from tests.faults.kinds import commit_points

    points = commit_points()
    assert {point for room, point in points if room == "analytics"} >= set(LAKE_POINTS)
    assert len(points) == len(set(points)) >= 20
