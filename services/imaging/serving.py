"""Analyses on Ray Serve, called through a handle; one application for all processes of a Ray session.

One deployment for each device class. A replica holds the models that it was asked for within a budget of memory, and
Serve sends a model's requests to replicas that hold it. Requests that wait while a replica computes form the next batch.
Arrays travel through Ray's object store. Serve opens no HTTP or gRPC port: the room's own gRPC front is the door.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import serve

from services.clinical.volume import ImageVolume
from services.imaging.compute import POLL_S, RETRY_AFTER_S, explain_with, guarded, load_held, segment_hippocampus
from services.imaging.host.cache import Breaker, ModelCache
from services.imaging.host.calls import Call, CallCancelledError, DeadlinePassedError, OverloadedError, caught
from services.imaging.host.contract import Analysis, Inputs, Result, ignore_progress
from services.imaging.host.refusals import UnknownModelError
from services.imaging.host.registry import Registry, analysers, registry_of
from services.platform.errors import RefusedError, RetryableError
from services.platform.ray_session import Answer, answer_of, join_session, result_of

if TYPE_CHECKING:
    from services.imaging.hippocampus import HippocampusSegmentation
    from services.imaging.host.explain import Explanation
    from services.platform.config import Settings

APPLICATION = "osler-imaging"
#: Longest wait for a call that sets no deadline.
TIMEOUT_S = 300.0
#: Models of which one replica is the preferred one, however small they are.
MODELS_PER_REPLICA = 64
_ANYHOW = Call()
_PASSED, _CANCELLED, _CRASHED, _UNKNOWN = "deadline", "cancelled", "crashed", "unknown"


@dataclass
class _Item:
    """One request inside a replica."""

    name: str
    inputs: Inputs
    deadline: float | None
    report: Callable[[int, int], None] = ignore_progress
    gone: threading.Event = field(default_factory=threading.Event)

    def call(self) -> Call:
        return Call(self.deadline, self.gone.is_set, self.report)


class ModelReplica:
    """What a Ray Serve replica runs: models by name, in batches, one batch at a time."""

    def __init__(self, folders: list[str], own: str, limits: Mapping[str, float], device: str, num_cpus: int) -> None:
        import torch

        torch.set_num_threads(num_cpus)
        self._registry = Registry([Path(folder) for folder in folders], Path(own))
        self._device = device
        self._cache = ModelCache(lambda name: load_held(self._registry, name, device), int(limits["memory_mb"]) << 20)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="model")
        batch: Any = self._batch
        batch.set_max_batch_size(int(limits["max_batch"]))
        batch.set_batch_wait_timeout_s(limits["batch_wait_ms"] / 1000)

    @serve.multiplexed(max_num_models_per_replica=MODELS_PER_REPLICA)
    async def _model(self, name: str) -> str:
        """Tells Serve that this replica holds the model; the weights themselves are the cache's, which counts bytes."""
        await asyncio.get_running_loop().run_in_executor(self._worker, self._cache.get, name)
        return name

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.0)
    async def _batch(self, items: list[_Item]) -> list[Answer]:
        """Serve gives items of one model only."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, self._run, items)

    def _run(self, items: list[_Item]) -> list[Answer]:
        try:
            analysis = self._cache.get(items[0].name)
        except Exception as error:  # one answer for each, whatever broke
            return [_answer(error)] * len(items)
        many = getattr(analysis, "run_many", None)
        if many is None:
            return [_answer(_outcome(analysis, item)) for item in items]
        return [_answer(outcome) for outcome in many([(item.inputs, item.call().checkpoint) for item in items])]

    async def infer(self, name: str, inputs: Inputs, deadline: float | None) -> Answer:
        """One run: an answer as `_answer` gives it."""
        item = _Item(name, inputs, deadline)
        try:
            return await self._answered(item)
        finally:
            item.gone.set()

    async def stream(self, name: str, inputs: Inputs, deadline: float | None) -> AsyncIterator[Answer]:
        """("progress", (done, total)) as they come, then the answer."""
        loop, steps = asyncio.get_running_loop(), asyncio.Queue[tuple[int, int]]()

        def report(done: int, total: int) -> None:
            loop.call_soon_threadsafe(steps.put_nowait, (done, total))

        item = _Item(name, inputs, deadline, report)
        task = asyncio.create_task(self._answered(item))
        try:
            while not task.done():
                step = asyncio.create_task(steps.get())
                await asyncio.wait({step, task}, return_when=asyncio.FIRST_COMPLETED)
                if step.done():
                    yield "progress", step.result()
                else:
                    step.cancel()
            yield task.result()
        finally:
            item.gone.set()
            task.cancel()

    async def _answered(self, item: _Item) -> Answer:
        try:
            await self._model(item.name)
        except Exception as error:  # a package that cannot be loaded is an answer
            return _answer(error)
        answer: Answer = await self._batch(item)
        return answer

    async def explain(self, name: str, inputs: Inputs, target: int, deadline: float | None) -> Answer:
        """("done", explanation) or as `_answer`."""
        item = _Item(name, inputs, deadline)
        work = partial(caught, explain_with, self._registry, name, self._device, inputs, target, item.call())
        try:
            return _answer(await asyncio.get_running_loop().run_in_executor(self._worker, work))
        finally:
            item.gone.set()

    async def held(self) -> tuple[int, tuple[str, ...], int]:
        """Process, models held, and bytes of their weights."""
        import os

        return os.getpid(), self._cache.names, self._cache.size_bytes


def _outcome(analysis: Analysis, item: _Item) -> Result | Exception:
    try:
        checkpoint = item.call().checkpoint
        checkpoint(0, 1)
        return analysis.run(item.inputs, checkpoint)
    except Exception as error:  # the other items of the batch go on
        return error


def _answer(outcome: object) -> Answer:
    """("done", result), ("refused", fields), ("deadline" | "cancelled" | "unknown" | "crashed", text)."""
    if not isinstance(outcome, Exception):
        return "done", outcome
    if isinstance(outcome, DeadlinePassedError):
        return _PASSED, str(outcome)
    if isinstance(outcome, CallCancelledError):
        return _CANCELLED, str(outcome)
    if isinstance(outcome, UnknownModelError):
        return _UNKNOWN, str(outcome)
    if isinstance(outcome, RefusedError):
        return answer_of(_raise, outcome)
    return _CRASHED, type(outcome).__name__


def _raise(error: Exception) -> None:
    raise error


class ModelCrashError(Exception):
    """A model stopped with an error of its own; the text names its type."""


class RayCompute:
    """Joins the session that RAY_ADDRESS names, or starts one on this machine, and finds or deploys the replicas there."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._owns_session = join_session(settings.compute)
        serve.start(http_options={"location": "NoServer"}, logging_config={"log_level": "WARNING"})
        self._devices = ("cuda", "cpu") if settings.compute.num_gpus > 0 else ("cpu",)
        for device in self._devices:
            if _application(device) not in serve.status().applications:
                serve.run(_bound(settings, device), name=_application(device), route_prefix=None)
        self._handles = {device: serve.get_app_handle(_application(device)) for device in self._devices}
        self._registry = registry_of(settings)
        self._breaker = Breaker(settings.models.crashes, settings.models.crash_pause_s)

    def run(self, name: str, inputs: Inputs, call: Call = _ANYHOW) -> Result:
        """As `Compute.run`."""
        call.checkpoint(0, 1)
        result: Result = guarded(name, self._breaker, lambda: self._attempts(lambda: self._one(name, inputs, call)))
        return result

    def explain(self, name: str, inputs: Inputs, target: int, call: Call = _ANYHOW) -> Explanation:
        """As `Compute.explain`."""
        call.checkpoint(0, 1)
        handle = self._handles[self._device(name)].options(multiplexed_model_id=name).explain
        found: Explanation = guarded(
            name,
            self._breaker,
            lambda: self._attempts(lambda: _awaited(handle.remote(name, inputs, target, call.deadline), call)),
        )
        return found

    def _attempts(self, ask: Callable[[], Answer]) -> Any:
        """Tries once more when the replica died: another model of its batch may have been the cause."""
        from ray.exceptions import ActorDiedError, ActorUnavailableError, RayError
        from ray.serve.exceptions import BackPressureError

        for attempt in (1, 2):
            try:
                return _result(ask())
            except BackPressureError as error:
                raise OverloadedError("every replica is busy and the queue is full", RETRY_AFTER_S) from error
            except (ActorDiedError, ActorUnavailableError) as error:
                if attempt == 2:
                    raise ModelCrashError("the replica died twice") from error
            except RayError as error:
                raise RetryableError(f"the model's replica did not answer ({type(error).__name__})") from error
        raise AssertionError("two attempts return or raise")

    def _one(self, name: str, inputs: Inputs, call: Call) -> Answer:
        handle = self._handles[self._device(name)].options(multiplexed_model_id=name)
        if call.report is not ignore_progress:
            return _streamed(handle.options(stream=True).stream.remote(name, inputs, call.deadline), call)
        return _awaited(handle.infer.remote(name, inputs, call.deadline), call)

    def _device(self, name: str) -> str:
        from services.imaging.host.package import Format

        if len(self._devices) == 1 or name in analysers():
            return self._devices[-1]
        onnx = self._registry.package(name).format is Format.ONNX
        return "cpu" if onnx else "cuda"

    def hippocampus(self, volume: ImageVolume) -> HippocampusSegmentation:
        """As `segment_hippocampus`; RetryableError when the replica is gone or too slow."""
        return segment_hippocampus(self, volume)

    def set_aside(self, name: str) -> bool:
        return self._breaker.set_aside(name)

    def held(self) -> tuple[int, tuple[str, ...], int]:
        """Process, models and bytes of one replica; for people who look after it."""
        found: tuple[int, tuple[str, ...], int] = (
            self._handles[self._devices[0]].held.remote().result(timeout_s=TIMEOUT_S)
        )
        return found

    def close(self) -> None:
        """Ends a session that this process started; leaves a shared one alone."""
        if not self._owns_session:
            return
        import ray

        serve.shutdown()
        ray.shutdown()


def _application(device: str) -> str:
    return f"{APPLICATION}-{device}"


def _bound(settings: Settings, device: str) -> serve.Application:
    models, compute = settings.models, settings.compute
    # Replicas share the cores and the GPUs that the settings give to heavy work.
    cpus = max(1, compute.num_cpus // models.max_replicas)
    gpus = compute.num_gpus / models.max_replicas if device == "cuda" else 0
    deployment = serve.deployment(
        name=f"models-{device}",
        max_ongoing_requests=2 * models.max_batch,
        max_queued_requests=models.max_queued,
        autoscaling_config={
            "min_replicas": min(models.min_replicas, models.max_replicas),
            "max_replicas": models.max_replicas,
            "target_ongoing_requests": models.target_ongoing,
            "upscale_delay_s": 0.5,
            "metrics_interval_s": 0.5,
            "look_back_period_s": 2.0,
            "downscale_delay_s": models.idle_s,
        },
        ray_actor_options={"num_cpus": cpus, "num_gpus": gpus},
    )(ModelReplica)
    limits = {"memory_mb": models.memory_mb, "max_batch": models.max_batch, "batch_wait_ms": models.batch_wait_ms}
    folders = [str(folder.resolve()) for folder in (models.path, *models.folders)]
    return deployment.bind(folders, str(settings.home / "models"), limits, device, cpus)


def _awaited(response: Any, call: Call) -> Answer:
    """Waits for one answer; tells the replica when the caller went away or its deadline passed."""
    ends = time.time() + TIMEOUT_S if call.deadline is None else call.deadline
    while True:
        try:
            answer: Answer = response.result(timeout_s=max(0.0, min(POLL_S, ends - time.time())))
            return answer
        except TimeoutError:
            if call.cancelled():
                response.cancel()
                raise CallCancelledError("the caller went away") from None
            if time.time() >= ends:
                response.cancel()
                raise DeadlinePassedError("not done within the caller's deadline; set a longer one") from None


def _streamed(responses: Any, call: Call) -> Answer:
    try:
        for kind, content in responses:
            if kind != "progress":
                return kind, content
            call.checkpoint(*content)
    except (CallCancelledError, DeadlinePassedError):
        responses.cancel()
        raise
    raise RetryableError("the model's replica ended without an answer")


def _result(answer: Answer) -> Any:
    kind, content = answer
    if kind == _PASSED:
        raise DeadlinePassedError(content)
    if kind == _CANCELLED:
        raise CallCancelledError(content)
    if kind == _UNKNOWN:
        raise UnknownModelError(content)
    if kind == _CRASHED:
        raise ModelCrashError(content)
    return result_of(answer)
