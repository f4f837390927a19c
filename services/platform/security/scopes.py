"""Scopes of SMART on FHIR: what a token lets its holder do.

Source: SMART App Launch 2.2, "Scopes and Launch Context": `patient/Observation.rs` (v2: c, r, u, d, s) and
`patient/Observation.read` (v1: read is read and search); `*` is every resource type. A scope with a query part
(`patient/Observation.rs?category=...`) allows only part of a type and counts as not allowing all of it.
"""

from __future__ import annotations

import re
from typing import Literal

Action = Literal["create", "read", "update", "delete", "search"]
_SCOPE = re.compile(r"(patient|user|system)/([A-Za-z]+|\*)\.(read|write|\*|c?r?u?d?s?)")
_V1 = {"read": "rs", "write": "cud", "*": "cruds"}


def allows(granted: str, resource_type: str, action: Action, contexts: tuple[str, ...] = ()) -> bool:
    """True when a space-separated list of scopes allows `action` on every resource of a type within its context.

    `contexts`: only scopes of these contexts ("patient", "user", "system") count; () takes all.

    >>> allows("launch patient/Observation.rs", "Observation", "search")
    True
    >>> allows("patient/*.read", "Observation", "update")
    False
    """
    for scope in granted.split():
        found = _SCOPE.fullmatch(scope)
        if found is None or (contexts and found[1] not in contexts):
            continue
        letters = _V1.get(found[3], found[3])
        if found[2] in ("*", resource_type) and action[0] in letters:
            return True
    return False
