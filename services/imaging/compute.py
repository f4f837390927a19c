"""Where analyses run: in this process, or on Ray Serve (`compute.backend`)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar

from services.clinical.volume import ImageVolume
from services.imaging.host.cache import Breaker, Held, ModelCache
from services.imaging.host.calls import Call, CallCancelledError, DeadlinePassedError, OverloadedError
from services.imaging.host.contract import Analysis, Inputs, Result
from services.imaging.host.refusals import UnknownModelError, refused
from services.imaging.host.registry import Registry, analysers, registry_of
from services.platform.errors import ConfigurationError, RefusedError, RetryableError

if TYPE_CHECKING:
    from services.imaging.hippocampus import HippocampusSegmentation
    from services.imaging.host.explain import Explanation
    from services.platform.config import Settings

#: Folder of the bundle under `models.path`.
HIPPOCAMPUS_BUNDLE = "hippocampus"
#: These end one call and say nothing about the model.
_NOT_A_CRASH = (
    RefusedError,
    ConfigurationError,
    RetryableError,
    UnknownModelError,
    DeadlinePassedError,
    CallCancelledError,
)
_ANYHOW = Call()
#: How often a waiting caller is asked whether it still waits, and what one that finds no room is told.
POLL_S = 0.1
RETRY_AFTER_S = 2.0
T = TypeVar("T")


class Compute(Protocol):
    """Runs analyses. Calls block until the result is there."""

    def run(self, name: str, inputs: Inputs, call: Call = _ANYHOW) -> Result:
        """One run of a model or analyser.

        Raises:
            RefusedError: as the analysis does; `model.*` for a package that is not as it should be, `model.crashed`,
                `model.set_aside`.
            UnknownModelError, DeadlinePassedError, CallCancelledError, OverloadedError: as they say.
            RetryableError: the replica is gone.
        """
        ...

    def explain(self, name: str, inputs: Inputs, target: int, call: Call = _ANYHOW) -> Explanation:
        """Saliency of one output of a packaged model. Raises as `run`, and RefusedError `model.no_gradient`."""
        ...

    def hippocampus(self, volume: ImageVolume) -> HippocampusSegmentation: ...

    def set_aside(self, name: str) -> bool:
        """Whether the model rests after it crashed."""
        ...

    def close(self) -> None: ...


def segment_hippocampus(compute: Compute, volume: ImageVolume) -> HippocampusSegmentation:
    """Raises RefusedError `hippocampus.*`; ConfigurationError for a missing or changed bundle."""
    try:
        result: HippocampusSegmentation = compute.run(HIPPOCAMPUS_BUNDLE, Inputs({"image": volume})).detail
    except UnknownModelError as error:
        raise ConfigurationError(f"models.path: the bundle {HIPPOCAMPUS_BUNDLE} is missing") from error
    except RefusedError as error:
        if error.reason.startswith("model."):
            raise ConfigurationError(f"models.path: {error.message}. {error.remedy}") from error
        raise
    return result


def explain_with(registry: Registry, name: str, device: str, inputs: Inputs, target: int, call: Call) -> Explanation:
    """Loads a package as its configuration describes it, whatever adapter it names, and explains one output."""
    from services.imaging.host.explain import explain
    from services.imaging.host.model import PackagedModel, load

    return explain(PackagedModel(load(registry.package(name), device)), inputs, target, call)


def load_held(registry: Registry, name: str, device: str) -> Held:
    """An analyser, or a package loaded on a device. Raises UnknownModelError, RefusedError `model.*`."""
    from services.imaging.host.adapters import analysis_of
    from services.imaging.host.model import load

    if name in (known := analysers()):
        return Held(known[name], 0)
    loaded = load(registry.package(name), device)
    return Held(analysis_of(loaded), loaded.network.size_bytes)


def guarded(name: str, breaker: Breaker, work: Callable[[], T]) -> T:
    """Runs work unless the model rests; counts its crashes. Raises RefusedError `model.crashed` for one."""
    breaker.check(name)
    try:
        result = work()
    except _NOT_A_CRASH:
        raise
    except Exception as error:  # a model's own code raises anything
        breaker.crashed(name)
        raise crash(name, error) from error
    breaker.worked(name)
    return result


def crash(name: str, error: BaseException) -> RefusedError:
    """The refusal for a model that stopped with an error of its own."""
    return refused(
        "crashed",
        f"{name} stopped with {type(error).__name__}; nothing is reported from this run",
        f"Run `osler models verify {name}`; report it to the model's makers.",
        name,
    )


class LocalCompute:
    """Analyses in this process, one at a time; loaded at the first call."""

    def __init__(self, settings: Settings) -> None:
        self._registry = registry_of(settings)
        self._num_cpus = settings.compute.num_cpus
        self._cache = ModelCache(self._load, settings.models.memory_mb << 20)
        self._breaker = Breaker(settings.models.crashes, settings.models.crash_pause_s)
        self._lock = threading.Lock()
        self._room = threading.BoundedSemaphore(settings.models.max_queued + 1)

    @contextmanager
    def _turn(self, call: Call) -> Iterator[None]:
        """One caller at a time; the others wait, within their deadlines, as long as there is room."""
        if not self._room.acquire(blocking=False):
            raise OverloadedError("a model runs and the queue is full", RETRY_AFTER_S)
        try:
            while not self._lock.acquire(timeout=POLL_S):
                call.checkpoint(0, 1)
            try:
                call.checkpoint(0, 1)
                yield
            finally:
                self._lock.release()
        finally:
            self._room.release()

    def _load(self, name: str) -> Held:
        import torch

        torch.set_num_threads(self._num_cpus)
        return load_held(self._registry, name, "cpu")

    def run(self, name: str, inputs: Inputs, call: Call = _ANYHOW) -> Result:
        """As `Compute.run`."""

        def work() -> Result:
            with self._turn(call):
                analysis: Analysis = self._cache.get(name)
                return analysis.run(inputs, call.checkpoint)

        return guarded(name, self._breaker, work)

    def explain(self, name: str, inputs: Inputs, target: int, call: Call = _ANYHOW) -> Explanation:
        """As `Compute.explain`."""

        def work() -> Explanation:
            with self._turn(call):
                return explain_with(self._registry, name, "cpu", inputs, target, call)

        return guarded(name, self._breaker, work)

    def hippocampus(self, volume: ImageVolume) -> HippocampusSegmentation:
        """As `segment_hippocampus`."""
        return segment_hippocampus(self, volume)

    def set_aside(self, name: str) -> bool:
        return self._breaker.set_aside(name)

    def close(self) -> None:
        """Lets the models go."""
        for name in self._cache.names:
            self._cache.drop(name)


class LazyCompute:
    """Opens its compute at the first call, so that a room that only measures starts no cluster."""

    def __init__(self, opener: Callable[[], Compute]) -> None:
        self._opener = opener
        self._opened: Compute | None = None
        self._lock = threading.Lock()

    def run(self, name: str, inputs: Inputs, call: Call = _ANYHOW) -> Result:
        """As the compute behind it."""
        return self._open().run(name, inputs, call)

    def explain(self, name: str, inputs: Inputs, target: int, call: Call = _ANYHOW) -> Explanation:
        """As the compute behind it."""
        return self._open().explain(name, inputs, target, call)

    def _open(self) -> Compute:
        with self._lock:
            if self._opened is None:
                self._opened = self._opener()
            return self._opened

    def hippocampus(self, volume: ImageVolume) -> HippocampusSegmentation:
        """As `segment_hippocampus`."""
        return segment_hippocampus(self, volume)

    def set_aside(self, name: str) -> bool:
        return self._opened is not None and self._opened.set_aside(name)

    def close(self) -> None:
        """Closes what was opened."""
        if self._opened is not None:
            self._opened.close()


def open_compute(settings: Settings) -> Compute:
    """The back end that the settings name; nothing is loaded or started before the first call."""
    if settings.compute.backend == "ray":
        from services.imaging.serving import RayCompute

        return LazyCompute(lambda: RayCompute(settings))
    return LocalCompute(settings)
