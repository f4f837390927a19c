"""From any series to any other through registrations: the way with the least uncertainty, and what it adds up to.

Errors of independent registrations add in squares (Fitzpatrick JM, West JB. IEEE Trans Med Imaging 2001;20:917, for targets;
independence is an assumption, and the turn of each step moves distant points more than near ones).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from osler.registration.v1 import registration_pb2

from services.registration.geometry import IDENTITY, Matrix, inverse

_USABLE = (registration_pb2.VERDICT_GOOD, registration_pb2.VERDICT_REVIEW)


@dataclass(frozen=True)
class Chain:
    """`matrix`: 4x4, fixed to moving, LPS mm. `steps`: registration ids, first to last. `verdict`: the worst on the way.

    `predicted_tre_mm`: expected target registration error of the whole.
    """

    matrix: Matrix
    steps: tuple[str, ...]
    predicted_tre_mm: float
    verdict: registration_pb2.Verdict


@dataclass(frozen=True)
class _Edge:
    to: str
    matrix: Matrix
    error_mm: float
    step: str
    verdict: registration_pb2.Verdict


def link(registrations: Iterable[registration_pb2.Registration], fixed: str, moving: str) -> Chain | None:
    """The least uncertain way between two series (instance UIDs), or None where no usable registrations lead there.

    Rigid registrations that were not failed are walked either way. Series whose pair shares a frame of reference are not
    taken as aligned: that claim is what a registration verifies.
    """
    edges = _edges(registrations)
    best = {fixed: 0.0}
    queue: list[tuple[float, int, str, Chain]] = [
        (0.0, 0, fixed, Chain(IDENTITY, (), 0.0, registration_pb2.VERDICT_GOOD))
    ]
    order = 0
    while queue:
        variance, _, here, chain = heapq.heappop(queue)
        if here == moving:
            return chain
        for edge in edges.get(here, []):
            beyond = variance + edge.error_mm**2
            if beyond < best.get(edge.to, math.inf):
                best[edge.to], order = beyond, order + 1
                longer = Chain(
                    edge.matrix @ chain.matrix,
                    (*chain.steps, edge.step),
                    math.sqrt(beyond),
                    max(chain.verdict, edge.verdict),
                )
                heapq.heappush(queue, (beyond, order, edge.to, longer))
    return None


def _edges(registrations: Iterable[registration_pb2.Registration]) -> dict[str, list[_Edge]]:
    edges: dict[str, list[_Edge]] = {}
    for item in sorted(registrations, key=lambda r: r.registration_id):
        rigid = item.method in (registration_pb2.METHOD_UNSPECIFIED, registration_pb2.METHOD_RIGID)
        if not rigid or not item.HasField("transform") or item.quality.verdict not in _USABLE:
            continue
        matrix = np.reshape(item.transform.matrix, (4, 4))
        ends = (item.pair.fixed.series_instance_uid, item.pair.moving.series_instance_uid)
        step = (item.quality.predicted_tre_mm, item.registration_id, item.quality.verdict)
        edges.setdefault(ends[0], []).append(_Edge(ends[1], matrix, *step))
        edges.setdefault(ends[1], []).append(_Edge(ends[0], inverse(matrix), *step))
    return edges
