"""Analysers without learned weights: images and options in, measurements, maps and regions out.

One module each, with its card (YAML) beside it: what it does, from which paper, for what, and where it stops.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.imaging.host.contract import Analysis


def analyses() -> tuple[Analysis, ...]:
    """Every analyser behind the contract of the model host."""
    from services.imaging.analysers.hosted import analyses as hosted

    return hosted()
