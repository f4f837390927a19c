"""Which keys are one patient. Merges are links that can be undone: no fact ever changes its key.

HL7 v2.5.1 chapter 3, section 3.3.40 (A40, merge patient).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, order=True)
class Merge:
    """`merged` is the same person as `surviving`, since `at`; `undone_at` when that was taken back."""

    at: datetime
    merged: str
    surviving: str
    undone_at: datetime | None = None


def survivors(merges: Iterable[Merge]) -> dict[str, str]:
    """Each merged key -> the key that survives in the end. The order in which merges arrive does not matter.

    Chains are followed. When a later merge names as merged the key that survived before, it turns the earlier one round.
    """
    parent: dict[str, str] = {}
    standing = sorted((m.at, m.merged, m.surviving) for m in merges if m.undone_at is None and m.merged != m.surviving)
    for _, merged, surviving in standing:
        if merged in _chain(parent, surviving):
            del parent[surviving]
        parent[merged] = surviving
    return {key: _chain(parent, key)[-1] for key in parent}


def _chain(parent: dict[str, str], key: str) -> list[str]:
    """A key and the keys that it was merged into, one after the other; the last is the one that survives."""
    chain = [key]
    while chain[-1] in parent:
        chain.append(parent[chain[-1]])
    return chain
