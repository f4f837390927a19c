"""The gRPC server kit: every call is traced, counted, authenticated, limited in time, validated and, if asked, audited."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import protovalidate
from google.protobuf.message import Message
from google.rpc import status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.platform import logs, telemetry
from services.platform.config import Settings, Tls
from services.platform.errors import ConfigurationError
from services.platform.rpc_errors import (
    AbortedCallError,
    InvalidRequestError,
    abort_with_status,
    deadline_status,
    invalid,
    status_of,
)
from services.platform.security import ROLES, AuthenticationError, Principal, Security, acting_as, authorize

Adder = Callable[[grpc.aio.Server], None]
# (principal, full method name, request or None for request streams, name of the status code)
AuditHook = Callable[[Principal | None, str, Message | None, str], None]
Readiness = Callable[[], bool]

HEALTH = "grpc.health.v1.Health"
_REFLECTION = "/grpc.reflection."
_READINESS_PERIOD_S = 2.0
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

log = logs.get("rpc")


def roles_for(method: str, policy: Mapping[str, Sequence[str]]) -> frozenset[str]:
    """Roles that may call `/package.Service/Method`: the longest pattern that matches decides; none lets nobody in."""
    matching = [pattern for pattern in policy if fnmatchcase(method, pattern)]
    return frozenset(policy[max(matching, key=len)]) if matching else frozenset()


def violations_in(message: Message) -> tuple[tuple[str, str], ...]:
    """(field path, rule in words) for each protovalidate rule that the message breaks. Values are not repeated."""
    found = protovalidate.collect_violations(message)
    return tuple((_path(violation.proto), str(violation.proto.message)) for violation in found)


def _path(violation: Any) -> str:
    if violation.field is None:
        return ""
    return ".".join(str(element.field_name) for element in violation.field.elements)


@dataclass(frozen=True)
class Gate:
    """What every call passes."""

    settings: Settings
    security: Security
    audit: AuditHook | None = None
    pending: set[asyncio.Task[None]] = field(default_factory=set)

    async def admit(self, method: str, context: Any) -> Principal | None:
        """The caller, when it may call this method. Raises AuthenticationError or PermissionDeniedError."""
        configured = self.settings.grpc
        public = (configured.public_health and method.startswith(f"/{HEALTH}/")) or (
            configured.public_reflection and method.startswith(_REFLECTION)
        )
        if public:
            return None
        kind, _, token = _metadata(context).get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not token:
            raise AuthenticationError("send a token: metadata `authorization: Bearer <token>`")
        principal = await self.security.verify_async(token.strip())
        needed = ROLES if _infrastructure(method) else roles_for(method, configured.policy)
        return authorize(principal, *needed)

    async def run(self, method: str, context: Any, request: Message | None, body: Callable[[], Awaitable[Any]]) -> Any:
        """Runs one call inside its span, with its caller, within its deadline; maps what it raises to a status."""
        service, _, name = method.lstrip("/").rpartition("/")
        about = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}
        parent = _metadata(context).get("traceparent")
        principal: Principal | None = None
        with (
            telemetry.measured("grpc", method) as result,
            telemetry.span(f"{service}/{name}", kind="server", parent=parent, attributes=about) as span,
        ):
            try:
                principal = await self.admit(method, context)
                if request is not None:
                    check(request)
                with acting_as(principal):
                    answer = await self._limited(method, context, body)
                await self._audit(principal, method, request, "OK")
                return answer
            except (asyncio.CancelledError, grpc.aio.AbortError):
                result["code"] = _code_name(context)
                self._audit_later(principal, method, request, result["code"])
                raise
            except Exception as error:
                status = _status_and_log(error, method)
                result["code"] = next(code.name for code in grpc.StatusCode if code.value[0] == status.code)
                span.set_attribute("rpc.grpc.status_code", status.code)
                await self._audit_failure(principal, method, request, result["code"])
                await abort_with_status(context, status)

    async def _limited(self, method: str, context: Any, body: Callable[[], Awaitable[Any]]) -> Any:
        """Gives a call without a deadline the server's own."""
        seconds = self.settings.grpc.deadline_s
        if context.time_remaining() is not None or _infrastructure(method):
            return await body()
        try:
            async with asyncio.timeout(seconds) as scope:
                return await body()
        except TimeoutError:
            if scope.expired():
                raise AbortedCallError(deadline_status(seconds)) from None
            raise

    async def _audit(self, principal: Principal | None, method: str, request: Message | None, code: str) -> None:
        if self.audit is not None and not _infrastructure(method):
            await asyncio.to_thread(self.audit, principal, method, request, code)

    async def _audit_failure(
        self, principal: Principal | None, method: str, request: Message | None, code: str
    ) -> None:
        """The call has failed already: that it cannot be recorded changes nothing for the caller."""
        try:
            await self._audit(principal, method, request, code)
        except Exception as error:
            log.error("audit_unwritten", method=method, error=type(error).__name__)

    def _audit_later(self, principal: Principal | None, method: str, request: Message | None, code: str) -> None:
        """A call that was cancelled may have read something all the same; its own task can wait for nothing more."""
        task = asyncio.create_task(self._audit_failure(principal, method, request, code))
        self.pending.add(task)
        task.add_done_callback(self.pending.discard)


def check(request: Message) -> None:
    """Raises InvalidRequestError naming each field that breaks a rule of the contract."""
    if violations := violations_in(request):
        raise invalid(violations)


def _infrastructure(method: str) -> bool:
    return method.startswith((f"/{HEALTH}/", _REFLECTION))


def _metadata(context: Any) -> dict[str, str]:
    pairs = context.invocation_metadata() or ()
    return {key.lower(): value for key, value in pairs if isinstance(value, str)}


def _code_name(context: Any) -> str:
    code = context.code()
    if isinstance(code, grpc.StatusCode):
        return code.name
    return next((known.name for known in grpc.StatusCode if known.value[0] == code and code), "CANCELLED")


def _status_and_log(error: Exception, method: str) -> status_pb2.Status:
    trace_id = telemetry.trace_id()
    status = status_of(error, trace_id)
    if status.code == grpc.StatusCode.INTERNAL.value[0]:
        log.error("rpc_failed", method=method, error=type(error).__name__, where=logs.where(error), trace_id=trace_id)
    elif not isinstance(error, (AuthenticationError, InvalidRequestError)):
        log.info("rpc_refused", method=method, error=type(error).__name__)
    return status


class _ThreadContext:
    """The servicer context for a servicer written as a plain `def`, which runs in a thread."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> None:
        raise AbortedCallError(status_pb2.Status(code=code.value[0], message=details))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


async def _single(behaviour: Any, request: Any, context: Any) -> Any:
    if inspect.iscoroutinefunction(behaviour):
        return await behaviour(request, context)
    return await asyncio.to_thread(behaviour, request, _ThreadContext(context))


async def _stream(behaviour: Any, request: Any, context: Any) -> None:
    """Writes each answer of a streaming servicer: async generator, coroutine that writes itself, or plain generator."""
    if inspect.isasyncgenfunction(behaviour):
        async with contextlib.aclosing(behaviour(request, context)) as answers:
            async for answer in answers:
                await context.write(answer)
    elif inspect.iscoroutinefunction(behaviour):
        await behaviour(request, context)
    else:
        iterator: Iterator[Any] = await asyncio.to_thread(behaviour, request, _ThreadContext(context))
        done = object()
        while (answer := await asyncio.to_thread(next, iterator, done)) is not done:
            await context.write(answer)


async def _checked(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        check(request)
        yield request


class GateInterceptor(grpc.aio.ServerInterceptor):
    """Puts the gate in front of every servicer."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        behaviour = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        wrapped = self._wrap(
            handler_call_details.method, behaviour, handler.request_streaming, handler.response_streaming
        )
        make = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }[(handler.request_streaming, handler.response_streaming)]
        return make(wrapped, handler.request_deserializer, handler.response_serializer)

    def _wrap(self, method: str, behaviour: Any, streams_in: bool, streams_out: bool) -> Any:
        respond = _stream if streams_out else _single

        async def call(request: Any, context: Any) -> Any:
            given = _checked(request) if streams_in else request
            known = None if streams_in else request
            return await self._gate.run(method, context, known, lambda: respond(behaviour, given, context))

        return call


@dataclass
class RunningServer:
    """A started server. `address` is `host:port` with the port in use."""

    server: grpc.aio.Server
    address: str
    services: tuple[str, ...]
    health: Any
    gate: Gate
    readiness: Sequence[Readiness] = ()
    _declared: dict[str, bool] = field(default_factory=dict)
    _poll: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    async def set_ready(self, service: str, ready: bool) -> None:
        """Declares one service ready or not; the readiness checks still have to hold."""
        self._declared[service] = ready
        await self.refresh()

    async def refresh(self) -> None:
        """Asks the readiness checks and updates `grpc.health.v1`."""
        able = await asyncio.to_thread(self._able)
        states = {service: able and self._declared.get(service, True) for service in self.services}
        for service, ready in {"": all(states.values()), **states}.items():
            await self.health.set(service, _SERVING if ready else _NOT_SERVING)

    def _able(self) -> bool:
        for check_ready in self.readiness:
            try:
                if not check_ready():
                    return False
            except Exception as error:
                log.warning("readiness_failed", error=type(error).__name__)
                return False
        return True

    async def poll(self) -> None:
        """Keeps health true to the readiness checks."""
        while True:
            await asyncio.sleep(_READINESS_PERIOD_S)
            await self.refresh()

    async def stop(self, grace: float | None = None) -> None:
        """Says NOT_SERVING, takes no new calls, lets running ones end within `grace` seconds."""
        if self._poll is not None:
            self._poll.cancel()
        await self.health.enter_graceful_shutdown()
        await self.server.stop(self.gate.settings.grpc.drain_s if grace is None else grace)
        await asyncio.gather(*self.gate.pending)

    async def wait(self) -> None:
        """Returns when the server has stopped."""
        await self.server.wait_for_termination()


async def serve(
    adders: Sequence[tuple[str, Adder]],
    *,
    settings: Settings,
    security: Security,
    address: str,
    readiness: Sequence[Readiness] = (),
    audit: AuditHook | None = None,
) -> RunningServer:
    """Starts a server for servicers given as (full service name, adder) with health and reflection.

    `address` is `host:port`; port 0 picks a free one. Raises ConfigurationError when it cannot listen there.
    """
    size = settings.grpc.max_message_mb * 1024 * 1024
    options = [
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", size),
        ("grpc.max_send_message_length", size),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ]
    gate = Gate(settings, security, audit)
    server = grpc.aio.server(interceptors=[GateInterceptor(gate)], options=options)
    for _, add in adders:
        add(server)
    services = tuple(name for name, _ in adders)
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    reflection.enable_server_reflection((*services, HEALTH, reflection.SERVICE_NAME), server)
    port = _listen(server, address, settings.grpc.tls)
    running = RunningServer(server, f"{address.rpartition(':')[0]}:{port}", services, servicer, gate, readiness)
    await running.refresh()
    await server.start()
    running._poll = asyncio.create_task(running.poll(), name=f"readiness {address}")
    return running


def _listen(server: grpc.aio.Server, address: str, tls: Tls) -> int:
    try:
        port = server.add_secure_port(address, _credentials(tls)) if tls.enabled else server.add_insecure_port(address)
    except RuntimeError:
        port = 0
    if not port:
        raise ConfigurationError(
            f"cannot listen on {address}: another process has the port; change grpc.ports or stop it"
        )
    return int(port)


def _credentials(tls: Tls) -> grpc.ServerCredentials:
    if not tls.cert_file or not tls.key_file:
        raise ConfigurationError("grpc.tls.cert_file and grpc.tls.key_file: a server with TLS needs both")
    return grpc.ssl_server_credentials(
        [(_read(tls.key_file), _read(tls.cert_file))],
        root_certificates=_read(tls.ca_file) if tls.ca_file else None,
        require_client_auth=tls.client_auth,
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"grpc.tls: cannot read {path} ({error.strerror})") from error
