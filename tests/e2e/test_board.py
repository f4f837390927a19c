"""The board's pages in chromium, on one machine (part of `make test-e2e`)."""

from __future__ import annotations

from tests.e2e.board_flow import *  # noqa: F403 - the tests
from tests.e2e.flow import case as case
from tests.e2e.test_embedded import collector as collector
from tests.e2e.test_embedded import osler as osler
