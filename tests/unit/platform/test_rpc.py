"""The gRPC kit with a real server and real channels on loopback."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from grpc_health.v1 import health_pb2, health_pb2_grpc
from osler.advisor.v1 import advisor_pb2, advisor_pb2_grpc
from osler.fusion.v1 import fusion_pb2, fusion_pb2_grpc
from prometheus_client import REGISTRY

from services.platform import rpc, rpc_server, telemetry
from services.platform.config import Settings
from services.platform.errors import ConfigurationError, RefusedError, RetryableError
from services.platform.security import Security, current_principal

ADVISOR = "osler.advisor.v1.AdvisorService"
FUSION = "osler.fusion.v1.FusionService"
KEY = "k" * 64


class AdvisorServicer(advisor_pb2_grpc.AdvisorServiceServicer):
    """`patient_key` says what happens."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.trace_ids: list[str] = []
        self.remaining: list[float | None] = []
        self.failures_left = 0

    def GetAdvice(self, request: Any, context: Any) -> Any:
        principal = current_principal()
        self.calls.append(principal.subject if principal else "")
        self.trace_ids.append(telemetry.trace_id())
        self.remaining.append(context.time_remaining())
        match request.patient_key:
            case "refused":
                raise RefusedError(
                    "suv.missing_dose", "no dose", missing=["(0018,1074)", "weight"], remedy="resend", subject="1.2.3"
                )
            case "absent":
                raise rpc.NotFoundError("no advice for this patient")
            case "bug":
                raise KeyError("Doe^Jane")
            case "invalid":
                raise rpc.InvalidRequestError("patient_key", "is no key")
            case "abort":
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too much")
            case "slow":
                time.sleep(0.6)
            case "flaky":
                if self.failures_left:
                    self.failures_left -= 1
                    raise RetryableError("database is locked")
        return advisor_pb2.GetAdviceResponse(advice=advisor_pb2.PatientAdvice(patient_key=request.patient_key))

    async def CheckOrder(self, request: Any, context: Any) -> Any:
        if request.patient_key == "slow":
            await asyncio.sleep(5)
        if request.patient_key == "abort":
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, "twice")
        return advisor_pb2.CheckOrderResponse()


class FusionServicer(fusion_pb2_grpc.FusionServiceServicer):
    def GetTimeline(self, request: Any, context: Any) -> Iterator[Any]:
        for number in range(3):
            if request.patient_key == "refused" and number == 2:
                raise RefusedError("timeline.broken", "no further")
            yield fusion_pb2.GetTimelineResponse(entry=fusion_pb2.TimelineEntry(entry_id=str(number)))


class Running:
    def __init__(self, home: Path, **grpc_settings: Any) -> None:
        self.settings = Settings(home=home, grpc=grpc_settings)
        self.security = Security(self.settings)
        self.advisor = AdvisorServicer()
        self.audited: list[tuple[str, str, str, str]] = []
        self.able = True

    async def start(self) -> rpc.RunningServer:
        self.server = await rpc.serve(
            [
                (ADVISOR, lambda server: advisor_pb2_grpc.add_AdvisorServiceServicer_to_server(self.advisor, server)),
                (FUSION, lambda server: fusion_pb2_grpc.add_FusionServiceServicer_to_server(FusionServicer(), server)),
            ],
            settings=self.settings,
            security=self.security,
            address="127.0.0.1:0",
            readiness=[lambda: self.able],
            audit=self._audit,
        )
        return self.server

    def _audit(self, principal: Any, method: str, request: Any, code: str) -> None:
        key = getattr(request, "patient_key", "")
        self.audited.append((principal.subject if principal else "", method.rpartition("/")[2], key, code))

    def channel(self, *roles: str) -> grpc.aio.Channel:
        token = self.security.issue("dr-a", roles or ["board"])
        return rpc.channel(self.server.address, self.settings, lambda: token)


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    made = Running(tmp_path)
    await made.start()
    yield made
    await made.server.stop(0)


async def failure(call: Any) -> rpc.ErrorDetails:
    with pytest.raises(grpc.RpcError) as error:
        await call
    return rpc.details_of(error.value)


def advice(channel: grpc.aio.Channel, key: str = KEY, **call: Any) -> Any:
    return advisor_pb2_grpc.AdvisorServiceStub(channel).GetAdvice(advisor_pb2.GetAdviceRequest(patient_key=key), **call)


def order(channel: grpc.aio.Channel, key: str = KEY, **call: Any) -> Any:
    request = advisor_pb2.CheckOrderRequest(patient_key=key, order=advisor_pb2.DraftOrder(text="CT"))
    return advisor_pb2_grpc.AdvisorServiceStub(channel).CheckOrder(request, **call)


async def test_a_call_is_answered_for_a_known_caller(running: Running) -> None:
    async with running.channel() as channel:
        assert (await advice(channel)).advice.patient_key == KEY
        await order(channel)
    assert running.advisor.calls == ["dr-a"]


async def test_callers_without_a_token_or_role_stay_out(running: Running) -> None:
    async with rpc.channel(running.server.address, running.settings) as channel:
        assert (await failure(advice(channel))).code is grpc.StatusCode.UNAUTHENTICATED
    async with rpc.channel(running.server.address, running.settings, lambda: "forged.token.x") as channel:
        assert (await failure(advice(channel))).code is grpc.StatusCode.UNAUTHENTICATED
    async with running.channel("analyst") as channel:
        said = await failure(advice(channel))
    assert (said.code, said.message) == (
        grpc.StatusCode.PERMISSION_DENIED,
        "needs the role admin or board or clinician or service",
    )
    assert running.advisor.calls == []


async def test_the_policy_is_by_method(tmp_path: Path) -> None:
    running = Running(tmp_path, policy={"*": ["admin"], f"/{ADVISOR}/Check*": ["analyst"]})
    await running.start()
    async with running.channel("analyst") as channel:
        await order(channel)
        assert (await failure(advice(channel))).code is grpc.StatusCode.PERMISSION_DENIED
    await running.server.stop(0)


def test_a_method_without_a_policy_is_closed() -> None:
    assert rpc_server.roles_for("/a.B/C", {"/x/*": ["admin"]}) == frozenset()
    assert rpc_server.roles_for("/a.B/C", {"*": ["admin"], "/a.*": ["board"], "/a.B/C": []}) == frozenset()


async def test_a_broken_rule_names_its_field_and_reaches_no_servicer(running: Running) -> None:
    async with running.channel() as channel:
        said = await failure(advice(channel, ""))
        stub = advisor_pb2_grpc.AdvisorServiceStub(channel)
        nothing = await failure(stub.CheckOrder(advisor_pb2.CheckOrderRequest()))
    assert said.code is grpc.StatusCode.INVALID_ARGUMENT
    assert said.violations == (("patient_key", "must be at least 1 characters"),)
    assert nothing.violations == (("order", "value is required"),)
    assert running.advisor.calls == []


async def test_a_refusal_keeps_its_parts(running: Running) -> None:
    async with running.channel() as channel:
        said = await failure(advice(channel, "refused"))
    assert said.code is grpc.StatusCode.FAILED_PRECONDITION
    assert (said.reason, said.missing, said.remedy, said.subject) == (
        "suv.missing_dose",
        ("(0018,1074)", "weight"),
        "resend",
        "1.2.3",
    )
    assert str(said).splitlines() == [
        "FAILED_PRECONDITION: no dose",
        "  reason: suv.missing_dose",
        "  missing: (0018,1074)",
        "  missing: weight",
        "  what to do: resend",
    ]


@pytest.mark.parametrize(
    ("key", "code"),
    [
        ("absent", grpc.StatusCode.NOT_FOUND),
        ("invalid", grpc.StatusCode.INVALID_ARGUMENT),
        ("abort", grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
)
async def test_errors_become_statuses(running: Running, key: str, code: grpc.StatusCode) -> None:
    async with running.channel() as channel:
        assert (await failure(advice(channel, key))).code is code


async def test_an_asynchronous_servicer_may_abort_itself(running: Running) -> None:
    async with running.channel() as channel:
        said = await failure(order(channel, "abort"))
    assert (said.code, said.message) == (grpc.StatusCode.ALREADY_EXISTS, "twice")


async def test_a_bug_tells_the_trace_and_nothing_else(running: Running) -> None:
    with telemetry.recorded_spans() as recorded:
        async with running.channel() as channel:
            said = await failure(advice(channel, "bug"))
    assert said.code is grpc.StatusCode.INTERNAL
    assert "Doe" not in repr(said)
    (span,) = [span for span in recorded.get_finished_spans() if span.name == f"{ADVISOR}/GetAdvice"]
    assert said.trace_id == f"{span.context.trace_id:032x}"
    assert span.attributes["rpc.grpc.status_code"] == 13
    assert "Doe" not in span.to_json()


async def test_a_passing_fault_is_retried_by_the_client(running: Running) -> None:
    running.advisor.failures_left = 2
    async with running.channel() as channel:
        assert (await advice(channel, "flaky")).advice.patient_key == "flaky"
    assert len(running.advisor.calls) == 3


async def test_a_lasting_fault_says_when_to_try_again(running: Running) -> None:
    running.advisor.failures_left = 100
    async with running.channel() as channel:
        said = await failure(advice(channel, "flaky"))
    assert said.code is grpc.StatusCode.UNAVAILABLE
    assert said.retry_after_s == 1.0
    assert len(running.advisor.calls) == 5


async def test_a_channel_waits_for_a_server_that_starts_late(tmp_path: Path) -> None:
    first = Running(tmp_path)
    await first.start()
    port = first.server.port
    channel = first.channel()
    await advice(channel)
    await first.server.stop(0)
    assert (await failure(advice(channel, timeout=0.2))).code in (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    )
    again = await rpc.serve(
        [(ADVISOR, lambda server: advisor_pb2_grpc.add_AdvisorServiceServicer_to_server(first.advisor, server))],
        settings=first.settings,
        security=first.security,
        address=f"127.0.0.1:{port}",
    )
    await advice(channel, wait_for_ready=True, timeout=5)
    await channel.close()
    await again.stop(0)


async def test_calls_carry_a_deadline_even_when_nobody_set_one(tmp_path: Path) -> None:
    running = Running(tmp_path, deadline_s=0.3)
    await running.start()
    async with running.channel() as channel:
        begun = time.monotonic()
        assert (await failure(order(channel, "slow"))).code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - begun < 2
        await advice(channel)
        assert running.advisor.remaining[-1] <= 0.3
        assert (await advice(channel, "slow", timeout=5)).advice.patient_key == "slow"
    await running.server.stop(0)


async def test_the_server_limits_clients_without_deadlines(tmp_path: Path) -> None:
    running = Running(tmp_path, deadline_s=0.3)
    await running.start()
    token = running.security.issue("dr-a", ["board"])
    async with grpc.aio.insecure_channel(running.server.address) as bare:
        said = await failure(order(bare, "slow", metadata=(("authorization", f"Bearer {token}"),)))
    assert said.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "not done within 0.3 s" in said.message
    await running.server.stop(0)


async def test_a_trace_continues_into_the_server(running: Running) -> None:
    with telemetry.recorded_spans():
        async with running.channel() as channel:
            with telemetry.span("caller"):
                await advice(channel)
                assert running.advisor.trace_ids[-1] == telemetry.trace_id()


async def test_streams_pass_the_same_gate(running: Running) -> None:
    async with running.channel() as channel:
        stub = fusion_pb2_grpc.FusionServiceStub(channel)
        entries = [
            part.entry.entry_id async for part in stub.GetTimeline(fusion_pb2.GetTimelineRequest(patient_key=KEY))
        ]
        assert entries == ["0", "1", "2"]
        got: list[str] = []

        async def collect() -> None:
            async for part in stub.GetTimeline(fusion_pb2.GetTimelineRequest(patient_key="refused")):
                got.append(part.entry.entry_id)

        assert (await failure(collect())).reason == "timeline.broken"
    assert got == ["0", "1"]


async def test_the_synchronous_channel_does_the_same(running: Running) -> None:
    def call() -> tuple[str, rpc.ErrorDetails, list[str]]:
        provider = running.security.token_provider("board")
        with rpc.sync_channel(running.server.address, running.settings, provider) as channel:
            stub = advisor_pb2_grpc.AdvisorServiceStub(channel)
            good = stub.GetAdvice(advisor_pb2.GetAdviceRequest(patient_key=KEY)).advice.patient_key
            with pytest.raises(grpc.RpcError) as error:
                stub.GetAdvice(advisor_pb2.GetAdviceRequest(patient_key="refused"))
            timeline = fusion_pb2_grpc.FusionServiceStub(channel)
            parts = [p.entry.entry_id for p in timeline.GetTimeline(fusion_pb2.GetTimelineRequest(patient_key=KEY))]
        return good, rpc.details_of(error.value), parts

    good, said, parts = await asyncio.to_thread(call)
    assert (good, said.reason, parts) == (KEY, "suv.missing_dose", ["0", "1", "2"])
    assert running.advisor.calls[0] == "room:board"
    assert 0 < running.advisor.remaining[0] <= 30


async def test_every_call_is_audited_with_its_outcome(running: Running) -> None:
    async with running.channel() as channel:
        await advice(channel)
        await failure(advice(channel, "refused"))
    async with rpc.channel(running.server.address, running.settings) as channel:
        await failure(advice(channel))
    assert running.audited == [
        ("dr-a", "GetAdvice", KEY, "OK"),
        ("dr-a", "GetAdvice", "refused", "FAILED_PRECONDITION"),
        ("", "GetAdvice", KEY, "UNAUTHENTICATED"),
    ]


async def test_a_cancelled_call_is_audited_too(running: Running) -> None:
    async with running.channel() as channel:
        assert (await failure(order(channel, "slow", timeout=0.2))).code is grpc.StatusCode.DEADLINE_EXCEEDED
        await failure(order(channel, "abort"))
    await running.server.stop(1)
    assert sorted(running.audited) == [
        ("dr-a", "CheckOrder", "abort", "ALREADY_EXISTS"),
        ("dr-a", "CheckOrder", "slow", "CANCELLED"),
    ]


@pytest.mark.parametrize(
    ("fault", "code"),
    [(RetryableError("disk full"), grpc.StatusCode.UNAVAILABLE), (ValueError("Doe"), grpc.StatusCode.INTERNAL)],
)
async def test_what_cannot_be_audited_is_not_answered(
    running: Running, fault: Exception, code: grpc.StatusCode
) -> None:
    def full(*_: Any) -> None:
        raise fault

    object.__setattr__(running.server.gate, "audit", full)
    async with running.channel() as channel:
        said = await failure(advice(channel))
    assert said.code is code
    assert "Doe" not in repr(said)


async def test_calls_are_counted_by_method_and_code(running: Running) -> None:
    def count(code: str) -> float:
        labels = {"door": "grpc", "method": f"/{ADVISOR}/GetAdvice", "code": code}
        return REGISTRY.get_sample_value("osler_requests_total", labels) or 0.0

    before = count("OK"), count("NOT_FOUND")
    async with running.channel() as channel:
        await advice(channel)
        await failure(advice(channel, "absent"))
    # The server counts a call after its answer has left.
    deadline = time.monotonic() + 5
    while count("NOT_FOUND") == before[1] and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    assert (count("OK"), count("NOT_FOUND")) == (before[0] + 1, before[1] + 1)


async def health(address: str, service: str = "") -> int:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status


async def test_health_is_true_to_readiness(running: Running) -> None:
    serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
    address = running.server.address
    assert [await health(address, name) for name in ("", ADVISOR, FUSION)] == [serving] * 3
    await running.server.set_ready(ADVISOR, False)
    assert [await health(address, name) for name in ("", ADVISOR, FUSION)] == [not_serving, not_serving, serving]
    await running.server.set_ready(ADVISOR, True)
    running.able = False
    await running.server.refresh()
    assert [await health(address, name) for name in ("", ADVISOR)] == [not_serving] * 2
    with pytest.raises(grpc.RpcError) as error:
        await health(address, "no.such.Service")
    assert error.value.code() is grpc.StatusCode.NOT_FOUND


async def test_stopping_lets_running_calls_end_and_takes_no_new_ones(running: Running) -> None:
    async with running.channel() as channel:
        pending = asyncio.ensure_future(advice(channel, "slow"))
        while not running.advisor.calls:
            await asyncio.sleep(0.01)
        stopping = asyncio.create_task(running.server.stop(5))
        await asyncio.sleep(0.05)
        assert (await failure(advice(channel, timeout=0.3))).code is not grpc.StatusCode.OK
        assert (await pending).advice.patient_key == "slow"
        await stopping
    assert running.advisor.calls == ["dr-a"]


async def test_a_taken_port_is_named(running: Running) -> None:
    with pytest.raises(ConfigurationError, match=f"cannot listen on {running.server.address}"):
        await rpc.serve([], settings=running.settings, security=running.security, address=running.server.address)


async def test_calls_run_side_by_side(running: Running) -> None:
    async with running.channel() as channel:
        begun = time.monotonic()
        await asyncio.gather(*(advice(channel, "slow") for _ in range(4)))
        assert time.monotonic() - begun < 1.8, "four calls of 0.6 s"
    assert threading.active_count() < 60


async def test_reflection_answers_grpcurl(running: Running) -> None:
    grpcurl = shutil.which("grpcurl") or shutil.which("grpcurl", path=str(Path.home() / "go" / "bin"))
    if grpcurl is None:
        pytest.skip("grpcurl is not installed")
    token = running.security.issue("dr-a", ["board"])
    data = json.dumps({"patient_key": KEY})
    target = [running.server.address, f"{ADVISOR}/GetAdvice"]
    command = [grpcurl, "-plaintext", "-H", f"authorization: Bearer {token}", "-d", data, *target]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
    (answered,) = json.loads(done.stdout)["advice"].values()
    assert answered == KEY
    refused = await asyncio.to_thread(
        subprocess.run, [grpcurl, "-plaintext", *target], capture_output=True, text=True, timeout=20, check=False
    )
    assert "Unauthenticated" in refused.stderr


def certificate(folder: Path, name: str, authority: tuple[Any, Any] | None = None) -> tuple[Any, Any]:
    """Writes `<name>.pem` and `<name>.key`, signed by `authority` or by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority[0].subject if authority else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), critical=True)
        .sign(authority[1] if authority else key, hashes.SHA256())
    )
    (folder / f"{name}.pem").write_bytes(built.public_bytes(serialization.Encoding.PEM))
    encoding, no_password = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / f"{name}.key").write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, no_password))
    return built, key


async def test_rooms_talk_over_mutual_tls(tmp_path: Path) -> None:
    authority = certificate(tmp_path, "authority")
    certificate(tmp_path, "room", authority)
    tls = {
        "enabled": True,
        "cert_file": tmp_path / "room.pem",
        "key_file": tmp_path / "room.key",
        "ca_file": tmp_path / "authority.pem",
        "client_auth": True,
    }
    running = Running(tmp_path, tls=tls)
    await running.start()
    async with running.channel() as channel:
        assert (await advice(channel)).advice.patient_key == KEY
    nobody = Settings(home=tmp_path, grpc={"tls": {"enabled": True, "ca_file": tmp_path / "authority.pem"}})
    token = running.security.issue("dr-a", ["board"])
    async with rpc.channel(running.server.address, nobody, lambda: token) as channel:
        assert (await failure(advice(channel, timeout=2))).code is grpc.StatusCode.UNAVAILABLE
    async with rpc.channel(running.server.address, Settings(home=tmp_path), lambda: token) as channel:
        assert (await failure(advice(channel, timeout=2))).code is grpc.StatusCode.UNAVAILABLE
    await running.server.stop(0)


def test_tls_without_its_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="TLS needs cert_file and key_file"):
        Settings(home=tmp_path, grpc={"tls": {"enabled": True}})
    missing = {
        "enabled": True,
        "cert_file": tmp_path / "no.pem",
        "key_file": tmp_path / "no.key",
        "ca_file": tmp_path / "no.ca",
    }
    with pytest.raises(ConfigurationError, match=r"grpc\.tls: cannot read"):
        rpc.sync_channel("127.0.0.1:1", Settings(home=tmp_path, grpc={"tls": missing}))
