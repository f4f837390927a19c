"""The ingest room's parts, fresh for each test."""

import pytest

from tests.fixtures import ingest_rooms


@pytest.fixture
def parts(tmp_path):
    parts = ingest_rooms.build(tmp_path)
    yield parts
    parts.database.close()
