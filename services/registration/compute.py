"""Where registrations run: in this process, or as tasks of a Ray cluster (`compute.backend`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from services.clinical.volume import ImageVolume
from services.platform.errors import RetryableError
from services.platform.ray_session import answer_of, join_session, result_of
from services.registration.align import Alignment, Method, align
from services.registration.plan import Purpose
from services.registration.rigid import Progress, silent

if TYPE_CHECKING:
    from services.platform.config import Settings

_POLL_S = 0.5


class Compute(Protocol):
    """Runs `align`. Blocks until done; what `progress` raises cancels the work."""

    def align(
        self,
        fixed: ImageVolume,
        moving: ImageVolume,
        purpose: Purpose,
        progress: Progress = silent,
        method: Method = Method.RIGID,
    ) -> Alignment: ...


class LocalCompute:
    """In this process. The array work releases the interpreter lock often, so servers in it stay responsive."""

    def __init__(self, num_cpus: int) -> None:
        self._threads = num_cpus

    def align(
        self,
        fixed: ImageVolume,
        moving: ImageVolume,
        purpose: Purpose,
        progress: Progress = silent,
        method: Method = Method.RIGID,
    ) -> Alignment:
        """As `services.registration.align.align`."""
        return align(fixed, moving, purpose=purpose, method=method, threads=self._threads, progress=progress)


class RayCompute:
    """As Ray tasks: joins the cluster that RAY_ADDRESS names, or starts one here, at the first call."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings.compute

    def align(
        self,
        fixed: ImageVolume,
        moving: ImageVolume,
        purpose: Purpose,
        progress: Progress = silent,
        method: Method = Method.RIGID,
    ) -> Alignment:
        """As `services.registration.align.align`; progress comes as "running" only, and still cancels."""
        import ray

        join_session(self._settings)
        cores = self._settings.num_cpus
        remote: Any = ray.remote(answer_of)  # its type does not tell keyword arguments
        task = remote.options(num_cpus=cores).remote(
            align, fixed, moving, purpose=purpose, method=method, threads=cores
        )
        try:
            while not ray.wait([task], timeout=_POLL_S)[0]:
                progress("running", 0.5)
            answer = ray.get(task)
        except ray.exceptions.RaySystemError as error:
            raise RetryableError("the compute cluster lost the work; it is tried again") from error
        except BaseException:
            ray.cancel(task, force=True)
            raise
        aligned: Alignment = result_of(answer)
        progress("done", 1.0)
        return aligned


def open_compute(settings: Settings) -> Compute:
    """The back end that the settings name; nothing is started before the first call."""
    if settings.compute.backend == "ray":
        return RayCompute(settings)
    return LocalCompute(settings.compute.num_cpus)


__all__ = ["Compute", "LocalCompute", "RayCompute", "open_compute"]
