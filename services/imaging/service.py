"""gRPC: analyse a study now, read findings, list models, run one, explain what it found."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from osler.imaging.v1 import imaging_pb2, imaging_pb2_grpc

from services.imaging import routing, store
from services.imaging.compute import Compute
from services.imaging.host import messages
from services.imaging.host.calls import Call, CallCancelledError, DeadlinePassedError, OverloadedError
from services.imaging.host.card import card_of
from services.imaging.host.contract import Card, Inputs, Result
from services.imaging.host.registry import Registry, analysers
from services.imaging.worker import ROOM, Analyst, announce
from services.platform.blobs import BlobStore
from services.platform.database import Database
from services.platform.errors import OslerError
from services.platform.rpc import NotFoundError
from services.platform.rpc_errors import AbortedCallError

T = TypeVar("T")
#: The room's own measurements of what others outlined; they take regions beside images and run with a study.
_OWN = (
    imaging_pb2.ModelSummary(
        name=routing.PET, version="1", task="uptake measurement", modalities=["PT"], state="runs with a study"
    ),
    imaging_pb2.ModelSummary(
        name=routing.LESION_SIZE,
        version="1",
        task="size of outlined lesions",
        modalities=["CT", "MR"],
        state="runs with a study",
    ),
)


class ImagingService(imaging_pb2_grpc.ImagingServiceServicer):
    """`osler.imaging.v1.ImagingService`."""

    def __init__(
        self, database: Database, analyst: Analyst, compute: Compute, registry: Registry, blobs: BlobStore
    ) -> None:
        self._database = database
        self._analyst = analyst
        self._compute = compute
        self._registry = registry
        self._blobs = blobs

    def AnalyzeStudy(  # noqa: N802 - named by the contract
        self, request: imaging_pb2.AnalyzeStudyRequest, context: Any
    ) -> imaging_pb2.AnalyzeStudyResponse:
        """Analyses, keeps and announces, as an event would; a study analysed before gives its findings again."""
        findings, manifest_sha256 = self._analyst.findings(request.manifest, datetime.now(UTC).replace(microsecond=0))
        with self._database.transaction(ROOM) as tx:
            announce(tx, findings, manifest_sha256)
        return imaging_pb2.AnalyzeStudyResponse(result=findings)

    def GetFindings(  # noqa: N802 - named by the contract
        self, request: imaging_pb2.GetFindingsRequest, context: Any
    ) -> imaging_pb2.GetFindingsResponse:
        """Findings of a patient (empty when there are none) or a study. Raises NotFoundError for an unknown study."""
        with self._database.session() as session:
            if request.WhichOneof("scope") == "patient_key":
                return imaging_pb2.GetFindingsResponse(studies=store.of_patient(session, request.patient_key))
            held = store.of_study(session, request.study_instance_uid)
        if held is None:
            raise NotFoundError("no findings for this study")
        return imaging_pb2.GetFindingsResponse(studies=[held[0]])

    def ListModels(  # noqa: N802 - named by the contract
        self, request: imaging_pb2.ListModelsRequest, context: Any
    ) -> imaging_pb2.ListModelsResponse:
        """Packages, analysers, and the measurements that need neither; a broken package says what is wrong with it."""
        models = []
        for entry in self._registry.entries():
            if entry.package is not None:
                aside = self._compute.set_aside(entry.name)
                models.append(messages.summary(card_of(entry.package), "set aside after crashes" if aside else "ready"))
            elif entry.refusal is not None:
                models.append(imaging_pb2.ModelSummary(name=entry.name, state=f"broken: {entry.refusal.message}"))
        models += [messages.summary(analysis.card, "ready") for analysis in analysers().values()]
        return imaging_pb2.ListModelsResponse(models=[*models, *_OWN])

    def Infer(  # noqa: N802 - named by the contract
        self, request: imaging_pb2.InferRequest, context: Any
    ) -> imaging_pb2.InferResponse:
        """Runs a model; its deadline and its end are the caller's."""
        card, inputs = self._asked(request.model, request.inputs, request.parameters)
        gone = _gone(context)
        result = _status(lambda: self._compute.run(card.name, inputs, Call(_deadline(context), gone.is_set)))
        return messages.response(card, result, request.inputs, self._blobs)

    def InferStream(  # noqa: N802 - named by the contract
        self, request: imaging_pb2.InferStreamRequest, context: Any
    ) -> Iterator[imaging_pb2.InferStreamResponse]:
        """As `Infer`; one message for each step, then the result."""
        asked = request.infer
        card, inputs = self._asked(asked.model, asked.inputs, asked.parameters)
        for done, total, result in _steps(self._compute, card, inputs, _deadline(context), _gone(context)):
            if result is None:
                yield imaging_pb2.InferStreamResponse(progress=imaging_pb2.InferProgress(done=done, total=total))
            else:
                answer = messages.response(card, result, asked.inputs, self._blobs)
                yield imaging_pb2.InferStreamResponse(result=answer)

    def ExplainFinding(  # noqa: N802 - named by the contract
        self, request: imaging_pb2.ExplainFindingRequest, context: Any
    ) -> imaging_pb2.ExplainFindingResponse:
        """Saliency of one output of a model."""
        card, inputs = self._asked(request.model, request.inputs, {})
        call = Call(_deadline(context), _gone(context).is_set)
        found = _status(lambda: self._compute.explain(card.name, inputs, request.target, call))
        parameters = {
            "target": str(request.target),
            "score": f"{found.score:.6g}",
            "completeness_gap": f"{found.completeness_gap:.3g}",
        }
        return imaging_pb2.ExplainFindingResponse(
            saliency=messages.stored_image(found.saliency, self._blobs),
            method=found.method,
            cautions=found.cautions,
            provenance=messages.origin(card, request.inputs, parameters),
        )

    def _asked(self, model: str, given: Sequence[imaging_pb2.ModelInput], parameters: Any) -> tuple[Card, Inputs]:
        known = analysers()
        card = known[model].card if model in known else card_of(self._registry.package(model))
        return card, messages.read_inputs(card, given, dict(parameters), self._blobs)


def _deadline(context: Any) -> float | None:
    left = context.time_remaining()
    return None if left is None else time.time() + float(left)


def _gone(context: Any) -> threading.Event:
    """Set when the call ends, also when the caller went away."""
    gone = threading.Event()
    context.add_done_callback(lambda *_: gone.set())
    return gone


def _steps(
    compute: Compute, card: Card, inputs: Inputs, deadline: float | None, gone: threading.Event
) -> Iterator[tuple[int, int, Result | None]]:
    """(done, total, None) as the run goes on, then (0, 0, result). Raises as `_status`."""
    news: queue.SimpleQueue[tuple[int, int, Result | BaseException | None]] = queue.SimpleQueue()
    call = Call(deadline, gone.is_set, lambda done, total: news.put((done, total, None)))

    def work() -> None:
        try:
            news.put((0, 0, compute.run(card.name, inputs, call)))
        except BaseException as error:  # raised again where the caller's thread reads it
            news.put((0, 0, error))

    threading.Thread(target=work, name="infer", daemon=True).start()
    while True:
        done, total, outcome = news.get()
        if isinstance(outcome, BaseException):
            _status(_raising(outcome))
        elif outcome is not None:
            yield 0, 0, outcome
            return
        else:
            yield done, total, None


def _raising(error: BaseException) -> Callable[[], Any]:
    def raise_it() -> Any:
        raise error

    return raise_it


def _status(work: Callable[[], T]) -> T:
    """Runs work; overload, a passed deadline and a lost caller become the statuses that gRPC has for them."""
    try:
        return work()
    except OverloadedError as error:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(int(error.retry_after_s * 1000))
        detail = any_pb2.Any()
        detail.Pack(error_details_pb2.RetryInfo(retry_delay=delay))
        raise _aborted(grpc.StatusCode.RESOURCE_EXHAUSTED, error, detail) from error
    except DeadlinePassedError as error:
        raise _aborted(grpc.StatusCode.DEADLINE_EXCEEDED, error) from error
    except CallCancelledError as error:
        raise _aborted(grpc.StatusCode.CANCELLED, error) from error


def _aborted(code: grpc.StatusCode, error: OslerError, *details: any_pb2.Any) -> AbortedCallError:
    return AbortedCallError(status_pb2.Status(code=code.value[0], message=str(error), details=details))
