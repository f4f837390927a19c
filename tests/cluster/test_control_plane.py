"""The chart on a real control plane: what the API server admits, schedules, scales, drains and takes back.

Machines and running containers are kwok's: a pod is ready as soon as it has a machine.
"""

from __future__ import annotations

import math
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from tests.cluster.conftest import RELEASE, Release, namespace, quota, secret
from tests.cluster.control_plane import ControlPlane, Object
from tests.unit.charts.test_chart import CHART, VALUES, helm, render

Releases = Callable[[str], Release]
CHANGED = ("--set", "image.tag=9.9.9")


@pytest.fixture(params=VALUES)
def release(request: pytest.FixtureRequest, releases: Releases) -> Release:
    return releases(request.param)


@pytest.fixture(scope="module")
def hospital(releases: Releases) -> Release:
    found = releases("values-hospital.yaml")
    found.plane.wait(lambda: settled(found), "the scalers' smallest numbers are there")
    return found


def images(release: Release) -> set[str]:
    return {c["image"] for pod in release.pods() for c in pod["spec"]["containers"]}


def replaced(release: Release, room: str, gone: str, wanted: int) -> bool:
    names = [p["metadata"]["name"] for p in release.pods(room)]
    return gone not in names and release.ready(room) >= wanted


def test_every_room_runs_and_every_object_is_there(release: Release) -> None:
    release.plane.wait(lambda: settled(release), "the scalers' smallest numbers are there")
    kept = yaml_kinds(release.helm("get", "manifest", RELEASE).stdout)
    assert kept == {(o["kind"], o["metadata"]["name"]) for o in render(release.values) if o["kind"] != "Job"}


def settled(release: Release) -> bool:
    """Every room has as many pods as it asks for, and its scaler no fewer than it may."""
    rooms = release.deployments()
    full = all(d["status"].get("readyReplicas") == d["spec"]["replicas"] for d in rooms.values())
    scalers = release.of("horizontalpodautoscalers", "apis/autoscaling/v2")
    return full and all(
        rooms[s["spec"]["scaleTargetRef"]["name"]]["spec"]["replicas"] >= s["spec"]["minReplicas"] for s in scalers
    )


def yaml_kinds(manifest: str) -> set[tuple[str, str]]:
    return {(o["kind"], o["metadata"]["name"]) for o in yaml.safe_load_all(manifest) if o}


def test_no_admitted_pod_is_root_or_without_limits(release: Release) -> None:
    """Read back from the API server, after its defaults and admission."""
    pods = release.pods()
    assert len(pods) >= 9
    for pod in pods:
        spec, name = pod["spec"], pod["metadata"]["name"]
        assert pod["status"]["phase"] == "Running", name
        assert spec["securityContext"]["runAsNonRoot"], name
        assert spec["securityContext"]["runAsUser"] > 0, name
        assert not spec.get("automountServiceAccountToken", True), name
        for container in spec["containers"]:
            assert {"cpu", "memory"} <= container["resources"]["limits"].keys(), name
            assert container["securityContext"]["capabilities"]["drop"] == ["ALL"], name


def test_quota_holds_the_release_to_what_it_was_given(plane: ControlPlane) -> None:
    """Limits of the base values, added up: with that much all comes up; a quarter of a core less and one pod stays away."""
    needed = sum(
        d["spec"]["replicas"] * cpu(d["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
        for d in render("values.yaml")
        if d["kind"] == "Deployment"
    )
    place = Release(plane, "tight", "values.yaml")
    # The job that migrates runs beside the rooms.
    plane.apply(namespace("tight"))
    plane.apply(quota("tight", **{"limits.cpu": f"{needed - 0.25}"}), secret("tight"))
    done = place.helm("install", RELEASE, str(CHART), "--wait", "--timeout=20s", "--no-hooks")
    assert done.returncode != 0
    assert "exceeded quota: all, requested: limits.cpu" in place.events()
    wanted = sum(d["spec"]["replicas"] for d in place.deployments().values())
    assert len(place.pods()) == wanted - 1
    plane.apply(quota("tight", **{"limits.cpu": f"{needed + 1}"}))

    def all_ready() -> bool:
        return all(d["status"].get("readyReplicas") == d["spec"]["replicas"] for d in place.deployments().values())

    plane.wait(all_ready, "the last pod comes once the quota allows it", 300)
    assert place.helm("uninstall", RELEASE, "--wait").returncode == 0
    assert [c["metadata"]["name"] for c in place.of("persistentvolumeclaims")] == ["osler-lake"]


def cpu(quantity: str) -> float:
    return float(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)


def test_an_upgrade_takes_no_room_below_its_number_and_can_be_taken_back(
    hospital: Release, capsys: pytest.CaptureFixture[str]
) -> None:
    before = images(hospital)
    before_counts = {name: d["spec"]["replicas"] for name, d in hospital.deployments().items()}
    lowest = watch_upgrade(hospital, "upgrade", RELEASE, str(CHART), "-f", str(CHART / hospital.values), *CHANGED)
    assert images(hospital) == {"osler:9.9.9"}
    again = watch_upgrade(hospital, "rollback", RELEASE, "1")
    assert images(hospital) == before
    with capsys.disabled():
        print(f"\nfewest available while all pods changed: {lowest}")
    for name, deployment in hospital.deployments().items():
        if deployment["spec"]["strategy"]["type"] == "RollingUpdate":
            assert min(lowest[name], again[name]) >= before_counts[name], (name, lowest, again)
    history = hospital.helm("history", RELEASE).stdout
    assert history.count("superseded") == 2


def watch_upgrade(release: Release, *arguments: str) -> dict[str, int]:
    """Runs helm with --wait and looks meanwhile: deployment -> fewest available pods."""
    lowest = dict.fromkeys(release.deployments(), 99)
    command = [helm(), "--namespace", release.namespace, *arguments, "--wait", "--timeout=5m"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=release.plane.environment()
    ) as process:
        while process.poll() is None:
            for name, deployment in release.deployments().items():
                lowest[name] = min(lowest[name], int(deployment["status"].get("availableReplicas", 0)))
            time.sleep(0.05)
        assert process.returncode == 0, process.stderr.read()[-2000:] if process.stderr else ""
    return lowest


def evict(release: Release, pod: Object) -> int:
    name = pod["metadata"]["name"]
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": release.namespace}}
    return release.plane.call("POST", f"/api/v1/namespaces/{release.namespace}/pods/{name}/eviction", body).status_code


def cordon(plane: ControlPlane, closed: bool) -> None:
    for node in plane.items("/api/v1/nodes"):
        plane.patch(f"/api/v1/nodes/{node['metadata']['name']}", {"spec": {"unschedulable": closed}})


def test_a_drain_takes_one_pod_of_a_room_and_waits_for_the_next(plane: ControlPlane, hospital: Release) -> None:
    first, second = sorted(hospital.pods("ingest"), key=lambda p: p["metadata"]["name"])[:2]
    plane.wait(lambda: allowed(hospital, "ingest") == 1, "the budget allows one disruption")
    cordon(plane, closed=True)
    try:
        assert evict(hospital, first) == 201
        plane.wait(lambda: allowed(hospital, "ingest") == 0, "the budget is spent")
        assert evict(hospital, second) == 429
    finally:
        cordon(plane, closed=False)
    plane.wait(lambda: replaced(hospital, "ingest", first["metadata"]["name"], 2), "ingest has two pods again")
    plane.wait(lambda: allowed(hospital, "ingest") == 1, "the budget is whole again")
    assert evict(hospital, second) == 201
    plane.wait(lambda: replaced(hospital, "ingest", second["metadata"]["name"], 2), "ingest has two pods again")


def allowed(release: Release, room: str) -> int:
    path = f"/apis/policy/v1/namespaces/{release.namespace}/poddisruptionbudgets/{RELEASE}-{room}"
    return int(release.plane.get(path)["status"].get("disruptionsAllowed", -1))


def test_any_one_pod_may_go(hospital: Release, capsys: pytest.CaptureFixture[str]) -> None:
    """Of each room one pod is deleted at once; meanwhile its service keeps an address where the room has two."""
    times = {}
    for name, deployment in hospital.deployments().items():
        room, number = name.removeprefix(f"{RELEASE}-"), deployment["spec"]["replicas"]
        gone = hospital.pods(room)[0]["metadata"]["name"]
        began = time.monotonic()
        path = f"/api/v1/namespaces/{hospital.namespace}/pods/{gone}"
        assert hospital.plane.call("DELETE", path, {"gracePeriodSeconds": 0}).status_code == 200
        least: list[int] = []

        def back(room: str = room, gone: str = gone, number: int = number, least: list[int] = least) -> bool:
            least.append(addresses(hospital, room))
            return replaced(hospital, room, gone, number)

        hospital.plane.wait(back, f"{room} has {number} pods again")
        times[room] = time.monotonic() - began
        assert min(least) >= min(number - 1, 1), (room, least)
    with capsys.disabled():
        print("\nseconds until a room had all its pods again:", {r: round(s, 1) for r, s in times.items()})


def addresses(release: Release, room: str) -> int:
    """Ready addresses behind a room's service."""
    slices = release.of("endpointslices", "apis/discovery.k8s.io/v1")
    mine = [s for s in slices if s["metadata"]["labels"].get("kubernetes.io/service-name") == f"{RELEASE}-{room}"]
    return sum(bool(e["conditions"].get("ready")) for s in mine for e in s.get("endpoints") or [])


def test_pods_of_a_room_stand_in_both_zones(plane: ControlPlane, hospital: Release) -> None:
    zones = {
        n["metadata"]["name"]: n["metadata"]["labels"]["topology.kubernetes.io/zone"]
        for n in plane.items("/api/v1/nodes")
    }
    for room in ("ingest", "board", "alerts"):
        assert {zones[p["spec"]["nodeName"]] for p in hospital.pods(room)} == {"a", "b"}, room


def test_autoscaling_follows_the_load_as_its_formula_says(
    plane: ControlPlane, hospital: Release, capsys: pytest.CaptureFixture[str]
) -> None:
    """desired = ceil(pods * used / (requested * target)), from metrics-server's figures of what kwok's meters show.

    Source: Kubernetes, "Horizontal Pod Autoscaling", algorithm details (tolerance 0.1, at most `maxReplicas`).
    """
    path = f"/apis/autoscaling/v2/namespaces/{hospital.namespace}/horizontalpodautoscalers/{RELEASE}-alerts"
    spec = plane.get(path)["spec"]
    (metric,) = spec["metrics"]
    target = metric["resource"]["target"]["averageUtilization"] / 100
    (container,) = good_template(hospital, "alerts")["containers"]
    requested = cpu(container["resources"]["requests"]["cpu"])
    start = spec["minReplicas"]
    used = 0.8 * requested
    set_usage(hospital, "alerts", used)
    wanted = math.ceil(start * used / (requested * target))
    assert start < wanted < spec["maxReplicas"]

    def desired() -> Any:
        status = plane.get(path)["status"]
        return status if status.get("desiredReplicas") == wanted and hospital.ready("alerts") == wanted else None

    status = plane.wait(desired, f"{wanted} pods wanted", 180)
    (current,) = status["currentMetrics"]
    with capsys.disabled():
        print(
            f"\n{start} pods at 80 % of what they ask for, target {target:.0%}: {wanted} pods; metrics {current['resource']}"
        )
    set_usage(hospital, "alerts", 40 * requested)
    plane.wait(lambda: hospital.ready("alerts") == spec["maxReplicas"], "the largest number of pods, and no more", 180)
    set_usage(hospital, "alerts", 40 * requested)
    conditions = {c["type"]: c["reason"] for c in plane.get(path)["status"]["conditions"]}
    assert conditions["ScalingLimited"] == "TooManyReplicas"
    set_usage(hospital, "alerts", 0.01 * requested)

    def reasons() -> set[str]:
        return {c["reason"] for c in plane.get(path)["status"]["conditions"]}

    plane.wait(lambda: "ScaleDownStabilized" in reasons(), "the way down waits for the window", 180)
    assert hospital.ready("alerts") == spec["maxReplicas"]


def good_template(release: Release, room: str) -> Object:
    return dict(release.deployments()[f"{RELEASE}-{room}"]["spec"]["template"]["spec"])


def set_usage(release: Release, room: str, cores: float) -> None:
    """What kwok's meters show for each pod of the room, also for those still to come."""
    annotation = {"kwok.x-k8s.io/usage-cpu": f"{round(cores * 1000)}m"}
    for pod in release.pods(room):
        path = f"/api/v1/namespaces/{release.namespace}/pods/{pod['metadata']['name']}"
        release.plane.patch(path, {"metadata": {"annotations": annotation}})
