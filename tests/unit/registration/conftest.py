"""Phantoms beside these tests, and fewer points for them: a phantom of 40,000 voxels needs no more."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from services.registration.quality import THRESHOLDS
from services.registration.rigid import SETTINGS

_FEWER = (
    (SETTINGS["coarse"], {"samples": 2500}),
    (SETTINGS["middle"], {"samples": 5000}),
    (SETTINGS["fine"], {"samples": 12000}),
    (SETTINGS, {"forward_runs": 2, "inverse_runs": 2}),
    (THRESHOLDS["probe"], {"points": 20000}),
)


@pytest.fixture(scope="module", autouse=True)
def fewer_points() -> Iterator[None]:
    before = [(table, {name: table[name] for name in changed}) for table, changed in _FEWER]
    for table, changed in _FEWER:
        table.update(changed)
    yield
    for table, kept in before:
        table.update(kept)
