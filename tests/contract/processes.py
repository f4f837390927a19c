"""Child processes that start fast: forked from a server that has imported what they need, and nothing else."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

forkserver = multiprocessing.get_context("forkserver")
forkserver.set_forkserver_preload(
    [
        "services.platform.worker",
        "services.platform.bus.kafka_log",
        "services.platform.blobs",
        "alembic.command",
        "psycopg",
        "sqlalchemy.dialects.postgresql.psycopg",
        "fsspec.implementations.local",
    ]
)


def tell_stacks(folder: Path) -> None:
    """Called in a child: from now on it answers `stacks_of`."""
    file = (folder / f"stacks-{os.getpid()}").open("w")
    faulthandler.register(signal.SIGUSR1, file=file)


def stacks_of(process: BaseProcess, folder: Path) -> str:
    """What the threads of a child are at, for a test that waits for it in vain."""
    assert process.pid is not None
    os.kill(process.pid, signal.SIGUSR1)
    time.sleep(1.0)
    told = folder / f"stacks-{process.pid}"
    return told.read_text() if told.exists() else "it has not begun"
