"""Where models run: in this process, or on Ray Serve (`compute.backend`)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from services.clinical.volume import ImageVolume

if TYPE_CHECKING:
    from services.imaging.hippocampus import HippocampusModel, HippocampusSegmentation
    from services.platform.config import Settings

#: Folder of the bundle under `models.path`.
HIPPOCAMPUS_BUNDLE = "hippocampus"


class Compute(Protocol):
    """Runs models. Calls block until the result is there and raise RefusedError as the model does."""

    def hippocampus(self, volume: ImageVolume) -> HippocampusSegmentation: ...

    def close(self) -> None: ...


class LocalCompute:
    """Models in this process, one call at a time; loaded at the first call."""

    def __init__(self, models: Path, num_cpus: int) -> None:
        self._models = models
        self._num_cpus = num_cpus
        self._model: HippocampusModel | None = None
        self._lock = threading.Lock()

    def hippocampus(self, volume: ImageVolume) -> HippocampusSegmentation:
        """Raises RefusedError `hippocampus.*`, ConfigurationError for a missing or changed bundle."""
        from services.imaging.hippocampus import segment

        with self._lock:
            return segment(self._loaded(), volume.array, volume.affine_lps)

    def _loaded(self) -> HippocampusModel:
        if self._model is None:
            import torch

            from services.imaging.hippocampus import load_bundle

            torch.set_num_threads(self._num_cpus)
            self._model = load_bundle(self._models / HIPPOCAMPUS_BUNDLE)
        return self._model

    def close(self) -> None:
        """Lets the model go."""
        self._model = None


class LazyCompute:
    """Opens its compute at the first call, so that a room that only measures starts no cluster."""

    def __init__(self, opener: Callable[[], Compute]) -> None:
        self._opener = opener
        self._opened: Compute | None = None
        self._lock = threading.Lock()

    def hippocampus(self, volume: ImageVolume) -> HippocampusSegmentation:
        """As the compute behind it."""
        with self._lock:
            if self._opened is None:
                self._opened = self._opener()
        return self._opened.hippocampus(volume)

    def close(self) -> None:
        """Closes what was opened."""
        if self._opened is not None:
            self._opened.close()


def open_compute(settings: Settings) -> Compute:
    """The back end that the settings name; nothing is loaded or started before the first call."""
    if settings.compute.backend == "ray":
        from services.imaging.serving import RayCompute

        return LazyCompute(lambda: RayCompute(settings.models.path, settings.compute))
    return LocalCompute(settings.models.path, settings.compute.num_cpus)
