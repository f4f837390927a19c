"""Fixtures that every suite shares."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

# A busy machine may stop any example for longer than hypothesis' 200 ms. Examples are the same at every run, so that a
# change fails for what it did; HYPOTHESIS_PROFILE=explore looks for new ones.
hypothesis.settings.register_profile("steady", deadline=None, derandomize=True)
hypothesis.settings.register_profile("explore", deadline=None, max_examples=1000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository_root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data, when there is one; see docs/development.md."""
    folder = Path(os.environ.get("OSLER_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(
            "real data folder not found: set OSLER_SHARED_DATA to a folder laid out as docs/development.md says"
        )
    return folder
