"""The flow on one machine: SQLite event log, SQLite state, files."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.flow import *  # noqa: F403 - the same tests in both settings
from tests.e2e.running import RunningOsler


@pytest.fixture(scope="module")
def osler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningOsler]:
    """Osler with every room as a process of its own."""
    found = RunningOsler(tmp_path_factory.mktemp("osler") / "home")
    try:
        found.start()
        yield found
    finally:
        found.stop()
