"""Child processes that start fast: forked from a server that has imported what they need, and nothing else."""

from __future__ import annotations

import multiprocessing

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
