"""Large files: made once however many ask, in parts, and not sent again to who holds them."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from services.board.kept import Kept
from services.board.ranges import not_modified, ranged

CONTENT = bytes(range(100))


def asked(**headers: str) -> Any:
    return SimpleNamespace(headers={name.replace("_", "-"): value for name, value in headers.items()})


def test_a_volume_that_many_ask_for_is_made_once() -> None:
    kept, made = Kept(1000), []

    def make() -> bytes:
        made.append(1)
        time.sleep(0.05)
        return CONTENT

    readers = [threading.Thread(target=kept.get, args=("a", make)) for _ in range(8)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert len(made) == 1


def test_what_nobody_asked_for_longest_goes_first_and_a_failure_is_tried_again() -> None:
    kept, made = Kept(250), []

    def make(name: str) -> bytes:
        made.append(name)
        return CONTENT

    for name in ("a", "b", "a", "c", "a", "b"):
        kept.get(name, lambda name=name: make(name))  # type: ignore[misc]
    assert made == ["a", "b", "c", "b"]
    with pytest.raises(ZeroDivisionError):
        kept.get("z", lambda: bytes(1 // 0))
    assert kept.get("z", lambda: b"z") == b"z"


def test_a_browser_that_holds_the_file_is_told_so() -> None:
    assert not_modified(asked(if_none_match='"old", W/"t1"'), "t1")
    assert not not_modified(asked(if_none_match='"t1"'), "t2")
    assert not not_modified(asked(), "t1")


def test_a_part_of_another_version_is_the_whole() -> None:
    part = ranged(asked(range="bytes=0-9", if_range='"t1"'), CONTENT, "x", tag="t1")
    assert (part.status_code, bytes(part.body), part.headers["etag"]) == (206, CONTENT[:10], '"t1"')
    assert "private" in part.headers["cache-control"]
    whole = ranged(asked(range="bytes=0-9", if_range='"t1"'), CONTENT, "x", tag="t2")
    assert (whole.status_code, bytes(whole.body)) == (200, CONTENT)
