"""Who may open a case: the rule, without any reading or writing.

Everybody who signs in with a reading role sees the list of cases that are open to them. A case is open to its team and to
the participants of meetings where it is on the agenda; to everybody else only while `board.case_access` is "all" and nobody
restricted it. Who is not on the team may break the glass: with a reason, for a limited time, in the audit trail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from services.platform.security import PermissionDeniedError, Principal

READERS = ("clinician", "board", "admin")
# Who prepares meetings: adds cases, names teams, restricts cases.
KEEPERS = ("board", "admin")
Kind = Literal["team", "glass"]


class GlassError(PermissionDeniedError):
    """The caller may read cases, but not this one without breaking the glass."""


@dataclass(frozen=True)
class Grant:
    """One way in. `until` None: until taken back."""

    subject: str
    kind: Kind
    reason: str
    granted_by: str
    at: datetime
    until: datetime | None

    def holds(self, subject: str, now: datetime) -> bool:
        return self.subject == subject and (self.until is None or now < self.until)


@dataclass(frozen=True)
class CaseAccess:
    """What is known about one case. `participant`: the caller takes part in a meeting that discusses it."""

    restricted: bool
    grants: Sequence[Grant]
    participant: bool


def may_open(principal: Principal, case: CaseAccess, policy: str, now: datetime) -> bool:
    """Whether the caller may see the case now. `policy`: `board.case_access`."""
    if any(grant.holds(principal.subject, now) for grant in case.grants) or case.participant:
        return True
    if case.restricted:
        return False
    return policy == "all" or principal.has(*KEEPERS)
