"""Fits that are kept: the courses of one tumour are asked for again and again while somebody tries them.

A fit is a pure function of measurements, population and seed, so it is kept under exactly these. New measurements, another
disease or regimen, or another seed are other fits; nothing has to be thrown away when a snapshot changes.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from services.twin import growth

#: A posterior of ten visits holds about 300 kB.
_KEPT = 64


@lru_cache(maxsize=_KEPT)
def fitted(days: tuple[float, ...], values: tuple[float, ...], prior: growth.Population, seed: int) -> growth.Posterior:
    """`growth.fit`, made once for the same arguments; its arrays are read-only. Raises RefusedError as `growth.fit` does."""
    posterior = growth.fit(days, values, prior, seed=seed)
    for held in (posterior, posterior.rates):
        for value in vars(held).values():
            if isinstance(value, np.ndarray):
                value.setflags(write=False)
    return posterior
