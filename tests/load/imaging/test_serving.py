"""Serving on a real Ray Serve session: what it costs over the bare model, and what happens when things break.

    python -m pytest tests/load/imaging/test_serving.py -s

prints overhead, throughput, scaling and memory; only what is right or wrong is asserted.
"""

from __future__ import annotations

import os
import signal
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from services.imaging.host import manifest
from services.imaging.host.calls import Call, CallCancelledError, DeadlinePassedError, OverloadedError, caught
from services.imaging.host.contract import Inputs
from services.imaging.host.model import PackagedModel, load
from services.imaging.host.package import read_package
from services.platform.config import Compute, Models, Settings
from services.platform.errors import RefusedError
from services.platform.ray_session import join_session
from tests.unit.imaging.bundle_samples import BOX_MM3, INFERENCE, bright_box, threshold_state, write_bundle

pytestmark = [pytest.mark.ray, pytest.mark.slow]
#: Large enough that one run takes tens of milliseconds, as a small real model does.
SHAPE = (40, 64, 64)
UNET = {
    "_target_": "UNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 2,
    "channels": [8, 16, 32],
    "strides": [2, 2],
}
MEMORY_RUNS = 1000


class _Crashes(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert bool((x > 2).all()), "broken on purpose"
        return x


def write_models(folder):
    write_bundle(folder / "bright")
    slow = {**INFERENCE, "inferer": {**INFERENCE["inferer"], "roi_size": [8, 8, 8], "overlap": 0.9, "sw_batch_size": 1}}
    write_bundle(folder / "slow", inference=slow)
    state = threshold_state()
    state["bias"][1] = torch.nan
    write_bundle(folder / "nan", state=state)
    crashing = write_bundle(folder / "crashing")
    (crashing / "models" / "model.pt").unlink()
    torch.jit.script(_Crashes()).save(str(crashing / "models" / "model.ts"))
    manifest.write(crashing)
    from monai.networks.nets import UNet

    torch.manual_seed(0)
    network = UNet(**{key: value for key, value in UNET.items() if key != "_target_"})
    inference = {"network_def": UNET, "inferer": {"_target_": "SimpleInferer"}}
    for name in ("unet", "unet_b", "unet_c"):
        write_bundle(folder / name, inference=inference, state=network.state_dict())


def settings_of(home, num_cpus=1, **models):
    """One core for each replica, so that two are compared with one on equal terms."""
    given = {"max_batch": 4, "max_queued": 8, "idle_s": 10, **models}
    return Settings(
        home=home,
        compute=Compute(backend="ray", num_cpus=num_cpus, object_store_mb=200),
        models=Models(path=home / "none", **given),
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serving")
    write_models(folder / "models")
    return folder


@pytest.fixture(scope="module")
def one(home):
    """One replica with one thread, in a session of the tests' own that has room for two."""
    import ray
    from ray import serve

    from services.imaging.serving import RayCompute

    join_session(Compute(num_cpus=2, object_store_mb=200))
    compute = RayCompute(settings_of(home, memory_mb=1))
    compute.run("bright", box())
    yield compute
    serve.shutdown()
    ray.shutdown()


def box():
    return Inputs({"image": bright_box()})


def noise(seed=0):
    volume = bright_box(SHAPE, seed=seed)
    return Inputs({"image": volume})


def local(home, name):
    torch.set_num_threads(1)
    return PackagedModel(load(read_package(home / "models" / name)))


def milliseconds(work, count):
    taken = []
    for _ in range(count):
        began = time.perf_counter()
        work()
        taken.append((time.perf_counter() - began) * 1000)
    return taken


def many(compute, count, threads, name="unet"):
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda seed: caught(compute.run, name, noise(seed)), range(count)))


def test_the_same_answer(one, home):
    result = one.run("bright", box())
    assert result.measurements[0].value.value == pytest.approx(BOX_MM3, rel=1e-5)
    here = local(home, "unet").run(noise())
    np.testing.assert_array_equal(one.run("unet", noise()).masks[0].array, here.masks[0].array)


def test_overhead_at_the_median(one, home):
    model = local(home, "unet")
    inputs = noise()
    for work in (lambda: model.run(inputs), lambda: one.run("unet", inputs)):
        milliseconds(work, 5)
    rounds = [
        (milliseconds(lambda: model.run(inputs), 10), milliseconds(lambda: one.run("unet", inputs), 10))
        for _ in range(5)
    ]
    bare = statistics.median(value for found, _ in rounds for value in found)
    served = statistics.median(value for _, found in rounds for value in found)
    print(
        f"\nbare call p50 {bare:.1f} ms, through handle and batching {served:.1f} ms: overhead {served - bare:.1f} ms"
    )


def test_throughput_at_saturation(one, home):
    model, count, batch = local(home, "unet"), 48, 4
    requests = [(noise(seed), Call().checkpoint) for seed in range(batch)]
    model.run_many(requests)
    many(one, 8, 8)
    began = time.perf_counter()
    for _ in range(count // batch):
        model.run_many(requests)
    bare = count / (time.perf_counter() - began)
    began = time.perf_counter()
    results = many(one, count, 8)
    served = count / (time.perf_counter() - began)
    assert not [result for result in results if isinstance(result, Exception)]
    print(f"\nbare batched loop {bare:.1f}/s, served with 8 callers {served:.1f}/s: {100 * served / bare:.0f} %")


def test_numbers_that_are_none_are_refused(one):
    with pytest.raises(RefusedError) as error:
        one.run("nan", box())
    assert error.value.reason == "model.not_finite"


def test_models_leave_when_memory_runs_out(one, home):
    """Weights of the three networks exceed the megabyte that the replica has, taken together."""
    size = local(home, "unet").loaded.network.size_bytes
    for name in ("unet", "unet_b", "unet_c"):
        one.run(name, noise())
    _, names, held = one.held()
    print(f"\nthree networks of {size / 1e6:.2f} MB: holding {names}, {held / 1e6:.2f} MB")
    assert names[-1] == "unet_c"
    assert held <= 1 << 20


def test_progress_and_deadline_and_cancellation(one):
    seen = []
    one.run("slow", box(), Call(report=lambda done, total: seen.append((done, total))))
    assert seen[-1][1] > 100
    assert len(seen) > 100
    began = time.perf_counter()
    for call, error in (
        (Call(deadline=time.time() + 0.2), DeadlinePassedError),
        (Call(cancelled=_after(3)), CallCancelledError),
    ):
        with pytest.raises(error):
            one.run("slow", box(), call)
    # Both have stopped on the replica too, or this would wait for them.
    one.run("bright", box())
    print(f"\na passed deadline, a cancelled call and a short run after them: {time.perf_counter() - began:.2f} s")


def _after(times):
    steps = iter([False] * times)
    return lambda: next(steps, True)


def test_overload_is_told_and_hurts_nobody(one):
    results = many(one, 60, 60)
    told = [result for result in results if isinstance(result, OverloadedError)]
    done = [result for result in results if not isinstance(result, Exception)]
    print(f"\n60 at once with room for 8 in the queue: {len(done)} done, {len(told)} told to try again in 2 s")
    assert len(told) + len(done) == 60
    assert told
    assert all(error.retry_after_s > 0 for error in told)


def test_a_crashing_model_is_set_aside_and_the_others_run(one):
    reasons = []
    for _ in range(4):
        outcome = caught(one.run, "crashing", box())
        assert isinstance(outcome, RefusedError)
        reasons.append(outcome.reason)
        one.run("bright", box())
    assert reasons == ["model.crashed"] * 3 + ["model.set_aside"]
    assert one.set_aside("crashing")


def test_a_replica_killed_in_the_middle_of_a_batch(one):
    expected = {seed: one.run("unet", noise(seed)).masks[0].array for seed in range(6)}
    process, _, _ = one.held()
    with ThreadPoolExecutor(6) as pool:
        waiting = [pool.submit(caught, one.run, "unet", noise(seed)) for seed in range(6)]
        time.sleep(0.05)
        os.kill(process, signal.SIGKILL)
        results = [future.result() for future in waiting]
    failed = [type(result).__name__ for result in results if isinstance(result, Exception)]
    print(f"\nkilled with 6 in flight: {6 - len(failed)} answered after a second try, failed: {failed}")
    for seed, result in enumerate(results):
        if not isinstance(result, Exception):
            np.testing.assert_array_equal(result.masks[0].array, expected[seed])
    assert len(failed) <= 1
    assert one.held()[0] != process


def test_memory_stays_flat(one):
    process = one.held()[0]
    inputs = box()
    for _ in range(100):
        one.run("bright", inputs)
    before = resident(process)
    for _ in range(MEMORY_RUNS):
        one.run("bright", inputs)
    after = resident(process)
    assert one.held()[0] == process
    print(f"\n{MEMORY_RUNS} runs: {before:.0f} MB before, {after:.0f} MB after ({after - before:+.1f} MB)")
    assert after - before < 50


def resident(process):
    """Resident memory in MB."""
    with open(f"/proc/{process}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def test_scales_to_zero_and_back(one):
    from ray import serve

    def replicas():
        (application,) = serve.status().applications.values()
        (deployment,) = application.deployments.values()
        return deployment.replica_states.get("RUNNING", 0)

    ends = time.monotonic() + 120
    while replicas() and time.monotonic() < ends:
        time.sleep(1)
    assert replicas() == 0
    began = time.perf_counter()
    assert one.run("bright", box()).masks
    print(f"\nfrom no replica to an answer: {time.perf_counter() - began:.1f} s")


def test_two_replicas(one, home):
    from ray import serve

    from services.imaging.serving import RayCompute

    def rate(replicas):
        for name in list(serve.status().applications):
            serve.delete(name)
        compute = RayCompute(
            settings_of(
                home, num_cpus=replicas, max_replicas=replicas, min_replicas=replicas, max_batch=1, max_queued=64
            )
        )
        many(compute, 8 * replicas, 8)
        began = time.perf_counter()
        results = many(compute, 64, 8)
        assert not [result for result in results if isinstance(result, Exception)]
        return 64 / (time.perf_counter() - began)

    first, second = rate(1), rate(2)
    print(f"\none replica {first:.1f}/s, two {second:.1f}/s: {second / first:.2f} times")
