"""Analyses of Osler's own that measure more than a package's configuration says, by the name that metadata.json gives.

A package chooses among these by name (`osler.analysis`); it cannot name code of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from services.imaging.host.contract import Analysis
from services.imaging.host.model import LoadedModel, PackagedModel
from services.imaging.host.refusals import refused

Adapter = Callable[[LoadedModel], Analysis]
#: Name in metadata.json -> module and function.
ADAPTERS = {
    "hippocampus": ("services.imaging.host.hippocampus", "build"),
    "pet_lesion": ("services.imaging.pet_lesion_analysis", "build"),
    "pneumonia": ("services.imaging.pneumonia", "build"),
}


def analysis_of(loaded: LoadedModel) -> Analysis:
    """The adapter that the package names, else the package as it is. Raises RefusedError `model.unknown_analysis`."""
    name = loaded.package.metadata.osler.analysis
    if not name:
        return PackagedModel(loaded)
    if name not in ADAPTERS:
        raise refused(
            "unknown_analysis",
            f"{loaded.package.name} bundle: metadata.json names the analysis {name!r}; known: {', '.join(ADAPTERS)}",
            "Update Osler, or remove `osler.analysis` to run the package as it is.",
        )
    module, function = ADAPTERS[name]
    adapter: Adapter = getattr(import_module(module), function)
    return adapter(loaded)
