"""The demo patient as files."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.cohort import demo

pytest.register_assert_rewrite("tests.e2e.flow")


@pytest.fixture(scope="session")
def demo_patient(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    demo.write(folder)
    return folder
